package fence_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func begin(ctx context.Context, d *testdb.DB, host string, every time.Duration) (*fence.Run, error) {
	return fence.Begin(ctx, d.Pool, options(host, every))
}

func options(host string, every time.Duration) fence.Options {
	return fence.Options{
		Kind: "clean", Phase: "preflight", Lease: time.Minute, Host: host, Version: "test", Settings: []byte("{}"), Every: every,
		Patience: database.Patience{Log: slog.New(slog.DiscardHandler), Attempts: 3, LockTimeout: 10 * time.Second},
	}
}

func end(t *testing.T, d *testdb.DB, run *fence.Run) {
	t.Helper()
	_, err := db.New(d.Pool).RunFinish(context.Background(), db.RunFinishParams{RunID: run.ID, Token: run.Token, State: "succeeded", Counts: []byte("{}")})
	if err != nil {
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
					end(t, d, run)
				case !errors.Is(err, fence.ErrNotDue) && !errors.Is(err, fence.ErrAnotherRun):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := begun.Load(); n != 1 {
			t.Fatalf("%d runs were begun in round %d", n, round)
		}
		d.Exec("UPDATE orphan_cleaner.runs SET started_at = started_at - interval '1 hour', scheduled_for = scheduled_for - interval '1 hour'")
	}
}

// A runner that had to wait for another one decides by what has happened meanwhile,
// though its own transaction began before all of it.
func TestDecidesByWhatHappenedMeanwhile(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	ctx := t.Context()
	first, err := d.Pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Rollback(context.Background()) }() // after Commit it does nothing
	every := time.Hour
	row, err := db.New(first).RunBegin(ctx, db.RunBeginParams{
		Token: uuid.New(), Kind: "clean", Phase: "verify", Lease: time.Minute, Host: "first:1", Version: "test", Settings: []byte("{}"), Every: &every,
	})
	if err != nil {
		t.Fatal(err)
	}
	late := make(chan error, 1)
	go func() {
		_, err := begin(context.WithoutCancel(ctx), d, "late:1", time.Hour)
		late <- err
	}()
	testdb.Eventually(t, 30*time.Second, "the late one waits", func() bool {
		return d.Count("pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock' AND query LIKE '%run_begin%'", d.Name) == 1
	})
	if _, err := first.Exec(ctx, "UPDATE orphan_cleaner.runs SET state = 'succeeded', finished_at = now() WHERE run_id = $1", row.RunID); err != nil {
		t.Fatal(err)
	}
	if err := first.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-late; !errors.Is(err, fence.ErrNotDue) {
		t.Errorf("the late one: %v", err)
	}
	if n := d.Count("orphan_cleaner.runs"); n != 1 {
		t.Errorf("%d runs", n)
	}
}

// While a chunk of another run is in flight, a runner does not wait for long.
func TestChunkInFlight(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	chunk, err := d.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = chunk.Rollback(context.Background()) }()
	if _, err := chunk.Exec(t.Context(), "LOCK TABLE orphan_cleaner.runs IN ROW EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	options := options("me:1", 0)
	options.Patience.Attempts, options.Patience.LockTimeout = 1, 100*time.Millisecond
	if _, err := fence.Begin(t.Context(), d.Pool, options); !errors.Is(err, fence.ErrAnotherRun) || !strings.Contains(err.Error(), "chunk") {
		t.Errorf("%v", err)
	}
}

// Whoever does not have the token of a run can neither keep it open nor end it, and
// an attempt whose answer was lost finds the run that it opened.
func TestTokenIsTheFence(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	run, err := begin(t.Context(), d, "me:1", 0)
	if err != nil {
		t.Fatal(err)
	}
	q := db.New(d.Pool)
	again, err := q.RunBegin(t.Context(), db.RunBeginParams{
		Token: run.Token, Kind: "clean", Phase: "preflight", Lease: time.Minute, Host: "me:1", Version: "test", Settings: []byte("{}"),
	})
	if err != nil || again.RunID != run.ID {
		t.Errorf("the same attempt again: run %d, %v", again.RunID, err)
	}
	if err := run.Heartbeat(t.Context()); err != nil {
		t.Error(err)
	}
	guessed := uuid.New()
	_, err = q.RunHeartbeat(t.Context(), db.RunHeartbeatParams{RunID: run.ID, Token: guessed, Kind: "clean", Phase: "sweep"})
	if !errors.Is(fence.Sentinel(err), fence.ErrTakenOver) {
		t.Errorf("a heartbeat with another token: %v", err)
	}
	if _, err := q.RunFinish(t.Context(), db.RunFinishParams{RunID: run.ID, Token: guessed, State: "succeeded", Counts: []byte("{}")}); !errors.Is(fence.Sentinel(err), fence.ErrTakenOver) {
		t.Errorf("an end with another token: %v", err)
	}
	end(t, d, run)
	if err := run.Heartbeat(t.Context()); !errors.Is(err, fence.ErrTakenOver) {
		t.Errorf("a heartbeat after the end: %v", err)
	}
}

