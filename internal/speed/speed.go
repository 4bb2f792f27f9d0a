// Package speed measures how fast somebody's own database and auth-service are.
// It changes nothing.
package speed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// Report is what was measured.
type Report struct {
	DryRun         result.Run         `json:"dry_run"`
	Phases         map[string]float64 `json:"phases_seconds"`
	UsersPerSecond float64            `json:"users_per_second"` // in verify
	Calls          []Calls            `json:"calls"`
}

// Calls is a row of the runbook's table 5.1: how long it takes to check so many
// users. Times are in milliseconds.
type Calls struct {
	Users      int     `json:"users"`
	Calls      int     `json:"calls"`
	Samples    int     `json:"samples"`
	RunbookP50 float64 `json:"runbook_p50_ms"`
	RunbookP99 float64 `json:"runbook_p99_ms"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
}

// runbookCalls is table 5.1 as the runbook prints it.
func runbookCalls() []Calls {
	return []Calls{
		{Users: 10, RunbookP50: 15, RunbookP99: 25},
		{Users: 100, RunbookP50: 45, RunbookP99: 80},
		{Users: 500, RunbookP50: 180, RunbookP99: 300},
		{Users: 1000, RunbookP50: 350, RunbookP99: 600},
	}
}

// Measure makes a dry run and then fills table 5.1 with users of the database, as
// far as it has that many. auth-service gets the calls of a dry run, and 17 more
// for each of repeat. A breaker that refuses the dry run is no error: speed is all
// that counts here.
func Measure(ctx context.Context, pool *pgxpool.Pool, checker run.Checker, log *slog.Logger, cfg settings.Run, repeat int, preflight func(ctx context.Context) error) (Report, error) {
	report := Report{Phases: map[string]float64{}, Calls: []Calls{}}
	observer := &phases{seconds: report.Phases}
	cfg.DryRun = true
	runner := run.New(pool, checker, log, cfg, preflight)
	runner.Observe(observer)
	var err error
	if report.DryRun, err = runner.Run(ctx); err != nil && !errors.Is(err, run.ErrRefused) {
		return report, err
	}
	if verify := report.Phases["verify"]; verify > 0 {
		report.UsersPerSecond = float64(report.DryRun.UsersChecked) / verify
	}
	table := runbookCalls()
	users, err := someUsers(ctx, pool, log, cfg, table[len(table)-1].Users)
	if err != nil {
		return report, err
	}
	for _, row := range table {
		if row.Users > len(users) {
			break
		}
		times, err := callTimes(ctx, checker, users[:row.Users], repeat, cfg)
		if err != nil {
			return report, err
		}
		row.Calls = (row.Users + cfg.BatchSize - 1) / cfg.BatchSize
		row.Samples, row.P50, row.P99 = len(times), Quantile(times, 0.50), Quantile(times, 0.99)
		report.Calls = append(report.Calls, row)
	}
	return report, nil
}

// someUsers reads ids of users, in a transaction that can only read.
func someUsers(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger, cfg settings.Run, most int) ([]uuid.UUID, error) {
	patience := database.Patience{Log: log, Attempts: cfg.Attempts, LockTimeout: cfg.LockTimeout}
	page, err := database.Bounded(ctx, pool, patience, pgx.ReadOnly, database.ReadLimit, func(ctx context.Context, q *db.Queries) (page db.UserPageRow, err error) {
		targets, err := q.UserTargets(ctx)
		if err != nil || len(targets) == 0 {
			return page, err
		}
		return q.UserPage(ctx, db.UserPageParams{Target: targets[0], FromUser: uuid.Nil, MaxUsers: int64(most)})
	})
	if err != nil {
		return nil, fmt.Errorf("reading user ids: %w", err)
	}
	return page.Users, nil
}

// callTimes checks all of the users, in batches as a run does, so many times, and
// returns the milliseconds of each time.
func callTimes(ctx context.Context, checker run.Checker, users []uuid.UUID, times int, cfg settings.Run) ([]float64, error) {
	taken := make([]float64, 0, times)
	for range times {
		start := time.Now()
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(cfg.Concurrency)
		for batch := range slices.Chunk(users, cfg.BatchSize) {
			group.Go(func() error {
				_, err := checker.Missing(ctx, batch)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return nil, fmt.Errorf("checking %d users: %w", len(users), err)
		}
		taken = append(taken, time.Since(start).Seconds()*1000)
	}
	return taken, nil
}

// Quantile is the smallest value that at least the share q of them does not
// exceed; 0 of no values.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// phases is a [result.Observer] that keeps the seconds of each phase.
type phases struct {
	result.Unobserved

	mu      sync.Mutex
	seconds map[string]float64
}

func (p *phases) PhaseDone(phase string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seconds[phase] += took.Seconds()
}
