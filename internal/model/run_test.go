package model_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
)

// disturbance is what happens to one run; the zero value is nothing.
type disturbance struct {
	kind string
	// Where: before the nth asking, or before the nth statement of a name.
	at  string
	nth int
	// target picks whom it happens to, among those it can happen to.
	target int
}

// atAsking is a place that is no statement.
const atAsking = "asking"

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
	}
	u.listen()
	u.ctx, u.cancel = context.WithCancel(context.Background())
	if wants.at != "" && wants.at != atAsking {
		h.wire.arm(wants.at, wants.nth, u.happen)
	}
	return u
}

// end waits until nothing of a run is under way any more.
func (u *underWay) end() {
	u.cancel()
	u.wire.calm()
	u.quiesce()
}

// run makes one run and holds all that it does against the model.
func (h *history) run(wants disturbance, plan func(served int) authfake.FaultFunc) {
	u := h.begin(wants)
	if a := h.approvalInForce(); a != nil {
		u.view.approval = new(*a)
	}
	check := u.checker()
	if wants.at == atAsking {
		check.before = func(nth int) {
			if nth == wants.nth {
				u.happen(nil)
			}
		}
	}
	if plan != nil {
		h.auditor.set(plan)
	}
	result, err := cleaner.New(h.wire.pool, check, discard(), u.config()).Run(u.ctx)
	u.end()
	u.judge(result, err)
	u.covered()
	if u.wants.kind == killed && u.reached {
		if err := h.revive(); err != nil {
			h.t.Fatalf("starting another runner: %v", err)
		}
	}
}

// checker asks auth-service for the run, and sorts what it hears by whether the
// run has written the ledger yet.
func (u *underWay) checker() *checker {
	wire, merges := u.wire, u.wire.merges.Load()
	return &checker{
		auditor: u.auditor, client: u.client, view: u.view,
		isMember: u.view.takes,
		isAgain:  func() bool { return wire.hasMerged(merges) },
	}
}

// dryRun makes a run that changes nothing, which check sees to, and finds out
// what a real one would.
func (h *history) dryRun() {
	u := h.begin(disturbance{})
	if a := h.approvalInForce(); a != nil {
		u.view.approval = new(*a)
	}
	h.auditor.set(h.replies(nil))
	cfg := u.config()
	cfg.DryRun = true
	const traces = `SELECT run_id::text FROM orphan_runs UNION ALL SELECT run_id || ' ' || user_id FROM orphan_refusals
		UNION ALL SELECT run_id || ' ' || user_id || ' ' || verdict FROM orphan_sightings`
	before := h.lines(traces)
	got, err := cleaner.New(h.wire.pool, u.checker(), discard(), cfg).Run(u.ctx)
	u.end()
	if found := h.auditor.takeViolations(); len(found) > 0 {
		h.t.Fatalf("dry run %s: %v", u.host, found)
	}
	h.same("what a dry run leaves", before, h.lines(traces))
	if u.pre.paused {
		u.expectNothing(got, err, cleaner.ErrPreflight, "failed")
		return
	}
	f := u.pre.findings(u.view, h.rules)
	want := cleaner.Result{
		State: "succeeded", DryRun: true, Seconds: got.Seconds, Error: got.Error, BatchCalls: int64(len(u.view.first)),
		UsersChecked: f.checked, UsersMissing: f.missing, UsersUnknown: f.unknown, UsersNew: f.fresh, UsersDue: f.due,
		MembersTotal: f.total, MembersDue: f.membersDue, MembersKeptYoung: f.young, MembersHeld: f.held,
	}
	switch {
	case u.stopped():
		// Whom it did not ask about any more nobody counts.
		if got.State != "incomplete" || !errors.Is(err, cleaner.ErrIncomplete) {
			h.t.Fatalf("a dry run without answers ended %s: %v", got.State, err)
		}
		return
	case f.nothingSwept, f.breaker == "" && f.unknown > 0:
		want.State = "incomplete"
	case f.breaker != "":
		want.State = "refused"
	}
	tripped := ""
	if got.Breaker != nil {
		tripped, got.Breaker = *got.Breaker, nil
	}
	if tripped != f.breaker {
		h.t.Fatalf("a dry run should be refused by %q and was by %q: %v", f.breaker, tripped, err)
	}
	u.askedEverybodyOnce()
	u.inTime()
	if got != want || len(u.view.again) > 0 {
		h.t.Fatalf("a dry run reports\n%+v, it should be\n%+v; it asked again %d times", got, want, len(u.view.again))
	}
	h.tally.count(runEnds, "dry, "+want.State)
}

