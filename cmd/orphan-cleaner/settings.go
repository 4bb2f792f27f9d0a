package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
)

// CleanerFlags are the settings of a run.
type CleanerFlags struct {
	Interval            Duration `help:"Time between the runs of serve." env:"ORPHAN_CLEANER_INTERVAL" default:"1h"`
	CheckEvery          Duration `help:"Check each user once in this time, 1m to 30d: in each run a share of them and all candidates; not set: each run checks everybody." env:"ORPHAN_CLEANER_CHECK_EVERY" placeholder:"24h"`
	BatchSize           int      `help:"Users per call, 1 to 100." env:"ORPHAN_CLEANER_BATCH_SIZE" default:"100"`
	Retention           Duration `help:"How long a user must have been missing without interruption." env:"ORPHAN_CLEANER_RETENTION" default:"30d"`
	AllowShortRetention bool     `help:"Accept a retention under one day." env:"ORPHAN_CLEANER_ALLOW_SHORT_RETENTION"`
	Concurrency         int      `help:"Calls in flight, 1 to 64." env:"ORPHAN_CLEANER_CONCURRENCY" default:"8"`
	MaxGap              Duration `help:"A longer gap between sightings restarts a user's clock." env:"ORPHAN_CLEANER_MAX_GAP" default:"7d"`
	MaxNewMissingShare  float64  `help:"Breaker: newly missing users as a share of those checked; 1 switches it off." env:"ORPHAN_CLEANER_MAX_NEW_MISSING_SHARE" default:"0.1"`
	MaxDeleteShare      float64  `help:"Breaker: members due as a share of the table; 1 switches it off." env:"ORPHAN_CLEANER_MAX_DELETE_SHARE" default:"0.05"`
	MaxDeleteMembers    int64    `help:"Breaker: members due." env:"ORPHAN_CLEANER_MAX_DELETE_MEMBERS" default:"100000"`
	MaxRecentlyActive   int64    `help:"Breaker: missing users who read a message within a day, once they are over 0.1 % of those checked." env:"ORPHAN_CLEANER_MAX_RECENTLY_ACTIVE" default:"5"`
	JudgeLate           bool     `help:"Check everybody even when the run is certain to be refused, so that approve covers all of them." env:"ORPHAN_CLEANER_JUDGE_LATE"`
	CanaryFlags
	Lease            Duration `help:"A run silent for longer is taken over." env:"ORPHAN_CLEANER_LEASE" default:"1m"`
	ChunkTarget      Duration `help:"How long a deleting transaction should last: chunks grow and shrink to it." env:"ORPHAN_CLEANER_CHUNK_TARGET" default:"100ms"`
	ChunkRows        int      `help:"Members per transaction at most, 1 to 100000." env:"ORPHAN_CLEANER_CHUNK_ROWS" default:"10000"`
	SweepConnections int      `help:"Connections that delete at the same time, 1 to 16." env:"ORPHAN_CLEANER_SWEEP_CONNECTIONS" default:"2"`
}

// maxCheckEvery is against a 24d that was meant to be 24h. MAX_GAP is no limit:
// each run checks all candidates, so that no clock has a gap of this length.
const maxCheckEvery = 30 * day

