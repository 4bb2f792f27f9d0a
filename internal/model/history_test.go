package model_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/nova-social/orphan-cleaner/gen/db"
	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

var times = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00`)

// An ordinary test plays so many histories, the same each time, so that what fails was
// broken by the change; the soak plays new ones.
const histories, seed = "17", "1"

func TestMain(m *testing.M) {
	flag.Parse()
	checks := os.Getenv("RAPID_CHECKS") != ""
	given := checks
	flag.Visit(func(f *flag.Flag) {
		given = given || strings.HasPrefix(f.Name, "rapid.")
		checks = checks || f.Name == "rapid.checks"
	})
	set := func(name, value string) {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	if !checks {
		set("rapid.checks", histories)
	}
	if !given {
		set("rapid.seed", seed)
	}
	testdb.Main(m)
}

// TestHistories plays random histories against the model. See the package's
// documentation for how to play a failed one again.
func TestHistories(t *testing.T) {
	count := newTally()
	s := newStage(t, count)
	rapid.Check(t, s.history)
	t.Log(count)
}

// history plays one.
func (s *stage) history(t *rapid.T) {
	h := s.newHistory(t)
	h.tally.add("histories", 1)
	h.checkParts()
	actions := map[string]func(*rapid.T){"": func(*rapid.T) { h.check() }}
	for name, action := range map[string]func(){
		"join": h.join, "join again": h.join, "leave": h.leaveSomewhere, "close a conversation": h.close,
		"delete users": h.deleteUsers, "delete a user": h.deleteUser, "revive a user": h.reviveUser,
		"hold": h.hold, "lift a hold": h.lift, "pause or resume": h.pauseOrResume, "change a role": h.changeRole, "read": func() { h.reads(h.drawMember()) },
		"time passes": h.timePasses, "days pass": h.daysPass, "hours pass": h.hoursPass, "drip": h.drip, "lie": h.startLying,
		"restore": h.restoreSome, "restore again": h.restoreSome, "restore, disturbed": h.restoreDisturbed,
		"revert": h.revertSome, "revert again": h.revertSome, "revert, disturbed": h.revertDisturbed,
		"approve": h.approve, "other limits": h.otherLimits,
		"run": h.honestRun, "run again": h.honestRun, "run with faults": h.faultyRun, "dry run": h.dryRun,
		"break a run off": h.breakOff, "break a run off again": h.breakOff, "change while a run is under way": h.changeMeanwhile,
	} {
		actions[name] = func(t *rapid.T) {
			h.t = t
			h.tick()
			action()
			h.tally.count(operations, name)
		}
	}
	t.Repeat(actions)
	h.t = t
	h.converge()
}

func draw[T any](h *history, what string, from ...T) T {
	return rapid.SampledFrom(from).Draw(h.t, what)
}

func (h *history) drawPerson() person {
	return person(rapid.IntRange(0, len(h.ids)-1).Draw(h.t, "user"))
}

func (h *history) drawConversation() conversation {
	return conversation(rapid.IntRange(0, conversations-1).Draw(h.t, "conversation"))
}

func (h *history) drawMember() key {
	if len(h.members) == 0 {
		h.t.Skip("no members")
	}
	return draw(h, "member", slices.SortedFunc(maps.Keys(h.members), compareKeys)...)
}

func (h *history) join() {
	k := key{h.drawConversation(), h.drawPerson(), h.drawTable()}
	if h.members[k] != nil {
		h.t.Skip("a member already")
	}
	h.addMember(k, drawAge(h.t))
}

func (h *history) leaveSomewhere() { h.leave(h.drawMember()) }

func (h *history) close() {
	c := h.drawConversation()
	if h.closed[c] {
		h.openConversation(c)
		return
	}
	h.closeConversation(c)
}

func (h *history) changeRole() {
	h.setRole(h.drawMember())
}

func (h *history) setRole(k key) {
	h.tick()
	row := *h.members[k]
	row.written = h.step
	row.role, row.muted = map[string]string{"member": "admin", "admin": "owner", "owner": "member"}[row.role], !row.muted
	where, args := h.match(k)
	switch k.table {
	case members:
		h.exec(`UPDATE conversation_members SET role = $3, is_muted = $4 WHERE `+where, append(args, row.role, row.muted)...)
	case likes:
		h.exec(`UPDATE likes SET kind = $3 WHERE `+where, append(args, row.content())...)
	case posts:
		h.exec(`UPDATE posts SET body = $3 WHERE `+where, append(args, row.content())...)
	}
	h.members[k] = &row
}

// reads is a user who reads a message, or changes a row of another table.
func (h *history) reads(k key) {
	if k.table != members {
		h.setRole(k)
		return
	}
	h.tick()
	row := *h.members[k]
	row.written, row.read = h.step, new(h.now)
	err := h.admin.QueryRow(context.Background(), `UPDATE conversation_members SET last_read_at = now() WHERE conversation_id = $1 AND user_id = $2 RETURNING last_read_at`,
		id("conversation", int(k.conversation)), h.ids[k.person]).Scan(&row.lastRead)
	if err != nil {
		h.t.Fatalf("reading in %s: %v", k, err)
	}
	h.members[k] = &row
}

func (h *history) deleteUsers() {
	// Many at once is what a mass deletion, or a wrong auth-service, looks like.
	for range draw(h, "users", 1, 3, 10, 60) {
		h.die(h.drawPerson())
	}
}

func (h *history) deleteUser() {
	p := h.drawMember().person
	h.die(p)
	if rapid.IntRange(0, 3).Draw(h.t, "known to the shadow") < 3 {
		h.shadowDeleted(p, drawAge(h.t))
	}
}

func (h *history) reviveUser() {
	var dead []person
	for p := range person(len(h.ids)) {
		if !h.living[p] {
			dead = append(dead, p)
		}
	}
	if len(dead) == 0 {
		h.t.Skip("nobody is dead")
	}
	p := draw(h, "user", dead...)
	h.live(p)
	// A shadow that nobody cleared is evidence against a living user.
	if _, known := h.shadow[p]; known && h.hasShadow && rapid.Bool().Draw(h.t, "shadow cleared") {
		h.exec(`DELETE FROM users WHERE id = $1`, h.ids[p])
		delete(h.shadow, p)
	}
}

func (h *history) hold() {
	var until *moment
	if lasting := draw(h, "hours", 0, 1, 24, 240); lasting > 0 {
		until = new(h.now + moment(lasting)*hour)
	}
	if rapid.Bool().Draw(h.t, "on a user") {
		h.holdPerson(h.drawPerson(), until)
	} else {
		h.holdConversation(h.drawConversation(), until)
	}
}

func (h *history) holdPerson(p person, until *moment) {
	h.addHold(hold{person: &p, until: until}, db.HoldAddParams{UserID: &h.ids[p]})
}

func (h *history) holdConversation(c conversation, until *moment) {
	h.addHold(hold{conversation: &c, until: until}, db.HoldAddParams{ConversationID: new(id("conversation", int(c)))})
}

// holdRow holds the conversation of a membership, or the user of another row.
func (h *history) holdRow(k key, until *moment) {
	if k.table == members {
		h.holdConversation(k.conversation, until)
	} else {
		h.holdPerson(k.person, until)
	}
}

func (h *history) addHold(made hold, params db.HoldAddParams) {
	params.Reason = "model"
	if made.until != nil {
		params.Lasting = new(duration(*made.until - h.now))
	}
	var err error
	if made.id, err = db.New(h.admin).HoldAdd(context.Background(), params); err != nil {
		h.t.Fatalf("placing a hold: %v", err)
	}
	h.holds = append(h.holds, made)
}

func (h *history) lift() {
	if len(h.holds) == 0 {
		h.t.Skip("no holds")
	}
	n := rapid.IntRange(0, len(h.holds)-1).Draw(h.t, "hold")
	h.liftHold(n)
}

func (h *history) liftHold(n int) {
	if lifted, err := db.New(h.admin).HoldLift(context.Background(), db.HoldLiftParams{HoldID: &h.holds[n].id}); err != nil || lifted != 1 {
		h.t.Fatalf("lifting a hold: %d, %v", lifted, err)
	}
	h.holds = slices.Delete(slices.Clone(h.holds), n, n+1)
}

func (h *history) pauseOrResume() {
	h.setPaused(!h.paused)
}

func (h *history) setPaused(paused bool) {
	var err error
	if paused {
		_, err = db.New(h.admin).PauseBegin(context.Background(), "model")
	} else {
		_, err = db.New(h.admin).PauseEnd(context.Background())
	}
	if err != nil {
		h.t.Fatalf("pausing or resuming: %v", err)
	}
	h.paused = paused
}

func (h *history) timePasses() {
	h.pass(hour * draw[moment](h, "hours", 1, 12, 24, 6*24, 7*24, 8*24, 30*24, 31*24, -1, -48))
}

// daysPass with a run each day or so: the way a user becomes due.
func (h *history) daysPass() {
	for range draw(h, "times", 1, 3, 5) {
		h.pass(hour * 6 * 24)
		h.run(disturbance{}, h.replies(nil))
		h.tick()
	}
}

// hoursPass with a run after each few of them, on a beat that may miss one: the
// way of CHECK_EVERY, sometimes for longer than that.
func (h *history) hoursPass() {
	beats := []moment{1, 6, 12, 24}
	if every := h.rules.checkEvery / hour; every > 0 {
		beats = []moment{max(every/24, 1), every / 12}
	}
	beat := hour * draw(h, "beat", beats...)
	for range draw(h, "times", 2, 4, 8, 30) {
		h.pass(beat * draw[moment](h, "beats", 1, 1, 1, 2))
		h.run(disturbance{}, h.replies(nil))
		h.tick()
	}
}

// checkParts begins a history of CHECK_EVERY with runs that nothing limits, each of which checks a part of the users.
func (h *history) checkParts() {
	if h.rules.checkEvery == 0 {
		return
	}
	limits := h.rules.limits
	h.rules.limits = noLimits()
	for range 4 {
		h.pass(hour * max(h.rules.checkEvery/hour/24, 1))
		h.run(disturbance{}, h.replies(nil))
		h.tick()
	}
	h.rules.limits = limits
}

// drip is an auth-service that loses a few living users a day, for weeks, and each
// of them for good: no single run looks wrong.
func (h *history) drip() {
	for range draw(h, "days", 3, 7, 21) {
		h.pass(24 * hour)
		living := slices.DeleteFunc(h.sorted(h.living), func(p person) bool { return h.lost[h.ids[p]] })
		for range (len(living) + 32) / 33 {
			h.lost[h.ids[draw(h, "lost", living...)]] = true
		}
		h.run(disturbance{}, h.replies(nil))
		h.tick()
	}
}

// startLying gives auth-service a fault until further notice, or takes it away.
func (h *history) startLying() {
	names := []string{"", "", "half", "nothing", "flapping"}
	for _, f := range authfake.Faults() {
		if !f.Hangs {
			names = append(names, f.Name)
		}
	}
	h.lie = draw(h, "fault", names...)
	if rapid.Bool().Draw(h.t, "lost users are found") {
		h.lost = map[uuid.UUID]bool{}
	}
}

// replies is what auth-service replies to the calls of one run: the faults of now
// and then, before the lie of the time.
func (h *history) replies(windows []window) func(served int) authfake.FaultFunc {
	lie := h.faultNamed(h.lie)
	if lie == nil && len(h.lost) > 0 {
		lie = h.leaveOut
	}
	return func(served int) authfake.FaultFunc {
		for _, w := range windows {
			if served >= w.from && served < w.from+w.length {
				return w.fault
			}
		}
		return lie
	}
}

// leaveOut is honest but for the users who were lost.
func (h *history) leaveOut(_ context.Context, _ int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
	response, err := honest()
	if err == nil {
		response.Users = slices.DeleteFunc(response.Users, func(user *authservicev1.User) bool { return h.lost[uuid.MustParse(user.GetId())] })
	}
	return response, err
}

func (h *history) faultNamed(name string) authfake.FaultFunc {
	f, _ := authfake.Named(name)
	if f.Name != "" {
		h.tally.count(authFaults, f.Name)
	}
	return f.Reply
}

// window is a fault of the calls from one on.
type window struct {
	from, length int
	fault        authfake.FaultFunc
}

func (h *history) honestRun() {
	if rapid.IntRange(0, 3).Draw(h.t, "ends the lie") > 0 {
		h.lie, h.lost = "", map[uuid.UUID]bool{}
	}
	h.run(disturbance{}, h.replies(nil))
}

func (h *history) faultyRun() { h.run(disturbance{}, h.replies(h.drawWindows())) }

func (h *history) drawWindows() (windows []window) {
	for range rapid.IntRange(1, 3).Draw(h.t, "faults") {
		f := draw(h, "fault", authfake.Faults()...)
		h.tally.count(authFaults, f.Name)
		w := window{rapid.IntRange(1, 40).Draw(h.t, "from call"), draw(h, "calls", 1, 2, 8), f.Reply}
		if f.Hangs {
			w.length = 1
		}
		windows = append(windows, w)
	}
	return windows
}

// statements are those of a run, by which it is interrupted.
func statements() []string {
	return []string{
		"RunSweepChunk", "commit of RunSweepChunk", "RunJudge", "commit of RunJudge", "RunSweepReturned", "RecheckPage", "RecheckWrite",
		"commit of RunSweepChunk", "RunSweepChunk", "SnapshotOldest", "RunHeartbeat", "RunDuePage",
		"PreflightServer", "PartitionEnsure", "RunBegin", "commit of RunBegin", "UserPage", "RunStage", "commit of RunStage",
		"CoverageState", "CoverageOthers", "CoverageHolders", "RunFinish", "commit of RunFinish",
	}
}

// drawAt breaks a run off, or its connection, at a statement.
func (h *history) drawAt(statement string) disturbance {
	return disturbance{
		kind: draw(h, "kind", cancelled, killed, terminated, answerLost), at: statement,
		nth: draw(h, "occurrence", 1, 1, 1, 2, 3),
	}
}

// prepare makes it likely that the next run has something to delete: nothing is in
// its way, and up to three members have been missing for long.
func (h *history) prepare() {
	if rapid.IntRange(0, 4).Draw(h.t, "prepared") == 0 {
		return
	}
	h.lie = ""
	if h.paused {
		h.setPaused(false)
	}
	if h.open != nil || h.lastEnd > h.now {
		h.pass(max(h.lastEnd-h.now, 0)/hour*hour + hour)
	}
	for range rapid.IntRange(1, 3).Draw(h.t, "ripe members") {
		k := key{h.drawConversation(), h.drawPerson(), h.drawTable()}
		if h.rules.isCanary(k.person) {
			continue
		}
		if h.members[k] == nil {
			h.addMember(k, 90*24*hour)
		}
		h.die(k.person)
		h.missingForLong(k.person)
	}
}

// missingForLong enters a user into the ledger, as runs of long ago would have.
func (h *history) missingForLong(p person) {
	h.tick()
	const ago = 60 * 24 * hour
	h.exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		VALUES ($1, now() - make_interval(hours => $2), now(), 0, 'sightings')
		ON CONFLICT (user_id) DO UPDATE SET first_missing_at = excluded.first_missing_at, last_missing_at = now(),
			last_missing_run = 0, sightings = 1, evidence = 'sightings', approved_run = NULL`, h.ids[p], hours(ago))
	h.ledger[p] = candidate{first: h.now - ago, last: h.now, sightings: 1, evidence: "sightings"}
}

