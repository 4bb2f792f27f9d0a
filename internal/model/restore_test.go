package model_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// restored is a restore: the members it restored, as they were then. Those
// that were reverted are no longer in it.
type restored map[key]member

// newestBackup is what a restore goes by: the last time that a run deleted a
// membership, by the clock, which a history may have turned back; and whether
// somebody else removed it after that.
func (m *model) newestBackup(k key) (newest deletion, leftSince, found bool) {
	for _, d := range m.gone {
		if d.key == k && d.run != 0 && (!found || d.at >= newest.at) {
			newest, found = d, true
		}
	}
	for _, d := range m.gone {
		leftSince = leftSince || d.key == k && d.run == 0 && found && d.at > newest.at
	}
	return newest, leftSince, found
}

// losses is how many rows of a person could be restored: runs deleted them
// and nobody else after that, they are not back, and their conversation is there.
func (m *model) losses(p person) (n int) {
	for _, t := range tables {
		for c := range conversation(conversations) {
			if m.fate(key{c, p, t}) == "restore" {
				n++
			}
		}
	}
	return n
}

// fate is what a restore does with a row that runs deleted, in the words of the program; "" is a row that none did.
func (m *model) fate(k key) string {
	newest, left, found := m.newestBackup(k)
	now, there := m.members[k]
	switch {
	case !found:
		return ""
	case k.table == members && m.closed[k.conversation]:
		return "conversation_gone"
	case there && now.sameAs(newest.member):
		return "there"
	case there:
		return "there_differs"
	case k.table == posts && m.marked[k] == 0:
		return "left_since"
	case k.table == posts && m.marked[k] != newest.run:
		return "there_differs" // by another run than the clock makes the newest
	case k.table != posts && left:
		return "left_since"
	}
	return "restore"
}

// choice is a selection of deletions, as the model reads it.
type choice struct {
	run           int64
	persons       []person
	conversations []conversation
	since, until  *moment
	tables        []table
}

func (c choice) covers(k key) bool {
	return (c.persons == nil || slices.Contains(c.persons, k.person)) && (c.tables == nil || slices.Contains(c.tables, k.table)) &&
		(c.conversations == nil || slices.ContainsFunc(c.conversations, k.isIn))
}

// plan is what becomes of each chosen member: I6.
type plan struct {
	back                                   restored // to be restored
	there, differs, conversationGone, left int64
}

func (m *model) plan(c choice) plan {
	p := plan{back: restored{}}
	reach := moment(-1 << 62)
	if c.since != nil {
		reach = *c.since
	}
	if c.run != 0 {
		reach = max(reach, m.started[c.run])
	}
	chosen := map[key]bool{}
	for _, d := range m.gone {
		if d.run != 0 && c.covers(d.key) && d.at >= reach && (c.run == 0 || d.run == c.run) &&
			(c.since == nil || d.at >= *c.since) && (c.until == nil || d.at < *c.until) {
			chosen[d.key] = true
		}
	}
	for k := range chosen {
		switch m.fate(k) {
		case "conversation_gone":
			p.conversationGone++
		case "there":
			p.there++
		case "there_differs":
			p.differs++
		case "left_since":
			p.left++
		default:
			newest, _, _ := m.newestBackup(k)
			p.back[k] = newest.member
		}
	}
	return p
}

// sameAs: the tag stands for what never changes in one incarnation.
func (row *member) sameAs(other member) bool {
	isRead := row.read != nil && other.read != nil && *row.read == *other.read || row.read == other.read
	return row.tag == other.tag && row.role == other.role && row.muted == other.muted && isRead
}

// deleters are the runs that deleted members.
func (m *model) deleters() []int64 {
	runs := map[int64]bool{}
	for _, d := range m.gone {
		if d.run != 0 {
			runs[d.run] = true
		}
	}
	return slices.Sorted(maps.Keys(runs))
}

