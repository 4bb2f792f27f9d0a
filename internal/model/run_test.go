package model_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/blocked"
	preflight "github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// disturbance is what happens to one run; the zero value is nothing.
type disturbance struct {
	kind string
	// Where: before the nth call of auth-service, or before the nth statement of a name.
	at  string
	nth int
	// target picks whom it happens to, among those it can happen to.
	target int
}

// atCall is no statement.
const atCall = "call"

// ways to break a run off or to break its connection.
const (
	cancelled  = "cancelled"   // SIGTERM: its context ends
	killed     = "killed"      // kill -9: it reaches the database no more
	terminated = "terminated"  // pg_terminate_backend of the connection in use
	answerLost = "answer lost" // the statement is carried out, its answer never arrives
)

// underWay is a run while it is under way.
type underWay struct {
	*history
	view    *view
	host    string
	pre     model // as it was when the run began
	wants   disturbance
	reached bool
	begun   moment
	every   moment // the setting CHECK_EVERY
	part    *part
	lifted  map[conversation]bool // a hold on it was lifted in the middle of the run
	stop    func()                // listening
	ctx     context.Context
	cancel  context.CancelFunc
	// meanwhile changes the world in the middle of a restore; nil for a cleaning run.
	meanwhile func() bool
}

// begin is a run that is about to start.
func (h *history) begin(wants disturbance) *underWay {
	h.tick()
	h.tally.add("runs", 1)
	h.runs++
	u := &underWay{
		history: h, wants: wants, host: fmt.Sprintf("model:%d", h.runs), view: newView(), pre: h.snapshot(), begun: h.now,
		lifted: map[conversation]bool{},
	}
	u.stop = u.listen()
	u.ctx, u.cancel = context.WithCancel(context.Background())
	if wants.at != "" && wants.at != atCall {
		h.wire.arm(wants.at, wants.nth, u.happen)
	}
	return u
}

// end waits until nothing of a run is under way any more.
func (u *underWay) end() {
	u.cancel()
	u.wire.calm()
	u.stop()
	u.quiesce()
}

// run makes one run and holds all that it does against the model.
func (h *history) run(wants disturbance, plan func(served int) authfake.FaultFunc) {
	u := h.begin(wants)
	if a := h.approvalInForce(); a != nil {
		u.view.approval = new(*a)
	}
	check := u.checker()
	if wants.at == atCall {
		check.before = func(nth int) {
			if nth == wants.nth {
				u.happen(nil)
			}
		}
	}
	if plan != nil {
		h.auditor.set(plan)
	}
	got, err := u.runner(check, u.config()).Run(u.ctx)
	u.end()
	u.judge(got, err)
	if u.wants.kind == killed && u.reached {
		if err := h.revive(); err != nil {
			h.t.Fatalf("starting another runner: %v", err)
		}
	}
}

// runner is the program's own, with its preflight.
func (u *underWay) runner(check run.Checker, cfg settings.Run) *run.Runner {
	preflight := preflight.New(u.wire.pool, discard(), u.schema).ForRun(cfg.DryRun)
	return run.New(u.wire.pool, check, discard(), cfg, func(ctx context.Context) error {
		if err := preflight(ctx); err != nil {
			return fmt.Errorf("%w: %w", run.ErrPreflight, err)
		}
		return nil
	})
}

// checker calls auth-service for the run, and sorts what it hears by whether the
// run has written the ledger yet.
func (u *underWay) checker() *checker {
	return &checker{auditor: u.auditor, client: u.client, view: u.view, isMember: u.view.takes, isAgain: u.isJudged()}
}

// isJudged says from now on whether a run or a revert was judged.
func (u *underWay) isJudged() func() bool {
	wire, merges := u.wire, u.wire.merges.Load()
	return func() bool { return wire.hasMerged(merges) }
}

