package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/fleet/queue"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// limit bounds whatever a test waits for.
const limit = 5 * time.Minute

// world is a fleet of real databases, its control database, and one auth-service.
type world struct {
	t       *testing.T
	control *testdb.DB
	shards  []*testdb.DB
	users   [][]uuid.UUID // of each shard
	auth    *authfake.Server
	authURL string
	file    fleet.File
	cfg     settings.Run

	rangeCalls int

	mu  sync.Mutex
	log strings.Builder
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func newWorld(t *testing.T, shards, users int) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, control: testdb.NewEmpty(t), cfg: settings.DefaultRun()}
	w.cfg.Host, w.cfg.Version = "test:1", "test"
	var err error
	if w.auth, err = authfake.Start(authfake.Options{Record: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.auth.Stop)
	w.authURL = w.auth.URL()
	log := slog.New(slog.NewTextHandler(w, nil))
	for range 2 { // again changes nothing
		if err := queue.Migrate(t.Context(), w.control.URL, log); err != nil {
			t.Fatal(err)
		}
	}
	w.file = fleet.File{
		Path: "fleet.yaml", ControlURL: w.control.URL, Waves: []int{1, 2}, Limits: settings.DefaultLimits(), Outlier: 10, Workers: 2, JobTimeout: time.Hour,
	}
	for i := range shards {
		db := testdb.New(t)
		w.shards = append(w.shards, db)
		w.file.Shards = append(w.file.Shards, fleet.Shard{Name: fmt.Sprintf("s%d", i), URL: db.URL})
		db.Exec(`INSERT INTO conversations (name) VALUES ('c')`)
		ids := make([]uuid.UUID, users)
		for j := range ids {
			ids[j] = uuid.New()
		}
		db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
			SELECT c.id, u, now() - interval '90 days' FROM unnest($1::uuid[]) AS u, conversations AS c`, ids)
		w.auth.Add(ids...)
		w.users = append(w.users, ids)
	}
	return w
}

// due seeds the ledger of each shard: its first users are missing for 40 days.
func (w *world) due(users int) {
	w.t.Helper()
	for i, db := range w.shards {
		gone := w.users[i][:users]
		w.auth.Delete(gone...)
		db.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
			SELECT u, now() - interval '40 days', now() - interval '1 minute', 0, 'sightings' FROM unnest($1::uuid[]) AS u`, gone)
	}
	for _, db := range w.shards {
		db.Settle()
	}
}

// machine is another one: nothing is shared with the others but the databases.
func (w *world) machine() (*fleet.Fleet, *queue.Control) {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w, nil))
	c, err := queue.Open(w.t.Context(), w.control.URL, log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	to := source.Config{URL: w.authURL, BackoffInitial: time.Millisecond, BackoffMax: 5 * time.Millisecond, Timeout: limit, MaxAttempts: 2, Logger: log}
	if w.file.MaxQPS > 0 {
		to.Limiter = c.Budget(w.file.MaxQPS)
	}
	client, err := authclient.Dial(to)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = client.Close() })
	latest, err := migrate.Latest()
	if err != nil {
		w.t.Fatal(err)
	}
	return &fleet.Fleet{
		File: w.file, Settings: w.cfg, Users: client, Log: log, RangeCalls: w.rangeCalls,
		Open: func(ctx context.Context, shard fleet.Shard) (*pgxpool.Pool, error) {
			return database.Open(ctx, shard.URL, 0, 4)
		},
		Preflight: func(pool *pgxpool.Pool, log *slog.Logger, isDry bool) func(ctx context.Context) error {
			return check.New(pool, log, latest).ForRun(isDry)
		},
	}, c
}

