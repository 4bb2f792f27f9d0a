// Package scan cuts the users of a run into batches of exactly the size of a
// call: the distinct users of a range of ids in their order, candidates outside of
// it, canaries that have no rows, and users to be rechecked.
package scan

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/canary"
)

// Batch is what one call checks: users who have rows, then canaries without any,
// then rechecks. The latter two are only looked at.
type Batch struct {
	IDs      []uuid.UUID
	Users    int // of IDs, at its beginning
	Rechecks int // of IDs, at its end
}

// Source is where the users come from. Pages are in the order of ids.
type Source interface {
	// Page returns the next distinct users from one on, at most so many.
	Page(ctx context.Context, from uuid.UUID, most int64) ([]uuid.UUID, error)
	// Others returns the next users who are checked whatever the range, from one on.
	Others(ctx context.Context, from uuid.UUID, most int64) ([]uuid.UUID, error)
	// Holders returns those of the users who have rows.
	Holders(ctx context.Context, users []uuid.UUID) ([]uuid.UUID, error)
	// Canaries returns users who were alive in many earlier runs, or none.
	Canaries(ctx context.Context, most int32) ([]uuid.UUID, error)
	// Rechecks returns at most so many users whose rows were deleted.
	Rechecks(ctx context.Context, most int) ([]uuid.UUID, error)
}

// Scan is one pass. Set what is above the blank line.
type Scan struct {
	Source     Source
	Canaries   *canary.Canaries
	BatchSize  int
	PageUsers  int64
	After      *uuid.UUID // the range begins behind this id; nil: at the first
	Limit      int64      // users of the range, at most
	NoRechecks bool       // of a dry run: it could not write down where it stopped

	Through   *uuid.UUID // the range ended with this id; nil: at the last
	Covered   int64      // users of the range
	Rechecked uuid.UUID  // the last user of the rechecks: the next run goes on behind it

	out  chan<- Batch
	next Batch
	sent int
}

// Rechecks fill the free places of the last batch, and a tenth as many batches more.
const (
	recheckShare = 10
	recheckUsers = 10_000 // at most, in one run
)

// Where no canary is configured, a run chooses so many users itself, or none where there
// are too few to speak of a share. A quarter of them may be missing, which no raised
// limit and no approval changes: whoever deletes that many users at once configures
// canaries.
const (
	chosenCanaries = 100
	fewestCanaries = 20
	missingShare   = 0.25
)

// Run sends all batches; only the last one may be smaller than BatchSize.
func (s *Scan) Run(ctx context.Context, out chan<- Batch) error {
	s.out = out
	if err := s.chooseCanaries(ctx); err != nil {
		return err
	}
	if err := s.scanRange(ctx); err != nil {
		return err
	}
	if s.After != nil || s.Through != nil {
		if err := s.scanOthers(ctx); err != nil {
			return err
		}
	}
	for _, id := range s.Canaries.Unmet() {
		if err := s.add(ctx, id); err != nil {
			return err
		}
	}
	if err := s.scanRechecks(ctx); err != nil || len(s.next.IDs) == 0 {
		return err
	}
	return s.send(ctx)
}

func (s *Scan) chooseCanaries(ctx context.Context) error {
	if s.Canaries.Configured() {
		return nil
	}
	chosen, err := s.Source.Canaries(ctx, chosenCanaries)
	if err == nil && len(chosen) >= fewestCanaries {
		s.Canaries.Choose(chosen, missingShare)
	}
	return err
}

func (s *Scan) send(ctx context.Context) error {
	select {
	case s.out <- s.next:
		s.next = Batch{IDs: make([]uuid.UUID, 0, s.BatchSize)}
		s.sent++
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Scan) add(ctx context.Context, id uuid.UUID) error {
	if s.next.IDs = append(s.next.IDs, id); len(s.next.IDs) == s.BatchSize {
		return s.send(ctx)
	}
	return nil
}

func (s *Scan) addUsers(ctx context.Context, users []uuid.UUID) error {
	for _, user := range users {
		s.Canaries.Met(user)
		s.next.Users++
		if err := s.add(ctx, user); err != nil {
			return err
		}
	}
	return nil
}

// scanRange adds the users behind After, page by page, and notes where it ended.
func (s *Scan) scanRange(ctx context.Context) error {
	from := uuid.Nil
	if s.After != nil {
		from = Following(*s.After)
	}
	for s.Covered < s.Limit {
		most := min(s.PageUsers, s.Limit-s.Covered)
		page, err := s.Source.Page(ctx, from, most)
		if err != nil {
			return err
		}
		if err := s.addUsers(ctx, page); err != nil {
			return err
		}
		s.Covered += int64(len(page))
		if isLast(page, most) {
			s.Through = nil
			return nil
		}
		s.Through = &page[len(page)-1]
		from = Following(*s.Through)
	}
	return nil
}

// scanOthers adds who is outside of the range and has rows.
func (s *Scan) scanOthers(ctx context.Context) error {
	inRange := func(id uuid.UUID) bool {
		return (s.After == nil || slices.Compare(id[:], s.After[:]) > 0) && (s.Through == nil || slices.Compare(id[:], s.Through[:]) <= 0)
	}
	for from := uuid.Nil; ; {
		page, err := s.Source.Others(ctx, from, s.PageUsers)
		if err != nil {
			return err
		}
		last := isLast(page, s.PageUsers)
		if !last {
			from = Following(page[len(page)-1])
		}
		holders, err := s.Source.Holders(ctx, slices.DeleteFunc(page, inRange))
		if err != nil {
			return err
		}
		if err := s.addUsers(ctx, holders); err != nil || last {
			return err
		}
	}
}

func (s *Scan) scanRechecks(ctx context.Context) error {
	room, sent := 0, s.sent
	if len(s.next.IDs) > 0 {
		room = s.BatchSize - len(s.next.IDs)
		sent++
	}
	room = min(room+sent/recheckShare*s.BatchSize, recheckUsers)
	if room == 0 || s.NoRechecks {
		return nil
	}
	users, err := s.Source.Rechecks(ctx, room)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		s.Rechecked = users[len(users)-1]
	}
	for _, user := range users {
		if slices.Contains(s.next.IDs, user) { // has rows again, or is a canary
			continue
		}
		s.next.Rechecks++
		if err := s.add(ctx, user); err != nil {
			return err
		}
	}
	return nil
}

// isLast says that no page follows.
func isLast(page []uuid.UUID, most int64) bool {
	return int64(len(page)) < most || page[len(page)-1] == uuid.Max
}

// Following is the next id in the order of the database, byte by byte.
func Following(id uuid.UUID) uuid.UUID {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]++
		if id[i] != 0 {
			break
		}
	}
	return id
}
