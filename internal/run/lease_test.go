package run_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/run"
)

func TestTwoRunsAtOnce(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	client, inside := w.client(), make(chan struct{})
	release := make(chan struct{})
	var once sync.Once
	done := make(chan error, 1)
	go func() {
		_, err := w.runWith(context.WithoutCancel(t.Context()), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
			once.Do(func() { close(inside) })
			<-release
			return client.Missing(ctx, ids)
		}))
		done <- err
	}()
	<-inside
	if _, err := w.run(); !errors.Is(err, run.ErrAnotherRun) {
		t.Errorf("the second run: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the first run: %v", err)
	}
	w.invariant(6)
}

// A runner that sleeps past its lease wakes as a ghost: it may delete nothing.
func TestRunTakenOver(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.missingFor(40, users[:3]...)
	client := w.client()
	var calls atomic.Int32
	r, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) == 4 { // before the second check: it sleeps, and another run does the work
			w.db.Exec(`UPDATE orphan_cleaner.runs SET heartbeat_at = now() - interval '1 hour' WHERE state = 'running'`)
			w.must(w.runWith(context.WithoutCancel(ctx), client)) // whenever a heartbeat of the first meets it
		}
		return client.Missing(ctx, ids)
	}))
	if !errors.Is(err, run.ErrTakenOver) || r.MembersDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`orphan_cleaner.runs WHERE state = 'abandoned'`); n != 1 {
		t.Errorf("%d abandoned runs", n)
	}
	w.invariant(6)
}

// A run that cannot say for longer than its lease that it lives stops by itself,
// whatever it waits for: another one may have been opened meanwhile.
func TestHeartbeatsFailForLongerThanTheLease(t *testing.T) {
	w := newWorld(t)
	w.cfg.Lease = time.Second
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	client := w.client()
	var calls atomic.Int32
	r, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) == 4 {
			tx := w.inTheWay(`SELECT FROM orphan_cleaner.runs WHERE state = 'running' FOR UPDATE`)
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Minute):
				t.Error("the run goes on")
			}
			return nil, errors.Join(ctx.Err(), tx.Rollback(context.Background()))
		}
		return client.Missing(ctx, ids)
	}))
	if err == nil || !strings.Contains(err.Error(), "no heartbeat reached the database for longer than the lease") || r.State != "failed" || r.MembersDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
	w.isBusy, w.cfg.Lease = false, time.Minute
	w.must(w.runHeld(nil))
}

// A pause ends the run wherever it is: state paused, nothing deleted any more.
func TestPausedInMidRun(t *testing.T) {
	for name, call := range map[string]int32{"while it verifies": 2, "before a delete": 4} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 2)
			w.missingFor(40, users[:3]...)
			r, err := w.runWith(t.Context(), w.before(call, func() { w.db.Exec(`SELECT orphan_cleaner.pause('wait')`) }))
			if !errors.Is(err, run.ErrPaused) || r.State != "paused" || r.MembersDeleted != 0 {
				t.Errorf("%v, %+v", err, r)
			}
			if n := w.db.Count(`orphan_cleaner.runs WHERE state = 'paused' AND run_id = $1`, r.RunID); n != 1 {
				t.Errorf("%d paused runs on record", n)
			}
			w.invariant(0)
			if r, err := w.run(); !errors.Is(err, run.ErrPaused) || r.State != "paused" || r.RunID != 0 || !strings.Contains(err.Error(), "wait") {
				t.Errorf("a run while paused: %v, %+v", err, r)
			}
			w.db.Exec(`SELECT orphan_cleaner.resume()`)
			w.must(w.run())
			w.invariant(6)
		})
	}
}

// A pause reaches a run that waits for auth-service, by its heartbeat.
func TestPausedWhileItWaits(t *testing.T) {
	w := newWorld(t)
	w.cfg.Lease = 20 * time.Second
	w.people(300, 2)
	r, err := w.runWith(t.Context(), checkerFunc(func(ctx context.Context, _ []uuid.UUID) ([]uuid.UUID, error) {
		w.db.Exec(`INSERT INTO orphan_cleaner.pauses (reason) VALUES ('wait') ON CONFLICT DO NOTHING`)
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Minute):
			t.Error("the run goes on")
		}
		return nil, ctx.Err()
	}))
	if !errors.Is(err, run.ErrPaused) || r.State != "paused" {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
}

func TestInterruptedRunEndsAndTheNextGoesOn(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.missingFor(40, users[:3]...)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := w.runWith(ctx, w.before(4, func() {
		cancel()
	}))
	if !errors.Is(err, run.ErrInterrupted) || r.State != "incomplete" {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
	w.must(w.run())
	w.invariant(6)
}

// Between opening the run and the first check it has a phase too: without one its
// end could not be written down, and it would stay open for its lease.
func TestFailureRightAfterTheBeginning(t *testing.T) {
	w := newWorld(t)
	w.people(10, 1)
	w.db.Exec(`ALTER TABLE orphan_cleaner.coverage RENAME COLUMN checked_at TO checked`)
	if r, err := w.run(); err == nil || r.State != "failed" || r.RunID == 0 {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
}

func TestNobodyElsePosesAsARun(t *testing.T) {
	w := newWorld(t)
	users := w.people(3, 1)
	w.db.Exec(`INSERT INTO orphan_cleaner.runs (kind, phase, started_at, heartbeat_at, lease, host, version, settings)
		VALUES ('clean', 'sweep', now(), now(), '1h', 'x', 'x', '{}')`)
	role := "poser_" + strings.ReplaceAll(w.db.Name, "-", "_")
	w.db.Exec(`CREATE ROLE ` + role + ` LOGIN`)
	t.Cleanup(func() { w.db.Exec(`DROP OWNED BY ` + role); w.db.Exec(`DROP ROLE ` + role) })
	w.db.Exec(`GRANT SELECT, DELETE ON conversation_members TO ` + role)
	conn, err := pgx.Connect(t.Context(), w.db.URLAs(role))
	if err != nil {
		t.Fatal(err)
	}
	// It knows the run's id; the token it can only guess.
	if _, err := conn.Exec(t.Context(), `SELECT set_config('orphan_cleaner.run_id', '1', false), set_config('orphan_cleaner.run_token', gen_random_uuid()::text, false)`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `DELETE FROM conversation_members WHERE user_id = $1`, users[0]); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.db.Count(`conversation_members_audit WHERE run_id IS NULL AND deleted_by = $1`, role); n != 1 {
		t.Errorf("%d audit rows in the poser's own name, want 1", n)
	}
	if n := w.db.Count(`conversation_members_backup`); n != 0 {
		t.Errorf("%d backup rows", n)
	}
}
