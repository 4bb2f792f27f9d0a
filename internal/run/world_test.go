package run_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

type outcome = result.Run

// world is messaging-service's database and auth-service, both real.
type world struct {
	t    *testing.T
	db   *testdb.DB
	auth *authfake.Server
	cfg  settings.Run
	log  strings.Builder
	mu   sync.Mutex
	// observer is told what runs do; nil: nobody is.
	observer result.Observer
	// isBusy: a transaction of the test's own is open, which a run must not wait for.
	isBusy bool
	// pool is that of another login; nil: the superuser's.
	pool *pgxpool.Pool
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// logged is what runs have logged so far.
func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, db: testdb.New(t), cfg: settings.DefaultRun()}
	var err error
	if w.auth, err = authfake.Start(authfake.Options{Record: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.auth.Stop)
	w.cfg.Host, w.cfg.Version = "test:1", "test"
	return w
}

// lenient switches off the breakers that go by shares: small worlds in which many
// users are deleted at once are about something else.
func (w *world) lenient() {
	for _, name := range []string{
		"new-missing-share", "new-missing-rate", "candidate-share", "delete-share", "delete-share-7d", "delete-share-30d",
	} {
		w.cfg.Limits[name] = 1
	}
	w.cfg.Limits["history"] = 0
}

// people makes users with perUser members each, joined 90 days ago, and returns
// the users. They live unless told otherwise.
func (w *world) people(users, perUser int) []uuid.UUID {
	w.t.Helper()
	w.db.Exec(`INSERT INTO conversations (name) SELECT 'c' || n FROM generate_series(1, $1::int) AS n`, perUser)
	ids := make([]uuid.UUID, users)
	for i := range ids {
		ids[i] = uuid.New()
	}
	w.db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT c.id, u, now() - interval '90 days' FROM unnest($1::uuid[]) AS u, conversations AS c`, ids)
	w.auth.Add(ids...)
	return ids
}

// die takes users out of auth-service; days > 0 leaves shadow evidence of that
// age, each of a moment of its own.
func (w *world) die(days int, users ...uuid.UUID) {
	w.t.Helper()
	w.auth.Delete(users...)
	if days > 0 {
		w.db.Exec(`INSERT INTO users (id, username, created_at, deleted_at)
			SELECT u.id, u.id::text, now() - interval '90 days', now() - make_interval(days => $2::int, secs => u.n)
			FROM unnest($1::uuid[]) WITH ORDINALITY AS u (id, n)`, users, days)
	}
}

// missingFor seeds the ledger: users missing for so many days, seen a minute ago.
func (w *world) missingFor(days int, users ...uuid.UUID) {
	w.t.Helper()
	w.auth.Delete(users...)
	w.db.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT u, now() - make_interval(days => $2::int), now() - interval '1 minute', 0, 'sightings' FROM unnest($1::uuid[]) AS u`, users, days)
}

// membersOf counts the members of users.
func (w *world) membersOf(users ...uuid.UUID) int64 {
	w.t.Helper()
	return w.db.Count(`conversation_members WHERE user_id = ANY ($1)`, users)
}