// stopped says whether so many answers were void that the run asked no more.
func (u *underWay) stopped() bool {
	voids := 0
	for _, a := range u.view.first {
		if a.void {
			voids++
		}
	}
	return voids >= 3*u.concurrency()
}

func (m *model) snapshot() model {
	pre := *m
	pre.members, pre.ledger, pre.departed = maps.Clone(m.members), maps.Clone(m.ledger), maps.Clone(m.departed)
	pre.known, pre.unknown = maps.Clone(m.known), maps.Clone(m.unknown)
	return pre
}

func (u *underWay) config() cleaner.Config {
	cfg := cleaner.DefaultConfig()
	cfg.BatchSize, cfg.Concurrency = u.settings.batch, u.concurrency()
	cfg.PageUsers, cfg.ChunkRows, cfg.Attempts = u.settings.page, u.settings.chunk, u.settings.attempts
	cfg.Retention, cfg.MaxGap = duration(u.rules.retention), duration(u.rules.maxGap)
	cfg.Lease, cfg.AnswerAge = lease, time.Hour
	cfg.CheckEvery = duration(u.every)
	cfg.Limits.NewMissingShare, cfg.Limits.DeleteMembers = u.rules.newMissingShare, u.rules.deleteMembers
	cfg.Limits.RecentlyActive = u.rules.recentlyActive
	for _, p := range u.rules.alive {
		cfg.CanaryAlive = append(cfg.CanaryAlive, u.ids[p])
	}
	for _, p := range u.rules.dead {
		cfg.CanaryDead = append(cfg.CanaryDead, u.ids[p])
	}
	cfg.SchemaVersion, cfg.Host, cfg.Version, cfg.Settings = u.schema, u.host, "model", []byte("{}")
	return cfg
}

// concurrency is how many calls a run has in flight. One, where somebody departed:
// who is a member again is asked about twice, and auth-service may change its mind
// in between; which answer was the scan's, only their order tells.
func (u *underWay) concurrency() int {
	if len(u.pre.departed) > 0 {
		return 1
	}
	return u.settings.concurrency
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
		// The world changes: what was deleted before that is judged by what held then.
		change := func() {
			u.absorb()
			u.reached = u.change()
		}
		if nested(u.wants.kind) {
			change() // with chunks of its own, when this run has none under way
			return
		}
		u.wire.between(change)
	}
}

// interrupts says whether the disturbance ends the run for good.
func (d disturbance) interrupts() bool { return d.kind == cancelled || d.kind == killed }

// cuts says whether it only breaks a connection, which the run may get over.
func (d disturbance) cuts() bool { return d.kind == terminated || d.kind == answerLost }

// absorb compares what a run has done so far with what it may have done as
// things stand, and takes it over into the model.
func (u *underWay) absorb() {
	h, v := u.history, u.view
	u.find()
	ledger, deleted := h.readLedger(), h.newlyDeletedBy(v)
	if !v.merged && !v.over && (!maps.Equal(ledger, h.rendered(h.ledger)) || len(deleted) > 0 || h.approvalUsedBy(v.id)) {
		u.merge()
	}
	allowed := h.deletable(v, h.rules)
	for _, k := range deleted {
		if !allowed[k] {
			h.t.Fatalf("run %d deleted %s: %s", v.id, k, u.why(k))
		}
		h.forget(k, v.id)
		v.deleted++
		h.tally.add("deleted", 1)
	}
	for p := range h.ledger {
		if _, there := ledger[p]; !there {
			if returned := v.last(p) == present; !v.merged || !returned && len(h.membersOf(p)) > 0 {
				h.t.Fatalf("run %d took u%02d out of the ledger, verdicts %v, then %v", v.id, p, v.scanned[p], v.second[p])
			}
			h.depart(p)
		}
	}
}

// find learns the number of the run from the database, if it has one yet.
func (u *underWay) find() {
	if u.view.id != 0 {
		return
	}
	err := u.admin.QueryRow(context.Background(), `SELECT coalesce(max(run_id), 0) FROM orphan_runs WHERE host LIKE $1 || '/%'`, u.host).Scan(&u.view.id)
	if err != nil {
		u.t.Fatalf("looking for the run: %v", err)
	}
	if u.view.id != 0 {
		u.started[u.view.id] = u.begun
	}
}

