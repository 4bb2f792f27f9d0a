package faults

import (
	"fmt"
	"regexp"
	"strings"
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
	if r := w.ends(e, want); want.exit != 0 {
		w.measured(e, r)
	}
	w.sound()
	w.over()
	w.amount(want.gone)
}

// ends asserts how a run ended, and that it says so.
func (w *world) ends(e ended, want want) result {
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
		if state := one[string](w, `SELECT state FROM orphan_cleaner.runs WHERE run_id = $1`, r.RunID); state != want.state {
			w.t.Errorf("the run's row says %s, want %s", state, want.state)
		}
	}
	if want.exit != 0 && want.shows == "" {
		w.t.Error("the row does not say how this failure shows")
	}
	if !strings.Contains(e.stderr, want.shows) {
		w.t.Errorf("stderr does not say %q: %s", want.shows, e)
	} else if want.exit != 0 {
		w.namesHint(e)
	}
	return r
}

var ending = regexp.MustCompile(`(?m)^.*(?:Run did not succeed|Run refused|Not run|The run of the fleet did not succeed).*$`)

var hintNamed = regexp.MustCompile(`hint:|orphan-cleaner (check|status|resume|restore|run)`)

// namesHint asserts I7: the line that tells how the run ended says what to do next.
func (w *world) namesHint(e ended) {
	w.t.Helper()
	found := ending.FindAllString(e.stderr, -1)
	if len(found) != 1 || !hintNamed.MatchString(found[0]) {
		w.t.Errorf("no line tells how the run ended and what fixes it: %s", e)
	}
}

var invalidReason = regexp.MustCompile(`no valid response of auth-service.*? \((\w+)\)`)

// measured asserts I7: the metrics that the run left tell its state, the breaker
// that refused it, and why batches got no valid response. A run that could not be recorded
// has no state to tell.
func (w *world) measured(e ended, r result) {
	w.t.Helper()
	tells := func(series string) {
		w.t.Helper()
		for line := range strings.Lines(e.metrics) {
			if value, is := strings.CutPrefix(strings.TrimSpace(line), series+" "); is && value != "0" {
				return
			}
		}
		w.t.Errorf("no metric tells %s:\n%s", series, e.metrics)
	}
	if r.RunID != 0 {
		tells(fmt.Sprintf(`orphan_cleaner_runs_total{kind="clean",state=%q}`, r.State))
	}
	if r.Breaker != nil {
		tells(fmt.Sprintf(`orphan_cleaner_breaker_tripped{breaker=%q}`, *r.Breaker))
	}
	if invalid := invalidReason.FindStringSubmatch(r.Error); invalid != nil {
		tells(fmt.Sprintf(`orphan_cleaner_invalid_responses_total{reason=%q}`, invalid[1]))
	}
	w.holds("I7")
}

// gone is how many of the due rows are gone, of all targets.
func (w *world) gone() int64 {
	w.t.Helper()
	gone, _ := w.goneContents()
	return gone + w.count(`witness.due AS d WHERE NOT EXISTS (SELECT FROM conversation_members AS m
		WHERE (m.conversation_id, m.user_id) = (d.conversation_id, d.user_id))`)
}