// choose draws a selection, and says it in the words of the program.
func (h *history) choose() (c choice, s restore.Selection) {
	deleters := h.deleters()
	if len(deleters) == 0 {
		h.t.Skip("nothing was deleted yet")
	}
	if h.hasRows && draw(h, "of a target", false, false, true) {
		t := draw(h, "target", tables...)
		c.tables, s.Targets = []table{t}, []string{t.String()}
	}
	by := draw(h, "chosen by", "run", "users", "conversation", "since", "since until", "all")
	switch by {
	case "run":
		c.run = draw(h, "run", deleters...)
		s.Run = c.run
	case "users":
		for range draw(h, "users", 1, 5) {
			p := h.drawPerson()
			c.persons = append(c.persons, p)
			s.Users = append(s.Users, h.ids[p])
		}
	case "conversation":
		c.conversations = []conversation{h.drawConversation()}
		s.Conversations = []uuid.UUID{id("conversation", int(c.conversations[0]))}
	}
	if by == "since" || by == "since until" {
		ago := draw[moment](h, "since hours ago", 1, 24, 24*8, 24*40)
		c.since = new(h.now - ago*hour)
		s.Since = time.Now().Add(-duration(ago * hour))
		if by == "since until" {
			ago = draw[moment](h, "until hours ago", 1, 24*7)
			c.until = new(h.now - ago*hour)
			s.Until = time.Now().Add(-duration(ago * hour))
		}
	}
	return c, s
}

const restoreHold = 30 * 24 * hour

// restoreSome restores some of what runs deleted, and may be disturbed.
func (h *history) restoreSome() { h.restoreChosen(disturbance{}) }

func (h *history) restoreDisturbed() {
	if draw(h, "what", "broken", "changed") == "changed" {
		h.restoreChosen(disturbance{
			kind: draw(h, "kind", closes, comesBack), at: "RestoreChunk", nth: draw(h, "occurrence", 1, 1, 2),
			target: h.drawTarget(),
		})
		return
	}
	h.restoreChosen(h.drawAt(draw(h, "statement", "RunBegin", "commit of RunBegin", "RestoreStore", "commit of RestoreStore", "RestoreChunks",
		"RestoreChunk", "commit of RestoreChunk", "RecheckSettle", "RestoreLeft", "RunFinish", "commit of RunFinish")))
}

// comesBack is a member who joins again before a restore restores it.
const comesBack = "a member is back"

func (h *history) restoreChosen(wants disturbance) {
	chosen, selection := h.choose()
	h.restore(wants, chosen, selection)
}

func (h *history) restore(wants disturbance, chosen choice, selection restore.Selection) {
	u := h.begin(wants)
	want := h.plan(chosen)
	u.meanwhile = func() bool {
		h.absorbRestore(u, want)
		keys := slices.SortedFunc(maps.Keys(want.back), compareKeys)
		if len(keys) == 0 {
			return false
		}
		k := keys[wants.target%len(keys)]
		if wants.kind == closes {
			if k.table == members && !h.closed[k.conversation] {
				h.closeConversation(k.conversation)
			}
		} else if h.members[k] == nil && (k.table != members || !h.closed[k.conversation]) {
			h.addMember(k, 0)
		}
		return true
	}
	result, err := restore.New(h.wire.pool, discard(), u.restoreConfig(h.rules)).Restore(u.ctx, selection)
	u.end()
	h.absorbRestore(u, want)
	if !u.settled(err) {
		return
	}
	got := h.restores[u.view.id]
	if u.reached && u.meanwhile != nil && !u.wants.cuts() {
		if err != nil && !errors.Is(err, restore.ErrIncomplete) {
			h.t.Fatalf("restore %d ended %s: %v", u.view.id, result.State, err)
		}
		h.tally.count(runEnds, "restore, changed, "+result.State)
		return
	}
	if err != nil || len(got) != len(want.back) {
		h.t.Fatalf("restore %d restored %d members of %d and ended %s: %v", u.view.id, len(got), len(want.back), result.State, err)
	}
	h.tally.count(runEnds, "restore "+result.State)
	users, conversations, memberships := map[person]bool{}, map[conversation]bool{}, int64(0)
	for k := range got {
		if users[k.person] = true; k.table == members {
			conversations[k.conversation] = true
			memberships++
		}
	}
	expected := restore.Result{
		RunID: u.view.id, State: "succeeded", MembersRestored: memberships, RowsRestored: int64(len(got)), Users: int64(len(users)), Conversations: int64(len(conversations)),
		There: want.there, ThereDiffers: want.differs, ConversationGone: want.conversationGone, LeftSince: want.left, Seconds: result.Seconds, Blocked: []restore.Blocked{},
	}
	if !reflect.DeepEqual(result, expected) {
		h.t.Fatalf("restore %d reports\n%+v, it should be\n%+v", u.view.id, result, expected)
	}
}

