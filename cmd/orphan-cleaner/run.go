package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// RunCmd is `run`.
type RunCmd struct {
	DatabaseFlags `group:"Database"`
	AuthFlags     `group:"auth-service"`
	CleanerFlags  `group:"Run"`
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
	registry := prometheus.NewRegistry()
	settings := telemetry.Settings{
		Version: version, Interval: time.Duration(cmd.Interval), CheckEvery: cfg.CheckEvery, Concurrency: cfg.Concurrency, OneRun: true,
	}
	metrics, err := telemetry.NewMetrics(registry, settings)
	if err != nil {
		return fmt.Errorf("registering the metrics: %w", err)
	}
	client, err := cmd.dialObserved(log, metrics, cfg.Concurrency)
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
	var result cleaner.Result
	if err != nil {
		err = errors.New(oneLine(err))
		result = cleaner.Result{State: "failed", DryRun: cmd.DryRun, Error: err.Error()}
	} else {
		defer pool.Close()
	}
	if err := telemetry.NewState(registry, metrics, pool, cfg.Retention, log, settings); err != nil {
		return fmt.Errorf("registering the metrics: %w", err)
	}
	if err == nil {
		cfg.Observer = metrics
		c := cleaner.New(pool, client, log, cfg, authProbe(client, cmd.AuthServiceURL))
		stop := watch(s.err, log, c)
		result, err = c.Run(ctx)
		stop()
	}
	err = cmd.show(ctx, s, log, result, err)
	reporter.Ended(ctx, exitStatus(err), resultLine(result))
	return err
}

// show tells how the run ended, in the log and on stdout.
func (cmd *RunCmd) show(ctx context.Context, s *streams, log *slog.Logger, result cleaner.Result, runErr error) error {
	logResult(ctx, log, result, runErr)
	if cmd.JSON {
		if err := json.NewEncoder(s.out).Encode(result); err != nil {
			return errors.Join(runErr, fmt.Errorf("writing the result: %w", err))
		}
	} else if cmd.DryRun && result.State != "failed" {
		if err := printDryRun(s.out, result); err != nil {
			return errors.Join(runErr, fmt.Errorf("writing the result: %w", err))
		}
	}
	if runErr != nil {
		return shownError{runErr}
	}
	return nil
}

// logf writes a line whose words, figures included, are the runbook's contract.
func logf(ctx context.Context, log *slog.Logger, format string, args ...any) {
	log.Log(ctx, slog.LevelInfo, fmt.Sprintf(format, args...)) //nolint:sloglint // the runbook greps for these very words
}

// logResult is the one line that an SRE reads.
func logResult(ctx context.Context, log *slog.Logger, r cleaner.Result, err error) {
	attrs := []any{
		"run_id", r.RunID, "state", r.State, "users_checked", r.UsersChecked, "users_missing", r.UsersMissing,
		"users_unknown", r.UsersUnknown, "users_due", r.UsersDue, "members_kept_young", r.MembersKeptYoung,
		"batch_calls", r.BatchCalls, "method", "get_users_by_ids", "seconds", fmt.Sprintf("%.1f", r.Seconds),
	}
	if r.DryRun && err == nil {
		logf(ctx, log.With(attrs...), "Dry run: would clean up to %d orphaned members", r.MembersDue)
		return
	}
	if r.MembersDeleted > 0 || err == nil {
		logf(ctx, log.With(attrs...), "Cleaned %d orphaned members from %d conversations", r.MembersDeleted, r.Conversations)
	}
	switch {
	case err == nil:
	case r.State == "refused":
		log.Error("Run refused", "run_id", r.RunID, "breaker", *r.Breaker, "error", err)
	case errors.Is(err, cleaner.ErrAnotherRun):
		log.Warn("Not run", "error", err)
	default:
		log.Error("Run did not succeed", "run_id", r.RunID, "state", r.State, "error", err, "look_closer", "orphan-cleaner check")
	}
}

// progressLogEvery is how often a long run says where it is, off a terminal.
const progressLogEvery = 30 * time.Second
