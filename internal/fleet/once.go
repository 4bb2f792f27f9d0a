package fleet

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
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
	source := f.merge(ctx)
	defer source.close()
	batches := make(chan scan.Batch, f.Settings.Concurrency)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		all := scan.Scan{
			Source: source, Canaries: canary.New(nil, nil), BatchSize: f.Settings.BatchSize, PageUsers: int64(f.Settings.PageUsers),
			Limit: math.MaxInt64, NoRechecks: true,
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
	f.Log.Info("Each user of the fleet is checked", "users", len(a.checked), "missing", len(a.missing), "shards", len(source.streams))
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

// merge opens all shards that can be reached.
func (f *Fleet) merge(ctx context.Context) *merged {
	patience := database.Patience{Log: f.Log, Attempts: f.Settings.Attempts, LockTimeout: f.Settings.LockTimeout}
	streams := Each(f.Shards, f.Workers, func(_ int, shard Shard) *stream {
		pool, err := f.Open(ctx, shard)
		if err != nil {
			f.Log.Warn("A shard is away, its users are not checked with the others", "shard", shard.Name, "error", err)
			return nil
		}
		return &stream{of: &scan.Database{Pool: pool, Patience: patience, Seen: func(int64) {}}}
	})
	return &merged{slices.DeleteFunc(streams, func(s *stream) bool { return s == nil })}
}

func (m *merged) close() {
	for _, s := range m.streams {
		s.of.Pool.Close()
	}
}

// stream is one shard's users from a page on.
type stream struct {
	of   *scan.Database
	page []uuid.UUID
	last bool // no page follows
}

// merged is the sorted users of many shards, each once.
type merged struct{ streams []*stream }

// Page is the next distinct users of all shards. What a shard's page has beyond them is
// kept for the next one.
func (m *merged) Page(ctx context.Context, from uuid.UUID, most int64) ([]uuid.UUID, error) {
	users := make([]uuid.UUID, 0, most)
	for int64(len(users)) < most {
		if err := m.fill(ctx, from, most); err != nil {
			return nil, err
		}
		var least *uuid.UUID
		for _, s := range m.streams {
			if len(s.page) > 0 && (least == nil || slices.Compare(s.page[0][:], least[:]) < 0) {
				least = &s.page[0]
			}
		}
		if least == nil {
			return users, nil
		}
		if users = append(users, *least); *least == uuid.Max {
			return users, nil
		}
		from = scan.Following(*least)
	}
	return users, nil
}

// fill drops who is before from, and has each shard whose page is empty read the next.
func (m *merged) fill(ctx context.Context, from uuid.UUID, most int64) error {
	var empty []*stream
	for _, s := range m.streams {
		for len(s.page) > 0 && slices.Compare(s.page[0][:], from[:]) < 0 {
			s.page = s.page[1:]
		}
		if len(s.page) == 0 && !s.last {
			empty = append(empty, s)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range empty {
		group.Go(func() (err error) {
			s.page, err = s.of.Page(ctx, from, most)
			s.last = int64(len(s.page)) < most
			return err
		})
	}
	return group.Wait()
}

// Others are nobody: the range is everybody.
func (m *merged) Others(context.Context, uuid.UUID, int64) ([]uuid.UUID, error) { return nil, nil }

// Holders are nobody's concern here.
func (m *merged) Holders(context.Context, []uuid.UUID) ([]uuid.UUID, error) { return nil, nil }

// Canaries are each shard's own.
func (m *merged) Canaries(context.Context, int32) ([]uuid.UUID, error) { return nil, nil }

// Rechecks are each shard's own.
func (m *merged) Rechecks(context.Context, int) ([]uuid.UUID, error) { return nil, nil }
