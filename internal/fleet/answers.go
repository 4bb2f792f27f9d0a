package fleet

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math/big"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

// Range is of user ids, from the first through the last.
type Range struct{ First, Last uuid.UUID }

// AllIDs is the range of every user.
func AllIDs() Range { return Range{Last: uuid.Max} }

func compare(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

func (r Range) has(id uuid.UUID) bool { return compare(r.First, id) <= 0 && compare(id, r.Last) <= 0 }

// behind is what is left of a range behind an id of it, or nil.
func (r Range) behind(id uuid.UUID) *Range {
	if id == r.Last {
		return nil
	}
	return &Range{idOf(new(big.Int).Add(number(id), big.NewInt(1))), r.Last}
}

// Cut returns ranges of equal width that together are this one: so many, or as many as it
// has ids.
func (r Range) Cut(parts int) (all []Range) {
	width := new(big.Int).Sub(number(r.Last), number(r.First))
	for i, next := 1, &r; next != nil; i++ {
		part := new(big.Int).Mul(width, big.NewInt(int64(i)))
		last := idOf(part.Add(part.Div(part, big.NewInt(int64(parts))), number(r.First)))
		if next.has(last) {
			all = append(all, Range{next.First, last})
			next = r.behind(last)
		}
	}
	return all
}

func number(id uuid.UUID) *big.Int { return new(big.Int).SetBytes(id[:]) }

func idOf(n *big.Int) (id uuid.UUID) {
	n.FillBytes(id[:])
	return id
}

// Answer is what auth-service said of the users of a range, each checked once.
type Answer struct {
	Range
	Checked []byte      // a fold of each user with a valid response, 8 bytes, sorted
	Missing []uuid.UUID // of them, sorted
	Until   time.Time   // older ones are no evidence; zero: nothing is known
}

const foldBytes = 8

// fold is half of an id. That two of n users of a range have the same one is n²/2⁶⁵ likely;
// the second one, if nobody had checked it, would be taken for alive.
func fold(id uuid.UUID) uint64 {
	return binary.BigEndian.Uint64(id[:8])*0x9e3779b97f4a7c15 ^ binary.BigEndian.Uint64(id[8:])
}

// says is whether the user was checked, not too long ago, and was missing.
func (a *Answer) says(id uuid.UUID) (known, missing bool) {
	if time.Now().After(a.Until) {
		return false, false
	}
	of := func(i int) uint64 { return binary.BigEndian.Uint64(a.Checked[foldBytes*i:]) }
	n := len(a.Checked) / foldBytes
	i := sort.Search(n, func(i int) bool { return of(i) >= fold(id) })
	if i == n || of(i) != fold(id) {
		return false, false
	}
	_, missing = slices.BinarySearchFunc(a.Missing, id, compare)
	return true, missing
}

// Answers are those of a run, range by range.
type Answers struct {
	log  *slog.Logger
	find func(ctx context.Context, id uuid.UUID) (*Answer, error) // nil: they are all here

	mu    sync.Mutex
	known []*Answer // the last used first
}

// near ranges stay in memory: users come in the order of ids, some batches at once.
const near = 4

// FindAnswers are those kept elsewhere: find returns the answer about the range of an id.
// It is called by one at a time.
func FindAnswers(log *slog.Logger, find func(ctx context.Context, id uuid.UUID) (*Answer, error)) *Answers {
	return &Answers{log: log, find: find}
}

// about is the answer about the range of an id; it may know nothing.
func (a *Answers) about(ctx context.Context, id uuid.UUID) *Answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := slices.IndexFunc(a.known, func(k *Answer) bool { return k.has(id) }); i >= 0 {
		found := a.known[i]
		copy(a.known[1:i+1], a.known[:i])
		a.known[0] = found
		return found
	}
	if a.find == nil {
		return &Answer{}
	}
	found, err := a.find(ctx, id)
	if err != nil {
		a.log.Warn("The results of check_users_once cannot be read, so the shard checks its users itself", "error", err)
		return &Answer{}
	}
	a.known = slices.Insert(a.known[:min(len(a.known), near-1)], 0, found)
	return found
}

// told is auth-service for the verification of one shard, by answers that are there
// already. From the end of the verification on, and so for the second check right before
// a delete, it is auth-service itself.
type told struct {
	result.Unobserved
	answers *Answers
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
	if t.isLive.Load() {
		return t.next.Missing(ctx, ids)
	}
	var missing, open []uuid.UUID
	for _, id := range ids {
		switch isKnown, isMissing := t.answers.about(ctx, id).says(id); {
		case !isKnown:
			open = append(open, id)
		case isMissing:
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
