package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nova-social/orphan-cleaner/internal/blocked"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/events"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// RunCmd is `run`.
type RunCmd struct {
	DatabaseFlags `group:"Database"`
	AuthFlags     `group:"auth-service"`
	CleanerFlags  `group:"Run"`
	EventFlags    `group:"Events"`
	LogFlags      `group:"Log"`
	PublishFlags  `group:"Report"`
	DryRun        bool `help:"Verify and judge in full, show what would be deleted, change nothing."`
	JSON          bool `name:"json" help:"End with one JSON object on stdout."`
}

// Run makes one run.
func (cmd *RunCmd) Run(ctx context.Context, s *streams) error {
	limitMemory()
	cfg, err := cmd.config()
	if err != nil {
		return err
	}
	if _, err := cmd.url(); err != nil {
		return err
	}
	outlets, err := cmd.outlets()
	if err != nil {
		return err
	}
	cfg.DryRun = cmd.DryRun
	log := cmd.logger(s)
	sinks, err := cmd.sinks(s.out, log)
	if err != nil {
		return err
	}
	if cmd.JSON && slices.Contains(cmd.Events, "stdout") {
		return fmt.Errorf("%w: with --json the last line of stdout is the run: tell the events elsewhere, as to file:PATH", errUsage)
	}
	registry := prometheus.NewRegistry()
	end, err := cmd.endpoint()
	if err != nil {
		return err
	}
	about := telemetry.Settings{
		Source:  end.Kind,
		Version: version, Interval: time.Duration(cmd.Interval), CheckEvery: cfg.CheckEvery, Concurrency: cfg.Concurrency, Window: cfg.Window, OneRun: true,
	}
	metrics, err := telemetry.NewMetrics(registry, about)
	if err != nil {
		return fmt.Errorf("registering the metrics: %w", err)
	}
	client, err := cmd.dialAs(ctx, source.Config{Logger: log, Observer: metrics, Concurrency: cfg.Concurrency, Known: cfg.CanaryAlive})
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	if cmd.DryRun {
		outlets = telemetry.Outlets{} // what would happen is nobody's news
	}
	reporter := telemetry.NewReporter(outlets, registry, instance(), log)
	reporter.Began(ctx)
	logf(ctx, log, "Starting orphan cleaner (interval: %s, batch: %d, retention: %s)", cmd.Interval, cmd.BatchSize, cmd.Retention)
	pool, err := cmd.open(ctx)
	relay := events.New(pool, log, cmd.EventsFrom, sinks...)
	defer relay.Close()
	isTold := err == nil && !cmd.DryRun
	var ended result.Run
	if err != nil {
		said := database.SaidIn(err)
		err = errors.New(oneLine(err))
		ended = result.Run{
			State: "failed", DryRun: cmd.DryRun, Error: err.Error(), DatabaseError: said,
			Targets: []result.Target{result.Run{}.Members()}, Blocked: []blocked.User{},
		}
	} else {
		defer pool.Close()
	}
	if err := telemetry.NewState(registry, metrics, pool, cfg.Retention, log, about); err != nil {
		return fmt.Errorf("registering the metrics: %w", err)
	}
	if err == nil {
		runner, runnerErr := newRunner(pool, client, cmd.AuthServiceURL, log, cfg, cmd.targetsProbes(pool)...)
		if runnerErr != nil {
			return runnerErr
		}
		runner.Observe(metrics)
		if isTold {
			relay.Begin(ctx)
		}
		if cmd.DryRun {
			logPinned(ctx, log, pool, cfg)
		}
		stop := watch(s.err, log, runner)
		ended, err = runner.Run(ctx)
		stop()
	}
	err = cmd.show(ctx, s, log, ended, s.explain(err))
	if isTold && ctx.Err() == nil {
		relay.Flush(ctx)
	}
	reporter.Ended(ctx, exitStatus(err), resultLine(ended))
	return err
}

