package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// restoreRows are what may have happened between a delete and its restore.
func restoreRows() []row {
	return []row{
		{"the member is back, other role", backAlready},
		{"its conversation is gone", conversationGone},
		{"half was restored before", halfRestored},
		{"the same restore twice", restoredTwice},
		{"the table has a new column", newColumn},
		{"nobody exists to a revert", revertOfTheLiving},
		{"pruned 95 days ahead", prunedAhead},
		{"its user is erased meanwhile", erasedMeanwhile},
	}
}

// cleaned makes the run whose deletes are restored, and returns its id.
func (w *world) cleaned() (run string) {
	w.t.Helper()
	w.lastRun()
	return fmt.Sprint(one[int64](w, `SELECT max(run_id) FROM orphan_cleaner.runs`))
}

// restore restores what is chosen.
func (w *world) restore(choose ...string) restore.Result {
	w.t.Helper()
	args := append([]string{"restore", "--execute", "--json"}, choose...)
	e := spawn(w.t, w.settings(), w.program, args...).wait()
	var r restore.Result
	if err := json.Unmarshal([]byte(e.stdout), &r); err != nil || e.status != 0 || r.State != "succeeded" {
		w.t.Fatalf("restore %v: %v, %s", choose, err, e)
	}
	w.note.exit, w.note.state = "0", r.State
	return r
}

// restored asserts I6: but for what is told apart, the table is as before the
// delete, byte for byte, and every restored member is on record once. A run
// that follows leaves it so.
func (w *world) restored() {
	w.t.Helper()
	same := func() {
		w.t.Helper()
		columns := w.columns()
		w.none("not restored, or not as it was", `SELECT `+columns+` FROM witness.members EXCEPT ALL SELECT `+columns+` FROM conversation_members`)
		w.none("there and should not be, or overwritten", `SELECT `+columns+` FROM conversation_members EXCEPT ALL SELECT `+columns+` FROM witness.members`)
		w.none("restored twice", `SELECT user_id, conversation_id FROM orphan_cleaner.restores WHERE state = 'restored' GROUP BY 1, 2 HAVING count(*) > 1`)
		w.over()
	}
	same()
	w.holds("I6")
	// They are missing again, all at once.
	if e := w.run("--max-new-missing-rate=1"); e.status != 0 {
		w.t.Fatalf("the run after the restore: %s", e)
	}
	same()
	w.holds("I4")
}

// backAlready: one with another role, one with the same values.
func backAlready(w *world) {
	run := w.cleaned()
	w.auth.Revive(w.dead[0])
	w.exec(`INSERT INTO conversation_members (conversation_id, user_id, role) SELECT conversation_id, user_id, 'owner'
		FROM witness.members WHERE user_id = $1 ORDER BY conversation_id LIMIT 1`, w.dead[0])
	w.exec(`DELETE FROM witness.members WHERE (conversation_id, user_id) IN (SELECT conversation_id, user_id FROM conversation_members WHERE user_id = $1)`, w.dead[0])
	w.exec(`INSERT INTO witness.members SELECT * FROM conversation_members WHERE user_id = $1`, w.dead[0])
	w.exec(`INSERT INTO conversation_members SELECT * FROM witness.members WHERE user_id = $1`, w.dead[1])

	r := w.restore("--run", run)
	if r.ThereDiffers != 1 || r.There != perUser || r.MembersRestored != due+1-1-perUser {
		w.t.Errorf("%+v", r)
	}
	w.note.shows = fmt.Sprintf("there_differs %d, left as it is", r.ThereDiffers)
	w.restored()
}