// worker works on another machine.
func (w *world) worker(o queue.Options) (*queue.Worker, *queue.Control) {
	w.t.Helper()
	of, c := w.machine()
	if o.Poll == 0 {
		o.Poll, o.Pause = 20*time.Millisecond, 100*time.Millisecond
	}
	worker, err := queue.NewWorker(of, c, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return worker, c
}

// run makes a run of the fleet by so many workers, who all would begin it.
func (w *world) run(workers int) (fleet.Result, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	var all sync.WaitGroup
	results, errs := make([]fleet.Result, workers), make([]error, workers)
	for i := range workers {
		worker, _ := w.worker(queue.Options{})
		all.Go(func() { results[i], errs[i] = worker.Run(ctx) })
	}
	all.Wait()
	for i := range results {
		if results[i].FleetRun != results[0].FleetRun || results[i].State != results[0].State {
			w.t.Errorf("worker %d: run %d %s: %v, worker 0: run %d %s", i, results[i].FleetRun, results[i].State, errs[i], results[0].FleetRun, results[0].State)
		}
	}
	return results[0], errs[0]
}

// cleaned asserts that each shard was cleaned once, by one run.
func (w *world) cleaned(deleted int64) {
	w.t.Helper()
	w.evidence(deleted)
	for i, db := range w.shards {
		if runs := db.Count(`orphan_cleaner.runs`); runs != 1 {
			w.t.Errorf("shard %d: %d runs, want 1", i, runs)
		}
	}
}

// evidence asserts that each shard lost so many rows, each once.
func (w *world) evidence(deleted int64) {
	w.t.Helper()
	for i, db := range w.shards {
		audited := db.Count(`conversation_members_audit WHERE run_id IS NOT NULL`)
		backedUp := db.Count(`conversation_members_backup`)
		left := db.Count(`conversation_members`)
		if audited != deleted || backedUp != deleted || left != int64(len(w.users[i]))-deleted {
			w.t.Errorf("shard %d: audited %d, backed up %d, want %d; %d members left", i, audited, backedUp, deleted, left)
		}
	}
}

// Three workers share one run: each shard is verified and swept once, in waves.
func TestWorkersShareARun(t *testing.T) {
	w := newWorld(t, 5, 200)
	w.due(3)
	r, err := w.run(3)
	if err != nil || r.State != "succeeded" || r.Waves != 3 || r.Sums.Rows().Due != 15 || len(r.Shards) != 5 {
		t.Fatalf("%s, %d waves, %+v: %v\n%s", r.State, r.Waves, r.Sums, err, w.logged())
	}
	w.cleaned(3)
	// The jobs: 5 of each pass, one judgement before each wave and one at the end.
	jobs := testdb.One[string](w.control, `SELECT string_agg(kind || ' ' || state || ' ' || n, ', ' ORDER BY kind, state)
		FROM (SELECT kind, state::text, count(*) AS n FROM orphan_cleaner_fleet.river_job GROUP BY 1, 2) AS j`)
	if jobs != "fleet_judge completed 4, fleet_shard completed 10" {
		t.Error(jobs)
	}
}

// Eight small shards: refused by the fleet, no shard is changed; an approval admits what
// was found, once, and no more than that.
func TestRefusedAndApproved(t *testing.T) {
	w := newWorld(t, 8, 20)
	for _, users := range w.users {
		w.auth.Delete(users[:4]...)
	}
	contents := func() (all []string) {
		for _, db := range w.shards {
			all = append(all, db.Fingerprint("orphan_cleaner.runs"), db.Fingerprint("orphan_cleaner.candidates"), db.Fingerprint("orphan_cleaner.hours"), db.Fingerprint("conversation_members"))
		}
		return all
	}
	before := contents()
	r, err := w.run(2)
	if !errors.Is(err, result.ErrRefused) || r.Breaker == nil || *r.Breaker != "new-missing-share" || r.Waves != 0 {
		t.Fatalf("%s: %v\n%s", r.State, err, w.logged())
	}
	if !slices.Equal(before, contents()) {
		t.Error("a refused run of the fleet changed a shard")
	}
	_, c := w.worker(queue.Options{})
	if _, err := c.Approve(t.Context(), r.FleetRun+1, "me", time.Hour); database.Code(err) != "OC011" {
		t.Errorf("approved a run that is none: %v", err)
	}
	if _, err := c.Approve(t.Context(), r.FleetRun, "me", time.Hour); err != nil {
		t.Fatal(err)
	}
	// Revoked while the run that would use it verifies: it admits nobody.
	var once sync.Once
	w.auth.SetFaultFunc(func(_ context.Context, _ int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		once.Do(func() {
			if n := w.control.Count("orphan_cleaner_fleet.runs WHERE state = 'running' AND approved_run = 1"); n != 1 {
				t.Errorf("%d open runs go by the approval: this test shows nothing", n)
			}
			if was, err := c.Revoke(context.WithoutCancel(t.Context()), 1, "me"); err != nil || !was {
				t.Errorf("revoked: %v, %v", was, err)
			}
		})
		return honest()
	})
	if r, err = w.run(1); !errors.Is(err, result.ErrRefused) || !slices.Equal(before, contents()) {
		t.Fatalf("by a revoked approval: %s: %v", r.State, err)
	}
	w.auth.SetFaultFunc(nil)
	if was, err := c.Revoke(t.Context(), 1, "me"); err != nil || was {
		t.Errorf("revoked twice: %v, %v", was, err)
	}
	if _, err := c.Approve(t.Context(), 1, "me", time.Hour); err != nil {
		t.Fatal(err)
	}
	// More than was approved: a fifth of the users again.
	for _, users := range w.users {
		w.auth.Delete(users[4:8]...)
	}
	if r, err = w.run(1); !errors.Is(err, result.ErrRefused) {
		t.Fatalf("%s: %v", r.State, err)
	}
	for _, users := range w.users {
		w.auth.Revive(users[4:8]...)
	}
	if r, err = w.run(2); err != nil {
		t.Fatalf("%s: %v\n%s", r.State, err, w.logged())
	}
	for i, db := range w.shards {
		if n := db.Count("orphan_cleaner.candidates"); n != 4 {
			t.Errorf("shard %d has %d candidates", i, n)
		}
	}
	if _, err := c.Approve(t.Context(), 1, "me", time.Hour); database.Code(err) != "OC011" {
		t.Errorf("approved again what was used: %v", err)
	}
	// What it covered counts in no window of the next run.
	if r, err = w.run(1); err != nil {
		t.Errorf("%s: %v", r.State, err)
	}
}

// A paused fleet begins nothing; one that is paused between two waves ends there.
func TestPaused(t *testing.T) {
	w := newWorld(t, 3, 100)
	w.due(1)
	worker, c := w.worker(queue.Options{})
	if err := c.Pause(t.Context(), "me", "maintenance"); err != nil {
		t.Fatal(err)
	}
	if err := c.Pause(t.Context(), "me", "again"); database.Code(err) != database.UniqueViolation {
		t.Errorf("paused twice: %v", err)
	}
	if _, err := worker.Run(t.Context()); !errors.Is(err, run.ErrPaused) || !strings.Contains(err.Error(), "maintenance") {
		t.Errorf("%v", err)
	}
	if was, err := c.Resume(t.Context(), "me"); err != nil || !was {
		t.Errorf("%v %v", was, err)
	}
	// Both shards of the first wave are given out, one at a time; the sweep of one pauses the fleet.
	w.file.Waves, w.file.Workers = []int{2}, 1
	var once sync.Once
	w.auth.SetFaultFunc(func(_ context.Context, _ int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if w.shards[0].Count("orphan_cleaner.runs")+w.shards[1].Count("orphan_cleaner.runs") > 0 {
			once.Do(func() {
				if err := c.Pause(context.WithoutCancel(t.Context()), "me", "in mid-run"); err != nil {
					t.Error(err)
				}
			})
		}
		return honest()
	})
	r, err := w.run(1)
	if !errors.Is(err, run.ErrPaused) || r.State != "paused" || r.Waves != 1 {
		t.Fatalf("%s, %d waves: %v", r.State, r.Waves, err)
	}
	var runs int64
	for _, db := range w.shards {
		runs += db.Count("orphan_cleaner.runs")
	}
	if runs != 1 {
		t.Errorf("%d runs, want that which was under way", runs)
	}
}

// A shard that fails is tried again; exit status 4 is waited for, and no attempt.
func TestTriedAgain(t *testing.T) {
	w := newWorld(t, 3, 100)
	w.due(1)
	// The first shard has a run of somebody else's, until a job has waited for it.
	w.shards[0].Exec(`INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, state, phase, lease, host, version, settings)
		VALUES (now(), now(), 'clean', 'running', 'sweep', '1h', 'other:1', 'x', '{}')`)
	const snoozed = `orphan_cleaner_fleet.river_job WHERE args ->> 'shard' = 's0' AND (metadata ->> 'snoozes')::int > 0`
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		testdb.Eventually(t, limit, "a job waits for the other run", func() bool { return w.control.Count(snoozed) == 1 })
		w.shards[0].Exec(`UPDATE orphan_cleaner.runs SET state = 'succeeded', phase = 'finish', finished_at = now() WHERE host = 'other:1'`)
	}()
	// The second one fails once.
	w.shards[1].Exec(`CREATE SEQUENCE tries;
		CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NOT EXISTS (SELECT FROM pg_sequences WHERE sequencename = 'tries' AND last_value IS NOT NULL) THEN
				PERFORM nextval('public.tries');
				RAISE 'not now' USING ERRCODE = 'XX001';
			END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER fail AFTER INSERT ON orphan_cleaner.runs FOR EACH ROW EXECUTE FUNCTION fail()`)
	r, err := w.run(2)
	<-ended
	if err != nil {
		t.Fatalf("%s: %v\n%s", r.State, err, w.logged())
	}
	if n := w.shards[1].Count("pg_sequences WHERE last_value = 1"); n != 1 {
		t.Error("the second shard did not fail: this test shows nothing")
	}
	for i, db := range w.shards {
		if n := db.Count("conversation_members_backup"); n != 1 {
			t.Errorf("shard %d: %d rows backed up", i, n)
		}
	}
	waited := w.control.Count(snoozed + ` AND attempt = 1`)
	retried := w.control.Count(`orphan_cleaner_fleet.river_job WHERE args ->> 'shard' = 's1' AND attempt = 2 AND cardinality(errors) = 1`)
	if waited != 1 || retried != 1 {
		t.Errorf("%d jobs snoozed, %d tried again", waited, retried)
	}
	if line := regexp.MustCompile(`level=WARN msg="A job of the fleet failed" job=fleet_shard args=.* attempt=1 of=5 next="in 100ms" error=.*not now`); len(line.FindAllString(w.logged(), -1)) != 1 {
		t.Errorf("the failure of the job is not a warning of ours: %s", w.logged())
	}
}