// inTheWay is somebody else's transaction after a statement; it ends with the
// test. What the run is to delete must have been settled before.
func (w *world) inTheWay(sql string, args ...any) pgx.Tx {
	w.t.Helper()
	tx, err := w.db.Pool.Begin(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	w.isBusy = true
	w.exec(tx, sql, args...)
	return tx
}

func (w *world) exec(tx pgx.Tx, sql string, args ...any) {
	w.t.Helper()
	if _, err := tx.Exec(context.Background(), sql, args...); err != nil {
		w.t.Error(err)
	}
}

func (w *world) commit(tx pgx.Tx) {
	w.t.Helper()
	if err := tx.Commit(context.Background()); err != nil {
		w.t.Error(err)
	}
}

func (w *world) client() *authclient.Client {
	w.t.Helper()
	client, err := authclient.Dial(source.Config{
		URL: w.auth.URL(), BackoffInitial: time.Millisecond, BackoffMax: 5 * time.Millisecond,
		Timeout: time.Minute, MaxAttempts: 2, Logger: slog.New(slog.NewTextHandler(w, nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = client.Close() })
	return client
}

func (w *world) run() (outcome, error) { return w.runWith(w.t.Context(), w.client()) }

func (w *world) runWith(ctx context.Context, checker run.Checker) (outcome, error) {
	w.t.Helper()
	latest, err := migrate.Latest()
	if err != nil {
		w.t.Fatal(err)
	}
	if !w.isBusy {
		w.db.Settle()
	}
	log := slog.New(slog.NewTextHandler(w, nil))
	pool := w.db.Pool
	if w.pool != nil {
		pool = w.pool
	}
	preflight := check.New(pool, log, latest).ForRun(w.cfg.DryRun)
	runner := run.New(pool, checker, log, w.cfg, preflight)
	if w.observer != nil {
		runner.Observe(w.observer)
	}
	return runner.Run(ctx)
}

// runHeld makes a run while everybody is on hold: the ledger fills, nothing is deleted.
func (w *world) runHeld(users []uuid.UUID) (outcome, error) {
	w.t.Helper()
	w.db.Exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) SELECT u, 'test' FROM unnest($1::uuid[]) AS u`, users)
	r, err := w.run()
	w.db.Exec(`UPDATE orphan_cleaner.holds SET lifted_at = now()`)
	return r, err
}

// invariant asserts I3: deleted, audited and backed up are the same rows.
func (w *world) invariant(deleted int64) {
	w.t.Helper()
	audited := w.db.Count(`conversation_members_audit WHERE run_id IS NOT NULL`)
	backedUp := w.db.Count(`conversation_members_backup`)
	onRuns := testdb.One[int64](w.db, `SELECT coalesce(sum(members_deleted), 0)::bigint FROM orphan_cleaner.runs`)
	back := w.db.Count(`conversation_members AS m JOIN conversation_members_backup AS b USING (conversation_id, user_id)`)
	if audited != deleted || backedUp != deleted || onRuns != deleted || back != 0 {
		w.t.Errorf("deleted %d, audited %d, backed up %d, on the run rows %d, backed up yet there %d", deleted, audited, backedUp, onRuns, back)
	}
	if open := w.db.Count(`orphan_cleaner.runs WHERE state = 'running'`); open != 0 {
		w.t.Errorf("%d runs left open", open)
	}
	if staged := w.db.Count(`orphan_cleaner.sightings`); staged != 0 {
		w.t.Errorf("%d rows left in staging", staged)
	}
}

func (w *world) must(r outcome, err error) outcome {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("run ended %s: %v", r.State, err)
	}
	return r
}

// before is auth-service with a change made right before one of its calls: with
// 300 users the fourth is the second check, when the due users and the snapshot
// have been read and their members are still there.
func (w *world) before(call int32, change func()) run.Checker {
	w.t.Helper()
	client := w.client()
	var calls atomic.Int32
	return checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) == call {
			change()
		}
		return client.Missing(ctx, ids)
	})
}

type checkerFunc func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error)

func (f checkerFunc) Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	return f(ctx, ids)
}

// watcher is an observer that calls what is set, while the run waits.
type watcher struct {
	result.Unobserved
	phaseDone func(phase string)
	chunkDone func()
	throttled func(reason string, pause time.Duration)
	retried   func(cause string)
}

func (o *watcher) Retried(cause string) {
	if o.retried != nil {
		o.retried(cause)
	}
}

func (o *watcher) PhaseDone(phase string, _ time.Duration) {
	if o.phaseDone != nil {
		o.phaseDone(phase)
	}
}

func (o *watcher) ChunkDone(int64) {
	if o.chunkDone != nil {
		o.chunkDone()
	}
}

func (o *watcher) Throttled(reason string, pause time.Duration) {
	if o.throttled != nil {
		o.throttled(reason, pause)
	}
}
