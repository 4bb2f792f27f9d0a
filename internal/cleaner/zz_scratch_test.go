package cleaner_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/cleaner"
)

type fn func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error)

func (f fn) Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) { return f(ctx, ids) }

// sweep livelock
func TestZZLivelock(t *testing.T) {
	w := newWorld(t)
	users := w.people(600, 2)
	w.die(60, users[:20]...)
	w.cfg.AnswerAge = 200 * time.Millisecond
	w.cfg.Concurrency = 1
	w.cfg.BatchSize = 5
	real := w.client()
	var calls atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	begun := time.Now()
	r, err := w.runWith(ctx, fn(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) > 120 {
			time.Sleep(60 * time.Millisecond)
		}
		return real.Missing(ctx, ids)
	}))
	fmt.Printf("LIVELOCK: state=%s deleted=%d calls=%d batch_calls=%d err=%v after %s\n", r.State, r.MembersDeleted, calls.Load(), r.BatchCalls, err, time.Since(begun))
}

func TestZZDryUnknown(t *testing.T) {
	w := newWorld(t)
	w.people(2000, 1)
	w.cfg.DryRun = true
	real := w.client()
	var calls atomic.Int64
	r, err := w.runWith(t.Context(), fn(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		if calls.Add(1) == 3 {
			return nil, errors.New("boom")
		}
		return real.Missing(ctx, ids)
	}))
	fmt.Printf("DRYUNKNOWN: state=%s unknown=%d err=%v\n", r.State, r.UsersUnknown, err)
}

func TestZZRefusalCanary(t *testing.T) {
	w := newWorld(t)
	users := w.people(3000, 1)
	w.cfg.CanaryAlive = users[:1]
	w.die(0, users...)
	for range 3 {
		r, err := w.run()
		fmt.Printf("REFUSALS: state=%s err=%.90v rows in orphan_refusals=%d\n", r.State, err, w.db.Count(`orphan_refusals`))
	}
}

func TestZZFinishLost(t *testing.T) {
	w := newWorld(t)
	users := w.people(600, 1)
	w.die(60, users[:10]...)
	w.db.Exec(`CREATE SEQUENCE once`)
	w.db.Exec(`CREATE FUNCTION die_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('once') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$`)
	w.db.Exec(`CREATE TRIGGER die_once BEFORE UPDATE ON orphan_runs FOR EACH ROW WHEN (NEW.batch_calls <> OLD.batch_calls) EXECUTE FUNCTION die_once()`)
	r, err := w.run()
	fmt.Printf("FINISH1: state=%s deleted=%d err=%v open=%d row deleted=%d staged=%d\n", r.State, r.MembersDeleted, err, w.db.Count(`orphan_runs WHERE state='running'`), w.db.Count(`conversation_members_backup`), w.db.Count(`orphan_sightings`))
	r, err = w.run()
	fmt.Printf("FINISH2: state=%s err=%v\n", r.State, err)
}

// taken over in mid-sweep: what does the result say
func TestZZTakenOver(t *testing.T) {
	w := newWorld(t)
	users := w.people(600, 2)
	w.die(60, users[:10]...)
	w.cfg.ChunkRows = 5
	w.cfg.Lease = time.Hour
	real := w.client()
	w.db.Exec(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$`)
	w.db.Exec(`CREATE TRIGGER zslow AFTER DELETE ON conversation_members FOR EACH STATEMENT EXECUTE FUNCTION slow()`)
	go func() {
		for w.db.Count(`conversation_members_backup`) == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		w.db.Exec(`UPDATE orphan_runs SET state='abandoned', finished_at=now() WHERE state='running'`)
	}()
	r, err := w.runWith(t.Context(), real)
	fmt.Printf("TAKENOVER: state=%s result deleted=%d really gone=%d err=%v\n", r.State, r.MembersDeleted, w.db.Count(`conversation_members_backup`), err)
}

// row changes while the chunk waits for it
func TestZZRowChanges(t *testing.T) {
	w := newWorld(t)
	users := w.people(600, 2)
	w.die(60, users[:3]...)
	tx, err := w.db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), `UPDATE conversation_members SET last_read_at = now() WHERE user_id = $1`, users[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), `UPDATE conversation_members SET joined_at = now() WHERE user_id = $1`, users[1])
	if err != nil {
		t.Fatal(err)
	}
	go func() { time.Sleep(2 * time.Second); _ = tx.Commit(context.Background()) }()
	w.cfg.LockTimeout = 20 * time.Second
	r, err := w.run()
	fmt.Printf("ROWCHANGES: state=%s deleted=%d err=%v left: u0=%d u1=%d u2=%d backup with last_read=%d\n", r.State, r.MembersDeleted, err,
		w.db.Count(`conversation_members WHERE user_id=$1`, users[0]), w.db.Count(`conversation_members WHERE user_id=$1`, users[1]), w.db.Count(`conversation_members WHERE user_id=$1`, users[2]),
		w.db.Count(`conversation_members_backup WHERE last_read_at IS NOT NULL`))
}

// revived during retries of a chunk: answers older than AnswerAge+ChunkLimit are used
func TestZZAnswerAge(t *testing.T) {
	w := newWorld(t)
	users := w.people(600, 2)
	w.die(60, users[:3]...)
	w.cfg.AnswerAge = 500 * time.Millisecond
	w.cfg.ChunkLimit = 1 * time.Second
	w.cfg.LockTimeout = 30 * time.Second
	tx, _ := w.db.Pool.Begin(t.Context())
	_, err := tx.Exec(t.Context(), `SELECT FROM conversation_members WHERE user_id = $1 FOR UPDATE`, users[0])
	if err != nil {
		t.Fatal(err)
	}
	real := w.client()
	var last atomic.Int64
	begun := time.Now()
	go func() {
		time.Sleep(2500 * time.Millisecond)
		w.auth.Revive(users[:3]...)
		fmt.Printf("ANSWERAGE revived at %s, last answer at %s\n", time.Since(begun), time.Duration(last.Load()))
		time.Sleep(1500 * time.Millisecond)
		_ = tx.Commit(context.Background())
	}()
	r, err := w.runWith(t.Context(), fn(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		last.Store(int64(time.Since(begun)))
		return real.Missing(ctx, ids)
	}))
	fmt.Printf("ANSWERAGE: state=%s deleted=%d err=%v last answer asked at %s, run ended at %s (AnswerAge 0.5s, ChunkLimit 1s)\n", r.State, r.MembersDeleted, err, time.Duration(last.Load()), time.Since(begun))
}

var _ = cleaner.OK