// A worker whose fleet.yaml lacks a shard leaves it to those that have it.
func TestShardUnknownToAWorker(t *testing.T) {
	w := newWorld(t, 3, 100)
	w.due(1)
	full, _ := w.worker(queue.Options{})
	if _, err := full.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := w.file.Shards
	w.file.Shards = all[:2]
	lacks, _ := w.worker(queue.Options{})
	w.file.Shards = all
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- lacks.Serve(ctx) }()
	const left = `orphan_cleaner_fleet.river_job WHERE args ->> 'shard' = 's2' AND (metadata ->> 'snoozes')::int > 4`
	testdb.Eventually(t, limit, "the worker leaves the shard alone, more often than a job has attempts", func() bool { return w.control.Count(left) == 1 })
	if r, err := w.run(1); err != nil {
		t.Errorf("%s: %v\n%s", r.State, err, w.logged())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !strings.Contains(w.logged(), `msg="A shard of the run is not in this worker's fleet.yaml; another worker is waited for" shard=s2`) {
		t.Errorf("the worker does not say whom it waits for: %s", w.logged())
	}
	w.cleaned(1)
}

// A run that is begun once an interval, by several workers that would all begin it.
func TestServe(t *testing.T) {
	w := newWorld(t, 2, 100)
	w.due(1)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 2 {
		worker, _ := w.worker(queue.Options{Every: time.Hour, Poll: 20 * time.Millisecond, Pause: 100 * time.Millisecond})
		all.Go(func() {
			if err := worker.Serve(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	testdb.Eventually(t, limit, "a run of the fleet ends", func() bool { return w.control.Count("orphan_cleaner_fleet.runs WHERE state <> 'running'") == 1 })
	cancel()
	all.Wait()
	if n := w.control.Count("orphan_cleaner_fleet.runs WHERE state = 'succeeded'"); n != 1 || w.control.Count("orphan_cleaner_fleet.runs") != 1 {
		t.Errorf("%d runs succeeded", n)
	}
	w.cleaned(1)
	// What River tells of itself is not for who reads this log.
	if log := w.logged(); strings.Contains(log, "River client") || !strings.Contains(log, "Shard swept") {
		t.Errorf("the log has River's routine lines, or none: %s", log)
	}
}

// The control database goes away in mid-run, and with it the budget of calls; it comes
// back, and nothing is done twice.
func TestControlAway(t *testing.T) {
	w := newWorld(t, 4, 100)
	w.due(2)
	w.file.MaxQPS = 200
	cluster := startCluster(t)
	// A control database that has messaging-service's tables, too.
	w.control = testdb.NewBareOn(t, cluster)
	if err := queue.Migrate(t.Context(), w.control.URL, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	gone, once := make(chan struct{}), sync.Once{}
	// The first call of a sweep takes the control database away.
	w.auth.SetFaultFunc(func(_ context.Context, _ int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if w.shards[0].Count("orphan_cleaner.runs") > 0 {
			once.Do(func() {
				if err := cluster.Crash(); err != nil {
					t.Error(err)
				}
				close(gone)
			})
		}
		return honest()
	})
	back := make(chan struct{})
	go func() {
		defer close(back)
		<-gone
		testdb.Eventually(t, limit, "a worker meets that the control database is away", func() bool {
			return strings.Contains(w.logged(), "No calls are made while the control database is away")
		})
		if err := cluster.Restart(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	r, err := w.run(2)
	<-back
	if err != nil || r.State != "succeeded" {
		t.Fatalf("%s: %v\n%s", r.State, err, w.logged())
	}
	if !regexp.MustCompile(`level=ERROR msg=.* by=river`).MatchString(w.logged()) {
		t.Error("River's errors are not in our log")
	}
	// A job that cannot be ended in time is worked again, and finds nothing to delete.
	w.evidence(2)
}

// startCluster starts a cluster of the test's own, which it may crash.
func startCluster(t *testing.T) *pgtemp.Cluster {
	t.Helper()
	cluster, err := pgtemp.Start(t.Context(), pgtemp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}
