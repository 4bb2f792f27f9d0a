package run_test

import (
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestRunDeletesExactlyTheDue(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(1250, 4)
	dead, lately := users[:101], users[101:105]
	w.die(31, dead...)
	w.die(29, lately...)
	stay := w.db.Snapshot(`conversation_members WHERE user_id <> ALL ($1)`, dead)
	gone := w.db.Snapshot(`conversation_members WHERE user_id = ANY ($1)`, dead)

	r := w.must(w.run())
	if r.State != "succeeded" || r.MembersDeleted != 404 || r.UsersChecked != 1250 || r.UsersDue != 101 || r.Conversations != 4 || r.Candidates != 105 {
		t.Errorf("result %+v", r)
	}
	if len(r.Targets) != 1 || r.Targets[0].Name != "conversation_members" || r.Targets[0].RowsDue != 404 || r.Targets[0].RowsDeleted != 404 {
		t.Errorf("targets %+v", r.Targets)
	}
	if diff := stay.Diff(w.db.Snapshot(`conversation_members`)); diff != "" {
		t.Errorf("the rows that should stay: %s", diff)
	}
	backup := w.db.Snapshot(`(SELECT conversation_id, user_id, role, joined_at, last_read_at, is_muted, user_public_key FROM conversation_members_backup) AS b`)
	if diff := gone.Diff(backup); diff != "" {
		t.Errorf("the backup: %s", diff)
	}
	if want := 13 + 2; w.auth.Calls() != want || r.BatchCalls != int64(want) {
		t.Errorf("%d calls seen, %d counted, want %d", w.auth.Calls(), r.BatchCalls, want)
	}
	if w.auth.MaxBatch() > 100 || w.auth.EmptyCalls() != 0 {
		t.Errorf("largest batch %d, empty calls %d", w.auth.MaxBatch(), w.auth.EmptyCalls())
	}
	sizes := w.auth.CallSizes()
	slices.Sort(sizes)
	if sizes[0] != 1 || sizes[1] != 50 || sizes[2] != 100 {
		t.Errorf("batch sizes %v", sizes)
	}
	w.invariant(404)

	again := w.must(w.run())
	if again.MembersDeleted != 0 || again.UsersMissing != 4 {
		t.Errorf("second run: %+v", again)
	}
	w.invariant(404)
}

func TestRetentionWithoutShadow(t *testing.T) {
	w := newWorld(t)
	w.db.Exec(`DROP TABLE users`)
	users := w.people(300, 2)
	dead, back, gap := users[0], users[1], users[2]
	w.die(0, dead, back, gap)

	first := w.must(w.run())
	if first.MembersDeleted != 0 || first.UsersNew != 3 || w.db.Count(`orphan_cleaner.candidates`) != 3 {
		t.Fatalf("first run: %+v", first)
	}
	w.db.Exec(`UPDATE orphan_cleaner.candidates SET first_missing_at = first_missing_at - interval '31 days'`)
	w.db.Exec(`UPDATE orphan_cleaner.candidates SET last_missing_at = last_missing_at - interval '8 days' WHERE user_id = $1`, gap)
	w.auth.Revive(back)

	second := w.must(w.run())
	if second.MembersDeleted != 2 || second.UsersReturned != 1 || second.UsersNew != 0 || second.UsersRestarted != 1 {
		t.Errorf("second run: %+v", second)
	}
	if n := testdb.One[int64](w.db, `SELECT users_returned FROM orphan_cleaner.runs WHERE run_id = $1`, second.RunID); n != 1 {
		t.Errorf("%d returned users on record", n)
	}
	if n := w.membersOf(dead); n != 0 {
		t.Errorf("the dead user has %d members", n)
	}
	if n := w.membersOf(back, gap); n != 4 {
		t.Errorf("the others have %d members, want 4", n)
	}
	if n := w.db.Count(`orphan_cleaner.candidates WHERE user_id = $1 AND sightings = 1 AND first_missing_at > now() - interval '1 minute'`, gap); n != 1 {
		t.Error("a gap longer than max-gap did not restart the clock")
	}
	if n := w.db.Count(`orphan_cleaner.candidates`); n != 1 {
		t.Errorf("%d candidates left, want the one with the gap", n)
	}
	w.invariant(2)
}

// The clock never starts before the last activity, whatever the ledger says.
func TestActivityRestartsTheClock(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	read, dead := users[0], users[1]
	w.missingFor(40, read, dead)
	w.db.Exec(`UPDATE conversation_members SET last_read_at = now() - interval '3 days' WHERE user_id = $1
		AND conversation_id = (SELECT min(id::text)::uuid FROM conversations)`, read)
	r := w.must(w.run())
	if r.UsersDue != 1 || r.MembersDeleted != 2 || r.UsersRestarted != 1 || w.membersOf(read) != 2 {
		t.Errorf("result %+v", r)
	}
	if n := w.db.Count(`orphan_cleaner.candidates WHERE user_id = $1 AND evidence = 'activity' AND first_missing_at BETWEEN now() - interval '73 hours' AND now() - interval '71 hours'`, read); n != 1 {
		t.Error("the clock does not start at the last activity")
	}
	w.invariant(2)
}

func TestYoungAndHeldMembersStay(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 3)
	w.die(40, users[:4]...)
	young, held := users[0], users[1]
	w.db.Exec(`UPDATE conversation_members SET joined_at = now() - interval '29 days'
		WHERE user_id = $1 AND conversation_id = (SELECT min(id::text)::uuid FROM conversations)`, young)
	w.db.Exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES ($1, 'test')`, held)
	w.db.Exec(`INSERT INTO orphan_cleaner.holds (user_id, reason, until) VALUES ($1, 'expired', now() - interval '1 second')`, users[2])
	w.db.Exec(`INSERT INTO orphan_cleaner.holds (conversation_id, reason) SELECT max(id::text)::uuid, 'test' FROM conversations`)

	r := w.must(w.run())
	// Users 0, 2 and 3 are due with 9 members: one is young, three are in the held conversation.
	if r.MembersDeleted != 5 || r.MembersKeptYoung != 1 || r.MembersHeld != 6 || r.UsersDue != 3 {
		t.Errorf("result %+v", r)
	}
	w.invariant(5)
}

func TestHoldPlacedWhileSweeping(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 3)
	w.die(40, users[:3]...)
	conversation := testdb.One[uuid.UUID](w.db, `SELECT min(id::text)::uuid FROM conversations`)
	r := w.must(w.runWith(t.Context(), w.before(4, func() {
		// the due users are read, their members not yet deleted
		w.db.Exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES ($1, 'late')`, users[0])
		w.db.Exec(`INSERT INTO orphan_cleaner.holds (conversation_id, reason) VALUES ($1, 'late')`, conversation)
	})))
	if r.MembersDeleted != 4 || r.MembersChanged != 5 || w.membersOf(users[0]) != 3 {
		t.Errorf("result %+v", r)
	}
	w.invariant(4)
}