// dryRun makes a run that changes nothing, which check sees to, and finds out
// what a real one would. A pause is nothing to it, nor a run that is open.
func (h *history) dryRun() {
	u := h.begin(disturbance{})
	u.view.dry = true
	if a := h.approvalInForce(); a != nil {
		u.view.approval = new(*a)
	}
	h.auditor.set(h.replies(nil))
	cfg := u.config()
	cfg.DryRun = true
	const traces = `SELECT run_id::text FROM orphan_cleaner.runs UNION ALL SELECT run_id || ' ' || user_id FROM orphan_cleaner.refusals
		UNION ALL SELECT run_id || ' ' || user_id || ' ' || verdict FROM orphan_cleaner.sightings`
	before := h.lines(traces)
	got, err := u.runner(u.checker(), cfg).Run(u.ctx)
	u.end()
	if found := h.auditor.takeViolations(); len(found) > 0 {
		h.t.Fatalf("dry run %s: %v", u.host, found)
	}
	h.same("what a dry run leaves", before, h.lines(traces))
	if u.stopped() {
		// Nobody counts whom it did not check any more.
		if got.State != "incomplete" || !errors.Is(err, run.ErrIncomplete) {
			h.t.Fatalf("a dry run without responses ended %s: %v", got.State, err)
		}
		return
	}
	f := u.pre.findings(u.view, h.rules)
	f.settle(got)
	want := result.Run{
		State: "succeeded", DryRun: true, Seconds: got.Seconds, Error: got.Error, BatchCalls: int64(len(u.view.first)),
		UsersChecked: f.checked, UsersMissing: f.missing, UsersUnknown: f.unknown, Targets: f.targets(!f.nothingSwept, nil),
	}
	if !f.nothingSwept {
		want.UsersNew, want.UsersRestarted, want.UsersDue, want.Candidates = f.fresh, f.restarted, f.due, f.missing
	}
	switch {
	case f.nothingSwept, f.breaker == "" && f.unknown > 0:
		want.State = "incomplete"
	case f.breaker != "":
		want.State, want.Breaker = "refused", &f.breaker
	}
	u.checkedEverybodyOnce()
	u.inTime()
	if len(u.view.again) > 0 {
		h.t.Fatalf("a dry run checked %d batches again", len(u.view.again))
	}
	u.sameResult(got, want)
	h.tally.count(runEnds, "dry, "+want.State)
}

// sameResult compares all that a run reports, but for what becomes of conversations: the
// model has no roles.
func (u *underWay) sameResult(got, want result.Run) {
	want.Blocked, want.DatabaseError = []blocked.User{}, got.DatabaseError
	m := want.Targets[members]
	want.MembersTotal, want.MembersDue, want.MembersKeptYoung, want.MembersHeld = m.RowsTotal, m.RowsDue, m.RowsKeptYoung, m.RowsHeld
	want.MembersDeleted, want.MembersChanged = m.RowsDeleted, m.RowsChanged
	want.OwnersLost, want.OwnersKept, want.ConversationsEmptied = got.OwnersLost, got.OwnersKept, got.ConversationsEmptied
	if !reflect.DeepEqual(got, want) {
		u.t.Fatalf("run %d, breaker %q, reports\n%+v, it should be, breaker %q,\n%+v", u.view.id, breakerOf(got), got, breakerOf(want), want)
	}
}

func breakerOf(r result.Run) string {
	if r.Breaker == nil {
		return ""
	}
	return *r.Breaker
}

// settle takes the breaker of a later hour, if the run went by it, and one that may be.
func (f *findings) settle(got result.Run) {
	switch breaker := breakerOf(got); {
	case breaker == f.breakerLater:
		f.breaker = f.breakerLater
	case breaker == "user-count" && f.fellByHalf && !f.nothingSwept, breaker == "canary-alive" && f.canariesMayMiss && !f.nothingSwept:
		f.breaker = breaker
	}
}

// stopped says whether so many responses were invalid that the run stopped checking.
func (u *underWay) stopped() bool {
	invalids := 0
	for _, a := range u.view.first {
		if a.invalid {
			invalids++
		}
	}
	return invalids >= 3*u.concurrency()
}

func (m *model) snapshot() model {
	pre := *m
	pre.members, pre.ledger, pre.rechecks = maps.Clone(m.members), maps.Clone(m.ledger), maps.Clone(m.rechecks)
	pre.passed, pre.gone, pre.marked = slices.Clone(m.passed), slices.Clone(m.gone), maps.Clone(m.marked)
	pre.known, pre.unknown = maps.Clone(m.known), maps.Clone(m.unknown)
	return pre
}

