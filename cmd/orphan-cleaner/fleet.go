package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/fleet/queue"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// FleetCmd is `fleet`.
type FleetCmd struct {
	Check   FleetCheckCmd   `cmd:"" help:"Check every shard as check does one, and show them as one table."`
	Run     FleetRunCmd     `cmd:"" help:"Verify all shards, judge the sums, then sweep in waves; go on with an open run."`
	Serve   FleetServeCmd   `cmd:"" help:"Work with others on a run per interval, and serve /metrics, /healthz and /readyz."`
	Status  FleetStatusCmd  `cmd:"" help:"Show runs of the fleet, and each shard: its last run, backlog, lag and refusals."`
	Approve FleetApproveCmd `cmd:"" help:"Admit what a refused run of the fleet found, once."`
	Pause   FleetPauseCmd   `cmd:"" help:"Stop the fleet before its next run and its next shard."`
	Resume  FleetResumeCmd  `cmd:"" help:"Allow runs of the fleet again."`
	Migrate FleetMigrateCmd `cmd:"" help:"Make the tables of the control database, and River's."`
}

// urlOfShard is what hints call it.
const urlOfShard = "the URL of this shard"

// FleetFlags say which databases there are.
type FleetFlags struct {
	Fleet          string `help:"The file that names the shards, see docs/scale.md." env:"ORPHAN_CLEANER_FLEET" required:"" placeholder:"FILE"`
	MaxConnections int32  `name:"database-max-connections" help:"Most connections to open." env:"DATABASE_MAX_CONNECTIONS" default:"8"`
}

func (f *FleetFlags) load() (fleet.File, error) {
	if f.MaxConnections < 2 {
		return fleet.File{}, fmt.Errorf("%w: DATABASE_MAX_CONNECTIONS must be at least 2, for each shard that is worked on", errUsage)
	}
	file, err := fleet.Load(f.Fleet)
	if err != nil {
		return file, usageOfFile(err)
	}
	return file, nil
}

func (f *FleetFlags) openShard(ctx context.Context, shard fleet.Shard) (*pgxpool.Pool, error) {
	return database.Open(ctx, shard.URL, 0, f.MaxConnections)
}

// FleetRunFlags are those of the runs that a fleet makes of its shards.
type FleetRunFlags struct {
	FleetFlags   `group:"Fleet"`
	AuthFlags    `group:"auth-service"`
	CleanerFlags `group:"Run"`
	LogFlags     `group:"Log"`
}