func (f *CleanerFlags) config() (cleaner.Config, error) {
	wrong := func(format string, args ...any) (cleaner.Config, error) {
		return cleaner.Config{}, fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
	}
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	switch {
	case f.BatchSize < 1 || f.BatchSize > authclient.MaxBatch:
		return wrong("BATCH_SIZE is %d, it must be 1 to %d: auth-service takes no more", f.BatchSize, authclient.MaxBatch)
	case time.Duration(f.Retention) < day && !f.AllowShortRetention:
		return wrong("RETENTION is %s, under one day: members would be deleted before anybody notices a mistake; add --allow-short-retention if you mean it", f.Retention)
	case f.Concurrency < 1 || f.Concurrency > 64:
		return wrong("CONCURRENCY is %d, it must be 1 to 64", f.Concurrency)
	case time.Duration(f.Interval) < time.Second:
		return wrong("INTERVAL is %s, it must be 1s or more", f.Interval)
	case f.CheckEvery != 0 && (time.Duration(f.CheckEvery) < time.Minute || time.Duration(f.CheckEvery) > maxCheckEvery):
		return wrong("CHECK_EVERY is %s, it must be 1m to 30d: that late a deleted user may be noticed; without it each run checks everybody", f.CheckEvery)
	case time.Duration(f.Lease) < time.Second:
		return wrong("LEASE is %s, it must be 1s or more", f.Lease)
	case !share(f.MaxNewMissingShare), !share(f.MaxDeleteShare):
		return wrong("MAX_NEW_MISSING_SHARE and MAX_DELETE_SHARE are shares: 0 to 1, where 1 switches the breaker off")
	case f.MaxDeleteMembers < 0:
		return wrong("MAX_DELETE_MEMBERS is %d, it must be 0 or more", f.MaxDeleteMembers)
	case f.MaxRecentlyActive < 0:
		return wrong("MAX_RECENTLY_ACTIVE is %d, it must be 0 or more", f.MaxRecentlyActive)
	case f.ChunkRows < 1 || f.ChunkRows > 100_000:
		return wrong("CHUNK_ROWS is %d, it must be 1 to 100000", f.ChunkRows)
	case time.Duration(f.ChunkTarget) < time.Millisecond || time.Duration(f.ChunkTarget) > 10*time.Second:
		return wrong("CHUNK_TARGET is %s, it must be 1ms to 10s: for so long a chunk keeps its locks", f.ChunkTarget)
	case f.SweepConnections < 1 || f.SweepConnections > 16:
		return wrong("SWEEP_CONNECTIONS is %d, it must be 1 to 16", f.SweepConnections)
	}
	cfg := cleaner.DefaultConfig()
	cfg.BatchSize, cfg.Concurrency = f.BatchSize, f.Concurrency
	cfg.ChunkTarget, cfg.ChunkRows, cfg.SweepConnections = time.Duration(f.ChunkTarget), f.ChunkRows, f.SweepConnections
	cfg.Retention, cfg.MaxGap, cfg.Lease = time.Duration(f.Retention), time.Duration(f.MaxGap), time.Duration(f.Lease)
	cfg.CheckEvery = time.Duration(f.CheckEvery)
	cfg.Limits = cleaner.Limits{NewMissingShare: f.MaxNewMissingShare, DeleteShare: f.MaxDeleteShare, DeleteMembers: f.MaxDeleteMembers, RecentlyActive: f.MaxRecentlyActive}
	cfg.JudgeLate = f.JudgeLate
	var err error
	if cfg.CanaryAlive, cfg.CanaryDead, err = f.canaries(); err != nil {
		return cfg, err
	}
	return finishConfig(cfg)
}

// finishConfig adds what this program and this machine know.
func finishConfig(cfg cleaner.Config) (cleaner.Config, error) {
	latest, err := migrate.Latest()
	if err != nil {
		return cfg, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	kept := map[string]any{
		"batch_size": cfg.BatchSize, "concurrency": cfg.Concurrency, "retention": Duration(cfg.Retention).String(),
		"max_gap": Duration(cfg.MaxGap).String(), "lease": Duration(cfg.Lease).String(), "chunk_rows": cfg.ChunkRows,
		"chunk_target": Duration(cfg.ChunkTarget).String(), "sweep_connections": cfg.SweepConnections,
		"max_new_missing_share": cfg.Limits.NewMissingShare, "max_delete_share": cfg.Limits.DeleteShare,
		"max_delete_members": cfg.Limits.DeleteMembers, "max_recently_active": cfg.Limits.RecentlyActive,
	}
	if cfg.CheckEvery > 0 {
		kept["check_every"] = Duration(cfg.CheckEvery).String()
	}
	settings, err := json.Marshal(kept)
	cfg.SchemaVersion, cfg.Version, cfg.Settings = latest, version, settings
	cfg.Host = fmt.Sprintf("%s:%d", host, os.Getpid())
	return cfg, err
}
