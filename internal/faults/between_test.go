package faults

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// betweenRows are changes between the checks and the delete.
func betweenRows() []row {
	return []row{
		{"the user is restored", userRestored},
		{"the member rejoins", memberRejoins},
		{"the row changes", rowChanges},
		{"the conversation is deleted", conversationDeleted},
		{"a hold is placed", holdPlaced},
		{"a pause", pausePlaced},
		{"the rows move", rowsMove},
	}
}

// userRestored: after the table was scanned, and again while the delete is kept
// waiting until the last response is too old to go by: then users are checked anew.
func userRestored(w *world) {
	back := w.dead[:2]
	e := w.after("judge", func() {
		w.auth.Revive(back...)
		w.spare(`user_id = ANY ($1)`, back)
	})
	w.expect(e, want{exit: 0, state: "succeeded", gone: all})
	w.none("who came back is still in the ledger", `SELECT user_id FROM orphan_cleaner.candidates WHERE user_id = '`+back[0].String()+`'`)
	w.converges()

	w.die(w.living[5:8]...)
	e = w.after("checked-again", func() {
		w.auth.Revive(w.living[5])
		w.spare(`user_id = $1`, w.living[5])
		timer := time.NewTimer(10 * time.Second) // the age that a response may have
		defer timer.Stop()
		<-timer.C
	})
	w.expect(e, want{exit: 0, state: "succeeded", shows: "the response of auth-service is too old to delete by", gone: all})
	w.converges()
}