// fleet reads the file and connects to auth-service, which closed ends, and to the control
// database where there is one.
func (f *FleetRunFlags) fleet(ctx context.Context, s *streams) (of *fleet.Fleet, c *queue.Control, closed func(), err error) {
	cfg, err := f.config()
	if err != nil {
		return nil, nil, nil, err
	}
	file, err := f.load()
	if err != nil {
		return nil, nil, nil, err
	}
	if file.Once && cfg.CheckEvery > 0 {
		return nil, nil, nil, fmt.Errorf("%w: check_users_once in %s checks all users in each run, %sCHECK_EVERY only a part of them: remove one of the two", errUsage, file.Path, settingPrefix)
	}
	latest, err := migrate.Latest()
	if err != nil {
		return nil, nil, nil, err
	}
	log := f.logger(s)
	to := source.Config{Logger: log, Concurrency: cfg.Concurrency}
	if file.ControlURL != "" {
		if c, err = queue.Open(ctx, file.ControlURL, log); err != nil {
			return nil, nil, nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		if file.MaxQPS > 0 {
			to.Limiter = c.Budget(file.MaxQPS) // with all other workers
		}
	} else if file.MaxQPS > 0 && (f.MaxQPS == 0 || file.MaxQPS < f.MaxQPS) {
		f.MaxQPS = file.MaxQPS
	}
	client, err := f.dialAs(ctx, to)
	if err != nil {
		if c != nil {
			c.Close()
		}
		return nil, nil, nil, err
	}
	if len(cfg.CanaryAlive) == 0 {
		log.Warn("No canary is configured: another environment's users may pass for the right ones", "hint", "set ORPHAN_CLEANER_CANARY_ALIVE to a user who must never be missing")
	}
	of = &fleet.Fleet{
		File: file, Settings: cfg, Users: client, Log: log, Open: f.openShard,
		Preflight: func(pool *pgxpool.Pool, log *slog.Logger, isDry bool) func(ctx context.Context) error {
			return check.New(pool, log, latest, authProbe(client, f.AuthServiceURL)).Of(urlOfShard).ForRun(isDry)
		},
	}
	return of, c, func() {
		closeClient(client, log)
		if c != nil {
			c.Close()
		}
	}, nil
}

// FleetCheckCmd is `fleet check`.
type FleetCheckCmd struct {
	FleetFlags  `group:"Fleet"`
	AuthFlags   `group:"auth-service"`
	CanaryFlags `group:"Run"`
	LogFlags    `group:"Log"`
	JSON        bool `name:"json" help:"Print a JSON array."`
}

// shardFindings are those of one shard; those about auth-service have no name.
type shardFindings struct {
	Shard    string         `json:"shard"`
	Findings check.Findings `json:"findings"`

	identity *db.ShardIdentityRow
}

// Run prints a line per shard, and each failure, and fails when there is one.
func (cmd *FleetCheckCmd) Run(ctx context.Context, s *streams) error {
	file, err := cmd.load()
	if err != nil {
		return err
	}
	latest, err := migrate.Latest()
	if err != nil {
		return err
	}
	log := cmd.logger(s)
	client, ofAuth, err := dialProbed(ctx, cmd.AuthFlags, cmd.CanaryFlags, log)
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	all := fleet.Each(file.Shards, file.Workers, func(_ int, shard fleet.Shard) shardFindings {
		pool, err := cmd.openShard(ctx, shard)
		if err != nil {
			return shardFindings{Shard: shard.Name, Findings: check.Findings{failure("database", oneLine(err), "check "+urlOfShard+" and that its server is up")}}
		}
		defer pool.Close()
		probes := []check.Probe{poolerProbe(shard.URL), connectionsProbe(pool), encryptionProbe("database-tls", urlOfShard, pool)}
		found := check.New(pool, log, latest, probes...).Of(urlOfShard).Check(ctx, false)
		identity, err := fleet.Identity(ctx, pool, database.Patience{Log: log, Attempts: 1})
		if err != nil {
			log.Debug("Which database a shard is, is not known", "shard", shard.Name, "error", err)
		}
		return shardFindings{shard.Name, found, identity}
	})
	for i := range all {
		if twin := slices.IndexFunc(all[:i], func(other shardFindings) bool { return fleet.IsSame(other.identity, all[i].identity) }); twin >= 0 {
			all[i].Findings = append(all[i].Findings, failure("database", all[twin].Shard+" is the same database, which would be counted twice", "remove one of them from "+file.Path))
		}
	}
	var auth check.Findings
	for _, probe := range ofAuth {
		auth = append(auth, probe(ctx))
	}
	if file.ControlURL != "" {
		all = append(all, shardFindings{Shard: "control database", Findings: check.Findings{controlFinding(ctx, file, log)}})
	}
	return cmd.print(s, append(all, shardFindings{Findings: auth}))
}

func (cmd *FleetCheckCmd) print(s *streams, all []shardFindings) error {
	var failed []error
	t := newTable("", "shard", "ok", "warn", "FAIL")
	var lines strings.Builder
	for _, one := range all {
		counts := map[string]int{}
		name := one.Shard
		if name == "" {
			name = "auth-service"
		}
		for _, f := range one.Findings {
			counts[f.Status]++
			if f.Status != check.OK {
				fmt.Fprintf(&lines, "%-4s  %s: %s: %s\n      hint: %s\n", f.Status, name, f.Name, shown(f.Message), shown(f.Hint))
			}
		}
		t.AppendRow(table.Row{name, counts[check.OK], counts[check.Warn], counts[check.Fail]})
		if err := one.Findings.Err("fleet check"); err != nil {
			failed = append(failed, err)
		}
	}
	var err error
	if cmd.JSON {
		err = printJSON(s.out, all)
	} else if err = printTable(s.out, t); err == nil {
		_, err = fmt.Fprint(s.out, lines.String())
	}
	if err != nil {
		return fmt.Errorf("writing the findings: %w", err)
	}
	if len(failed) > 0 {
		return shownError{errors.Join(failed...)}
	}
	return nil
}
