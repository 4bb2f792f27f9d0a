package main

import (
	"fmt"
	"os"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/window"
)

// CleanerFlags are the settings of a run.
type CleanerFlags struct {
	Retention           Duration `group:"Retention" help:"How long a user must have been missing without interruption." env:"ORPHAN_CLEANER_RETENTION" default:"30d"`
	AllowShortRetention bool     `group:"Retention" help:"Accept a retention under one day." env:"ORPHAN_CLEANER_ALLOW_SHORT_RETENTION"`
	MaxGap              Duration `group:"Retention" help:"A longer gap between sightings restarts a user's clock." env:"ORPHAN_CLEANER_MAX_GAP" default:"7d"`
	Interval            Duration `group:"Run" help:"Time between the runs of serve." env:"ORPHAN_CLEANER_INTERVAL" default:"1h"`
	CheckEvery          Duration `group:"Run" help:"Check each user once in this time, 1m to 30d: in each run a share of them and all candidates; not set: each run checks everybody." env:"ORPHAN_CLEANER_CHECK_EVERY" placeholder:"24h"`
	BatchSize           int      `group:"Run" help:"Users per call, 1 to 100." env:"ORPHAN_CLEANER_BATCH_SIZE" default:"100"`
	Concurrency         int      `group:"Run" help:"Calls in flight, 1 to 64." env:"ORPHAN_CLEANER_CONCURRENCY" default:"8"`
	Lease               Duration `group:"Run" help:"A run silent for longer is taken over." env:"ORPHAN_CLEANER_LEASE" default:"1m"`
	TargetsFlag         `group:"Run"`
	LimitFlags          `group:"Breakers"`
	CanaryFlags         `group:"Breakers"`
	WindowFlag          `group:"Sweep"`
	ChunkTime           Duration `group:"Sweep" help:"How long a deleting transaction should last: chunks grow and shrink to it." env:"ORPHAN_CLEANER_CHUNK_TIME" default:"100ms"`
	ChunkRows           int      `group:"Sweep" help:"Rows per transaction at most, 1 to 100000." env:"ORPHAN_CLEANER_CHUNK_ROWS" default:"10000"`
	NiceRatio           float64  `group:"Sweep" help:"Seconds of sleep after each second of deleting, 0 to 100." env:"ORPHAN_CLEANER_NICE_RATIO" default:"0.5"`
	MaxLag              Duration `group:"Sweep" help:"Sleep while a standby replays this much behind; not set: no limit." env:"ORPHAN_CLEANER_MAX_LAG" placeholder:"10s"`
}

// WindowFlag says when sweeps may delete.
type WindowFlag struct {
	Window window.Weekly `help:"Delete only then, such as \"Wed 02:00-04:00 Asia/Shanghai\"; several with commas; days are Mon, Mon-Fri or daily; not set: always. Outside of it users are checked, and what is due waits." env:"ORPHAN_CLEANER_WINDOW" placeholder:"WINDOW,..."`
}

// maxCheckEvery is against a 24d that was meant to be 24h. MAX_GAP is no limit:
// each run checks all candidates, so that no clock has a gap of this length.
const maxCheckEvery = 30 * day

func (f *CleanerFlags) config() (settings.Run, error) {
	wrong := func(format string, args ...any) (settings.Run, error) {
		return settings.Run{}, fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
	}
	switch {
	case f.BatchSize < 1 || f.BatchSize > source.MaxBatch:
		return wrong(settingPrefix+"BATCH_SIZE is %d, it must be 1 to %d: auth-service takes no more", f.BatchSize, source.MaxBatch)
	case time.Duration(f.Retention) < day && !f.AllowShortRetention:
		return wrong(settingPrefix+"RETENTION is %s, under one day: members would be deleted before anybody notices a mistake; add --allow-short-retention if you mean it", f.Retention)
	case f.Concurrency < 1 || f.Concurrency > 64:
		return wrong(settingPrefix+"CONCURRENCY is %d, it must be 1 to 64", f.Concurrency)
	case time.Duration(f.Interval) < time.Second:
		return wrong(settingPrefix+"INTERVAL is %s, it must be 1s or more", f.Interval)
	case f.CheckEvery != 0 && (time.Duration(f.CheckEvery) < time.Minute || time.Duration(f.CheckEvery) > maxCheckEvery):
		return wrong(settingPrefix+"CHECK_EVERY is %s, it must be 1m to 30d: that late a deleted user may be noticed; without it each run checks everybody", f.CheckEvery)
	case time.Duration(f.Lease) < time.Second:
		return wrong(settingPrefix+"LEASE is %s, it must be 1s or more", f.Lease)
	case f.ChunkRows < 1 || f.ChunkRows > 100_000:
		return wrong(settingPrefix+"CHUNK_ROWS is %d, it must be 1 to 100000", f.ChunkRows)
	case time.Duration(f.ChunkTime) < time.Millisecond || time.Duration(f.ChunkTime) > 10*time.Second:
		return wrong(settingPrefix+"CHUNK_TIME is %s, it must be 1ms to 10s: for so long a chunk keeps its locks", f.ChunkTime)
	case !(f.NiceRatio >= 0 && f.NiceRatio <= 100):
		return wrong(settingPrefix+"NICE_RATIO is %v, it must be 0 to 100", f.NiceRatio)
	case time.Duration(f.Lease) > time.Hour:
		return wrong(settingPrefix+"LEASE is %s, it must be 1h at most: for so long a killed run keeps others away", f.Lease)
	}
	cfg := settings.DefaultRun()
	cfg.BatchSize, cfg.Concurrency = f.BatchSize, f.Concurrency
	cfg.ChunkTime, cfg.ChunkRows = time.Duration(f.ChunkTime), f.ChunkRows
	cfg.NiceRatio, cfg.MaxLag = f.NiceRatio, time.Duration(f.MaxLag)
	cfg.Retention, cfg.MaxGap, cfg.Lease = time.Duration(f.Retention), time.Duration(f.MaxGap), time.Duration(f.Lease)
	cfg.CheckEvery, cfg.Window = time.Duration(f.CheckEvery), f.Window
	var err error
	if cfg.Limits, err = f.limits(); err != nil {
		return cfg, err
	}
	if cfg.CanaryAlive, cfg.CanaryDead, err = f.canaries(); err != nil {
		return cfg, err
	}
	return finishConfig(cfg), nil
}

// finishConfig adds what this machine knows, and what is kept for the reader.
func finishConfig(cfg settings.Run) settings.Run {
	cfg.Host, cfg.Version = fmt.Sprintf("%s:%d", instance(), os.Getpid()), version
	cfg.Flags = map[string]any{
		"batch-size": cfg.BatchSize, "concurrency": cfg.Concurrency, "lease": Duration(cfg.Lease).String(), "chunk-rows": cfg.ChunkRows,
		"chunk-time": Duration(cfg.ChunkTime).String(), "nice-ratio": cfg.NiceRatio,
	}
	if cfg.CheckEvery > 0 {
		cfg.Flags["check-every"] = Duration(cfg.CheckEvery).String()
	}
	if window := cfg.Window.String(); window != "" {
		cfg.Flags["window"] = window
	}
	if cfg.MaxLag > 0 {
		cfg.Flags["max-lag"] = Duration(cfg.MaxLag).String()
	}
	return cfg
}