func (h *history) drawTarget() int { return rapid.IntRange(0, 20).Draw(h.t, "target") }

func (h *history) breakOff() {
	h.prepare()
	d := h.drawAt(draw(h, "statement", statements()...))
	if rapid.IntRange(0, 3).Draw(h.t, "at a call") == 0 {
		d.kind, d.at, d.nth = draw(h, "kind", cancelled, killed), atCall, h.drawCall()
	}
	h.run(d, h.replies(nil))
	if h.open != nil && rapid.Bool().Draw(h.t, "lease passes") {
		h.pass(hour)
	}
}

// drawCall is one of those that the next run will make, or so.
func (h *history) drawCall() int {
	first := (len(h.persons()) + h.cut.batch - 1) / h.cut.batch
	if rapid.Bool().Draw(h.t, "second check") {
		return first + rapid.IntRange(1, 3).Draw(h.t, "call")
	}
	return rapid.IntRange(1, max(first, 1)).Draw(h.t, "call")
}

func (h *history) changeMeanwhile() {
	h.prepare()
	d := disturbance{kind: draw(h, "what", changes()...), at: atCall, target: h.drawTarget()}
	if d.nth = h.drawCall(); !nested(d.kind) && rapid.Bool().Draw(h.t, "before a delete") {
		d.at, d.nth = "RunSweepChunk", rapid.IntRange(1, 4).Draw(h.t, "delete")
	}
	if d.kind == liftedHold {
		h.holdRow(h.drawMember(), nil)
	}
	h.run(d, h.replies(nil))
}