// merge writes the model's ledger, as the run did.
func (u *underWay) merge() {
	before := u.ledger
	u.ledger, _ = u.merged(u.view, u.rules)
	for p := range before {
		if _, stays := u.ledger[p]; !stays {
			u.depart(p)
		}
	}
	u.view.merged = true
	if u.view.approval != nil && u.approvalUsedBy(u.view.id) {
		u.settle(u.view.approval.id)
	}
}

// why says what speaks for a member that went and should not have.
func (u *underWay) why(k key) string {
	row, there := u.members[k]
	if !there {
		return "there was no such member"
	}
	entry, candidate := u.ledger[k.person]
	return fmt.Sprintf("verdicts %v, then %v (0 void, 1 present, 2 missing), candidate %t of run %d missing for %d h, joined %d h ago, user held %t, conversation held %t, paused %t, merged %t, taken over %t, approval %t",
		u.view.scanned[k.person], u.view.second[k.person], candidate, entry.run, hours(u.now-entry.first), hours(u.now-row.joined), u.personHeld(k.person), u.placeHeld(k.place), u.paused, u.view.merged, u.view.over, u.view.approval != nil)
}

func (h *history) newlyDeletedBy(v *view) []key {
	known := map[key]int{}
	for _, d := range h.gone {
		if d.run == v.id {
			known[d.key]++
		}
	}
	rows, err := h.admin.Query(context.Background(), `SELECT conversation_id, user_id FROM conversation_members_audit WHERE run_id = $1`, v.id)
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
	if err := h.admin.QueryRow(context.Background(), `SELECT EXISTS (SELECT FROM orphan_approvals WHERE used_by_run = $1)`, run).Scan(&used); err != nil {
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
func (u *underWay) judge(result cleaner.Result, err error) {
	h, v := u.history, u.view
	if found := h.auditor.takeViolations(); len(found) > 0 {
		h.t.Fatalf("run %s: %v", u.host, found)
	}
	u.givenUp(u.lapsed())
	switch {
	case u.reached && u.wants.interrupts():
		u.absorb()
		u.interrupted(err)
	case u.pre.paused:
		u.expectNothing(result, err, cleaner.ErrPreflight, "failed")
		h.ended()
	case u.pre.open != nil && !u.lapsed():
		u.expectNothing(result, err, cleaner.ErrAnotherRun, "failed")
		return
	default:
		u.absorb()
		h.ended()
		switch {
		case v.over:
			if !errors.Is(err, cleaner.ErrTakenOver) {
				h.t.Fatalf("run %d was taken over and ended %s: %v", v.id, result.State, err)
			}
			u.adoptDeparted()
		default:
			u.exact(result, err)
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

func (u *underWay) expectNothing(result cleaner.Result, err, want error, state string) {
	if !errors.Is(err, want) || result.State != state {
		u.t.Fatalf("run %s should end with %q and ended %s: %v", u.host, want, result.State, err)
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
	u.adoptDeparted()
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

func (h *history) stateOf(run int64) (state, breaker string) {
	err := h.admin.QueryRow(context.Background(), `SELECT state, coalesce(breaker, '') FROM orphan_runs WHERE run_id = $1`, run).Scan(&state, &breaker)
	if err != nil {
		h.t.Fatalf("reading run %d: %v", run, err)
	}
	return state, breaker
}

// refusal takes over what a refused run keeps for an approval.
func (u *underWay) refusal(breaker string, mayBeNone bool) {
	h, v := u.history, u.view
	if !cleaner.Approvable(breaker) {
		return
	}
	want := u.pre.refuse(v, h.rules)
	got := map[person]bool{}
	rows, err := h.admin.Query(context.Background(), `SELECT user_id, is_due FROM orphan_refusals WHERE run_id = $1`, v.id)
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
	if !maps.Equal(got, want) && (!mayBeNone || len(got) > 0) {
		h.t.Fatalf("run %d was refused over %v and keeps %v", v.id, want, got)
	}
	h.refusals[v.id] = got
	h.lastRefused = v.id
}

// exact is a run that nobody broke off: all of it is foreseen.
func (u *underWay) exact(result cleaner.Result, err error) {
	h, v := u.history, u.view
	changed := u.reached && !u.wants.cuts()
	if h.paused && changed {
		if !errors.Is(err, cleaner.ErrPaused) && !errors.Is(err, cleaner.ErrIncomplete) && !errors.Is(err, cleaner.ErrRefused) && err != nil {
			h.t.Fatalf("run %d was paused and ended %s: %v", v.id, result.State, err)
		}
		h.tally.count(runEnds, "paused, "+result.State)
		if result.State == "refused" {
			h.t.Logf("refused before the pause counted")
			u.adoptRefusal(result)
		}
		return
	}
	f := u.pre.findings(v, h.rules)
	stopped := u.stopped()
	if stopped {
		f.nothingSwept, f.breaker = true, ""
	} else if !changed {
		u.askedEverybodyOnce()
		u.inTime()
	}
	want := cleaner.Result{State: "succeeded"}
	unknownAgain, returnedAgain := int64(0), int64(0)
	for _, a := range v.again {
		for _, p := range a.persons {
			switch v.last(p) {
			case void:
				unknownAgain++
			case present:
				returnedAgain++
			}
		}
	}
	switch {
	case changed && (result.State == "refused" || result.State == "incomplete" && f.nothingSwept):
		// Judged by what changed meanwhile; absorb has seen that nothing went.
		h.tally.count(runEnds, "changed, "+result.State)
		u.adoptRefusal(result)
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
		u.compareEnd(result, err, want)
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
	ledger, returned := u.pre.merged(v, h.rules)
	if !v.merged {
		// Whoever it wrote into the ledger left it again: nothing showed so far.
		u.merge()
		u.absorb()
	}
	if v.approval != nil && !h.approvalUsedBy(v.id) {
		h.t.Fatalf("run %d went by an approval and did not use it up", v.id)
	}
	if left := h.deletable(v, h.rules); len(left) > 0 {
		h.t.Fatalf("run %d left %v, which should be gone", v.id, slices.SortedFunc(maps.Keys(left), compareKeys))
	}
	for p := range h.ledger {
		if v.last(p) == present || v.last(p) == missing && len(h.membersOf(p)) == 0 && !changed {
			h.t.Fatalf("run %d left u%02d in the ledger, verdicts %v, then %v", v.id, p, v.scanned[p], v.second[p])
		}
	}
	if changed {
		u.adoptDeparted()
		return
	}
	risen := u.lookBack()
	u.askedTheDueAgain(ledger)
	if stopped {
		return
	}
	want.UsersChecked, want.UsersMissing, want.UsersUnknown = f.checked, f.missing, f.unknown+unknownAgain
	want.UsersNew, want.UsersReturned, want.UsersDue = f.fresh, returned+returnedAgain, f.due
	want.MembersTotal, want.MembersDue, want.MembersKeptYoung, want.MembersHeld = f.total, f.membersDue, f.young, f.held
	want.UsersResurrected = risen
	want.MembersDeleted, want.BatchCalls = v.deleted, int64(len(v.first)+len(v.again))
	u.compareCounts(result, want)
}

func label(breaker string) string {
	if breaker == "" {
		return ""
	}
	return " by " + breaker
}

func (u *underWay) adoptRefusal(result cleaner.Result) {
	if result.State == "refused" && result.Breaker != nil {
		u.refusal(*result.Breaker, true)
	}
}

func compareKeys(a, b key) int { return int(a.place-b.place)*1000 + int(a.person-b.person) }

func (u *underWay) compareEnd(result cleaner.Result, err error, want cleaner.Result) {
	sentinel := map[string]error{"incomplete": cleaner.ErrIncomplete, "refused": cleaner.ErrRefused}[want.State]
	breaker := func(r cleaner.Result) string {
		if r.Breaker == nil {
			return ""
		}
		return *r.Breaker
	}
	if result.State != want.State || !errors.Is(err, sentinel) || breaker(result) != breaker(want) {
		u.t.Fatalf("run %d should end %s %s and ended %s %s: %v", u.view.id, want.State, breaker(want), result.State, breaker(result), err)
	}
	if state, tripped := u.stateOf(u.view.id); state != want.State || tripped != breaker(want) {
		u.t.Fatalf("run %d ended %s %s, its row says %s %s", u.view.id, want.State, breaker(want), state, tripped)
	}
}

// compareCounts compares the numbers that a run reports.
func (u *underWay) compareCounts(got, want cleaner.Result) {
	distinct := map[place]bool{}
	for _, d := range u.gone {
		if d.run == u.view.id {
			distinct[d.place] = true
		}
	}
	want.Conversations = int64(len(distinct))
	want.RunID, want.Seconds, want.Error, want.State, want.Breaker = got.RunID, got.Seconds, got.Error, got.State, got.Breaker
	if got != want {
		u.t.Fatalf("run %d reports\n%+v, it should be\n%+v", u.view.id, got, want)
	}
}

// askedEverybodyOnce: each person with a member whose turn it is, each candidate and each canary, in full batches;
// in what is left of the last one, and in a tenth more, those who departed.
func (u *underWay) askedEverybodyOnce() {
	v := u.view
	everybody := map[person]bool{}
	for _, p := range slices.Concat(slices.DeleteFunc(u.pre.persons(), func(p person) bool { return !v.takes(p) }), u.rules.alive, u.rules.dead) {
		everybody[p] = true
	}
	asked, riders := 0, 0
	for _, a := range v.first {
		asked += len(a.persons)
		if len(a.persons) > u.settings.batch {
			u.t.Fatalf("run %d asked about %d persons at once", v.id, len(a.persons))
		}
	}
	for p, said := range v.scanned {
		wanted := 0
		if everybody[p] {
			wanted = 1
		}
		_, departed := u.pre.departed[p]
		if len(said) > wanted+1 || len(said) > wanted && !departed {
			u.t.Fatalf("run %d asked about u%02d %d times", v.id, p, len(said))
		}
		riders += len(said) - wanted
	}
	for p := range everybody {
		if !v.asked(p) {
			u.t.Fatalf("run %d did not ask about u%02d", v.id, p)
		}
	}
	batches := (len(everybody) + u.settings.batch - 1) / u.settings.batch
	room := (batches+batches/10)*u.settings.batch - len(everybody)
	if riders > room || riders > len(u.pre.departed) {
		u.t.Fatalf("run %d asked again about %d persons, with %d departed and room for %d", v.id, riders, len(u.pre.departed), room)
	}
	if want := (asked + u.settings.batch - 1) / u.settings.batch; len(v.first) != want {
		u.t.Fatalf("run %d asked about %d persons in %d batches of up to %d, not in %d", v.id, asked, len(v.first), u.settings.batch, want)
	}
}

// askedTheDueAgain: each due person once more, and nobody else.
func (u *underWay) askedTheDueAgain(ledger map[person]candidate) {
	judged := u.pre
	judged.ledger = ledger
	for p := range person(len(u.ids)) {
		due := judged.due(p, u.view, u.rules)
		if again := len(u.view.second[p]); due != (again == 1) {
			u.t.Fatalf("run %d: that u%02d is due is %t, and it was asked about %d times more", u.view.id, p, due, again)
		}
	}
}

// rider is what a run heard of one who departed, the last thing if more than one.
func (u *underWay) rider(p person) (said verdict, was bool) {
	if _, departed := u.pre.departed[p]; !departed {
		return void, false
	}
	heard := u.view.scanned[p]
	if u.view.isMember[p] || u.rules.isCanary(p) {
		heard = heard[min(1, len(heard)):]
	}
	if len(heard) == 0 {
		return void, false
	}
	return heard[0], true
}

// lookBack writes down what the run heard of those who departed, and counts
// those who are alive though members of theirs could be given back.
func (u *underWay) lookBack() (risen int64) {
	for p := range u.pre.departed {
		switch said, was := u.rider(p); {
		case !was || said == void:
		case said == missing:
			u.departed[p] = false
		case u.losses(p) > 0:
			u.departed[p] = true
			risen++
		default:
			delete(u.departed, p)
		}
	}
	return risen
}

// adoptDeparted takes over the list of the departed after a run that may or may
// not have looked back, and of which not every step can be told.
func (u *underWay) adoptDeparted() {
	actual := u.readDeparted()
	for p := range actual {
		if _, known := u.departed[p]; !known && len(u.view.second[p]) == 0 {
			u.t.Fatalf("run %d wrote down that u%02d departed", u.view.id, p)
		}
	}
	for p := range u.departed {
		if _, there := actual[p]; there {
			continue
		}
		if said, was := u.rider(p); !was || said != present {
			u.t.Fatalf("run %d took u%02d off the list of the departed", u.view.id, p)
		}
	}
	u.departed = actual
}
