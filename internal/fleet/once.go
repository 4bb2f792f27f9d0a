package fleet

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/internal/canary"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/scan"
)

// answers are what auth-service said of the users of all shards, each checked once.
// Whoever is not among them, without a valid response or new since, is checked by the
// shard that has them.
type answers struct {
	checked []uint64 // one fold of each user, sorted: 8 bytes a user
	missing map[uuid.UUID]bool
	until   time.Time // older ones are no evidence
}

// fold is half of an id. That two of n users have the same one is n²/2⁶⁵ likely; the
// second one, if nobody had checked it, would be taken for alive.
func fold(id uuid.UUID) uint64 {
	return binary.BigEndian.Uint64(id[:8])*0x9e3779b97f4a7c15 ^ binary.BigEndian.Uint64(id[8:])
}

func (a *answers) has(id uuid.UUID) bool {
	_, is := slices.BinarySearch(a.checked, fold(id))
	return is
}

// askOnce merges the sorted streams of all shards that can be reached and checks each
// user once, in full batches.
func (f *Fleet) askOnce(ctx context.Context) (*answers, error) {
	a := &answers{missing: map[uuid.UUID]bool{}, until: time.Now().Add(f.JobTimeout)}
	source, shards, closeAll, err := f.merge(ctx)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	batches := make(chan scan.Batch, f.Settings.Concurrency)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		all := scan.Scan{
			Source: source, Canaries: canary.New(nil, nil), BatchSize: f.Settings.BatchSize, PageUsers: int64(f.Settings.PageUsers),
			NoRechecks: true,
		}
		return all.Run(ctx, batches)
	})
	var mu sync.Mutex
	for range f.Settings.Concurrency {
		group.Go(func() error {
			for batch := range batches {
				missing, err := f.Users.Missing(ctx, batch.IDs)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					continue // nothing is known of them; each shard checks its own again
				}
				mu.Lock()
				for _, id := range batch.IDs {
					a.checked = append(a.checked, fold(id))
				}
				for _, id := range missing {
					a.missing[id] = true
				}
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(a.checked)
	f.Log.Info("Each user of the fleet is checked", "users", len(a.checked), "missing", len(a.missing), "shards", shards)
	return a, nil
}

// told is auth-service for the verification of one shard, by answers that are there
// already. From the end of the verification on, and so for the second check right before
// a delete, it is auth-service itself.
type told struct {
	result.Unobserved
	answers *answers
	next    run.Checker
	isLive  atomic.Bool
}

// PhaseDone is called by the run, which waits for it.
func (t *told) PhaseDone(phase string, _ time.Duration) {
	if phase == "verify" {
		t.isLive.Store(true)
	}
}

// Missing asks auth-service about those of the ids of whom it was not asked yet.
func (t *told) Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	if t.isLive.Load() || time.Now().After(t.answers.until) {
		return t.next.Missing(ctx, ids)
	}
	var missing, open []uuid.UUID
	for _, id := range ids {
		switch {
		case !t.answers.has(id):
			open = append(open, id)
		case t.answers.missing[id]:
			missing = append(missing, id)
		}
	}
	if len(open) == 0 {
		return missing, nil
	}
	more, err := t.next.Missing(ctx, open)
	if err != nil {
		return nil, err
	}
	return append(missing, more...), nil
}

// merge opens all shards that can be reached. Call closeAll at the end, whatever the error.
func (f *Fleet) merge(ctx context.Context) (users everybody, shards int, closeAll func(), err error) {
	pools := Each(f.Shards, f.Workers, func(_ int, shard Shard) *pgxpool.Pool {
		pool, err := f.Open(ctx, shard)
		if err != nil {
			f.Log.Warn("A shard is away, its users are not checked with the others", "shard", shard.Name, "error", err)
		}
		return pool
	})
	users = everybody{}
	closeAll = func() {
		for _, pool := range pools {
			if pool != nil {
				pool.Close()
			}
		}
	}
	patience := database.Patience{Log: f.Log, Attempts: f.Settings.Attempts, LockTimeout: f.Settings.LockTimeout}
	for i, pool := range pools {
		if pool == nil {
			continue
		}
		of := &scan.Database{Pool: pool, Patience: patience, Seen: func(string, int64) {}}
		targets, err := of.Targets(ctx)
		if err != nil {
			return users, shards, closeAll, err
		}
		for _, target := range targets {
			users[f.Shards[i].Name+" "+target] = shardTarget{of, target}
		}
		shards++
	}
	return users, shards, closeAll, nil
}

// everybody is the users of all shards: each target of each shard is a stream, and
// [scan.Scan] merges them.
type everybody map[string]shardTarget

type shardTarget struct {
	of     *scan.Database
	target string
}

// Targets are those of all shards.
func (e everybody) Targets(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(e)), nil
}

// Page is the next distinct users of one shard's target.
func (e everybody) Page(ctx context.Context, name string, from uuid.UUID, most int64) ([]uuid.UUID, error) {
	return e[name].of.Page(ctx, e[name].target, from, most)
}

// Others are nobody: the range is everybody.
func (everybody) Others(context.Context, uuid.UUID, int64) ([]uuid.UUID, error) { return nil, nil }

// Holders are nobody's concern here.
func (everybody) Holders(context.Context, []uuid.UUID) ([]uuid.UUID, error) { return nil, nil }

// Canaries are each shard's own.
func (everybody) Canaries(context.Context, int32) ([]uuid.UUID, error) { return nil, nil }

// Rechecks are each shard's own.
func (everybody) Rechecks(context.Context, int) ([]uuid.UUID, error) { return nil, nil }