// What can change while a run is under way.
const (
	dies, revives, heldUser, heldConversation = "a user is deleted", "a user is revived", "a user is held", "a conversation is held"
	leaves, rejoins, rejoinsOld, closes       = "a member leaves", "a member rejoins", "a member is there again with an old joined_at", "a conversation is deleted"
	changesRole, readsMessage, liftedHold     = "a member changes", "a member reads", "a hold is lifted"
	pauses, second, takenOver                 = "runs are paused", "a second run starts", "another runner takes over"
)

func changes() []string {
	return []string{
		dies, revives, revives, heldUser, heldConversation, leaves, rejoins, rejoinsOld, rejoinsOld, closes, changesRole, changesRole,
		readsMessage, readsMessage, liftedHold, pauses, second, takenOver, takenOver, takenOver,
	}
}

// nested says whether a change makes a run of its own, which cannot be waited
// for in the middle of a chunk.
func nested(kind string) bool { return kind == second || kind == takenOver }

// change changes the world in the middle of a run; false says that there was
// nothing to change.
func (u *underWay) change() bool {
	u.tick()
	k, found := u.aim()
	if !found && !nested(u.wants.kind) && u.wants.kind != pauses {
		return false
	}
	switch u.wants.kind {
	case dies:
		u.die(k.person)
	case revives:
		u.live(k.person)
	case heldUser:
		u.holdPerson(k.person, nil)
	case heldConversation:
		u.holdRow(k, nil)
	case leaves:
		u.leave(k)
	case rejoins:
		u.leave(k)
		u.addMember(k, 0)
	case closes:
		if k.table != members {
			u.leave(k)
			break
		}
		u.closeConversation(k.conversation)
	case rejoinsOld:
		u.leave(k)
		u.addMember(k, 90*24*hour)
	case changesRole:
		u.setRole(k)
	case readsMessage:
		u.reads(k)
	case liftedHold:
		n := slices.IndexFunc(u.holds, func(h hold) bool { return h.conversation != nil && h.run == 0 })
		if n < 0 {
			return false
		}
		u.lifted[*u.holds[n].conversation] = true
		u.liftHold(n)
	case pauses:
		if u.paused {
			return false
		}
		u.setPaused(true)
	case second:
		return u.nest(0)
	case takenOver:
		return u.nest(hour)
	}
	return true
}

