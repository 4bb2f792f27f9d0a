package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
)

// runbookCalls is the runbook's table 5.1: how long the users take, in ms.
func runbookCalls() []CallResult {
	return []CallResult{
		{Users: 10, Calls: 1, RunbookP50: 15, RunbookP99: 25},
		{Users: 100, Calls: 1, RunbookP50: 45, RunbookP99: 80},
		{Users: 500, Calls: 5, RunbookP50: 180, RunbookP99: 300},
		{Users: 1000, Calls: 10, RunbookP50: 350, RunbookP99: 600},
	}
}

// callTable measures table 5.1, once with the runbook's answer times for one call
// and once with answers at once.
func (b *bench) callTable(ctx context.Context) ([]CallResult, error) {
	table := runbookCalls()
	users := make([]uuid.UUID, table[len(table)-1].Users)
	for i := range users {
		users[i] = uuid.New()
	}
	b.auth.Add(users...)
	defer b.auth.Delete(users...)
	defer b.auth.SetLatency(authfake.Latency{})
	for i := range table {
		r := &table[i]
		for _, latency := range []func(int) authfake.Latency{func(int) authfake.Latency { return authfake.Latency{} }, authfake.RunbookLatency} {
			b.auth.SetLatencyFunc(latency)
			b.auth.ResetCalls()
			times, err := askTimes(ctx, b.client, users[:r.Users], b.CallRepeat, b.cfg)
			if err != nil {
				return nil, err
			}
			r.Samples, r.Calls = len(times), b.auth.Calls()/len(times)
			r.InstantP50, r.InstantP99 = r.P50, r.P99
			r.P50, r.P99 = quantile(times, 0.50), quantile(times, 0.99)
		}
	}
	return table, nil
}

// askTimes asks about all of the users, as a run does, again and again, and
// returns how many milliseconds each time took.
func askTimes(ctx context.Context, checker cleaner.Checker, users []uuid.UUID, times int, cfg cleaner.Config) ([]float64, error) {
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
			return nil, fmt.Errorf("asking about %d users: %w", len(users), err)
		}
		taken = append(taken, time.Since(start).Seconds()*1000)
	}
	return taken, nil
}
