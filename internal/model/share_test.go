package model_test

import (
	"bytes"
	"context"
	"math"
	"slices"
	"sync"

	"github.com/google/uuid"
)

// page is one reading of user ids: those from one to another, at most so many.
type page struct {
	from, through uuid.UUID
	most          int64
}

// listen finds out whom the run takes on its own account, by what it reads. Which
// of them it had to take says inTime; all candidates it must.
func (u *underWay) listen() {
	u.every = u.rules.checkEvery
	switch u.wants.kind {
	case second, takenOver, leaves, rejoins, closes:
		// Another run reads as well, or what is read is not as it was before.
		u.every = 0
	}
	if u.everybody {
		u.every = 0
	}
	isMember := func(p person) bool { return len(u.pre.membersOf(p)) > 0 }
	if u.every == 0 {
		u.view.takes = isMember
		u.wire.listen(nil)
		return
	}
	var mu sync.Mutex
	read := map[person]bool{}
	persons := u.pre.persons()
	u.wire.listen(func(p page) {
		mu.Lock()
		defer mu.Unlock()
		left := p.most
		for _, who := range persons {
			id := u.pre.ids[who]
			if left > 0 && bytes.Compare(id[:], p.from[:]) >= 0 && bytes.Compare(id[:], p.through[:]) <= 0 {
				read[who] = true
				left--
			}
		}
	})
	u.view.takes = func(p person) bool {
		if _, candidate := u.pre.ledger[p]; candidate {
			return isMember(p)
		}
		mu.Lock()
		defer mu.Unlock()
		return read[p]
	}
}

// inTime: whoever is not asked about now can wait for the next run, as long after
// this one as this one is after the last, and if that is missed for one more; of
// nobody else the last run had no answer.
func (u *underWay) inTime() {
	since := moment(0)
	if u.pre.lastShare != nil {
		since = u.begun - *u.pre.lastShare
	}
	taken := 0
	for _, p := range u.pre.persons() {
		switch age := u.begun - u.pre.known[p]; {
		case u.view.takes(p):
			taken++
		case u.pre.lastShare == nil:
			u.t.Fatalf("run %d, the first, does not ask about u%02d", u.view.id, p)
		case u.view.approval != nil:
			u.t.Fatalf("run %d goes by an approval and does not ask about u%02d", u.view.id, p)
		case u.pre.unknown[p]:
			u.t.Fatalf("run %d does not ask about u%02d, of whom the last one knew nothing", u.view.id, p)
		case hours(age)+2*hours(since) >= hours(u.every):
			u.t.Fatalf("run %d, %d h after the last one, does not ask about u%02d, known for %d h; every %d h were promised",
				u.view.id, hours(since), p, hours(age), hours(u.every))
		}
	}
	switch all := len(u.pre.persons()); {
	case u.every == 0:
	case taken == all:
		u.tally.count(runEnds, "asked about everybody")
	default:
		u.tally.count(runEnds, "asked about a share")
	}
}

// covered takes over whom the run has written down as checked, if it has.
func (u *underWay) covered() {
	v := u.view
	if v.id == 0 {
		return
	}
	var wrote bool
	if err := u.admin.QueryRow(context.Background(), `SELECT EXISTS (SELECT FROM orphan_coverage WHERE run_id = $1)`, v.id).Scan(&wrote); err != nil {
		u.t.Fatalf("reading who was checked: %v", err)
	}
	if !wrote {
		for _, p := range u.pre.persons() {
			if _, candidate := u.pre.ledger[p]; v.merged && !v.over && !candidate && v.takes(p) && v.scan(p) != void {
				u.t.Fatalf("run %d wrote the ledger, and not that it checked u%02d", v.id, p)
			}
		}
		return
	}
	newest := u.lastShare == nil || *u.lastShare <= u.begun
	if newest {
		u.lastShare = new(u.begun)
	}
	for _, p := range u.pre.persons() {
		if !v.takes(p) {
			continue
		}
		said := v.scan(p)
		if said != void {
			u.known[p] = max(u.known[p], u.begun)
		}
		if newest {
			u.unknown[p] = said == void
		}
	}
}

// checkCoverage: nobody is written down as checked since the last correct answer.
func (h *history) checkCoverage() {
	rows, err := h.admin.Query(context.Background(), `SELECT from_user, coalesce(extract(EPOCH FROM now() - checked_at) / 3600, 'Infinity')::float8 FROM orphan_coverage ORDER BY from_user`)
	if err != nil {
		h.t.Fatalf("reading who was checked: %v", err)
	}
	defer rows.Close()
	type part struct {
		from uuid.UUID
		age  float64 // hours
	}
	parts := []part{{age: math.Inf(1)}}
	for rows.Next() {
		var from uuid.UUID
		var age float64
		if err := rows.Scan(&from, &age); err != nil {
			h.t.Fatalf("reading who was checked: %v", err)
		}
		parts = append(parts, part{from, age})
	}
	if rows.Err() != nil {
		h.t.Fatalf("reading who was checked: %v", rows.Err())
	}
	for _, p := range h.persons() {
		id := h.ids[p]
		i := len(parts) - 1
		for bytes.Compare(parts[i].from[:], id[:]) > 0 {
			i--
		}
		if told, known := parts[i].age, float64(h.now-h.known[p])/float64(hour); math.Round(told) < math.Round(known) {
			h.t.Fatalf("u%02d is said to have been checked %.0f h ago, and has been known for %.0f h", p, told, known)
		}
	}
	if most := 4*len(h.ids) + 10; len(parts) > most || !slices.IsSortedFunc(parts, func(a, b part) int { return bytes.Compare(a.from[:], b.from[:]) }) {
		h.t.Fatalf("%d ranges are kept of %d persons", len(parts), len(h.ids))
	}
}
