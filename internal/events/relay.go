package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/failpoint"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

const (
	pageEvents = 2000
	// pageLimit bounds what a sink gets for a page: less than the lease, so that no
	// other relay begins with it meanwhile.
	pageLimit = 20 * time.Second
	lease     = 30 * time.Second
	// readLimit bounds one transaction: each page reads all rows of its run, of two million for 12 s on a busy machine.
	readLimit = time.Minute
	// flushLimit is what a run waits for at its end, and advanceLimit for a cursor that does not move.
	flushLimit   = 5 * time.Second
	advanceLimit = time.Second
	lookEvery    = 2 * time.Second
	maxPause     = 30 * time.Second
)

// Relay takes events from the database to sinks. Each sink goes its own way: one
// that is down keeps no other one waiting.
type Relay struct {
	pool  *pgxpool.Pool
	log   *slog.Logger
	sinks []Sink
	from  *int64

	flushLimit, advanceLimit time.Duration
}

// New returns a Relay. A sink that the database does not know yet begins with the
// events of the run from, or with those of the next run to finish where that is nil.
func New(pool *pgxpool.Pool, log *slog.Logger, from *int64, sinks ...Sink) *Relay {
	return &Relay{pool: pool, log: log, sinks: sinks, from: from, flushLimit: flushLimit, advanceLimit: advanceLimit}
}

// Close closes the sinks.
func (r *Relay) Close() {
	for _, sink := range r.sinks {
		if err := sink.Close(); err != nil {
			r.log.Warn("Closing a sink of events failed", "sink", sink.Name(), "error", err)
		}
	}
}

// Begin begins a cursor for each new sink. Whoever makes a run calls it before, so
// that the run's own events are told. A failure is logged: no run waits for events.
func (r *Relay) Begin(ctx context.Context) {
	for _, sink := range r.sinks {
		if err := r.begin(ctx, sink); err != nil {
			r.log.Warn("Events wait: the sink is not known to the database yet", "sink", sink.Name(), "error", err)
		}
	}
}

func (r *Relay) begin(ctx context.Context, sink Sink) error {
	_, err := database.Bounded(ctx, r.pool, database.Patience{LockTimeout: time.Second}, pgx.ReadWrite, r.flushLimit, func(ctx context.Context, q *db.Queries) (struct{}, error) {
		return struct{}{}, q.EventSink(ctx, db.EventSinkParams{Sink: sink.Name(), FromRun: r.from})
	})
	return err
}

// Flush relays what is there, for 5 seconds at most. What is left waits for the
// next relay.
func (r *Relay) Flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.flushLimit)
	defer cancel()
	r.each(func(sink Sink) {
		told, err := r.relay(ctx, sink)
		if told > 0 {
			r.log.Info("Events relayed", "sink", sink.Name(), "events", told)
		}
		if err != nil {
			r.log.Warn("Events wait, the next run relays them", "sink", sink.Name(), "error", err)
		}
	})
}

// Run relays until the context ends, across any number of replicas. That events
// wait is logged once.
func (r *Relay) Run(ctx context.Context) {
	r.each(func(sink Sink) {
		pause := &backoff.ExponentialBackOff{InitialInterval: time.Second, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: maxPause}
		known, waits := false, false
		for {
			told, err := 0, error(nil)
			if !known {
				err = r.begin(ctx, sink)
				known = err == nil
			}
			if known {
				told, err = r.relay(ctx, sink)
			}
			if ctx.Err() == nil && err != nil && !waits {
				r.log.Warn("Events wait, will try again", "sink", sink.Name(), "error", err)
			}
			if told > 0 {
				r.log.Info("Events relayed", "sink", sink.Name(), "events", told)
			}
			waits = err != nil
			next := lookEvery
			if waits {
				next = pause.NextBackOff()
			} else {
				pause.Reset()
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(next):
			}
		}
	})
}

func (r *Relay) each(do func(Sink)) {
	var all sync.WaitGroup
	for _, sink := range r.sinks {
		all.Go(func() { do(sink) })
	}
	all.Wait()
}

// relay takes page after page until there is none, and returns how many events the
// sink has got.
func (r *Relay) relay(ctx context.Context, sink Sink) (told int, err error) {
	for {
		page, ticket, err := r.page(ctx, sink)
		if err != nil || len(page) == 0 {
			return told, err
		}
		delivering, cancel := context.WithTimeout(ctx, pageLimit)
		n, err := sink.Deliver(delivering, page)
		cancel()
		err = failpoint.After("delivered", err)
		told += n
		moved, moveErr := r.advance(ctx, sink, ticket, page[:n], err)
		if err := errors.Join(err, moveErr); err != nil || !moved { // not moved: another relay tells the same
			return told, err
		}
	}
}

func (r *Relay) page(ctx context.Context, sink Sink) ([]Event, uuid.UUID, error) {
	ticket := uuid.New()
	rows, err := database.Bounded(ctx, r.pool, database.Patience{LockTimeout: time.Second}, pgx.ReadWrite, readLimit, func(ctx context.Context, q *db.Queries) ([]db.EventPageRow, error) {
		return q.EventPage(ctx, db.EventPageParams{Sink: sink.Name(), Ticket: ticket, MaxRows: pageEvents, Lease: lease})
	})
	if err != nil {
		return nil, ticket, fmt.Errorf("reading events: %w", err)
	}
	events := make([]Event, len(rows))
	for i, row := range rows {
		events[i] = newEvent(row)
	}
	return events, ticket, nil
}

// advance moves the cursor behind what was delivered, and gives the page up, also
// when time is up.
func (r *Relay) advance(ctx context.Context, sink Sink, ticket uuid.UUID, delivered []Event, failure error) (bool, error) {
	move := db.EventAdvanceParams{Sink: sink.Name(), Ticket: ticket, Delivered: int64(len(delivered))}
	if len(delivered) > 0 {
		last := delivered[len(delivered)-1]
		move.LastKind, move.LastConversation, move.LastUser = &last.Type, &last.ConversationID, &last.UserID
	}
	if failure != nil {
		move.Error = new(safetext.Line(failure.Error(), 300))
	}
	moved, err := database.Bounded(context.WithoutCancel(ctx), r.pool, database.Patience{LockTimeout: time.Second}, pgx.ReadWrite, r.advanceLimit, func(ctx context.Context, q *db.Queries) (bool, error) {
		return q.EventAdvance(ctx, move)
	})
	if err != nil {
		return false, fmt.Errorf("moving the cursor of events: %w", err)
	}
	return moved, nil
}