// nest makes another run in the middle of this one, after a while.
func (u *underWay) nest(after moment) bool {
	if u.paused {
		return false
	}
	u.open = &openRun{u.view.id, u.now}
	if after > 0 {
		u.pass(after)
		u.view.over = true
	}
	served := u.auditor.plan()
	u.everybody = true
	if u.wants.target%2 == 1 {
		// A run that hears nothing leaves the ledger as this one wrote it: nothing
		// but the fence is between this one and its next chunk.
		u.auditor.set(func(int) authfake.FaultFunc { return authfake.InBandError })
	}
	u.run(disturbance{}, nil)
	u.auditor.set(served)
	u.everybody = false
	if after == 0 {
		u.open = nil
	}
	return after > 0
}

// aim picks a member who is ripe, if there is one, or of a user who is missing, or any. Canaries
// are left alone: whether the scan met one before it left nobody could tell.
func (u *underWay) aim() (k key, found bool) {
	var ripe, missing, all []key
	for _, k := range slices.SortedFunc(maps.Keys(u.members), compareKeys) {
		if u.rules.isCanary(k.person) || u.wants.kind == closes && k.table == members && u.hasCanary(k.conversation) {
			continue
		}
		if all = append(all, k); u.living[k.person] {
			continue
		}
		missing = append(missing, k)
		if entry, _ := u.clock(k.person, u.rules); u.isOld(entry.first, u.rules) && !u.isYoung(u.members[k], u.rules) {
			ripe = append(ripe, k)
		}
	}
	for _, list := range [][]key{ripe, missing, all} {
		if len(list) > 0 {
			return list[u.wants.target%len(list)], true
		}
	}
	return k, false
}

