package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// ReadOnlyReport is what a look at somebody's own database found.
type ReadOnlyReport struct {
	DryRun         cleaner.Result     `json:"dry_run"`
	Phases         map[string]float64 `json:"phases_seconds"`
	UsersPerSecond float64            `json:"users_per_second"` // in verify
	Calls          []CallResult       `json:"calls"`            // table 5.1, without the instant columns
}

// ReadOnly makes a dry run against a real database and auth-service, and measures
// table 5.1 with users of that database. It changes nothing; auth-service gets a
// dry run's calls, and 17 more for each of callRepeat.
func ReadOnly(ctx context.Context, pool *pgxpool.Pool, checker cleaner.Checker, log *slog.Logger, cfg cleaner.Config, callRepeat int, probes ...cleaner.Probe) (ReadOnlyReport, error) {
	var report ReadOnlyReport
	watch := &phases{took: map[string]time.Duration{}}
	cfg.DryRun, cfg.Observer = true, watch
	var err error
	// A breaker that would trip is no matter of speed.
	if report.DryRun, err = cleaner.New(pool, checker, log, cfg, probes...).Run(ctx); err != nil && !errors.Is(err, cleaner.ErrRefused) {
		return report, err
	}
	report.Phases = map[string]float64{}
	for phase, took := range watch.read() {
		report.Phases[phase] = took.Seconds()
	}
	if verify := report.Phases["verify"]; verify > 0 {
		report.UsersPerSecond = float64(report.DryRun.UsersChecked) / verify
	}
	table := runbookCalls()
	users, err := someUsers(ctx, pool, log, cfg, table[len(table)-1].Users)
	if err != nil {
		return report, err
	}
	for _, r := range table {
		if r.Users > len(users) {
			break
		}
		times, err := askTimes(ctx, checker, users[:r.Users], callRepeat, cfg)
		if err != nil {
			return report, err
		}
		r.Samples, r.P50, r.P99 = len(times), quantile(times, 0.50), quantile(times, 0.99)
		r.Calls = (r.Users + cfg.BatchSize - 1) / cfg.BatchSize
		report.Calls = append(report.Calls, r)
	}
	return report, nil
}

// someUsers reads ids of users, in a transaction that can only read.
func someUsers(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger, cfg cleaner.Config, most int) ([]uuid.UUID, error) {
	patience := database.Patience{Log: log, Attempts: cfg.Attempts, LockTimeout: cfg.LockTimeout}
	page, err := database.Bounded(ctx, pool, patience, pgx.ReadOnly, database.ReadLimit, func(ctx context.Context, q *db.Queries) (db.MemberUserPageRow, error) {
		return q.MemberUserPage(ctx, db.MemberUserPageParams{FromUser: uuid.Nil, ThroughUser: uuid.Max, MaxUsers: int64(most)})
	})
	if err != nil {
		return nil, fmt.Errorf("reading user ids: %w", err)
	}
	return page.Users, nil
}

// Tables are the report for people.
func (r ReadOnlyReport) Tables() []Table {
	t := Table{
		Title:  "Runbook 5.1, asking auth-service about users (ms)",
		Header: []string{"users", "calls", "runbook P50", "P99", "here P50", "P99", "times"},
	}
	for _, c := range r.Calls {
		t.Rows = append(t.Rows, []string{
			thousands(c.Users), thousands(c.Calls), millis(c.RunbookP50), millis(c.RunbookP99), millis(c.P50), millis(c.P99), thousands(c.Samples),
		})
	}
	return []Table{t}
}