// absorbRestore takes over what a restore has restored so far: nothing but
// what was planned, whole, and nobody's newer row.
func (h *history) absorbRestore(u *underWay, want plan) {
	u.find()
	if u.view.id == 0 {
		return
	}
	given := h.restores[u.view.id]
	if given == nil {
		given = restored{}
		h.restores[u.view.id] = given
	}
	// Who was restored leaves the list of rechecks after the last chunk, if it came that far; not who is
	// known to be alive while there is more to restore.
	listed := map[person]bool{}
	if u.reached && u.wants.interrupts() {
		listed = h.readRechecks()
	}
	for k, state := range h.restoreRows(u.view.id) {
		row, planned := want.back[k]
		if !planned {
			h.t.Fatalf("restore %d planned %s, which was not to be restored", u.view.id, k)
		}
		if _, before := given[k]; before || state != "restored" {
			continue
		}
		if h.members[k] != nil {
			h.t.Fatalf("restore %d restored %s, which was there", u.view.id, k)
		}
		// It may have waited while time passed: its times are those of the backup now.
		newest, _, _ := h.newestBackup(k)
		row = newest.member
		given[k] = row
		h.appears(k.person)
		row.written = h.step
		h.members[k] = &row
		delete(h.marked, k)
		h.tally.count(tableRows, k.table.String()+" restored")
	}
	for k := range given {
		_, still := listed[k.person]
		if more := h.rechecks[k.person] && h.losses(k.person) > 0; !still && !more {
			delete(h.rechecks, k.person)
		}
	}
	h.readHolds(u.view.id, given)
}

// restoreRows is what a restore wrote down of each member.
func (h *history) restoreRows(run int64) map[key]string {
	rows, err := h.admin.Query(context.Background(), `SELECT target, row_key, conversation_id, user_id, state FROM orphan_cleaner.restores WHERE run_id = $1`, run)
	if err != nil {
		h.t.Fatalf("reading restores: %v", err)
	}
	states := map[key]string{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (none struct{}, err error) {
		var conversation, user [16]byte
		var target, rowKey, state string
		err = row.Scan(&target, &rowKey, &conversation, &user, &state)
		states[h.keyOf(target, rowKey, conversation, user)] = state
		return none, err
	})
	if err != nil {
		h.t.Fatalf("reading restores: %v", err)
	}
	return states
}

// readHolds takes over the holds that a restore placed: one for each user.
func (h *history) readHolds(run int64, given restored) {
	known := map[int64]bool{}
	for _, held := range h.holds {
		known[held.id] = true
	}
	rows, err := h.admin.Query(context.Background(), `SELECT hold_id, user_id FROM orphan_cleaner.holds WHERE run_id = $1 AND lifted_at IS NULL`, run)
	if err != nil {
		h.t.Fatalf("reading holds: %v", err)
	}
	persons := map[person]bool{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (none struct{}, err error) {
		var number int64
		var user [16]byte
		err = row.Scan(&number, &user)
		p := h.auditor.persons[user]
		persons[p] = true
		if !known[number] {
			h.holds = append(slices.Clone(h.holds), hold{id: number, person: &p, until: new(h.now + restoreHold), run: run})
		}
		return none, err
	})
	if err != nil {
		h.t.Fatalf("reading holds: %v", err)
	}
	for k := range given {
		if !persons[k.person] {
			h.t.Fatalf("restore %d restored %s and does not hold its user", run, k)
		}
		delete(known, int64(k.person))
	}
	for p := range persons {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(given)), func(k key) bool { return k.person == p }) {
			h.t.Fatalf("restore %d holds u%02d, of whom it restored nothing", run, p)
		}
	}
}