func (u *underWay) hasCanary(c conversation) bool {
	for k := range u.members {
		if k.isIn(c) && u.rules.isCanary(k.person) {
			return true
		}
	}
	return false
}

// approve approves the last refused run, or takes an approval back.
func (h *history) approve() {
	if h.lastRefused == 0 {
		h.t.Skip("no run was refused")
	}
	q := db.New(h.admin)
	for i, a := range h.approvals {
		if a.run != h.lastRefused || a.over {
			continue
		}
		if _, err := q.ApprovalRevoke(context.Background(), db.ApprovalRevokeParams{RunID: a.run, RevokedBy: "model"}); err != nil {
			h.t.Fatalf("revoking: %v", err)
		}
		h.approvals[i].over = true
		return
	}
	given, err := q.ApprovalGive(context.Background(), db.ApprovalGiveParams{RunID: h.lastRefused, ApprovedBy: "model", Lasting: 24 * time.Hour})
	if !h.approvable {
		if database.Code(err) != "OC011" {
			h.t.Fatalf("approving what cannot be approved: %v", err)
		}
		return
	}
	if err != nil {
		h.t.Fatalf("approving: %v", err)
	}
	h.approvals = append(h.approvals, approval{id: given.ApprovalID, run: h.lastRefused, expires: h.now + 24*hour})
}

