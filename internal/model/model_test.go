package model_test

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// moment is a time of the model: whole hours that have passed, and a tick for
// each step. A step is later than those before it, by less than any rule minds.
type moment int64

const hour moment = 1 << 32

// step counts the steps: the order of events, also where the clock was turned back.
type step int64

// lease of every run. Steps of one history take seconds, so a silent run is
// given up exactly when the model lets an hour pass.
const lease = 10 * time.Minute

// key names a row, mostly a membership; person and conversation count through the history's
// users and conversations. A like or a post has its conversation for its name only.
type (
	person       int
	conversation int
	key          struct {
		conversation conversation
		person       person
		table        table
	}
)

func (k key) String() string {
	if k.table == members {
		return fmt.Sprintf("c%d/u%02d", k.conversation, k.person)
	}
	return fmt.Sprintf("%s c%d/u%02d", k.table, k.conversation, k.person)
}

// isIn says whether it is a membership of the conversation.
func (k key) isIn(c conversation) bool { return k.table == members && k.conversation == c }

// member is one incarnation of a membership: who leaves and joins again is
// another. Its tag is the row's user_public_key, unique in the history. Rows of other
// tables are the same, without having been read.
type member struct {
	key
	tag     string
	role    string
	muted   bool
	joined  moment
	read    *moment // when a message was last read
	written step    // when the row was last inserted or changed
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
	approved    int64 // the refused run by whose approval it came in, 0: none
}

type hold struct {
	id           int64
	person       *person
	conversation *conversation
	until        *moment
	run          int64 // the restore that placed it, 0: somebody
}

type approval struct {
	id, run int64
	expires moment
	over    bool // used or revoked
}

// deletion is a row of the audit; run 0 is the application.
type deletion struct {
	member
	run      int64
	at       moment
	approved bool // counts in no window
}

// judged is a run that the breakers let pass.
type judged struct {
	at    moment
	fresh int64 // newly missing users whom no approval covered
	rows  counts
}

// rules are the settings of a run that decide who is deleted.
type rules struct {
	retention, maxGap moment
	limits            settings.Limits
	checkEvery        moment   // 0: every run checks everybody
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
	step      step
	ids       []uuid.UUID // of each person
	living    map[person]bool
	hasShadow bool
	shadow    map[person]moment // deleted_at of the shadow table, where it is finite and not before created_at
	members   map[key]*member
	holds     []hold
	paused    bool
	ledger    map[person]candidate
	refusals  map[int64]map[person]bool // is it due?
	approvals []approval
	gone      []deletion
	marked    map[key]int64 // the run that marked a post, which is there and looks deleted
	passed    []judged
	rechecks  map[person]bool       // who left the ledger: known to be alive again?
	closed    map[conversation]bool // no such conversation at the moment
	restores  map[int64]restored
	started   map[int64]moment // when each run began
	open      *openRun
	lastEnd   moment // the newest moment that any run has recorded
	// Since when each member's person has been known: the start of the last judged run
	// that had a valid response, or when the person became a member.
	known map[person]moment
	heard map[person]bool // had a run ever a valid response?
	// Of whom the last judged run that checked them had no valid response.
	unknown map[person]bool
	// The ids that judged runs have covered: those up to one, or all.
	covered    *person
	coveredAll bool
	users      int64 // that the last complete cycle of judged runs has met
	tags       int
}

// tick makes the next step later than the last one.
func (m *model) tick() { m.now++; m.step++ }

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
	slices.SortFunc(list, func(a, b *member) int { return compareKeys(a.key, b.key) })
	return list
}

func (m *model) inForce(h hold) bool { return h.until == nil || *h.until > m.now }

func (m *model) personHeld(p person) bool {
	return slices.ContainsFunc(m.holds, func(h hold) bool { return h.person != nil && *h.person == p && m.inForce(h) })
}

// heldByRestore says whether a restore has brought a person back of late, who is no
// news then.
func (m *model) heldByRestore(p person) bool {
	return slices.ContainsFunc(m.holds, func(h hold) bool { return h.run != 0 && *h.person == p && m.inForce(h) })
}

// conversationHeld says whether a row is a membership of a conversation on hold.
func (m *model) conversationHeld(k key) bool {
	return slices.ContainsFunc(m.holds, func(h hold) bool { return h.conversation != nil && k.isIn(*h.conversation) && m.inForce(h) })
}

// lastActive is when a person last read a message, as far as the rows say.
func (m *model) lastActive(p person) *moment {
	var last *moment
	for _, row := range m.membersOf(p) {
		if row.read != nil && (last == nil || *row.read > *last) {
			last = row.read
		}
	}
	return last
}