// amount asserts how much of what is due is gone.
func (w *world) amount(want gone) {
	w.t.Helper()
	gone := w.gone() - w.before
	switch want {
	case nothing, untouched:
		if gone != 0 {
			w.t.Errorf("%d rows are gone, want none", gone)
		}
		if want == nothing {
			w.sameLedger()
		}
		w.holds("I2")
	case all:
		_, due := w.goneContents()
		if left := due + w.count(`witness.due`) - w.before - gone; left != 0 {
			w.t.Errorf("%d due rows are left", left)
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
	w.none("the ledger changed", `(TABLE witness.ledger EXCEPT ALL TABLE orphan_cleaner.candidates) UNION ALL (TABLE orphan_cleaner.candidates EXCEPT ALL TABLE witness.ledger)`)
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
	columns := w.columns()
	// Whole rows, so that one that changed counts as gone and as new. By anti-joins:
	// the tables of some rows are large, and are compared hundreds of times.
	of := func(table string) string { return table + "." + strings.ReplaceAll(columns, ", ", ", "+table+".") }
	without := func(these, those string) string {
		return `SELECT ` + columns + ` FROM ` + these + ` AS a WHERE NOT EXISTS (SELECT FROM ` + those + ` AS b
			WHERE b.conversation_id = a.conversation_id AND b.user_id = a.user_id AND ROW(` + of("b") + `) IS NOT DISTINCT FROM ROW(` + of("a") + `))`
	}
	w.none("I1 or I3 does not hold", `SELECT * FROM (
		WITH gone AS MATERIALIZED (`+without("witness.members", "conversation_members")+`),
		appeared AS MATERIALIZED (`+without("conversation_members", "witness.members")+`),
		backup AS MATERIALIZED (SELECT `+columns+`, run_id FROM conversation_members_backup),
		audit AS MATERIALIZED (SELECT * FROM conversation_members_audit WHERE run_id IS NOT NULL)
		SELECT 'changed or appeared' AS wrong, x::text FROM appeared AS x
		UNION ALL SELECT 'gone and was not due', x::text FROM (
			SELECT conversation_id, user_id FROM gone EXCEPT ALL SELECT conversation_id, user_id FROM witness.due) AS x
		UNION ALL SELECT 'gone and not backed up as it was', x::text FROM (TABLE gone EXCEPT ALL SELECT `+columns+` FROM backup) AS x
		UNION ALL SELECT 'backed up and not gone, or twice', x::text FROM (SELECT `+columns+` FROM backup EXCEPT ALL TABLE gone) AS x
		UNION ALL SELECT 'audited and not backed up by that run', x::text FROM (
			SELECT conversation_id, user_id, role, joined_at, run_id FROM audit
			EXCEPT ALL SELECT conversation_id, user_id, role, joined_at, run_id FROM backup) AS x
		UNION ALL SELECT 'backed up and not audited by that run', x::text FROM (
			SELECT conversation_id, user_id, role, joined_at, run_id FROM backup
			EXCEPT ALL SELECT conversation_id, user_id, role, joined_at, run_id FROM audit) AS x
		UNION ALL SELECT 'a run that counts other than it deleted', x::text FROM (
			SELECT r.run_id, r.members_deleted, count(a.run_id) FROM orphan_cleaner.runs AS r LEFT JOIN audit AS a ON a.run_id = r.run_id
			WHERE r.kind = 'clean' GROUP BY r.run_id HAVING r.members_deleted <> count(a.run_id)) AS x
		) AS wrong`)
	w.soundContents()
	w.holds("I1")
	w.holds("I3")
}

// columns are those of the members as the witness saw them, in its order.
func (w *world) columns() string {
	w.t.Helper()
	return one[string](w, `SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = 'witness.members'::regclass AND attnum > 0 AND NOT attisdropped`)
}

// over asserts that nothing of a run is left behind.
func (w *world) over() {
	w.t.Helper()
	w.none("a run is open", `SELECT run_id, state, phase FROM orphan_cleaner.runs WHERE state = 'running'`)
	w.none("staging is not empty", `TABLE orphan_cleaner.sightings`)
}

// converges asserts that with the fault lifted the next run does the rest, and
// the one after it nothing.
func (w *world) converges(more ...string) {
	w.t.Helper()
	w.auth.SetFaultFunc(nil)
	w.lastRun(more...)
	before := w.fingerprint()
	w.lastRun(more...)
	if after := w.fingerprint(); after != before {
		w.t.Errorf("another run changed something: %s, was %s", after, before)
	}
	w.holds("I4")
}

func (w *world) lastRun(more ...string) {
	w.t.Helper()
	w.settle()
	if e := w.run(more...); e.status != 0 {
		w.t.Fatalf("with the fault lifted: %s", e)
	}
	w.sound()
	w.over()
	w.amount(all)
}

const fingerprint = `SELECT concat_ws(' ',
	(SELECT md5(string_agg(m::text, '' ORDER BY m::text)) FROM conversation_members AS m),
	(SELECT md5(string_agg(a::text, '' ORDER BY a::text)) FROM conversation_members_audit AS a),
	(SELECT md5(string_agg(b::text, '' ORDER BY b::text)) FROM conversation_members_backup AS b),
	(SELECT md5(string_agg(user_id::text || first_missing_at, '' ORDER BY user_id)) FROM orphan_cleaner.candidates))`

// fingerprint is that of what a run may change.
func (w *world) fingerprint() string {
	w.t.Helper()
	of := `SELECT (` + fingerprint + `)`
	for _, c := range w.contents {
		of += fmt.Sprintf(` || (SELECT md5(string_agg(r::text, '' ORDER BY r::text)) FROM (SELECT to_jsonb(m) FROM public.%[1]s AS m
			UNION ALL SELECT to_jsonb(a) FROM orphan_cleaner.%[1]s_audit AS a UNION ALL SELECT to_jsonb(b) FROM orphan_cleaner.%[1]s_backup AS b) AS r)`, c.name)
	}
	return one[string](w, of)
}

// bounded asserts of a run, which has ended within the limit of what a test waits for, that it left
// no session behind.
func (w *world) bounded() {
	w.t.Helper()
	w.sessionsEnd()
	w.holds("I5")
}