func (u *underWay) config() settings.Run {
	cfg := settings.DefaultRun()
	cfg.BatchSize, cfg.Concurrency, cfg.SweepConnections = u.cut.batch, u.concurrency(), u.cut.sweeps
	if u.wants.changes() {
		// What a chunk deletes while something changes would be judged by what held before, or by what holds afterwards.
		cfg.SweepConnections = 1
	}
	cfg.PageUsers, cfg.ChunkRows, cfg.Attempts = u.cut.page, u.cut.chunk, u.cut.attempts
	cfg.Retention, cfg.MaxGap = duration(u.rules.retention), duration(u.rules.maxGap)
	cfg.Lease, cfg.ResponseAge = lease, time.Hour
	cfg.CheckEvery = duration(u.every)
	cfg.Limits = u.rules.limits
	cfg.CanaryAlive, cfg.CanaryDead = u.canaries()
	cfg.Host, cfg.Version = u.host, "model"
	return cfg
}

func (h *history) canaries() (alive, dead []uuid.UUID) {
	for _, p := range h.rules.alive {
		alive = append(alive, h.ids[p])
	}
	for _, p := range h.rules.dead {
		dead = append(dead, h.ids[p])
	}
	return alive, dead
}

// concurrency is how many calls a run has in flight. One, where there are rechecks: a
// recheck who is a member again is checked twice, and auth-service may change its mind
// in between; which response was the scan's, only their order tells.
func (u *underWay) concurrency() int {
	if len(u.pre.rechecks) > 0 {
		return 1
	}
	return u.cut.concurrency
}

func duration(m moment) time.Duration { return time.Duration(hours(m)) * time.Hour }

