// Package throttle slows a sweep down for the sake of others: it fits chunks to a
// time, sleeps between them, and waits for standbys.
package throttle

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

const (
	firstRows = 1000 // of the first chunk, while nobody knows how fast this database is
	fewRows   = 100  // a chunk of fewer says little about speed
	lagLook   = time.Second
)

// Throttle is safe for concurrent use. Set its fields before the first use.
type Throttle struct {
	ChunkTime time.Duration // how long a chunk should last
	MaxRows   int64         // of a chunk
	NiceRatio float64       // seconds of sleep for each second of work; 0: none
	MaxLag    time.Duration // sleep while a standby lags more; 0: no limit
	// Lag returns by how much the standby that lags most replays behind.
	Lag func(ctx context.Context) (time.Duration, error)
	// Sleeping is told why and for how long; an empty reason is the end of it.
	Sleeping func(reason string, pause time.Duration)

	mu   sync.Mutex
	rows int64
	owed time.Duration // of sleep, for work that is done

	oneByOne atomic.Bool
	turn     sync.Mutex
}

// Transaction makes the transaction of a chunk: one at a time, once two have met in a
// deadlock. A trigger of the application that writes into rows that chunks share is all
// that it takes, and would have them meet again and again, the application between them.
func (t *Throttle) Transaction(transaction func() error) error {
	if t.oneByOne.Load() {
		t.turn.Lock()
		defer t.turn.Unlock()
	}
	err := transaction()
	if database.Code(err) == database.Deadlock {
		t.oneByOne.Store(true)
	}
	return err
}

// Rows is how many rows the next chunk may have.
func (t *Throttle) Rows() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == 0 {
		t.rows = min(firstRows, t.MaxRows)
	}
	return t.rows
}

// Note learns from a chunk that was committed: a slow one halves the next at most,
// a fast one makes it four times as large. Whoever comes next rests for it.
func (t *Throttle) Note(rows int64, took time.Duration) {
	t.mu.Lock()
	t.owed += time.Duration(t.NiceRatio * float64(took))
	t.mu.Unlock()
	if rows < fewRows && took < t.ChunkTime {
		return
	}
	now := float64(t.Rows())
	fit := float64(rows) * t.ChunkTime.Seconds() / max(took.Seconds(), 1e-6)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = min(max(int64(min(max(fit, now/2), 4*now)), fewRows), t.MaxRows)
}

// Rest sleeps before more work for as long as the work before it owes, and for as
// long as a standby lags. Nobody waits for it behind the last chunk.
func (t *Throttle) Rest(ctx context.Context) error {
	t.mu.Lock()
	nice := t.owed
	t.owed = 0
	t.mu.Unlock()
	if nice > 0 {
		if err := t.sleep(ctx, nice, "nice-ratio"); err != nil {
			return err
		}
	}
	for t.MaxLag > 0 {
		lag, err := t.Lag(ctx)
		if err != nil || lag <= t.MaxLag {
			return err
		}
		if err := t.sleep(ctx, lagLook, "replication lag"); err != nil {
			return err
		}
	}
	return nil
}

func (t *Throttle) sleep(ctx context.Context, pause time.Duration, reason string) error {
	t.Sleeping(reason, pause)
	defer t.Sleeping("", 0)
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ReplicationLag reads the lag from pg_stat_replication.
func ReplicationLag(pool *pgxpool.Pool, patience database.Patience) func(ctx context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		seconds, err := database.Do(ctx, pool, patience, pgx.ReadOnly, database.ReadLimit, "reading the replication lag", func(ctx context.Context, q *db.Queries) (float64, error) {
			return q.ReplicationLag(ctx)
		})
		return time.Duration(seconds * float64(time.Second)), err
	}
}
