package faults

import (
	"fmt"
	"strings"
	"time"
)

// want is how a run that meets a fault is to end.
type want struct {
	exit  int
	state string // of the result and of the run's row
	shows string // what stderr says about it
	gone  gone
}

// gone says which of the due members are gone after a run.
type gone int

const (
	nothing   gone = iota // and the ledger is as it was
	untouched             // no member, though the ledger may have been written
	all
	some // none, all, or a part
)

// expect asserts how a run ended, and every invariant that can be read from the
// database by now.
func (w *world) expect(e ended, want want) {
	w.t.Helper()
	if w.note.state == "" { // the first word on the fault is the one that the matrix shows
		w.note.exit, w.note.state, w.note.shows = fmt.Sprint(e.status), want.state, want.shows
	}
	if e.status != want.exit {
		w.t.Errorf("want exit status %d, got %s", want.exit, e)
	}
	r, err := e.result()
	if err != nil {
		w.t.Fatalf("the last line of stdout is no JSON object: %v\n%s", err, e)
	}
	if r.State != want.state {
		w.t.Errorf("want state %s, got %s", want.state, e)
	}
	if r.RunID != 0 {
		if state := one[string](w, `SELECT state FROM orphan_runs WHERE run_id = $1`, r.RunID); state != want.state {
			w.t.Errorf("the run's row says %s, want %s", state, want.state)
		}
	}
	if want.exit != 0 && want.shows == "" {
		w.t.Error("the row does not say how this failure shows")
	}
	if !strings.Contains(e.stderr, want.shows) {
		w.t.Errorf("stderr does not say %q: %s", want.shows, e)
	} else if want.exit != 0 {
		w.holds("I7")
	}
	w.sound()
	w.over()
	w.amount(want.gone)
}

// amount asserts how much of what is due is gone.
func (w *world) amount(want gone) {
	w.t.Helper()
	left := w.count(`witness.due JOIN conversation_members USING (conversation_id, user_id)`)
	switch want {
	case nothing, untouched:
		if gone := w.count(`witness.due`) - left; gone != 0 {
			w.t.Errorf("%d members are gone, want none", gone)
		}
		if want == nothing {
			w.sameLedger()
		}
		w.holds("I2")
	case all:
		if left != 0 {
			w.t.Errorf("%d due members are left", left)
		}
	case some:
	}
}

// holds notes an invariant that was asserted, if the row has not failed.
func (w *world) holds(invariant string) {
	if !w.t.Failed() {
		w.note.held[invariant] = true
	}
}

// sameLedger asserts that the ledger is as it was.
func (w *world) sameLedger() {
	w.t.Helper()
	w.none("the ledger changed", `(TABLE witness.ledger EXCEPT ALL TABLE orphan_candidates) UNION ALL (TABLE orphan_candidates EXCEPT ALL TABLE witness.ledger)`)
}

// none asserts that a query has no row.
func (w *world) none(wrong, query string) {
	w.t.Helper()
	found := collect[string](w, `SELECT r::text FROM (`+query+`) AS r LIMIT 5`)
	if len(found) > 0 {
		w.t.Errorf("%s:\n  %s", wrong, strings.Join(found, "\n  "))
	}
}

// sound asserts I1 and I3, key by key. It may be called whenever no chunk is in
// flight, also while a run is open.
func (w *world) sound() {
	w.t.Helper()
	columns := one[string](w, `SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = 'witness.members'::regclass AND attnum > 0 AND NOT attisdropped`)
	// Whole rows, so that one that changed counts as gone and as new.
	goneRows := `(SELECT ` + columns + ` FROM witness.members EXCEPT ALL SELECT ` + columns + ` FROM conversation_members)`

	w.none("members changed or appeared", `SELECT `+columns+` FROM conversation_members EXCEPT ALL SELECT `+columns+` FROM witness.members`)
	w.none("members are gone who were not due", `SELECT conversation_id, user_id FROM `+goneRows+` AS g
		EXCEPT ALL SELECT conversation_id, user_id FROM witness.due`)
	w.holds("I1")

	w.none("gone and not backed up, or not as they were", goneRows+` EXCEPT ALL SELECT `+columns+` FROM conversation_members_backup`)
	w.none("backed up and not gone, or twice", `SELECT `+columns+` FROM conversation_members_backup EXCEPT ALL `+goneRows)
	audit := `SELECT conversation_id, user_id, role, joined_at, run_id FROM conversation_members_audit WHERE run_id IS NOT NULL`
	backup := `SELECT conversation_id, user_id, role, joined_at, run_id FROM conversation_members_backup`
	w.none("audited and not backed up by the same run", audit+` EXCEPT ALL `+backup)
	w.none("backed up and not audited by the same run", backup+` EXCEPT ALL `+audit)
	w.none("runs count other than what they deleted", `
		SELECT r.run_id, r.members_deleted, count(a.run_id) FROM orphan_runs AS r
		LEFT JOIN conversation_members_audit AS a ON a.run_id = r.run_id
		WHERE r.kind = 'clean' GROUP BY r.run_id HAVING r.members_deleted <> count(a.run_id)`)
	w.holds("I3")
}

// over asserts that nothing of a run is left behind.
func (w *world) over() {
	w.t.Helper()
	w.none("a run is open", `SELECT run_id, state, phase FROM orphan_runs WHERE state = 'running'`)
	w.none("staging is not empty", `TABLE orphan_sightings`)
}

// converges asserts that with the fault lifted the next run does the rest, and
// the one after it nothing.
func (w *world) converges(more ...string) {
	w.t.Helper()
	w.auth.SetFaultFunc(nil)
	w.lastRun(more...)
	before := one[string](w, fingerprint)
	w.lastRun(more...)
	if after := one[string](w, fingerprint); after != before {
		w.t.Errorf("another run changed something: %s, was %s", after, before)
	}
	w.holds("I4")
}

func (w *world) lastRun(more ...string) {
	w.t.Helper()
	if e := w.run(more...); e.status != 0 {
		w.t.Fatalf("with the fault lifted: %s", e)
	}
	w.sound()
	w.over()
	w.amount(all)
}

const fingerprint = `SELECT
	(SELECT md5(string_agg(m::text, '' ORDER BY m::text)) FROM conversation_members AS m)
	|| (SELECT md5(string_agg(a::text, '' ORDER BY a::text)) FROM conversation_members_audit AS a)
	|| (SELECT md5(string_agg(b::text, '' ORDER BY b::text)) FROM conversation_members_backup AS b)
	|| (SELECT md5(string_agg(user_id::text || first_missing_at, '' ORDER BY user_id)) FROM orphan_candidates)`

// within asserts that a run was bounded in time and left no session behind.
func (w *world) within(e ended, most time.Duration) {
	w.t.Helper()
	if e.took > most {
		w.t.Errorf("the run took %s, want %s at most", e.took, most)
	}
	w.sessionsEnd()
	w.holds("I5")
}