// show tells how the run ended, in the log and on stdout.
func (cmd *RunCmd) show(ctx context.Context, s *streams, log *slog.Logger, ended result.Run, runErr error) error {
	logResult(ctx, log, ended, runErr)
	if cmd.JSON {
		if err := printJSONLine(s.out, ended); err != nil {
			return errors.Join(runErr, fmt.Errorf("writing the result: %w", err))
		}
	} else if cmd.DryRun && ended.State != "failed" {
		if err := printDryRun(s.out, ended); err != nil {
			return errors.Join(runErr, fmt.Errorf("writing the result: %w", err))
		}
	}
	if runErr != nil && !errors.Is(runErr, run.ErrPaused) {
		return shownError{runErr}
	}
	return nil
}

// logf writes a line whose words, figures included, are the runbook's contract.
func logf(ctx context.Context, log *slog.Logger, format string, args ...any) {
	log.Log(ctx, slog.LevelInfo, fmt.Sprintf(format, args...)) //nolint:sloglint // the runbook greps for these very words
}

// logResult is the one line that an SRE reads.
func logResult(ctx context.Context, log *slog.Logger, r result.Run, err error) {
	attrs := []any{
		"run_id", r.RunID, "state", r.State, "users_checked", r.UsersChecked, "users_missing", r.UsersMissing,
		"users_unknown", r.UsersUnknown, "users_due", r.UsersDue, "users_blocked", r.UsersBlocked,
		"members_deleted", r.MembersDeleted, "members_kept_young", r.MembersKeptYoung,
		"batch_calls", r.BatchCalls, "method", "get_users_by_ids", "seconds", math.Round(10*r.Seconds) / 10,
	}
	var due, deleted int64
	also := func(int64) string { return "" }
	if len(r.Targets) > 1 {
		for _, t := range r.Targets {
			due, deleted = due+t.RowsDue, deleted+t.RowsDeleted
		}
		attrs = append(attrs, "rows_due", due, "rows_deleted", deleted)
		also = func(rows int64) string { return fmt.Sprintf(", and %d rows of other targets", rows) }
	}
	if r.DryRun && err == nil {
		logf(ctx, log.With(attrs...), "Dry run: would clean up to %d orphaned members%s", r.MembersDue, also(due-r.MembersDue))
		return
	}
	if r.MembersDeleted+deleted > 0 || err == nil {
		logf(ctx, log.With(attrs...), "Cleaned %d orphaned members from %d conversations%s", r.MembersDeleted, r.Conversations, also(deleted-r.MembersDeleted))
	}
	switch {
	case err == nil:
	case r.State == "refused":
		log.Error("Run refused", "run_id", r.RunID, "breaker", *r.Breaker, "error", err)
	case errors.Is(err, run.ErrAnotherRun), r.State == "paused":
		log.Warn("Not run", "run_id", r.RunID, "state", r.State, "error", err)
	default:
		log.Error("Run did not succeed", "run_id", r.RunID, "state", r.State, "error", err, "look_closer", "orphan-cleaner check")
	}
}

// logPinned says what a run would say that is opened: a dry run is not.
func logPinned(ctx context.Context, log *slog.Logger, pool *pgxpool.Pool, cfg settings.Run) {
	lines, err := pinned(ctx, pool, cfg)
	if err != nil {
		log.Warn("The pinned limits cannot be read", "error", oneLine(err))
		return
	}
	var stricter []string
	for _, l := range lines {
		if l.Effective != l.Value {
			stricter = append(stricter, settings.PinText(l.Name, l.Effective, l.Value))
		}
	}
	fence.LogPinned(log, stricter)
}

// progressLogEvery is how often a long run says where it is, off a terminal.
const progressLogEvery = 30 * time.Second

// newRunner wires a run: its preflight checks the database and auth-service.
func newRunner(pool *pgxpool.Pool, client users, address string, log *slog.Logger, cfg settings.Run, probes ...check.Probe) (*run.Runner, error) {
	latest, err := migrate.Latest()
	if err != nil {
		return nil, err
	}
	preflight := check.New(pool, log, latest, append(probes, authProbe(client, address))...).ForRun(cfg.DryRun)
	return run.New(pool, client, log, cfg, func(ctx context.Context) error {
		if len(cfg.CanaryAlive) == 0 {
			log.Warn("No canary is configured: another environment's users may pass for the right ones", "hint", "set ORPHAN_CLEANER_CANARY_ALIVE to a user who must never be missing")
		}
		return preflight(ctx)
	}), nil
}
