package fence_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func begin(ctx context.Context, d *testdb.DB, host string, every time.Duration) (*fence.Run, error) {
	return fence.Begin(ctx, d.Pool, fence.Options{
		Kind: "clean", Phase: "preflight", Lease: time.Minute, Host: host, Version: "test", Settings: []byte("{}"), Every: every,
		Patience: database.Patience{Log: slog.New(slog.DiscardHandler), Attempts: 3, LockTimeout: 10 * time.Second},
	})
}

func end(t *testing.T, d *testdb.DB, id int64) {
	t.Helper()
	if _, err := db.New(d.Pool).RunFinish(context.Background(), db.RunFinishParams{RunID: id, State: "succeeded", Phase: "finish"}); err != nil {
		t.Error(err)
	}
}

// However many runners ask at once, and however fast the run ends: one run an interval.
func TestDueOnce(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	const runners, rounds = 8, 40
	for round := range rounds {
		var begun atomic.Int64
		var all sync.WaitGroup
		for runner := range runners {
			all.Go(func() {
				run, err := begin(context.Background(), d, fmt.Sprintf("host:%d", runner), time.Hour)
				switch {
				case err == nil:
					begun.Add(1)
					end(t, d, run.ID)
				case !errors.Is(err, fence.ErrNotDue) && !errors.Is(err, fence.ErrAnotherRun):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := begun.Load(); n != 1 {
			t.Fatalf("%d runs were begun in round %d", n, round)
		}
		d.Exec("UPDATE orphan_runs SET started_at = started_at - interval '1 hour', scheduled_for = scheduled_for - interval '1 hour'")
	}
}

// A runner that had to wait for its turn decides by what has happened meanwhile,
// though its own transaction began before all of it.
func TestDecidesInTurn(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	ctx := t.Context()
	turn, err := d.Pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = turn.Rollback(context.Background()) }() // a second time it does nothing
	if err := db.New(turn).RunTurn(ctx); err != nil {
		t.Fatal(err)
	}
	late := make(chan error, 1)
	go func() {
		_, err := begin(context.WithoutCancel(ctx), d, "late:1", time.Hour)
		late <- err
	}()
	waitFor(t, "the late one waits for its turn", func() bool {
		return d.Count("pg_stat_activity WHERE datname = $1 AND wait_event = 'advisory'", d.Name) == 1
	})
	q, every := db.New(d.Pool), time.Hour
	row, err := q.RunBegin(ctx, db.RunBeginParams{Kind: "clean", Phase: "verify", Lease: time.Minute, Host: "first:1", Version: "test", Settings: []byte("{}"), Every: &every})
	if err != nil {
		t.Fatal(err)
	}
	end(t, d, row.RunID)
	if err := turn.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-late; !errors.Is(err, fence.ErrNotDue) {
		t.Errorf("the late one: %v", err)
	}
	if n := d.Count("orphan_runs"); n != 1 {
		t.Errorf("%d runs", n)
	}
}

// When the next run is due, after what; and that RunSchedule says the same.
func TestDue(t *testing.T) {
	t.Parallel()
	const run = `INSERT INTO orphan_runs (kind, state, phase, started_at, heartbeat_at, finished_at, scheduled_for, lease, host, version, settings)
		VALUES ($1, $2, 'verify', now() - $3::interval, now() - $4::interval, CASE WHEN $2 <> 'running' THEN now() END, now() - $5::interval, '1 minute', 'h:1', 'v', '{}')`
	for name, c := range map[string]struct {
		rows [][]any
		want string // how long before now the run is scheduled for, in minutes; or why there is none
	}{
		"the first":                  {nil, "0"},
		"an hour ago":                {[][]any{{"clean", "succeeded", "61 minutes", "0", nil}}, "1"},
		"half an hour ago":           {[][]any{{"clean", "succeeded", "30 minutes", "0", nil}}, "not due"},
		"refused":                    {[][]any{{"clean", "refused", "30 minutes", "0", nil}}, "not due"},
		"failed":                     {[][]any{{"clean", "failed", "30 minutes", "0", nil}}, "not due"},
		"a restore does not count":   {[][]any{{"restore", "succeeded", "30 minutes", "0", nil}}, "0"},
		"given up":                   {[][]any{{"clean", "succeeded", "62 minutes", "0", nil}, {"clean", "abandoned", "2 minutes", "0", nil}}, "2"},
		"to be given up":             {[][]any{{"clean", "succeeded", "62 minutes", "0", nil}, {"clean", "running", "3 minutes", "2 minutes", "3 minutes"}}, "2"},
		"open":                       {[][]any{{"clean", "running", "3 minutes", "0", nil}}, "not due"},
		"open for hours":             {[][]any{{"clean", "running", "3 hours", "0", nil}}, "another"},
		"a restore is open":          {[][]any{{"restore", "running", "3 hours", "0", nil}}, "another"},
		"it began late":              {[][]any{{"clean", "succeeded", "50 minutes", "0", "61 minutes"}}, "1"},
		"late by two intervals":      {[][]any{{"clean", "succeeded", "190 minutes", "0", "195 minutes"}}, "15"},
		"by hand, after the beat":    {[][]any{{"clean", "succeeded", "2 hours", "0", "2 hours"}, {"clean", "succeeded", "10 minutes", "0", nil}}, "not due"},
		"the clock of an hour ahead": {[][]any{{"clean", "succeeded", "-1 hours", "0", nil}}, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testdb.New(t)
			for _, row := range c.rows {
				d.Exec(run, row...)
			}
			next, err := db.New(d.Pool).RunSchedule(t.Context(), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if due := next.DueIn <= 0; due == (c.want == "not due") {
				t.Errorf("RunSchedule says %+v", next)
			}
			if open := slices.ContainsFunc(c.rows, func(row []any) bool { return row[1] == "running" }); next.RunOpen != open {
				t.Errorf("RunSchedule says %+v", next)
			}
			opened, err := begin(t.Context(), d, "me:1", time.Hour)
			switch {
			case c.want == "not due" && errors.Is(err, fence.ErrNotDue), c.want == "another" && errors.Is(err, fence.ErrAnotherRun):
			case err != nil:
				t.Errorf("want %s, got %v", c.want, err)
			default:
				if got := testdb.One[string](d, "SELECT (extract(EPOCH FROM started_at - scheduled_for)::integer / 60)::text FROM orphan_runs WHERE run_id = $1", opened.ID); got != c.want {
					t.Errorf("the run was due %s minutes ago, want %s", got, c.want)
				}
			}
			// Without an interval the schedule is nobody's business.
			if c.want == "not due" && name != "open" {
				run, err := begin(t.Context(), d, "me:1", 0)
				if err != nil {
					t.Fatal(err)
				}
				if n := d.Count("orphan_runs WHERE run_id = $1 AND scheduled_for IS NULL", run.ID); n != 1 {
					t.Error("a run by hand has a place in the schedule")
				}
			}
		})
	}
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}
