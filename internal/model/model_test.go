package model_test

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// moment is a time of the model: whole hours that have passed, and a tick for
// each step. A step is later than those before it, by less than any rule minds.
type moment int64

const hour moment = 1 << 32

// lease of every run. Steps of one history take seconds, so a silent run is
// given up exactly when the model lets an hour pass.
const lease = 10 * time.Minute

// key names a membership; person and place count through the history's users
// and conversations.
type (
	person int
	place  int
	key    struct {
		place  place
		person person
	}
)

func (k key) String() string { return fmt.Sprintf("c%d/u%02d", k.place, k.person) }

// member is one incarnation of a membership: who leaves and joins again is
// another. Its tag is the row's user_public_key, unique in the history.
type member struct {
	key
	tag    string
	role   string
	muted  bool
	joined moment
	read   *moment // when a message was last read
	// The timestamps as the row holds them, moved along as time passes.
	joinedAt time.Time
	lastRead *time.Time
}

// candidate is a row of the ledger.
type candidate struct {
	first, last moment
	run         int64
	sightings   int
	evidence    string
}

type hold struct {
	id     int64
	person *person
	place  *place
	until  *moment
	run    int64 // the restore that placed it, 0: somebody
}

type approval struct {
	id, run int64
	expires moment
	over    bool // used or revoked
}

// deletion is a row of the audit; run 0 is the application.
type deletion struct {
	member
	run int64
	at  moment
}

// rules are the settings of a run that decide who goes.
type rules struct {
	retention, maxGap moment
	newMissingShare   float64
	deleteMembers     int64
	recentlyActive    int64
	checkEvery        moment   // 0: every run asks about everybody
	alive, dead       []person // canaries
}

func (r rules) isCanary(p person) bool {
	return slices.Contains(r.alive, p) || slices.Contains(r.dead, p)
}

// openRun is a run that was killed: nobody ended it.
type openRun struct {
	id    int64
	heard moment
}

// model is what the two databases must hold, by the rules as they are written
// in docs/guarantees.md and not as they are programmed.
type model struct {
	now       moment
	ids       []uuid.UUID // of each person
	living    map[person]bool
	hasShadow bool
	shadow    map[person]moment // deleted_at of the shadow table
	members   map[key]*member
	holds     []hold
	paused    bool
	ledger    map[person]candidate
	refusals  map[int64]map[person]bool // is it due?
	approvals []approval
	gone      []deletion
	departed  map[person]bool // who left the ledger: known to be alive again?
	closed    map[place]bool  // no such conversation at the moment
	restores  map[int64]givenBack
	started   map[int64]moment // when each run began
	open      *openRun
	lastEnd   moment // the newest moment that any run has recorded
	// Since when each member's person has been known: the start of the last run that wrote down
	// that it had a correct answer, or when the person became a member.
	known map[person]moment
	// Of whom the last run that wrote down whom it checked had no correct answer.
	unknown   map[person]bool
	lastShare *moment // when that run began
	tags      int
}

// tick makes the next step later than the last one.
func (m *model) tick() { m.now++ }

// persons are those with a membership, in the order of their ids: the order in
// which a run meets them.
func (m *model) persons() []person {
	seen := map[person]bool{}
	for k := range m.members {
		seen[k.person] = true
	}
	return m.sorted(seen)
}

func (m *model) sorted(set map[person]bool) []person {
	var list []person
	for p, in := range set {
		if in {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b person) int { return bytes.Compare(m.ids[a][:], m.ids[b][:]) })
	return list
}

func (m *model) membersOf(p person) []*member {
	var list []*member
	for k, row := range m.members {
		if k.person == p {
			list = append(list, row)
		}
	}
	slices.SortFunc(list, func(a, b *member) int { return int(a.place - b.place) })
	return list
}

func (m *model) inForce(h hold) bool { return h.until == nil || *h.until > m.now }

func (m *model) personHeld(p person) bool {
	return slices.ContainsFunc(m.holds, func(h hold) bool { return h.person != nil && *h.person == p && m.inForce(h) })
}

func (m *model) placeHeld(c place) bool {
	return slices.ContainsFunc(m.holds, func(h hold) bool { return h.place != nil && *h.place == c && m.inForce(h) })
}

// clock is the ledger's entry of a person who is missing now: guarantee 2.
func (m *model) clock(p person, r rules) candidate {
	old, known := m.ledger[p]
	next := candidate{first: m.now, last: m.now, sightings: 1, evidence: "sightings"}
	if known && m.now-old.last <= r.maxGap {
		next.first, next.sightings, next.evidence = old.first, old.sightings+1, old.evidence
	}
	if gone, evident := m.shadow[p]; evident && m.hasShadow && gone < next.first {
		next.first, next.evidence = gone, "shadow"
	}
	return next
}

func (m *model) isOld(first moment, r rules) bool { return m.now-first >= r.retention }
func (m *model) isYoung(row *member, r rules) bool {
	return m.now-row.joined <= r.retention
}

// approvalInForce is the oldest approval that a run may go by.
func (m *model) approvalInForce() *approval {
	for i := range m.approvals {
		if a := &m.approvals[i]; !a.over && a.expires > m.now {
			return a
		}
	}
	return nil
}