// quiesce waits until the server has carried out or given up whatever a run
// that is no longer there had sent.
func (h *history) quiesce() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		var busy int
		err := h.admin.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'orphan-cleaner' AND state <> 'idle'`).Scan(&busy)
		if err != nil {
			h.t.Fatalf("waiting for the run's sessions: %v", err)
		}
		if busy == 0 {
			return
		}
		<-tick.C
	}
}

// happen is the disturbance itself, in the middle of the run.
func (u *underWay) happen(conn *pgx.Conn) {
	u.reached = true
	u.tally.disturbed(u.wants)
	switch u.wants.kind {
	case cancelled:
		u.cancel()
	case killed:
		u.wire.kill()
		u.cancel()
	case terminated:
		u.exec(`SELECT pg_terminate_backend($1, 10000)`, conn.PgConn().PID())
	case answerLost:
		loseAnswer(conn)
	default:
		if u.meanwhile != nil {
			u.reached = u.meanwhile()
			return
		}
		// What was deleted before the world changes is judged by what held then.
		u.absorb()
		u.reached = u.change()
	}
}

// interrupts says whether the disturbance ends the run for good.
func (d disturbance) interrupts() bool { return d.kind == cancelled || d.kind == killed }

// cuts says whether it only breaks a connection, which the run may get over.
func (d disturbance) cuts() bool { return d.kind == terminated || d.kind == answerLost }

// changes says whether it changes the world under the run.
func (d disturbance) changes() bool { return d.kind != "" && !d.interrupts() && !d.cuts() }

// absorb compares what a run has done so far with what it may have done as
// things stand, and takes it over into the model.
func (u *underWay) absorb() {
	h, v := u.history, u.view
	u.find()
	if !v.merged && !v.over && u.wasJudged() {
		u.merge()
	}
	ledger, deleted := h.readLedger(), h.newlyDeletedBy(v)
	allowed := h.deletable(v, h.rules)
	counted := false
	for _, k := range deleted {
		if !allowed[k] {
			h.t.Fatalf("run %d deleted %s: %s", v.id, k, u.why(k))
		}
		_, asDue := v.approves(h.model, k.person)
		approved := h.ledger[k.person].approved != 0 || asDue
		counted = counted || !approved
		h.forget(k, v.id, approved)
		v.deleted[k.table]++
		h.tally.count(tableRows, k.table.String()+" deleted")
	}
	if counted && u.wants.kind != liftedHold {
		u.withinLimits()
	}
	for p := range h.ledger {
		if _, there := ledger[p]; !there {
			if returned := v.last(p) == present; !v.merged || !returned && len(h.membersOf(p)) > 0 {
				h.t.Fatalf("run %d took u%02d out of the ledger, verdicts %v, then %v", v.id, p, v.scanned[p], v.second[p])
			}
			h.leaveLedger(p)
		}
	}
}

// find learns the number of the run from the database, if it has one yet.
func (u *underWay) find() {
	if u.view.id != 0 {
		return
	}
	err := u.admin.QueryRow(context.Background(), `SELECT coalesce(max(run_id), 0) FROM orphan_cleaner.runs WHERE host = $1`, u.host).Scan(&u.view.id)
	if err != nil {
		u.t.Fatalf("looking for the run: %v", err)
	}
	if u.view.id != 0 {
		u.started[u.view.id] = u.begun
	}
}

// wasJudged says whether the breakers have let the run pass.
func (u *underWay) wasJudged() (passed bool) {
	if u.view.id == 0 {
		return false
	}
	if err := u.admin.QueryRow(context.Background(), `SELECT judged_at IS NOT NULL FROM orphan_cleaner.runs WHERE run_id = $1`, u.view.id).Scan(&passed); err != nil {
		u.t.Fatalf("reading run %d: %v", u.view.id, err)
	}
	return passed
}

// merge writes the model's ledger, as the run did, and what it has checked.
func (u *underWay) merge() {
	before := u.ledger
	found := u.findings(u.view, u.rules)
	u.ledger, _ = u.merged(u.view, u.rules)
	for p := range before {
		if _, stays := u.ledger[p]; !stays {
			u.leaveLedger(p)
		}
	}
	u.view.merged = true
	if !u.hasRate() {
		found.freshJudged = 0
	}
	u.passed = append(u.passed, judged{u.begun, found.freshJudged, u.rows()})
	u.covers()
	u.countUsers()
	if u.view.approval != nil && u.approvalUsedBy(u.view.id) {
		u.settle(u.view.approval.id)
	}
}

// why says what speaks for a member that was deleted and should not have been.
func (u *underWay) why(k key) string {
	row, there := u.members[k]
	if !there {
		return "there was no such member"
	}
	entry, candidate := u.ledger[k.person]
	return fmt.Sprintf("verdicts %v, then %v (0 invalid, 1 present, 2 missing), candidate %t of run %d missing for %d h, joined %d h ago, changed %d after the snapshot, used %t, user held %t, conversation held %t, paused %t, merged %t, taken over %t, approval %t",
		u.view.scanned[k.person], u.view.second[k.person], candidate, entry.run, hours(u.now-entry.first), hours(u.now-row.joined), row.written-u.view.snapshots[k.person], row.read != nil && *row.read > entry.first, u.personHeld(k.person), u.conversationHeld(k), u.paused, u.view.merged, u.view.over, u.view.approval != nil)
}

func (h *history) newlyDeletedBy(v *view) []key {
	known := map[key]int{}
	for _, d := range h.gone {
		if d.run == v.id {
			known[d.key]++
		}
	}
	audits := `SELECT 'conversation_members', '', conversation_id, user_id FROM conversation_members_audit WHERE run_id = $1`
	if h.hasRows {
		audits += ` UNION ALL SELECT 'likes', ROW(post_id, user_id)::text, post_id, user_id FROM orphan_cleaner.likes_audit WHERE run_id = $1
			UNION ALL SELECT 'posts', ROW(id)::text, id, user_id FROM orphan_cleaner.posts_audit WHERE run_id = $1`
	}
	rows, err := h.admin.Query(context.Background(), audits, v.id)
	if err != nil {
		h.t.Fatalf("reading the audit: %v", err)
	}
	deleted, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (key, error) { return h.scanKey(row) })
	if err != nil {
		h.t.Fatalf("reading the audit: %v", err)
	}
	return slices.DeleteFunc(deleted, func(k key) bool { known[k]--; return known[k] >= 0 })
}

func (h *history) approvalUsedBy(run int64) bool {
	var used bool
	if err := h.admin.QueryRow(context.Background(), `SELECT EXISTS (SELECT FROM orphan_cleaner.approvals WHERE used_by_run = $1)`, run).Scan(&used); err != nil {
		h.t.Fatalf("reading approvals: %v", err)
	}
	return used
}

// settle marks an approval as used or revoked.
func (h *history) settle(approval int64) {
	for i := range h.approvals {
		if h.approvals[i].id == approval {
			h.approvals[i].over = true
		}
	}
}

// judge holds the end of a run against what the model says it must be.
func (u *underWay) judge(got result.Run, err error) {
	h, v := u.history, u.view
	if found := h.auditor.takeViolations(); len(found) > 0 {
		h.t.Fatalf("run %s: %v", u.host, found)
	}
	u.givenUp(u.lapsed())
	switch {
	case u.reached && u.wants.interrupts():
		u.absorb()
		u.interrupted(err)
	case u.pre.open != nil && !u.lapsed():
		u.expectNothing(got, err, run.ErrAnotherRun, "failed")
	case u.pre.paused:
		u.expectNothing(got, err, run.ErrPaused, "paused")
	default:
		u.absorb()
		h.ended()
		switch {
		case v.over:
			if !errors.Is(err, run.ErrTakenOver) {
				h.t.Fatalf("run %d was taken over and ended %s: %v", v.id, got.State, err)
			}
			u.adoptRechecks()
		default:
			u.exact(got, err)
		}
	}
}

// lapsed says whether the run that was open before this one was silent for
// longer than its lease.
func (u *underWay) lapsed() bool { return u.pre.open != nil && u.pre.now-u.pre.open.heard > hour/6 }

// givenUp notes whether a run that was open before is so no more.
func (u *underWay) givenUp(lapsed bool) {
	if u.open == nil {
		return
	}
	state, _ := u.stateOf(u.open.id)
	if state == "running" {
		return
	}
	if state != "abandoned" || !lapsed && u.pre.open != nil {
		u.t.Fatalf("run %d, silent for less than its lease: %t, became %s", u.open.id, !lapsed, state)
	}
	u.open = nil
}

// ended notes that a run has just written its end down.
func (h *history) ended() { h.lastEnd = max(h.lastEnd, h.now) }

func (u *underWay) expectNothing(got result.Run, err, want error, state string) {
	if u.find(); !errors.Is(err, want) || got.State != state || u.view.id != 0 {
		u.t.Fatalf("run %s should end with %q, not opened, and ended %s: %v", u.host, want, got.State, err)
	}
	u.tally.count(runEnds, want.Error())
}

// interrupted is a run of which nobody knows how far it came: what it did was
// right, and its row says that it is open only if the runner was killed.
func (u *underWay) interrupted(err error) {
	h, v := u.history, u.view
	if v.id == 0 {
		return
	}
	u.adoptRechecks()
	state, breaker := h.stateOf(v.id)
	h.tally.count(runEnds, "interrupted, "+state)
	if state == "running" {
		if u.wants.kind != killed {
			h.t.Fatalf("run %d was %s and left open: %v", v.id, u.wants.kind, err)
		}
		h.open = &openRun{v.id, h.now}
	}
	h.ended()
	if state == "refused" {
		u.refusal(breaker, true)
	}
}

func lookUp(set map[person]bool, p person) (value, found bool) {
	value, found = set[p]
	return value, found
}

func (h *history) stateOf(run int64) (state, breaker string) {
	err := h.admin.QueryRow(context.Background(), `SELECT state, coalesce(breaker, '') FROM orphan_cleaner.runs WHERE run_id = $1`, run).Scan(&state, &breaker)
	if err != nil {
		h.t.Fatalf("reading run %d: %v", run, err)
	}
	return state, breaker
}

// refusal takes over what a refused run keeps for an approval, also where none is possible.
func (u *underWay) refusal(breaker string, mayBeNone bool) {
	h, v := u.history, u.view
	want, other := u.pre.refuse(v, h.rules), u.refuse(v, h.rules)
	got := map[person]bool{}
	rows, err := h.admin.Query(context.Background(), `SELECT user_id, is_due FROM orphan_cleaner.refusals WHERE run_id = $1`, v.id)
	if err != nil {
		h.t.Fatalf("reading refusals: %v", err)
	}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (none struct{}, err error) {
		var id [16]byte
		var due bool
		err = row.Scan(&id, &due)
		got[h.auditor.persons[id]] = due
		return none, err
	})
	if err != nil {
		h.t.Fatalf("reading refusals: %v", err)
	}
	for p := range person(len(h.ids)) {
		kept := fmt.Sprint(lookUp(got, p))
		// Whoever lost the last row meanwhile is judged without the activity that it showed.
		asNow := mayBeNone && (len(got) == 0 || kept == fmt.Sprint(lookUp(other, p)) || !slices.Contains(h.persons(), p))
		if kept != fmt.Sprint(lookUp(want, p)) && !asNow {
			h.t.Fatalf("run %d was refused over %v and keeps %v", v.id, want, got)
		}
	}
	h.refusals[v.id] = got
	h.lastRefused, h.approvable = v.id, settings.Approvable(breaker)
}

// exact is a run that nobody broke off: all of it is foreseen.
func (u *underWay) exact(got result.Run, err error) {
	h, v := u.history, u.view
	changed := u.reached && !u.wants.cuts()
	if changed && got.State == "failed" {
		h.t.Fatalf("run %d met %s and failed: %v", v.id, u.wants.kind, err)
	}
	if h.paused && changed {
		if !errors.Is(err, run.ErrPaused) && !errors.Is(err, run.ErrIncomplete) && !errors.Is(err, run.ErrRefused) && err != nil {
			h.t.Fatalf("run %d was paused and ended %s: %v", v.id, got.State, err)
		}
		h.tally.count(runEnds, "paused, "+got.State)
		if got.State == "refused" {
			h.t.Logf("refused before the pause counted")
			u.adoptRefusal(got)
		}
		return
	}
	f := u.pre.findings(v, h.rules)
	f.settle(got)
	stopped := u.stopped()
	if stopped {
		f.nothingSwept, f.breaker = true, ""
	} else if !changed {
		u.checkedEverybodyOnce()
		u.inTime()
	}
	want := result.Run{State: "succeeded"}
	unknownAgain, returnedAgain := int64(0), int64(0)
	for p := range v.second {
		switch v.last(p) {
		case invalid:
			unknownAgain++
		case present:
			returnedAgain++
		}
	}
	switch {
	case changed && (got.State == "refused" || got.State == "incomplete" && f.nothingSwept):
		// Judged by what changed meanwhile; absorb has seen that nothing was deleted.
		h.tally.count(runEnds, "changed, "+got.State)
		u.adoptRefusal(got)
		return
	case f.nothingSwept:
		want.State = "incomplete"
	case f.breaker != "":
		want.State = "refused"
		want.Breaker = &f.breaker
	case f.unknown+unknownAgain > 0:
		want.State = "incomplete"
	}
	swept := !f.nothingSwept && f.breaker == ""
	h.tally.count(runEnds, want.State+label(f.breaker))

	if !changed {
		u.compareEnd(got, err, want)
		if want.State == "refused" {
			u.refusal(f.breaker, false)
		}
	}
	if v.merged && !swept && !changed {
		h.t.Fatalf("run %d ended %s and wrote the ledger", v.id, want.State)
	}
	if !swept {
		return
	}
	if !v.merged {
		h.t.Fatalf("run %d ended %s and was not judged", v.id, got.State)
	}
	if v.approval != nil && !h.approvalUsedBy(v.id) {
		h.t.Fatalf("run %d went by an approval and did not use it up", v.id)
	}
	left := h.deletable(v, h.rules)
	// What a hold kept while its chunk was deleted waits for the next run.
	maps.DeleteFunc(left, func(k key, _ bool) bool {
		return v.last(k.person) != missing || k.table == members && u.lifted[k.conversation]
	})
	if len(left) > 0 {
		keys := slices.SortedFunc(maps.Keys(left), compareKeys)
		h.t.Fatalf("run %d left %v, which should be gone: %s", v.id, keys, u.why(keys[0]))
	}
	for p := range h.ledger {
		if v.last(p) == present || v.last(p) == missing && len(h.membersOf(p)) == 0 && !changed {
			h.t.Fatalf("run %d left u%02d in the ledger, verdicts %v, then %v", v.id, p, v.scanned[p], v.second[p])
		}
	}
	if changed {
		u.adoptRechecks()
		return
	}
	h.checkLedger()
	ledger, returned := u.pre.merged(v, h.rules)
	risen := u.lookBack()
	u.checkedTheDueAgain(ledger)
	want.UsersChecked, want.UsersMissing, want.UsersUnknown = f.checked, f.missing, f.unknown+unknownAgain
	want.UsersNew, want.UsersReturned, want.UsersDue = f.fresh, returned+returnedAgain, f.due
	want.UsersRestarted, want.Candidates = f.restarted, int64(len(ledger))
	want.UsersResurrected = risen
	want.Targets = f.targets(true, &v.deleted)
	want.BatchCalls = int64(len(v.first) + len(v.again))
	u.compareCounts(got, want)
}

func label(breaker string) string {
	if breaker == "" {
		return ""
	}
	return " by " + breaker
}

func (u *underWay) adoptRefusal(got result.Run) {
	if got.State == "refused" && got.Breaker != nil {
		u.refusal(*got.Breaker, true)
	}
}

func compareKeys(a, b key) int {
	return int(a.table-b.table)*1_000_000 + int(a.conversation-b.conversation)*1000 + int(a.person-b.person)
}

func (u *underWay) compareEnd(got result.Run, err error, want result.Run) {
	sentinel := map[string]error{"incomplete": run.ErrIncomplete, "refused": run.ErrRefused}[want.State]
	if got.State != want.State || !errors.Is(err, sentinel) || breakerOf(got) != breakerOf(want) {
		u.t.Fatalf("run %d should end %s %s and ended %s %s: %v", u.view.id, want.State, breakerOf(want), got.State, breakerOf(got), err)
	}
	if state, tripped := u.stateOf(u.view.id); state != want.State || tripped != breakerOf(want) {
		u.t.Fatalf("run %d ended %s %s, its row says %s %s", u.view.id, want.State, breakerOf(want), state, tripped)
	}
}

// compareCounts compares the numbers that a run reports with those of the model,
// and its row with them.
func (u *underWay) compareCounts(got, want result.Run) {
	distinct := map[conversation]bool{}
	for _, d := range u.gone {
		if d.run == u.view.id && d.table == members {
			distinct[d.conversation] = true
		}
	}
	want.Conversations = int64(len(distinct))
	want.RunID, want.Seconds, want.Error, want.State, want.Breaker = got.RunID, got.Seconds, got.Error, got.State, got.Breaker
	u.sameResult(got, want)
	const figures = `users_checked || ' ' || users_missing || ' ' || users_unknown || ' ' || users_new || ' ' || users_returned || ' ' || users_restarted
		|| ' ' || users_due || ' ' || candidates || ' ' || members_total || ' ' || members_due || ' ' || members_deleted || ' ' || members_changed`
	m := want.Targets[members]
	row := fmt.Sprint(want.UsersChecked, want.UsersMissing, want.UsersUnknown, want.UsersNew, want.UsersReturned, want.UsersRestarted,
		want.UsersDue, want.Candidates, m.RowsTotal, m.RowsDue, m.RowsDeleted, m.RowsChanged)
	if kept := strings.Join(u.lines(`SELECT `+figures+` FROM orphan_cleaner.runs WHERE run_id = $1`, u.view.id), ""); kept != row {
		u.t.Fatalf("run %d keeps the counts %s, it should be %s", u.view.id, kept, row)
	}
}

// checkedEverybodyOnce: each person with a member who belongs to the run's part, each candidate and each canary, in
// full batches; in what is left of the last one, and in a tenth more, rechecks.
func (u *underWay) checkedEverybodyOnce() {
	v := u.view
	everybody := map[person]bool{}
	for _, p := range slices.Concat(slices.DeleteFunc(u.pre.persons(), func(p person) bool { return !v.takes(p) }), u.rules.alive, u.rules.dead) {
		everybody[p] = true
	}
	checked, riders := 0, 0
	for _, b := range v.first {
		checked += len(b.persons)
		if len(b.persons) > u.cut.batch {
			u.t.Fatalf("run %d checked %d persons at once", v.id, len(b.persons))
		}
	}
	for p, said := range v.scanned {
		wanted := 0
		if everybody[p] {
			wanted = 1
		}
		_, isRecheck := u.pre.rechecks[p]
		if len(said) > wanted+1 || len(said) > wanted && !isRecheck {
			u.t.Fatalf("run %d checked u%02d %d times", v.id, p, len(said))
		}
		riders += len(said) - wanted
	}
	for p := range everybody {
		if !v.checked(p) {
			u.t.Fatalf("run %d did not check u%02d", v.id, p)
		}
	}
	batches := (len(everybody) + u.cut.batch - 1) / u.cut.batch
	room := (batches+batches/10)*u.cut.batch - len(everybody)
	if riders > room || riders > len(u.pre.rechecks) {
		u.t.Fatalf("run %d made %d rechecks, of %d and with room for %d", v.id, riders, len(u.pre.rechecks), room)
	}
	if want := (checked + u.cut.batch - 1) / u.cut.batch; len(v.first) != want {
		u.t.Fatalf("run %d checked %d persons in %d batches of up to %d, not in %d", v.id, checked, len(v.first), u.cut.batch, want)
	}
}

// checkedTheDueAgain: each due person, for each part of a chunk while still missing,
// and nobody else.
func (u *underWay) checkedTheDueAgain(ledger map[person]candidate) {
	merged := u.pre
	merged.ledger = ledger
	for p := range person(len(u.ids)) {
		said := u.view.second[p]
		if due := merged.due(p, u.view, u.rules); due != (len(said) > 0) {
			u.t.Fatalf("run %d: that u%02d is due is %t, and it was checked %d times more", u.view.id, p, due, len(said))
		}
		for _, early := range said[:max(len(said)-1, 0)] {
			if early != missing {
				u.t.Fatalf("run %d checked u%02d on and on: %v", u.view.id, p, said)
			}
		}
	}
}

// rider is what a run heard of a recheck, the last thing if more than one.
func (u *underWay) rider(p person) (said verdict, was bool) {
	if _, isRecheck := u.pre.rechecks[p]; !isRecheck {
		return invalid, false
	}
	heard := u.view.scanned[p]
	if u.view.isMember[p] || u.rules.isCanary(p) {
		heard = heard[min(1, len(heard)):]
	}
	if len(heard) == 0 {
		return invalid, false
	}
	return heard[0], true
}

// lookBack writes down what the run heard of those who rechecks, and counts
// those who are alive though members of theirs could be restored.
func (u *underWay) lookBack() (risen int64) {
	for p := range u.pre.rechecks {
		switch said, was := u.rider(p); {
		case !was || said == invalid:
		case said == missing:
			u.rechecks[p] = false
		case u.losses(p) > 0:
			u.rechecks[p] = true
			risen++
		default:
			delete(u.rechecks, p)
		}
	}
	return risen
}

// adoptRechecks takes over the list of rechecks after a run that may or may
// not have looked back, and of which not every step can be told.
func (u *underWay) adoptRechecks() {
	actual := u.readRechecks()
	for p := range actual {
		if _, known := u.rechecks[p]; !known && len(u.view.second[p]) == 0 {
			u.t.Fatalf("run %d wrote down that u%02d rechecks", u.view.id, p)
		}
	}
	for p := range u.rechecks {
		if _, there := actual[p]; there {
			continue
		}
		if said, was := u.rider(p); !was || said != present {
			u.t.Fatalf("run %d took u%02d off the list of the rechecks", u.view.id, p)
		}
	}
	u.rechecks = actual
}