// revertSome reverts a restore.
func (h *history) revertSome() { h.revert(disturbance{}, nil) }

func (h *history) revertDisturbed() {
	if rapid := draw(h, "what", "broken", "faults"); rapid == "faults" {
		h.revert(disturbance{}, h.drawWindows())
		return
	}
	h.revert(h.drawAt(draw(h, "statement", "RunBegin", "commit of RunBegin", "UserCanaries", "RevertJudge", "commit of RevertJudge",
		"RestoreChunks", "SnapshotOldest",
		"RevertChunk", "commit of RevertChunk", "HoldLift", "RunFinish")), nil)
}

func (h *history) revert(wants disturbance, windows []window) {
	var ended []int64
	for run := range h.restores {
		if h.open == nil || h.open.id != run {
			ended = append(ended, run)
		}
	}
	if len(ended) == 0 {
		h.t.Skip("nothing was restored yet")
	}
	slices.Sort(ended)
	of := draw(h, "restore", ended...)
	h.use(h.restores[of])
	u := h.begin(wants)
	h.auditor.set(h.replies(windows))
	rules := h.rules
	if draw(h, "limits", "none", "none", "none", "those of runs") == "none" {
		rules.limits = noLimits()
	}
	check := &checker{
		auditor: h.auditor, client: h.client, view: u.view, isMember: func(person) bool { return true }, isAgain: u.isJudged(),
	}
	got, err := restore.New(h.wire.pool, discard(), u.restoreConfig(rules)).Revert(u.ctx, of, check)
	u.end()
	if found := h.auditor.takeViolations(); len(found) > 0 {
		h.t.Fatalf("revert %s: %v", u.host, found)
	}
	if u.pre.paused && errors.Is(err, fence.ErrPaused) {
		h.tally.count(runEnds, "revert while paused")
		return
	}
	f := u.judgeRevert(of, rules)
	deleted, unknown := h.absorbRevert(u, of, f)
	memberships := deleted[members]
	if !u.settled(err) {
		return
	}
	if u.pre.paused {
		h.t.Fatalf("revert %d ended %s while runs were paused: %v", u.view.id, got.State, err)
	}
	state, want := "succeeded", error(nil)
	switch {
	case f.breaker != "":
		state, want = "refused", result.ErrRefused
	case f.nothingSwept && got.UsersUnknown >= 1 && got.UsersUnknown <= int64(h.cut.batch):
		// The batch that had no valid response ended it.
		state, want, unknown = "incomplete", restore.ErrIncomplete, got.UsersUnknown
	case unknown > 0:
		state, want = "incomplete", restore.ErrIncomplete
	}
	h.tally.count(runEnds, "revert "+state+label(f.breaker))
	if got.State != state || !errors.Is(err, want) || got.MembersReverted != memberships || got.RowsReverted != deleted.sum() || got.UsersUnknown != unknown || got.MembersRestored != 0 {
		h.t.Fatalf("revert %d should end %s %s with %d rows reverted and %d users unknown, it reports %+v", u.view.id, state, f.breaker, deleted, unknown, got)
	}
	if kept, tripped := h.stateOf(u.view.id); kept != state || tripped != f.breaker {
		h.t.Fatalf("revert %d ended %s %s, its row says %s %s", u.view.id, state, f.breaker, kept, tripped)
	}
}

