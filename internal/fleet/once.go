package fleet

import (
	"cmp"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/internal/canary"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/scan"
)

// rangeCalls are made about one range at most, and what is left of it is a range of its own: so an
// answer has one size, whatever the fleet's, and any number of processes share ranges out.
// With batches of 100 it is 0.8 MB, or 2.4 MB where everybody is missing.
const rangeCalls = 1000

// Asking is how long users are checked once, from the beginning of a run on. Both passes
// then go by what is known before that is too old.
func (f *Fleet) Asking() time.Duration { return f.JobTimeout / 2 }

// askAll checks all users in this process, a range after the other.
func (f *Fleet) askAll(ctx context.Context) (*Answers, error) {
	began, all, first := time.Now(), &Answers{}, AllIDs()
	for next := &first; next != nil; {
		answer, rest, err := f.Ask(ctx, *next, f.Asking()-time.Since(began))
		if err != nil {
			return nil, err
		}
		all.known, next = append(all.known, answer), rest
	}
	return all, nil
}

// Ask merges the sorted streams of all shards that can be reached, within a range, and
// checks each user once, in full batches. It returns the answers up to an id, and what is
// left of the range behind it. Whoever is not among the answers, because a shard went away,
// a response was invalid or the time is over, is checked by the shards: the only error is
// that ctx ended.
func (f *Fleet) Ask(ctx context.Context, within Range, lasting time.Duration) (answer *Answer, rest *Range, err error) {
	answer = &Answer{Range: within, Checked: []byte{}, Missing: []uuid.UUID{}, Until: time.Now().Add(f.JobTimeout)}
	if lasting <= 0 {
		return answer, nil, nil
	}
	asking, cancel := context.WithTimeout(ctx, lasting)
	defer cancel()
	rest, err = f.askEach(asking, answer)
	if ctx.Err() != nil {
		return nil, nil, run.ErrInterrupted
	}
	log := f.Log.With("first", answer.First, "last", answer.Last, "users", len(answer.Checked)/foldBytes, "missing", len(answer.Missing))
	if err != nil {
		log.Warn("Not all users of a range were checked once: the shards check the rest", "error", err)
	} else {
		log.Info("Checked the users of a range")
	}
	return answer, rest, nil
}

// askEach adds to an answer whatever is known when it returns, with an error too.
func (f *Fleet) askEach(ctx context.Context, answer *Answer) (rest *Range, err error) {
	users, closeAll, err := f.merge(ctx, answer.Range)
	defer closeAll()
	if err != nil {
		return nil, err
	}
	limit := cmp.Or(f.RangeCalls, rangeCalls) * f.Settings.BatchSize
	all := scan.Scan{
		Source: users, Canaries: canary.New(nil, nil), BatchSize: f.Settings.BatchSize, Limit: int64(limit), NoRechecks: true,
		// No more than a shard's part of them, where there are many.
		PageUsers: int64(min(f.Settings.PageUsers, max(f.Settings.BatchSize, limit/max(1, len(users.streams))))),
	}
	batches := make(chan scan.Batch, f.Settings.Concurrency)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		return all.Run(ctx, batches)
	})
	var mu sync.Mutex
	var folds []uint64
	for range f.Settings.Concurrency {
		group.Go(func() error {
			for batch := range batches {
				missing, err := f.Users.Missing(ctx, batch.IDs)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					continue // nothing is known of them
				}
				mu.Lock()
				for _, id := range batch.IDs {
					folds = append(folds, fold(id))
				}
				answer.Missing = append(answer.Missing, missing...)
				mu.Unlock()
			}
			return nil
		})
	}
	err = group.Wait()
	slices.Sort(folds)
	for _, fold := range folds {
		answer.Checked = binary.BigEndian.AppendUint64(answer.Checked, fold)
	}
	slices.SortFunc(answer.Missing, compare)
	if err == nil && all.Through != nil {
		rest = answer.behind(*all.Through)
		answer.Last = *all.Through
	}
	return rest, err
}

// merge opens all shards that can be reached. Call closeAll at the end, whatever the error.
func (f *Fleet) merge(ctx context.Context, within Range) (users everybody, closeAll func(), err error) {
	pools := Each(f.Shards, f.Workers, func(_ int, shard Shard) *pgxpool.Pool {
		pool, err := f.Open(ctx, shard)
		if err != nil {
			f.Log.Warn("A shard is away, its users are not checked with the others", "shard", shard.Name, "error", err)
		}
		return pool
	})
	closeAll = func() {
		for _, pool := range pools {
			if pool != nil {
				pool.Close()
			}
		}
	}
	users = everybody{within, map[string]shardTarget{}}
	for i, pool := range pools {
		if pool == nil {
			continue
		}
		of := &scan.Database{Pool: pool, Patience: f.patience(), Seen: func(string, int64) {}}
		targets, err := of.Targets(ctx)
		if err != nil {
			return users, closeAll, err
		}
		for _, target := range targets {
			users.streams[f.Shards[i].Name+" "+target] = shardTarget{of, target}
		}
	}
	return users, closeAll, nil
}

// everybody is the users of all shards, within a range: each target of each shard is a
// stream, and [scan.Scan] merges them.
type everybody struct {
	within  Range
	streams map[string]shardTarget
}

type shardTarget struct {
	of     *scan.Database
	target string
}

// Targets are those of all shards.
func (e everybody) Targets(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(e.streams)), nil
}

// Page is the next distinct users of one shard's target; the last page ends with the range.
func (e everybody) Page(ctx context.Context, name string, from uuid.UUID, most int64) ([]uuid.UUID, error) {
	if compare(from, e.within.First) < 0 {
		from = e.within.First
	}
	one := e.streams[name]
	page, err := one.of.Page(ctx, one.target, from, most)
	if i := slices.IndexFunc(page, func(id uuid.UUID) bool { return !e.within.has(id) }); i >= 0 {
		page = page[:i]
	}
	return page, err
}

// Others are nobody: the range is everybody.
func (everybody) Others(context.Context, uuid.UUID, int64) ([]uuid.UUID, error) { return nil, nil }

// Holders are nobody's concern here.
func (everybody) Holders(context.Context, []uuid.UUID) ([]uuid.UUID, error) { return nil, nil }

// Canaries are each shard's own.
func (everybody) Canaries(context.Context, int32) ([]uuid.UUID, error) { return nil, nil }

// Rechecks are each shard's own.
func (everybody) Rechecks(context.Context, int) ([]uuid.UUID, error) { return nil, nil }