// findings are what a run must find out and report once it has asked about
// everybody.
type findings struct {
	checked, missing, unknown, fresh, unforeseen int64
	due, membersDue, unapproved, young, held     int64
	active                                       int64 // missing, and read a message within a day
	total                                        int64
	breaker                                      string // refuses the run
	nothingSwept                                 bool   // too many void answers, or no answer about a canary
}

// findings judges the first asking.
func (m *model) findings(v *view, r rules) findings {
	f := findings{}
	calls, voidCalls := 0, 0
	for _, call := range v.first {
		calls++
		if call.void {
			voidCalls++
		}
	}
	f.nothingSwept = voidCalls*10 > calls
	for _, p := range m.persons() {
		if !v.takes(p) {
			continue
		}
		f.total += int64(len(m.membersOf(p)))
		verdict := v.scan(p)
		if verdict == void {
			f.unknown++
			continue
		}
		f.checked++
		if verdict == present {
			continue
		}
		f.missing++
		if slices.ContainsFunc(m.membersOf(p), func(row *member) bool { return row.read != nil && m.now-*row.read < 24*hour }) {
			f.active++
		}
		foreseen, isApproved := false, false
		if v.approval != nil {
			isApproved, foreseen = m.refusals[v.approval.run][p]
		}
		if _, known := m.ledger[p]; !known {
			f.fresh++
			if !foreseen {
				f.unforeseen++
			}
		}
		if !m.isOld(m.clock(p, r).first, r) {
			continue
		}
		held := m.personHeld(p)
		covered := v.approval == nil || isApproved
		if !held && covered {
			f.due++
		}
		for _, row := range m.membersOf(p) {
			switch {
			case held || m.placeHeld(row.place):
				f.held++
			case m.isYoung(row, r):
				f.young++
			default:
				if covered {
					f.membersDue++
				}
				if v.approval == nil {
					f.unapproved++
				}
			}
		}
	}
	for _, p := range slices.Concat(r.alive, r.dead) {
		if v.scan(p) == void {
			f.nothingSwept = true
		}
	}
	f.breaker = m.breaker(f, v, r)
	return f
}

func (m *model) breaker(f findings, v *view, r rules) string {
	is := func(want verdict) func(person) bool {
		return func(p person) bool { return v.scan(p) == want }
	}
	switch {
	case f.nothingSwept:
		return ""
	case m.lastEnd > m.now:
		return "clock"
	case slices.ContainsFunc(r.alive, is(missing)):
		return "canary-alive"
	case slices.ContainsFunc(r.dead, is(present)):
		return "canary-dead"
	case f.active > r.recentlyActive && float64(f.active) > 0.001*float64(f.checked):
		return "recently-active"
	case f.unforeseen > 50 && float64(f.unforeseen) > r.newMissingShare*float64(f.checked):
		return "new-missing-share"
	case f.unapproved > r.deleteMembers:
		return "delete-members"
	}
	return ""
}

// refuse keeps what an approval would be about.
func (m *model) refuse(v *view, r rules) map[person]bool {
	kept := map[person]bool{}
	for _, p := range m.persons() {
		if v.scan(p) != missing || !v.takes(p) {
			continue
		}
		_, known := m.ledger[p]
		if due := m.isOld(m.clock(p, r).first, r); due || !known {
			kept[p] = due
		}
	}
	return kept
}

// merged is the ledger after a run was let pass, and how many left it alive.
func (m *model) merged(v *view, r rules) (ledger map[person]candidate, returned int64) {
	ledger = map[person]candidate{}
	for p, old := range m.ledger {
		switch {
		case !v.asked(p) || !v.isMember[p]:
			// no member left: nobody asks, unless as a canary or one who departed
		case v.scan(p) == void:
			ledger[p] = old
		case v.scan(p) == present:
			if len(m.membersOf(p)) > 0 {
				returned++
			}
		}
	}
	for p := range v.scanned {
		if v.isMember[p] && v.scan(p) == missing {
			next := m.clock(p, r)
			next.run = v.id
			ledger[p] = next
		}
	}
	return ledger, returned
}

// due says whether a run that has merged asks about a person again.
func (m *model) due(p person, v *view, r rules) bool {
	entry, known := m.ledger[p]
	if !known || entry.run != v.id || !m.isOld(entry.first, r) || m.personHeld(p) {
		return false
	}
	return v.approval == nil || m.refusals[v.approval.run][p]
}

// deletable are the members that a run which has merged may delete as things
// stand, and must have deleted when it ends: guarantees 1, 2, 3, 6 and 7.
func (m *model) deletable(v *view, r rules) map[key]bool {
	set := map[key]bool{}
	if m.paused || !v.merged || v.over {
		return set
	}
	for _, p := range m.persons() {
		if v.scan(p) != missing || v.last(p) != missing || !m.due(p, v, r) {
			continue
		}
		for _, row := range m.membersOf(p) {
			if !m.isYoung(row, r) && !m.placeHeld(row.place) {
				set[row.key] = true
			}
		}
	}
	return set
}