// die takes living users away who went long ago, as the ledger knows.
func (w *world) die(ids ...uuid.UUID) {
	w.t.Helper()
	w.due(ids...)
	w.exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence)
		SELECT u, now() - interval '40 days', now(), (SELECT max(run_id) FROM orphan_cleaner.runs), 900, 'sightings'
		FROM unnest($1::uuid[]) AS u`, ids)
	w.ownLedger()
}

// due takes living users away, and lets their members go; what is gone by now
// is no longer counted.
func (w *world) due(ids ...uuid.UUID) {
	w.t.Helper()
	w.auth.Delete(ids...)
	w.before = w.gone()
	w.exec(`INSERT INTO witness.due SELECT conversation_id, user_id FROM conversation_members WHERE user_id = ANY ($1)`, ids)
	w.dueContents(ids...)
}

const thatMember = ` WHERE conversation_id = $1 AND user_id = $2`

// memberRejoins: before the delete, also with the joined_at of before, and while
// the delete waits for the very row.
func memberRejoins(w *world) {
	p := w.stopped("checked-again", wholeChunk)
	w.app(`UPDATE %s SET joined_at = '`+tomorrow+`' WHERE user_id = $1`, w.dead[0])
	w.exec(`DELETE FROM conversation_members WHERE user_id = $1`, w.dead[1])
	w.exec(`INSERT INTO conversation_members SELECT * FROM witness.members WHERE user_id = $1`, w.dead[1])
	e := p.goOn()
	w.expect(e, want{exit: 0, state: "succeeded", gone: some})
	w.changed(e, 2*perUser, perUser)

	w.settle()
	w.die(w.living[5:8]...)
	p = w.stopped("checked-again", wholeChunk)
	app, conversation, user := w.locks(1)
	p.signal(sigCont)
	w.waitsInDelete()
	if _, err := app.Exec(context.Background(), `UPDATE conversation_members SET joined_at = '`+tomorrow+`'`+thatMember, conversation, user); err != nil {
		w.t.Fatal(err)
	}
	w.exec(`UPDATE witness.members SET joined_at = '`+tomorrow+`'`+thatMember, conversation, user)
	w.spare(`conversation_id = $1 AND user_id = $2`, conversation, user)
	if err := app.Commit(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.expect(p.wait(), want{exit: 0, state: "succeeded", gone: all})
	w.converges()
}

// wholeChunk lets one transaction delete all that is due, in the order of the rows.
const wholeChunk = "--chunk-rows=1000"

// changed asserts how many members a run left because they had changed, and how
// many due ones are left.
func (w *world) changed(e ended, changed, left int64) {
	w.t.Helper()
	r, err := e.result()
	if err != nil || r.MembersChanged != changed {
		w.t.Errorf("%d members changed, want %d (%v)", r.MembersChanged, changed, err)
	}
	if got := w.count(`witness.due`) - w.gone(); got != left {
		w.t.Errorf("%d due members are left, want %d", got, left)
	}
}

// tomorrow is younger than any retention, and the same in both tables.
const tomorrow = "2100-01-01 00:00:00+00"

// rowChanges: before the delete, and while the delete waits for the very row. It
// stays until its user was checked again, and is backed up as it was then.
func rowChanges(w *world) {
	const change = `UPDATE %s SET is_muted = true, role = 'owner', last_read_at = '2026-01-02 03:04:05+00' WHERE user_id = $1`
	p := w.stopped("checked-again", wholeChunk)
	w.app(change, w.dead[0])
	e := p.goOn()
	w.expect(e, want{exit: 0, state: "succeeded", gone: some})
	w.changed(e, perUser, perUser)

	w.settle()
	p = w.stopped("checked-again", wholeChunk)
	app, conversation, user := w.locks(1)
	p.signal(sigCont)
	w.waitsInDelete()
	if _, err := app.Exec(context.Background(), `UPDATE conversation_members SET user_public_key = 'new'`+thatMember, conversation, user); err != nil {
		w.t.Fatal(err)
	}
	w.exec(`UPDATE witness.members SET user_public_key = 'new'`+thatMember, conversation, user)
	if err := app.Commit(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	// The row goes in this run, or in the next where a transaction of another test began before the change.
	w.expect(p.wait(), want{exit: 0, state: "succeeded", gone: some})
	w.converges()
}

// conversationDeleted: its members went with it, and not by the run.
func conversationDeleted(w *world) {
	gone := one[int64](w, `SELECT count(*) FROM conversation_members WHERE conversation_id = (SELECT min(conversation_id::text)::uuid FROM witness.due)`)
	e := w.after("checked-again", func() {
		w.exec(`DELETE FROM conversations WHERE id = (SELECT min(conversation_id::text)::uuid FROM witness.due)`)
		w.exec(`DELETE FROM witness.members WHERE conversation_id = (SELECT min(conversation_id::text)::uuid FROM witness.due)`)
		w.spare(`conversation_id = (SELECT min(conversation_id::text)::uuid FROM witness.due)`)
	})
	w.expect(e, want{exit: 0, state: "succeeded", gone: all})
	if audited := w.count(`conversation_members_audit WHERE run_id IS NULL`); audited != gone {
		w.t.Errorf("%d members went with the conversation, %d are audited", gone, audited)
	}
	w.converges()
}

// holdPlaced: on a user and on a conversation, by the command line.
func holdPlaced(w *world) {
	user, conversation := w.dead[0], one[uuid.UUID](w, `SELECT max(conversation_id::text)::uuid FROM witness.due WHERE user_id <> $1`, w.dead[0])
	e := w.after("checked-again", func() {
		for _, hold := range [][]string{{"--user", user.String()}, {"--conversation", conversation.String()}} {
			added := spawn(w.t, w.settings(), w.program, append([]string{"hold", "add", "--reason", "court order"}, hold...)...).wait()
			if added.status != 0 {
				w.t.Fatal(added)
			}
		}
		w.spare(`user_id = $1 OR conversation_id = $2`, user, conversation)
	})
	w.expect(e, want{exit: 0, state: "succeeded", gone: all})
	w.converges()
}

// rowsMove: a table that was rewritten holds the same rows. One that was updated
// holds others, and they wait for the next run.
func rowsMove(w *world) {
	w.expect(w.after("checked-again", func() { w.exec(`VACUUM FULL conversation_members`) }), want{exit: 0, state: "succeeded", gone: all})
	w.die(w.living[5:8]...)
	w.settle()
	w.expect(w.after("checked-again", func() { w.exec(`CLUSTER conversation_members USING conversation_members_pkey`) }),
		want{exit: 0, state: "succeeded", gone: all})

	w.die(w.living[10:13]...)
	w.settle()
	e := w.after("checked-again", func() { w.exec(`UPDATE conversation_members SET is_muted = is_muted`) })
	w.expect(e, want{exit: 0, state: "succeeded", gone: untouched})
	w.changed(e, 3*perUser, 3*perUser)
	w.converges()
}