func (h *history) otherLimits() { h.drawLimits() }

// noLimits refuse nothing.
func noLimits() settings.Limits {
	return settings.Limits{
		"new-missing-share": 1, "new-missing-rate": 1, "candidate-share": 1, "delete-share": 1, "delete-share-7d": 1, "delete-share-30d": 1,
		"delete-rows": 100_000, "history": 0, "recently-active": 100_000,
	}
}

// undo restores all that runs deleted, of every table (I6), and reverts a restore.
func (h *history) undo() {
	if len(h.deleters()) == 0 {
		return
	}
	h.restore(disturbance{}, choice{}, restore.Selection{})
	h.check()
	h.revert(disturbance{}, nil)
	h.check()
}

// converge ends a history well (I4): auth-service is honest, nobody is held,
// nothing limits the runs. Then as time passes every member is deleted whose user is
// gone, nobody else does, and running again does nothing.
func (h *history) converge() {
	h.lie, h.lost = "", nil
	h.rules.limits = noLimits()
	// Somebody who lives is the canary: a run that chose its own would refuse a history in which most were deleted.
	if len(h.living) == 0 {
		h.live(0)
	}
	h.rules.alive, h.rules.dead = h.sorted(h.living)[:1], nil
	h.rules.checkEvery = 0
	if h.paused {
		h.setPaused(false)
	}
	for len(h.holds) > 0 {
		h.liftHold(0)
	}
	// Past the lease, past a clock that was turned back, past every approval.
	latest := h.lastEnd
	for _, row := range h.members {
		if row.read != nil {
			latest = max(latest, *row.read)
		}
	}
	h.pass(max(latest-h.now, 0)/hour*hour + 25*hour)
	step := min(h.rules.maxGap, h.rules.retention+hour) - hour
	for gone := moment(0); gone <= h.rules.retention+h.rules.maxGap; gone += step {
		h.run(disturbance{}, h.replies(nil))
		h.pass(step)
	}
	h.run(disturbance{}, h.replies(nil))
	before := len(h.gone)
	h.run(disturbance{}, h.replies(nil))
	if len(h.gone) != before {
		h.t.Fatalf("running again deleted %d members", len(h.gone)-before)
	}
	for k, row := range h.members {
		if !h.living[k.person] && !h.isYoung(row, h.rules) {
			h.t.Fatalf("%s is still there, and its user is gone", k)
		}
	}
	h.check()
	h.undo()
	h.tally.count(runEnds, fmt.Sprintf("a history in which somebody was deleted: %t", len(h.gone) > 0))
}
