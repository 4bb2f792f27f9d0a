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
	cancel  context.CancelFunc
}

// run makes one run and holds all that it does against the model.
func (h *history) run(wants disturbance, plan func(served int) authfake.FaultFunc) {
	h.tick()
	h.tally.add("runs", 1)
	h.runs++
	u := &underWay{
		history: h, wants: wants, host: fmt.Sprintf("model:%d", h.runs),
		view: &view{verdicts: map[person][]verdict{}, isMember: map[person]bool{}},
		pre:  h.snapshot(),
	}
	if a := h.approvalInForce(); a != nil {
		u.view.approval = new(*a)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	u.cancel = cancel
	check := &checker{
		auditor: h.auditor, client: h.client, view: u.view,
		isMember: func(p person) bool {
			return !h.rules.isCanary(p) || len(u.pre.membersOf(p)) > 0
		},
	}
	switch {
	case wants.at == atAsking:
		check.before = func(nth int) {
			if nth == wants.nth {
				u.happen(nil)
			}
		}
	case wants.at != "":
		h.wire.arm(wants.at, wants.nth, u.happen)
	}
	if plan != nil {
		h.auditor.set(plan)
	}
	result, err := cleaner.New(h.wire.pool, check, discard(), u.config()).Run(ctx)
	h.wire.calm()
	h.quiesce()
	u.judge(result, err)
	if u.wants.kind == killed && u.reached {
		if err := h.revive(); err != nil {
			h.t.Fatalf("starting another runner: %v", err)
		}
	}
}

func (m *model) snapshot() model {
	pre := *m
	pre.members, pre.ledger = maps.Clone(m.members), maps.Clone(m.ledger)
	return pre
}

func (u *underWay) config() cleaner.Config {
	cfg := cleaner.DefaultConfig()
	cfg.BatchSize, cfg.Concurrency = u.settings.batch, u.settings.concurrency
	cfg.PageUsers, cfg.ChunkRows, cfg.Attempts = u.settings.page, u.settings.chunk, u.settings.attempts
	cfg.Retention, cfg.MaxGap = duration(u.rules.retention), duration(u.rules.maxGap)
	cfg.Lease, cfg.AnswerAge = lease, time.Hour
	cfg.Limits.NewMissingShare, cfg.Limits.DeleteMembers = u.rules.newMissingShare, u.rules.deleteMembers
	for _, p := range u.rules.alive {
		cfg.CanaryAlive = append(cfg.CanaryAlive, u.ids[p])
	}
	for _, p := range u.rules.dead {
		cfg.CanaryDead = append(cfg.CanaryDead, u.ids[p])
	}
	cfg.SchemaVersion, cfg.Host, cfg.Version, cfg.Settings = u.schema, u.host, "model", []byte("{}")
	return cfg
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
		// The world changes: what was deleted before that is judged by what held then.
		u.absorb()
		if !u.change() {
			u.reached = false
		}
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
	if v.id == 0 {
		err := h.admin.QueryRow(context.Background(), `SELECT coalesce(max(run_id), 0) FROM orphan_runs WHERE host = $1`, u.host).Scan(&v.id)
		if err != nil {
			h.t.Fatalf("looking for the run: %v", err)
		}
	}
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
			if returned := v.askedTimes(p) > 1 && v.last(p) == present; !v.merged || !returned && len(h.membersOf(p)) > 0 {
				h.t.Fatalf("run %d took u%02d out of the ledger, who was asked about %d times and last found %d", v.id, p, v.askedTimes(p), v.last(p))
			}
			delete(h.ledger, p)
		}
	}
}