func conversationGone(w *world) {
	run := w.cleaned()
	conversation := one[uuid.UUID](w, `SELECT max(conversation_id::text)::uuid FROM witness.due`)
	lost := one[int64](w, `SELECT count(*) FROM witness.due WHERE conversation_id = $1`, conversation)
	w.exec(`DELETE FROM conversations WHERE id = $1`, conversation)
	w.exec(`DELETE FROM witness.members WHERE conversation_id = $1`, conversation)

	r := w.restore("--run", run)
	if r.ConversationGone != lost || r.MembersRestored != due+1-lost {
		w.t.Errorf("%+v", r)
	}
	if kept := w.count(`conversation_members_backup WHERE conversation_id = $1`, conversation); kept != lost {
		w.t.Errorf("%d members that could not be restored are in the backup, want %d", kept, lost)
	}
	w.note.shows = fmt.Sprintf("conversation_gone %d, kept in the backup", r.ConversationGone)
	w.restored()
}

func halfRestored(w *world) {
	run := w.cleaned()
	half := w.dead[:5]
	first := w.restore("--run", run, "--user", half[0].String()+","+half[1].String()+","+half[2].String()+","+half[3].String()+","+half[4].String())
	if first.MembersRestored != int64(len(half)*perUser) {
		w.t.Errorf("%+v", first)
	}
	// Meanwhile one of them uses the membership, and one leaves.
	w.app(`UPDATE %s SET last_read_at = '2026-01-02 03:04:05+00' WHERE user_id = $1`, half[0])
	w.app(`DELETE FROM %s WHERE user_id = $1`, half[1])

	r := w.restore("--since", "2000-01-01")
	if r.There != 3*perUser || r.ThereDiffers != perUser || r.LeftSince != perUser || r.MembersRestored != due+1-first.MembersRestored {
		w.t.Errorf("%+v", r)
	}
	w.note.shows = fmt.Sprintf("%d restored, %d there already", r.MembersRestored, r.There+r.ThereDiffers)
	w.restored()
}

func restoredTwice(w *world) {
	run := w.cleaned()
	if r := w.restore("--run", run); r.MembersRestored != due+1 {
		w.t.Errorf("%+v", r)
	}
	before := one[string](w, fingerprint)
	r := w.restore("--run", run)
	if r.MembersRestored != 0 || r.There != due+1 {
		w.t.Errorf("%+v", r)
	}
	if after := one[string](w, fingerprint); after != before {
		w.t.Error("the second restore changed something")
	}
	w.note.shows = fmt.Sprintf("0 restored, %d there already", r.There)
	w.restored()
}

// newColumn: those restored get its default.
func newColumn(w *world) {
	run := w.cleaned()
	w.exec(`ALTER TABLE conversation_members ADD pinned boolean NOT NULL DEFAULT true`)
	if r := w.restore("--run", run); r.MembersRestored != due+1 {
		w.t.Errorf("%+v", r)
	}
	if pinned := w.count(`conversation_members JOIN witness.due USING (conversation_id, user_id) WHERE pinned`); pinned != due+1 {
		w.t.Errorf("%d members have the default of the new column, want %d", pinned, due+1)
	}
	// A run refuses until the backup has the column too.
	w.exec(`ALTER TABLE conversation_members_backup ADD pinned boolean`)
	w.note.shows = "the new column has its default"
	w.restored()
}

// revertOfTheLiving: users who live again would lose what was restored, with canaries
// configured and without. An approval is no way around.
func revertOfTheLiving(w *world) {
	restored := fmt.Sprint(w.restore("--run", w.cleaned()).RunID)
	w.auth.Add(w.dead...)
	w.auth.SetFaultFunc(authfake.Nothing)
	for _, canaries := range [][]string{nil, {"--canary-alive", w.living[100].String()}} {
		e := spawn(w.t, w.settings(), w.program, append([]string{"restore", "--revert", restored, "--execute", "--json"}, canaries...)...).wait()
		var r restore.Result
		if err := json.Unmarshal([]byte(e.stdout), &r); err != nil || e.status != 3 || r.State != "refused" || r.MembersReverted != 0 || !strings.Contains(e.stderr, "canary-alive") {
			w.t.Errorf("canaries %v: %v, %s", canaries, err, e)
		}
		if ok := spawn(w.t, w.settings(), w.program, "approve", fmt.Sprint(r.RunID), "--yes").wait(); ok.status == 0 {
			w.t.Errorf("approved: %s", ok)
		}
	}
	w.holds("I2")
	w.auth.SetFaultFunc(nil)
	w.auth.Delete(w.dead...)
	w.restored()
	w.note.exit, w.note.state, w.note.shows = "3", "refused", "breaker canary-alive"
}