// judgeRevert judges the first check of a revert: of all users whom it would delete, of
// the configured canaries, and of users whom it chose itself as known to be alive.
func (u *underWay) judgeRevert(of int64, r rules) findings {
	m, v := &u.pre, u.view
	f := findings{}
	f.nothingSwept = slices.ContainsFunc(v.first, func(b batch) bool { return b.invalid })
	users := map[person]bool{}
	for k := range m.restores[of] {
		users[k.person] = true
		if v.scan(k.person) == missing {
			f.rowsJudged[k.table]++
		}
	}
	for p := range users {
		if f.checked++; v.scan(p) == missing && m.activeWithinDay(p) {
			f.active++
		}
	}
	chosen, lost := int64(0), int64(0)
	for p := range v.scanned {
		if users[p] || r.isCanary(p) {
			continue
		}
		if !m.seemsAlive(p) {
			u.t.Fatalf("revert %d chose u%02d as known to be alive", v.id, p)
		}
		if chosen++; v.scan(p) == missing {
			lost++
		}
	}
	f.checked += chosen
	f.chosenMissing = 10*lost > chosen
	if isWhole := v.id != 0 && !u.reached && !f.nothingSwept; isWhole {
		for p := range users {
			if !v.checked(p) {
				u.t.Fatalf("revert %d did not check u%02d first", v.id, p)
			}
		}
		alive := slices.DeleteFunc(m.persons(), func(p person) bool { return !m.seemsAlive(p) })
		if len(alive) > 0 && !slices.ContainsFunc(alive, v.checked) {
			u.t.Fatalf("revert %d chose nobody as known to be alive, of %d", v.id, len(alive))
		}
	}
	f.breaker = m.breaker(f, v, r, 0)
	if later := m.breaker(f, v, r, hour); later != f.breaker {
		if _, tripped := u.stateOf(v.id); tripped == later {
			f.breaker = later
		}
	}
	return f
}

// seemsAlive says whether a revert may take a person for known to be alive: a member for
// longer than 30 days whom no run has found missing.
func (m *model) seemsAlive(p person) bool {
	_, isCandidate := m.ledger[p]
	return !isCandidate && slices.ContainsFunc(m.membersOf(p), func(row *member) bool { return m.now-row.joined > 30*24*hour })
}

// use does something with a member that was restored, or does not: then a
// revert may not take it.
func (h *history) use(given restored) {
	keys := slices.DeleteFunc(slices.SortedFunc(maps.Keys(given), compareKeys), func(k key) bool { return h.members[k] == nil })
	if len(keys) == 0 {
		return
	}
	k := draw(h, "restored", keys...)
	h.tick()
	switch draw(h, "since then", "nothing", "used", "rejoined", "held") {
	case "used":
		h.setRole(k)
	case "rejoined":
		h.leave(k)
		h.addMember(k, 0)
	case "held":
		h.holdRow(k, new(h.now+24*hour))
	}
}

// absorbRevert takes over what a revert took: members as they were restored,
// on no other hold, of users whom auth-service left out before it was judged, and
// has just left out again. One that is refused takes nothing, and lifts no hold.
func (h *history) absorbRevert(u *underWay, of int64, f findings) (deleted counts, unknown int64) {
	u.find()
	if u.view.id == 0 {
		return deleted, 0
	}
	given := h.restores[of]
	heard := func(p person, want verdict) (some, all bool) {
		said := u.view.second[p]
		return slices.Contains(said, want), len(said) > 0 && !slices.ContainsFunc(said, func(v verdict) bool { return v != want })
	}
	isJudged := f.breaker == "" && !f.nothingSwept
	if !isJudged && len(u.view.again) > 0 {
		h.t.Fatalf("revert %d, breaker %q, was not let pass and checked %d batches again", u.view.id, f.breaker, len(u.view.again))
	}
	may, must := map[key]bool{}, map[key]bool{}
	for k, row := range given {
		now := h.members[k]
		if now == nil || !now.sameAs(row) || u.pre.paused || h.heldOtherwise(k, of) || !isJudged || u.view.scan(k.person) != missing {
			continue
		}
		may[k], must[k] = heard(k.person, missing)
	}
	for _, k := range h.newlyDeletedBy(u.view) {
		if !may[k] {
			h.t.Fatalf("revert %d took %s: verdicts %v, then %v, breaker %q, held %t, paused %t", u.view.id, k, u.view.scanned[k.person], u.view.second[k.person], f.breaker, h.heldOtherwise(k, of), u.pre.paused)
		}
		delete(must, k)
		delete(given, k)
		h.forget(k, u.view.id, false)
		h.rechecks[k.person] = false
		deleted[k.table]++
		h.tally.count(tableRows, k.table.String()+" reverted")
	}
	for k, now := range must {
		if now && !u.reached {
			h.t.Fatalf("revert %d left %s, which should be gone", u.view.id, k)
		}
	}
	for _, a := range u.view.again {
		if a.invalid {
			unknown += int64(len(a.persons))
		}
	}
	h.liftedBy(u, of, isJudged)
	return deleted, unknown
}