// merge writes the model's ledger, as the run did.
func (u *underWay) merge() {
	u.ledger, _ = u.merged(u.view, u.rules)
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
	return fmt.Sprintf("verdicts %v (0 void, 1 present, 2 missing), candidate %t of run %d missing for %d h, joined %d h ago, user held %t, conversation held %t, paused %t, merged %t, taken over %t, approval %t",
		u.view.verdicts[k.person], candidate, entry.run, hours(u.now-entry.first), hours(u.now-row.joined), u.personHeld(k.person), u.placeHeld(k.place), u.paused, u.view.merged, u.view.over, u.view.approval != nil)
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
	lapsed := u.pre.open != nil && u.pre.now-u.pre.open.heard > hour/6
	u.givenUp(lapsed)
	switch {
	case u.reached && u.wants.interrupts():
		u.absorb()
		u.interrupted(err)
	case u.pre.paused:
		u.expectNothing(result, err, cleaner.ErrPreflight, "failed")
		h.ended()
	case u.pre.open != nil && !lapsed:
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
		case u.reached && u.wants.cuts() && err != nil && !errors.Is(err, cleaner.ErrIncomplete) && !errors.Is(err, cleaner.ErrRefused):
			u.interrupted(err)
		default:
			u.exact(result, err)
		}
	}
}

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
	if u.reached && u.wants.cuts() && err != nil {
		return
	}
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
	f := u.pre.find(v, h.rules)
	voids := 0
	for _, a := range v.first {
		if a.void {
			voids++
		}
	}
	stopped := voids >= 3*h.settings.concurrency
	if stopped {
		f.nothingSwept, f.breaker = true, ""
	} else if !changed {
		u.askedEverybodyOnce()
	}
	want := cleaner.Result{State: "succeeded"}
	unknownAgain, returnedAgain := int64(0), int64(0)
	for _, a := range v.again {
		for _, p := range a.persons {
			switch v.verdict(p, 1) {
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
			u.refusal(f.breaker, u.reached)
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
		if v.askedTimes(p) > 1 && (v.last(p) == present || v.last(p) == missing && len(h.membersOf(p)) == 0 && !changed) {
			h.t.Fatalf("run %d left u%02d in the ledger, verdicts %v", v.id, p, v.verdicts[p])
		}
	}
	if changed {
		return
	}
	u.askedTheDueAgain(ledger)
	if stopped {
		return
	}
	want.UsersChecked, want.UsersMissing, want.UsersUnknown = f.checked, f.missing, f.unknown+unknownAgain
	want.UsersNew, want.UsersReturned, want.UsersDue = f.fresh, returned+returnedAgain, f.due
	want.MembersTotal, want.MembersDue, want.MembersKeptYoung, want.MembersHeld = f.total, f.membersDue, f.young, f.held
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

// askedEverybodyOnce: each person with a member and each canary, in full batches.
func (u *underWay) askedEverybodyOnce() {
	v := u.view
	everybody := map[person]bool{}
	for _, p := range slices.Concat(u.pre.persons(), u.rules.alive, u.rules.dead) {
		everybody[p] = true
	}
	asked := 0
	for i, a := range v.first {
		asked += len(a.persons)
		full := len(a.persons) == u.settings.batch
		if !full && (i < len(v.first)-1 && u.settings.concurrency == 1 || len(v.first) != (len(everybody)+u.settings.batch-1)/u.settings.batch) {
			u.t.Fatalf("run %d asked %d batches of up to %d about %d persons, the %dth about %d", v.id, len(v.first), u.settings.batch, len(everybody), i+1, len(a.persons))
		}
	}
	for p := range everybody {
		if !v.asked(p) {
			u.t.Fatalf("run %d did not ask about u%02d", v.id, p)
		}
	}
	if asked != len(everybody) {
		u.t.Fatalf("run %d asked about %d persons, there are %d", v.id, asked, len(everybody))
	}
}

// askedTheDueAgain: each due person once more, and nobody else.
func (u *underWay) askedTheDueAgain(ledger map[person]candidate) {
	judged := u.pre
	judged.ledger = ledger
	for p := range u.view.verdicts {
		due := judged.due(p, u.view, u.rules)
		if again := u.view.askedTimes(p) - 1; due != (again == 1) {
			u.t.Fatalf("run %d: that u%02d is due is %t, and it was asked about %d times more", u.view.id, p, due, again)
		}
	}
}