// A pause stops what deletes: a restore goes on, its revert does not.
func TestPause(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind     string
		isRevert bool
		stops    bool
	}{"clean": {kind: "clean", stops: true}, "restore": {kind: "restore"}, "revert": {kind: "restore", isRevert: true, stops: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := testdb.New(t)
			options := options("me:1", 0)
			options.Kind, options.IsRevert = c.kind, c.isRevert
			run, err := fence.Begin(t.Context(), d.Pool, options)
			if err != nil {
				t.Fatal(err)
			}
			d.Exec("SELECT orphan_cleaner.pause('looking')")
			if err := run.Heartbeat(t.Context()); errors.Is(err, fence.ErrPaused) != c.stops || err != nil && !c.stops {
				t.Errorf("a heartbeat: %v", err)
			}
			end(t, d, run)
			if _, err = fence.Begin(t.Context(), d.Pool, options); errors.Is(err, fence.ErrPaused) != c.stops || err != nil && !c.stops {
				t.Errorf("the next one: %v", err)
			}
			if c.stops && !strings.Contains(err.Error(), "looking") {
				t.Errorf("it does not say why: %v", err)
			}
		})
	}
}

// Pinned limits are in the settings that a run is bound by, where they are stricter.
func TestPinnedSettings(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Exec("INSERT INTO orphan_cleaner.limits (name, value) VALUES ('retention', 100), ('max-gap', 100), ('delete-share', 0.1), ('history', 20)")
	options := options("me:1", 0)
	options.Settings = []byte(`{"retention": 50, "max-gap": 50, "delete-share": 0.5, "history": 0, "delete-rows": 7}`)
	run, err := fence.Begin(t.Context(), d.Pool, options)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]float64
	if err := json.Unmarshal(run.Settings, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"retention": 100, "max-gap": 50, "delete-share": 0.1, "history": 20, "delete-rows": 7}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// When the next run is due, after what; and that RunSchedule says the same.
func TestDue(t *testing.T) {
	t.Parallel()
	const run = `INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, scheduled_for, lease, host, version, settings)
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
		"open":                       {[][]any{{"clean", "running", "3 minutes", "0", nil}}, "another; not due"},
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
			if due := next.DueIn <= 0; due == strings.HasSuffix(c.want, "not due") {
				t.Errorf("RunSchedule says %+v", next)
			}
			if open := slices.ContainsFunc(c.rows, func(row []any) bool { return row[1] == "running" }); next.RunOpen != open {
				t.Errorf("RunSchedule says %+v", next)
			}
			opened, err := begin(t.Context(), d, "me:1", time.Hour)
			switch {
			case c.want == "not due" && errors.Is(err, fence.ErrNotDue), strings.HasPrefix(c.want, "another") && errors.Is(err, fence.ErrAnotherRun):
			case err != nil:
				t.Errorf("want %s, got %v", c.want, err)
			default:
				if got := testdb.One[string](d, "SELECT (extract(EPOCH FROM started_at - scheduled_for)::integer / 60)::text FROM orphan_cleaner.runs WHERE run_id = $1", opened.ID); got != c.want {
					t.Errorf("the run was due %s minutes ago, want %s", got, c.want)
				}
			}
			// Without an interval the schedule is nobody's business.
			if c.want == "not due" {
				run, err := begin(t.Context(), d, "me:1", 0)
				if err != nil {
					t.Fatal(err)
				}
				if n := d.Count("orphan_cleaner.runs WHERE run_id = $1 AND scheduled_for IS NULL", run.ID); n != 1 {
					t.Error("a run by hand has a place in the schedule")
				}
			}
		})
	}
}