// heldOtherwise says whether a hold keeps a member from a revert. That of the
// restore itself does not; that of another one is about what it restored itself.
func (h *history) heldOtherwise(k key, of int64) bool {
	return slices.ContainsFunc(h.holds, func(held hold) bool {
		if _, itsOwn := h.restores[held.run][k]; held.run == of || held.run != 0 && !itsOwn {
			return false
		}
		return h.inForce(held) && (held.person != nil && *held.person == k.person || held.conversation != nil && k.isIn(*held.conversation))
	})
}

// liftedBy takes over which of a restore's holds its revert has lifted: those of
// users who keep nothing that was restored.
func (h *history) liftedBy(u *underWay, of int64, isJudged bool) {
	inForce := map[string]bool{}
	for _, number := range h.lines(`SELECT hold_id::text FROM orphan_cleaner.holds WHERE run_id = $1 AND lifted_at IS NULL`, of) {
		inForce[number] = true
	}
	h.holds = slices.DeleteFunc(slices.Clone(h.holds), func(held hold) bool {
		if held.run != of {
			return false
		}
		keeps := slices.ContainsFunc(slices.Collect(maps.Keys(h.restores[of])), func(k key) bool { return k.person == *held.person })
		lifted := !inForce[fmt.Sprint(held.id)]
		if lifted && (keeps || !isJudged) || !lifted && !keeps && isJudged && !u.reached {
			h.t.Fatalf("revert %d: the hold on u%02d is lifted: %t, and restored members stay: %t", u.view.id, *held.person, lifted, keeps)
		}
		return lifted
	})
}

func (u *underWay) restoreConfig(r rules) restore.Config {
	cfg := restore.DefaultConfig()
	cfg.Lease, cfg.ResponseAge, cfg.Attempts = lease, time.Hour, u.cut.attempts
	cfg.ChunkPages, cfg.BatchSize = 1, u.cut.batch
	cfg.Hold = duration(restoreHold)
	cfg.CanaryAlive, cfg.CanaryDead = u.canaries()
	cfg.Host, cfg.Version = u.host, "model"
	var err error
	if cfg.Settings, err = (settings.Run{Retention: duration(r.retention), MaxGap: duration(r.maxGap), Limits: r.limits}).JSON(); err != nil {
		u.t.Fatalf("writing the settings: %v", err)
	}
	return cfg
}

// settled ends what a restore and a cleaning run have in common; false says
// that there is no more to foresee.
func (u *underWay) settled(err error) bool {
	h := u.history
	u.givenUp(u.lapsed())
	switch {
	case u.reached && u.wants.interrupts():
		if u.view.id != 0 {
			state, _ := h.stateOf(u.view.id)
			h.tally.count(runEnds, "restore interrupted, "+state)
			if state == "running" {
				if u.wants.kind != killed {
					h.t.Fatalf("restore %d was %s and left open: %v", u.view.id, u.wants.kind, err)
				}
				h.open = &openRun{u.view.id, h.now}
			}
			h.ended()
		}
		if u.wants.kind == killed {
			if err := h.revive(); err != nil {
				h.t.Fatalf("starting another runner: %v", err)
			}
		}
		return false
	case u.pre.open != nil && !u.lapsed():
		if !errors.Is(err, fence.ErrAnotherRun) {
			h.t.Fatalf("another run is open, and the restore ended: %v", err)
		}
		return false
	}
	h.ended()
	return true
}
