// Package fence lets one run at a time write, and keeps a runner that was
// silent for too long from writing any more. The open row of orphan_runs is the
// lock, its heartbeat the lease, its id the fencing token.
package fence

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

var (
	// ErrAnotherRun is returned while another run is open. Nothing was done.
	ErrAnotherRun = errors.New("another run is open")
	// ErrTakenOver is returned to a runner whose run is no longer open.
	ErrTakenOver = errors.New("the run is no longer open: it was silent for longer than its lease and was taken over")
	// ErrNotDue is returned by [Begin] with an interval while no run is due.
	ErrNotDue = errors.New("no run is due yet")
	// ErrProof is returned when rows deleted, audited and backed up are not the
	// same number. The transaction was rolled back.
	ErrProof = errors.New("count proof failed")
	// ErrPaused is returned when runs were paused while this one was under way.
	ErrPaused = errors.New("runs are paused; see why with: orphan-cleaner status; let them go on with: orphan-cleaner resume")
)

// Options describe a run that is to be opened.
type Options struct {
	Kind     string // clean or restore
	Phase    string // the first one
	Lease    time.Duration
	Host     string // host:pid
	Version  string
	Settings []byte // JSON, kept with the run
	// ThroughPause: a pause does not stop this run.
	ThroughPause bool
	// Every opens the run only if it is due: this long after the last one was, or
	// at once if that was given up. 0: always.
	Every    time.Duration
	Patience database.Patience
}

// Run is an open run.
type Run struct {
	ID  int64
	Log *slog.Logger // names the run

	pool    *pgxpool.Pool
	options Options
	phase   atomic.Pointer[string]
}

// Begin opens a run, or returns [ErrAnotherRun] and says whose it is. A run
// that was silent for longer than its lease is given up.
func Begin(ctx context.Context, pool *pgxpool.Pool, options Options) (*Run, error) {
	attempts := 0
	// Tells this opening from any other: containers may well share host name and pid.
	host := options.Host + "/" + rand.Text()[:8]
	id, err := database.Retry(ctx, options.Patience, "opening the run", func() (int64, error) {
		attempts++
		// Giving up a silent run waits for its chunk in flight, but not for ever.
		return database.Bounded(ctx, pool, options.Patience, pgx.ReadWrite, database.ReadLimit, func(ctx context.Context, q *db.Queries) (int64, error) {
			if err := q.RunTurn(ctx); err != nil {
				return 0, err
			}
			// The run that is given up may have a chunk in flight, which would be rolled
			// back, and would stand in the way of ours until then.
			if err := q.ChunkSettle(ctx); err != nil {
				return 0, err
			}
			params := db.RunBeginParams{
				Kind: options.Kind, Phase: options.Phase, Lease: options.Lease,
				Host: host, Version: options.Version, Settings: options.Settings,
			}
			if options.Every > 0 {
				params.Every = &options.Every
			}
			row, err := q.RunBegin(ctx, params)
			return row.RunID, err
		})
	})
	notDue := errors.Is(err, pgx.ErrNoRows)
	if code := database.Code(err); notDue || code == database.UniqueViolation || code == database.LockNotAvailable {
		open, openErr := db.New(pool).RunOpen(ctx)
		switch ours := openErr == nil && attempts > 1 && open.Host == host; {
		case notDue && !ours:
			return nil, ErrNotDue
		case !ours:
			return nil, whoIsOpen(open, openErr)
		}
		// Our own: an earlier attempt went through and its answer was lost.
		id, err = open.RunID, nil
	}
	if err != nil {
		return nil, err
	}
	r := &Run{ID: id, Log: options.Patience.Log.With("run_id", id), pool: pool, options: options}
	r.Enter(options.Phase)
	return r, nil
}

func whoIsOpen(open db.RunOpenRow, err error) error {
	if err != nil {
		return fmt.Errorf("%w; look at it with: orphan-cleaner status", ErrAnotherRun)
	}
	return fmt.Errorf("%w: run %d (%s, phase %s) of %s since %s; it ends by itself, or is given up when silent for its lease; look at it with: orphan-cleaner status",
		ErrAnotherRun, open.RunID, open.Kind, open.Phase, open.Host, open.StartedAt.UTC().Format(time.RFC3339))
}

// Enter names the phase that heartbeats record from now on.
func (r *Run) Enter(phase string) { r.phase.Store(&phase) }

// Phase is the one entered last.
func (r *Run) Phase() string { return *r.phase.Load() }

// Heartbeat is the fence: it fails with [ErrTakenOver] unless the run is open,
// and with [ErrPaused] while runs are paused. In a transaction it locks the
// run's row, so that nobody takes the run over before COMMIT. It adds to the
// members that the run has deleted.
func (r *Run) Heartbeat(ctx context.Context, q *db.Queries, deleted int64) error {
	paused, err := q.RunHeartbeat(ctx, db.RunHeartbeatParams{RunID: r.ID, Phase: r.Phase(), Deleted: deleted})
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrTakenOver
	}
	if err == nil && paused && !r.options.ThroughPause {
		return ErrPaused
	}
	return err
}

// Prove compares the rows that a statement deleted with the rows audited and
// backed up, as the trigger reported them to this very transaction.
func Prove(ctx context.Context, q *db.Queries, deleted int64) error {
	proof, err := q.ChunkProof(ctx)
	if err != nil {
		return err
	}
	if proof.Audited != deleted || proof.BackedUp != deleted {
		return fmt.Errorf("%w: %d deleted, %d audited, %d backed up; rolled back; look closer with: orphan-cleaner check",
			ErrProof, deleted, proof.Audited, proof.BackedUp)
	}
	return nil
}

// KeepAlive sends a heartbeat four times a lease until it is stopped. The
// context it returns ends, with the error as its cause, once the fence is closed.
func (r *Run) KeepAlive(ctx context.Context) (alive context.Context, stop func()) {
	alive, cancel := context.WithCancelCause(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(r.options.Lease / 4)
		defer tick.Stop()
		for {
			select {
			case <-alive.Done():
				return
			case <-tick.C:
			}
			err := r.Heartbeat(alive, db.New(r.pool), 0)
			switch {
			case errors.Is(err, ErrTakenOver), errors.Is(err, ErrPaused):
				cancel(err)
			case err != nil && alive.Err() == nil:
				r.Log.Warn("Heartbeat failed, will try again", "error", err)
			}
		}
	})
	return alive, func() {
		cancel(nil)
		done.Wait()
	}
}