// activeWithinDay says whether a person read a message within the last day.
func (m *model) activeWithinDay(p person) bool {
	active := m.lastActive(p)
	return active != nil && m.now-*active < 24*hour
}

// activeSinceMissing says whether a person did so after being found missing: by an
// earlier run, or deleted by what the shadow table says. Activity before says nothing.
func (m *model) activeSinceMissing(p person) bool {
	if !m.activeWithinDay(p) {
		return false
	}
	if old, known := m.ledger[p]; known {
		return old.evidence == "activity" || *m.lastActive(p) > old.first
	}
	deleted, evident := m.evidence(p)
	return evident && *m.lastActive(p) > deleted
}

// evidence is what the shadow table says of a person whom no judged run has checked.
func (m *model) evidence(p person) (deleted moment, evident bool) {
	deleted, evident = m.shadow[p]
	return deleted, evident && m.hasShadow && !m.isCovered(p) && deleted <= m.now
}

// isCovered says whether a judged run has checked a person's id: what the shadow
// table says of this person dates nothing any more.
func (m *model) isCovered(p person) bool {
	return m.coveredAll || m.covered != nil && bytes.Compare(m.ids[p][:], m.ids[*m.covered][:]) <= 0
}

// clock is the ledger's entry of a person who is missing now: guarantee 2. restarted
// says that an older clock no longer counts.
func (m *model) clock(p person, r rules) (next candidate, restarted bool) {
	old, known := m.ledger[p]
	next = candidate{first: m.now, last: m.now, evidence: "sightings", approved: old.approved}
	deleted, evident := m.evidence(p)
	switch {
	case known && m.now-old.last <= r.maxGap:
		next.first, next.evidence = old.first, old.evidence
	case !known && evident:
		next.first, next.evidence = deleted, "shadow"
	}
	if active := m.lastActive(p); active != nil && min(*active, m.now) > next.first {
		next.first, next.evidence = min(*active, m.now), "activity"
	}
	restarted = known && old.first < next.first
	if next.sightings = 1; known && !restarted {
		next.sightings = old.sightings + 1
	}
	return next, restarted
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

// findings are what a run must find out and report once it has checked everybody.
type findings struct {
	checked, missing, unknown, fresh, restarted int64
	due                                         int64
	rowsDue, young, held                        counts
	total                                       counts // rows of the users in its range
	active                                      int64  // active within a day, after they were found missing
	// Of these, what no approval covers.
	freshJudged, candidatesJudged int64
	rowsJudged                    counts
	breaker                       string // refuses the run
	// breakerLater is breaker if the real clock came to another hour while the history
	// was played: windows are of whole hours.
	breakerLater string
	// May the table look as if it was not read whole? It need not: whom runs took out of the
	// ledger since are no loss, and of a cycle in parts only the last one tells.
	fellByHalf   bool
	nothingSwept bool // too many invalid responses, or none about a canary
	// More than a tenth of those are missing whom a revert chose as known to be alive.
	chosenMissing bool
	// May more than a quarter of those be missing whom a run chose as known to be alive? Which
	// it chose lies in their ids: so many are missing that it may be so.
	canariesMayMiss bool
}

// approves says whether an approval covers a person, and whether as one who is due.
func (v *view) approves(m *model, p person) (covers, asDue bool) {
	if v.approval == nil {
		return false, false
	}
	asDue, covers = m.refusals[v.approval.run][p]
	return covers, asDue
}

// findings judges the first check.
func (m *model) findings(v *view, r rules) findings {
	f := findings{}
	calls, invalidCalls := 0, 0
	for _, call := range v.first {
		calls++
		if call.invalid {
			invalidCalls++
		}
	}
	f.nothingSwept = invalidCalls*10 > calls
	for _, p := range m.persons() {
		if !v.takes(p) {
			continue
		}
		if v.inRange(p) {
			for _, row := range m.membersOf(p) {
				f.total[row.table]++
			}
		}
		verdict := v.scan(p)
		if verdict == invalid {
			f.unknown++
			continue
		}
		f.checked++
		if verdict == missing {
			m.found(&f, p, v, r)
		}
	}
	for _, p := range slices.Concat(r.alive, r.dead) {
		if v.scan(p) == invalid {
			f.nothingSwept = true
		}
	}
	f.breaker, f.breakerLater = m.breaker(f, v, r, 0), m.breaker(f, v, r, hour)
	users := int64(len(m.persons()))
	f.fellByHalf = m.coveredAll && (r.checkEvery > 0 || 2*users < m.users && m.users-users > 10)
	f.canariesMayMiss = len(r.alive) == 0 && len(m.passed) >= 10 && m.canariesMayMiss(v)
	return f
}

// canariesMayMiss says whether there are enough persons for a run to choose canaries from, twenty,
// and more of them missing than a quarter of so few.
func (m *model) canariesMayMiss(v *view) bool {
	alive := slices.DeleteFunc(m.persons(), func(p person) bool { return !m.seemsAlive(p) })
	lost := 0
	for _, p := range alive {
		if v.scan(p) == missing {
			lost++
		}
	}
	return len(alive) >= 20 && lost > 20/4
}

// found adds what one missing person means.
func (m *model) found(f *findings, p person, v *view, r rules) {
	f.missing++
	if m.activeSinceMissing(p) {
		f.active++
	}
	entry, restarted := m.clock(p, r)
	if restarted {
		f.restarted++
	}
	covers, asDue := v.approves(m, p)
	isApproved := covers || entry.approved != 0
	if !isApproved {
		f.candidatesJudged++
	}
	if _, known := m.ledger[p]; !known {
		f.fresh++
		if !isApproved && !m.heldByRestore(p) {
			f.freshJudged++
		}
	}
	if !m.isOld(entry.first, r) {
		return
	}
	isHeld := m.personHeld(p)
	isDue := !isHeld && (v.approval == nil || asDue)
	if isDue {
		f.due++
	}
	for _, row := range m.membersOf(p) {
		switch {
		case isHeld || m.conversationHeld(row.key):
			f.held[row.table]++
		case m.isYoung(row, r):
			f.young[row.table]++
		case isDue:
			f.rowsDue[row.table]++
			if !isApproved {
				f.rowsJudged[row.table]++
			}
		}
	}
}

// refuse keeps what an approval would be about.
func (m *model) refuse(v *view, r rules) map[person]bool {
	kept := map[person]bool{}
	for _, p := range m.persons() {
		if v.scan(p) != missing || !v.takes(p) {
			continue
		}
		_, known := m.ledger[p]
		entry, _ := m.clock(p, r)
		_, asDue := v.approves(m, p)
		isDue := m.isOld(entry.first, r) && !m.personHeld(p) && (v.approval == nil || asDue)
		if isDue || !known {
			kept[p] = isDue
		}
	}
	return kept
}

// merged is the ledger after a run was let pass, and how many left it alive.
func (m *model) merged(v *view, r rules) (ledger map[person]candidate, returned int64) {
	ledger = map[person]candidate{}
	for p, old := range m.ledger {
		switch {
		case !v.checked(p) || !v.isMember[p]:
			// no member left: nobody checks, unless as a canary or a recheck
		case v.scan(p) == invalid:
			ledger[p] = old
		case v.scan(p) == present:
			if len(m.membersOf(p)) > 0 {
				returned++
			}
		}
	}
	for p := range v.scanned {
		if v.isMember[p] && v.scan(p) == missing {
			next, _ := m.clock(p, r)
			next.run = v.id
			covers, _ := v.approves(m, p)
			if _, known := m.ledger[p]; !known && covers {
				next.approved = v.approval.run
			}
			ledger[p] = next
		}
	}
	return ledger, returned
}

// due says whether a run that has merged checks a person again.
func (m *model) due(p person, v *view, r rules) bool {
	entry, known := m.ledger[p]
	if !known || entry.run != v.id || !m.isOld(entry.first, r) || m.personHeld(p) {
		return false
	}
	_, asDue := v.approves(m, p)
	return v.approval == nil || asDue
}

// deletable are the members that a run which has merged may delete as things
// stand, and must have deleted when it ends if their users are still missing: guarantees 1, 2, 3, 4, 7 and 9.
func (m *model) deletable(v *view, r rules) map[key]bool {
	set := map[key]bool{}
	if m.paused || !v.merged || v.over {
		return set
	}
	for _, p := range m.persons() {
		// A chunk of many rows is deleted in parts: each after another check.
		if v.scan(p) != missing || !slices.Contains(v.second[p], missing) || !m.due(p, v, r) {
			continue
		}
		for _, row := range m.membersOf(p) {
			isUsed := row.read != nil && *row.read > m.ledger[p].first
			// The snapshot of before the second check.
			isChanged := row.written > v.snapshots[p]
			if !m.isYoung(row, r) && !m.conversationHeld(row.key) && !isUsed && !isChanged {
				set[row.key] = true
			}
		}
	}
	return set
}
