package model_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// part is the range of ids that a run has read.
type part struct {
	mu      sync.Mutex
	persons map[person]bool
	last    *person // nil: none
	toEnd   bool
}

// read takes in one page: the persons from an id on, at most so many.
func (r *part) read(m *model, from uuid.UUID, most int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range m.persons() {
		if id := m.ids[p]; bytes.Compare(id[:], from[:]) < 0 {
			continue
		}
		if most == 0 {
			return
		}
		r.persons[p], r.last = true, &p
		most--
	}
	r.toEnd = r.toEnd || most > 0
}

func (r *part) has(p person) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.persons[p]
}

// listen finds out whom the run checks, by what it reads. Whom it has to read says
// inTime; candidates and users without a valid response so far it must check. It
// also notes when the run takes a snapshot, and of whom. Call what it returns when
// the run has ended.
func (u *underWay) listen() (stop func()) {
	u.every = u.rules.checkEvery
	switch u.wants.kind {
	case second, takenOver, leaves, rejoins, rejoinsOld, closes:
		// Another run reads as well, or what is read is not as it was before.
		u.every = 0
	}
	if u.everybody {
		u.every = 0
	}
	u.part = &part{persons: map[person]bool{}, toEnd: u.every == 0}
	isMember := func(p person) bool { return len(u.pre.membersOf(p)) > 0 }
	u.view.takes, u.view.inRange = isMember, isMember
	if u.every > 0 {
		u.view.inRange = u.part.has
		u.view.takes = func(p person) bool {
			_, isCandidate := u.pre.ledger[p]
			return isMember(p) && (isCandidate || u.pre.unknown[p] || u.part.has(p))
		}
	}
	before := u.wire.listen(func(name string, args []any) {
		switch name {
		case "UserPage":
			if args[0] == members.String() { // only in them are rows where a run checks a part
				u.part.read(&u.pre, args[1].(uuid.UUID), args[2].(int64))
			}
		case "SnapshotOldest":
			u.part.mu.Lock()
			defer u.part.mu.Unlock()
			u.view.snapshot = u.step
		case "RunSweepChunk":
			u.part.mu.Lock()
			defer u.part.mu.Unlock()
			for _, id := range args[2].([]uuid.UUID) {
				u.view.snapshots[u.auditor.persons[id]] = u.view.snapshot
			}
		}
	})
	return func() { u.wire.listen(before) }
}

// inTime: a user who is not checked now was not forgotten. While runs are judged on a
// beat, of which one in a row may be missed, and at least six times in CHECK_EVERY,
// each user is checked within CHECK_EVERY: guarantee 13.
func (u *underWay) inTime() {
	taken := 0
	for _, p := range u.pre.persons() {
		switch {
		case u.view.takes(p):
			taken++
		case len(u.pre.passed) == 0:
			u.t.Fatalf("run %d, the first, does not check u%02d", u.view.id, p)
		case u.view.approval != nil && !u.view.dry:
			u.t.Fatalf("run %d goes by an approval and does not check u%02d", u.view.id, p)
		case u.pre.unknown[p]:
		default:
			least, most := u.beat(p)
			if age := u.begun - u.pre.known[p]; age >= u.every && most <= 2*least && 6*most <= u.every {
				u.t.Fatalf("run %d does not check u%02d, known for %d h; every %d h were promised, runs came after %d to %d h",
					u.view.id, p, hours(age), hours(u.every), hours(least), hours(most))
			}
		}
	}
	switch all := len(u.pre.persons()); {
	case u.every == 0:
	case taken == all:
		u.tally.count(runEnds, "checked everybody")
	default:
		u.tally.count(runEnds, "checked a part")
	}
}

// beat is the shortest and the longest time between judged runs since a person was known,
// in whole hours.
func (u *underWay) beat(p person) (least, most moment) {
	times := []moment{u.begun}
	for _, run := range slices.Backward(u.pre.passed) {
		times = append(times, run.at)
		if run.at < u.pre.known[p] {
			break
		}
	}
	least = math.MaxInt64
	for i := range times[1:] {
		gap := (times[i]/hour - times[i+1]/hour) * hour
		least, most = min(least, gap), max(most, gap)
	}
	return least, most
}

// covers takes over whom a judged run has checked.
func (u *underWay) covers() {
	v := u.view
	for _, p := range u.pre.persons() {
		if v.takes(p) && v.scan(p) != invalid {
			u.known[p], u.heard[p] = max(u.known[p], u.begun), true
		}
	}
	unknown := map[person]bool{}
	for _, p := range u.pre.persons() {
		if v.takes(p) && v.checked(p) && v.scan(p) == invalid {
			unknown[p] = true
		}
	}
	u.unknown = unknown
	switch {
	case u.part.toEnd:
		u.coveredAll = true
	case u.part.last != nil && !u.isCovered(*u.part.last):
		u.covered = u.part.last
	}
}

// countUsers takes over how many users there are, as it was written down: the limits go
// by it where runs check a part of them.
func (u *underWay) countUsers() {
	if err := u.admin.QueryRow(context.Background(), `SELECT users FROM orphan_cleaner.coverage`).Scan(&u.users); err != nil {
		u.t.Fatalf("reading how many users there are: %v", err)
	}
	if all := int64(len(u.pre.persons())); u.every == 0 && !u.wants.changes() && u.users != all {
		u.t.Fatalf("run %d met %d users, and wrote down %d", u.view.id, all, u.users)
	}
}

// checkCoverage: nobody is written down as checked since the last valid response.
func (h *history) checkCoverage() {
	state, err := db.New(h.admin).CoverageState(context.Background())
	if errors.Is(err, pgx.ErrNoRows) {
		if len(h.passed) > 0 {
			h.t.Fatalf("%d runs were judged, and nothing is written down of whom they checked", len(h.passed))
		}
		return
	} else if err != nil {
		h.t.Fatalf("reading who was checked: %v", err)
	}
	if state.IsWhole != h.coveredAll {
		h.t.Fatalf("that every user was checked is %t, and written down as %t", h.coveredAll, state.IsWhole)
	}
	var unknown []string
	for p := range h.unknown {
		unknown = append(unknown, h.ids[p].String())
	}
	h.same("users without a valid response", unknown, h.lines(`SELECT user_id::text FROM orphan_cleaner.unknowns`))
	if !state.IsWhole {
		return
	}
	var told float64 // hours
	if err := h.admin.QueryRow(context.Background(), `SELECT extract(EPOCH FROM now() - $1::timestamptz)::float8 / 3600`, state.CheckedSince).Scan(&told); err != nil {
		h.t.Fatalf("reading the clock: %v", err)
	}
	for _, p := range h.persons() {
		if h.unknown[p] && !h.heard[p] {
			continue // counted, and dated by the first run that heard nothing
		}
		if age := float64(h.now-h.known[p]) / float64(hour); math.Round(age) > math.Round(told) {
			h.t.Fatalf("every user is said to have been checked %.0f h ago, and u%02d was %.0f h ago", told, p, age)
		}
	}
}