// The delete states every condition again: what changes after the due users
// were read is honoured.
func TestLedgerChangesBeforeTheDelete(t *testing.T) {
	changes := map[string]string{
		"the clock restarts":       `UPDATE orphan_cleaner.candidates SET first_missing_at = last_missing_at`,
		"the clock is a day short": `UPDATE orphan_cleaner.candidates SET first_missing_at = now() - interval '29 days'`,
		"the candidate leaves":     `DELETE FROM orphan_cleaner.candidates`,
		"the member rejoins":       `UPDATE conversation_members SET joined_at = now()`,
		"it is of another run": `WITH r AS (
			INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings)
			VALUES ('clean', 'failed', 'verify', now(), now(), now(), '1m', 'x', 'x', '{}') RETURNING run_id
		) UPDATE orphan_cleaner.candidates SET last_missing_run = r.run_id FROM r`,
		"the conversation is gone": `DELETE FROM conversations`,
		"triggers no longer fire":  `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica', current_database()); END $$`,
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 2)
			w.die(40, users[:3]...)
			r, err := w.runWith(t.Context(), w.before(4, func() {
				w.db.Exec(change)
				w.db.Pool.Reset()
			}))
			if r.MembersDeleted != 0 {
				t.Errorf("%v, %+v", err, r)
			}
			w.invariant(0)
		})
	}
}

func TestUserReturnsBeforeTheDelete(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	back := users[1]
	r := w.must(w.runWith(t.Context(), w.before(4, func() {
		// 3 calls verify 300 users; before the second check one comes back.
		w.auth.Revive(back)
	})))
	if r.MembersDeleted != 4 || r.UsersReturned != 1 || r.MembersChanged != 2 || w.membersOf(back) != 2 {
		t.Errorf("result %+v", r)
	}
	if n := w.db.Count(`orphan_cleaner.candidates WHERE user_id = $1`, back); n != 0 {
		t.Error("who came back is still in the ledger")
	}
	w.invariant(4)
}
