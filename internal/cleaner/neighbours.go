package cleaner

import (
	"context"
	"math"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/wait"
)

const (
	// neighbourRate is how many transactions a second make others busy. Monitoring
	// and the other replicas of serve make fewer.
	neighbourRate = 10
	// neighbourLag is how many of our own transactions PostgreSQL may not have
	// counted yet at the first look: it does so once a second, and a preflight
	// makes some twenty.
	neighbourLag = 50
	// gentleShare is the part of the time in which a gentle sweep works.
	gentleShare = 8
	// gentleChunk is the part of the usual time that its chunks last: what one has
	// written to the log, the next COMMIT of somebody else waits for.
	gentleChunk = 25
)

// neighbours are the others who work with the database.
type neighbours struct {
	since              time.Time
	transactions, ours int64
}

// lookAround counts transactions: all that the database has seen, and ours. A
// count that fails is no reason not to run.
func (r *run) lookAround(ctx context.Context) (n neighbours) {
	n.since = time.Now()
	// Every transaction and every single statement acquires a connection once.
	n.ours = r.pool.Stat().AcquireCount()
	all, err := read(ctx, r.Cleaner, "counting transactions", func(ctx context.Context, q *db.Queries) (int64, error) {
		return q.NeighbourActivity(ctx)
	})
	if err != nil {
		r.log.Warn("Whether others are at work is not known", "error", err)
	}
	n.transactions = all
	return n
}

// busySince returns the transactions of others a second from one look to the
// next, where they are many, else 0.
func (n neighbours) busySince(before neighbours) float64 {
	if n.transactions == 0 || before.transactions == 0 {
		return 0
	}
	others := n.transactions - before.transactions - (n.ours - before.ours) - neighbourLag
	rate := float64(others) / n.since.Sub(before.since).Seconds()
	if rate < neighbourRate {
		return 0
	}
	return rate
}

// makeWay looks whether others are at work. A run does one thing at a time from
// then on, where it would do two, and sweeps gently: its chunks are short, and it
// rests after each.
func (r *run) makeWay(ctx context.Context) {
	if r.gentle {
		return
	}
	if rate := r.lookAround(ctx).busySince(r.around); rate > 0 {
		r.goGently()
		r.log.Debug("Going gently: others are at work", "their_transactions_per_second", math.Round(rate))
	}
}

func (r *run) goGently() {
	r.connections, r.gentle = 1, true
	r.pace.target /= gentleChunk
}

// rest lets others go first for a while, after so much work, where there are others.
// What took longer than a chunk should was waiting, mostly.
func (r *run) rest(ctx context.Context, worked time.Duration) error {
	if !r.gentle {
		return nil
	}
	return wait.For(ctx, (gentleShare-1)*min(worked, r.cfg.ChunkTarget))
}