// prunedAhead: by a clock that far ahead each backup is old. None is dropped, and with
// the clock right again runs go on.
func prunedAhead(w *world) {
	clock := w.ownClock()
	w.cleaned()
	kept := w.count("conversation_members_backup")
	clock.jump(95 * day)
	e := spawn(w.t, w.settings(), w.program, "prune", "--execute").wait()
	clock.jump(0)
	if e.status == 0 || !strings.Contains(e.stderr, "clock") {
		w.t.Errorf("pruned by a clock 95 days ahead: %s", e)
	}
	if n := w.count("conversation_members_backup"); n != kept || kept == 0 {
		w.t.Errorf("%d backups are left of %d", n, kept)
	}
	w.holds("I2")
	w.converges()
	w.note.exit, w.note.state, w.note.shows = fmt.Sprint(e.status), "", "clock-skew"
}

// erasedMeanwhile: restore_range.sql has looked when user_erase.sql begins. The user is
// back and not erased, or erased and not back; never both.
func erasedMeanwhile(w *world) {
	w.cleaned()
	user := w.dead[0]
	script := func(name string, settings ...string) *process {
		w.t.Helper()
		text, err := os.ReadFile("../../sql/runbook/" + name)
		if err != nil {
			w.t.Fatal(err)
		}
		// More patience than on call: the other one ends when this row lets it.
		path := w.file(name, []byte(strings.ReplaceAll(string(text), "lock_timeout = '3s'", "lock_timeout = '60s'")))
		args := []string{"-X", "-q", "-d", w.url, "-f", path}
		for _, setting := range append(settings, "execute=1") {
			args = append(args, "-v", setting)
		}
		return spawn(w.t, []string{"PGAPPNAME=" + name}, testdb.Program(w.t, w.cluster, "psql"), args...)
	}
	waits := func(name string) bool {
		return w.count(`pg_stat_activity WHERE datname = current_database() AND application_name = $1 AND wait_event_type = 'Lock'`, name) > 0
	}
	inTheWay, _ := w.session()
	w.does(inTheWay, `BEGIN`)
	w.does(inTheWay, `LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE`)
	restoring := script("restore_range.sql", "from=yesterday", "to=tomorrow")
	eventually(w.t, "restore_range.sql waits", func() bool { return waits("restore_range.sql") })
	erasing := script("user_erase.sql", "user="+user.String())
	eventually(w.t, "user_erase.sql waits, or has ended", func() bool { return waits("user_erase.sql") || erasing.over() })
	w.does(inTheWay, `ROLLBACK`)
	if e := restoring.wait(); e.status != 0 {
		w.t.Fatalf("restore_range.sql: %s", e)
	}
	e := erasing.wait()
	w.note.exit, w.note.shows = fmt.Sprint(e.status), "is a member of 2 conversations"
	if e.status == 0 || !strings.Contains(e.stderr, w.note.shows) {
		w.t.Errorf("erased, and a member with %d keys: %s", w.count(`conversation_members WHERE user_id = $1`, user), e)
	}
	// Plain SQL starts no clock anew: who is still in the ledger would go again.
	w.exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES ($1, 'restored')`, w.young)
	w.restored()

	// Erased first, nothing of the user comes back.
	w.app(`DELETE FROM %s WHERE user_id = $1`, user)
	if e := script("user_erase.sql", "user="+user.String()).wait(); e.status != 0 {
		w.t.Fatalf("user_erase.sql: %s", e)
	}
	if e := script("restore_range.sql", "from=yesterday", "to=tomorrow").wait(); e.status != 0 || !strings.Contains(e.stdout, "erased") {
		w.t.Errorf("restore_range.sql: %s", e)
	}
	w.none("the erased user is back", `SELECT * FROM conversation_members WHERE user_id = '`+user.String()+`' OR user_id = '00000000-0000-0000-0000-000000000000'`)
}
