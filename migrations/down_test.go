package migrations_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// evidence is what no down may destroy: how it comes to be, the version that
// holds it, and how it is lawfully taken out of the way.
var evidence = map[string]struct {
	version int64
	make    func(t *testing.T, db *testdb.DB)
	clear   string
}{
	"audit": {
		version: 3,
		make:    func(_ *testing.T, db *testdb.DB) { db.Exec(deleteUser, members(db, 3)) },
		clear:   "DELETE FROM conversation_members_audit",
	},
	"backup": {
		version: 3,
		make: func(t *testing.T, db *testdb.DB) {
			t.Helper()
			run := openRun(db)
			if _, _, err := connect(t, db.URL, "test").deleteInRun(t.Context(), run, deleteUser, members(db, 3)); err != nil {
				t.Fatal(err)
			}
		},
		clear: "DELETE FROM conversation_members_backup",
	},
	"hold": {
		version: 2,
		make: func(_ *testing.T, db *testdb.DB) {
			db.Exec("INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES (gen_random_uuid(), 'a lawsuit')")
		},
		clear: "UPDATE orphan_cleaner.holds SET lifted_at = now(), lifted_by = session_user WHERE lifted_at IS NULL",
	},
	"pause": {
		version: 1,
		make: func(_ *testing.T, db *testdb.DB) {
			db.Exec("INSERT INTO orphan_cleaner.pauses (reason) VALUES ('an incident')")
		},
		clear: "UPDATE orphan_cleaner.pauses SET resumed_at = now(), resumed_by = session_user WHERE resumed_at IS NULL",
	},
	"restore": {
		version: 2,
		make: func(_ *testing.T, db *testdb.DB) {
			db.Exec(`INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at)
				VALUES ($1, gen_random_uuid(), gen_random_uuid(), 1, now())`, openRun(db))
		},
		clear: "DELETE FROM orphan_cleaner.restores",
	},
	"run that deleted": {
		version: 1,
		make: func(_ *testing.T, db *testdb.DB) {
			db.Exec("UPDATE orphan_cleaner.runs SET members_deleted = 1 WHERE run_id = $1", openRun(db))
		},
		clear: "DELETE FROM orphan_cleaner.runs",
	},
}

// Down stops at the migration that would destroy evidence, keeps it, says what
// to do, and goes on once that was done.
func TestDownRefuses(t *testing.T) {
	t.Parallel()
	for name, e := range evidence {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testdb.New(t)
			m := open(t, db)
			e.make(t, db)
			_, err := m.DownTo(t.Context(), 0)
			wantState(t, err, raised)
			if hint(err) == "" {
				t.Errorf("a refusal without a hint: %v", err)
			}
			if v := version(t, m); v != e.version {
				t.Errorf("down stopped at version %d, not %d", v, e.version)
			}
			db.Exec(e.clear)
			if name == "backup" {
				db.Exec(evidence["audit"].clear) // its delete was audited, too
			}
			if _, err := m.DownTo(t.Context(), 0); err != nil {
				t.Errorf("down after %s: %v", e.clear, err)
			}
		})
	}
}

// What is not evidence does not stop it: an expired hold, a run that deleted
// nothing, a candidate.
func TestDownPasses(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	run := openRun(db)
	db.Exec("INSERT INTO orphan_cleaner.holds (user_id, reason, until) VALUES (gen_random_uuid(), 'over', now() - interval '1 day')")
	db.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		VALUES (gen_random_uuid(), now(), now(), $1, 'sightings')`, run)
	db.Exec("INSERT INTO orphan_cleaner.refusals (run_id, user_id, is_due) VALUES ($1, gen_random_uuid(), true)", run)
	if _, err := open(t, db).DownTo(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// An index of that name that was there before is the application's: down leaves it.
func TestDownLeavesTheirIndex(t *testing.T) {
	t.Parallel()
	const theirs = "pg_class WHERE relname = 'conversation_members_user_id'"
	for made, stays := range map[string]int64{"CREATE INDEX conversation_members_user_id ON conversation_members (user_id, role)": 1, "SELECT": 0} {
		db, m := upTo(t, 0)
		db.Exec(made)
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := m.DownTo(t.Context(), 0); err != nil {
			t.Error(err)
		}
		if n := db.Count(theirs); n != stays {
			t.Errorf("%s: %d indexes of that name are left, not %d", made, n, stays)
		}
	}
}

// A row that is being written while down looks for evidence is seen: down waits
// for it before it looks.
func TestDownSeesWhatIsBeingWritten(t *testing.T) {
	t.Parallel()
	for table, c := range map[string]struct {
		version   int64
		statement string
	}{
		"orphan_cleaner.runs": {1, `INSERT INTO orphan_cleaner.runs (kind, phase, started_at, heartbeat_at, lease, host, version, settings, members_deleted)
			VALUES ('clean', 'sweep', now(), now(), '1 minute', 'test:1', 'test', '{}', 1)`},
		"orphan_cleaner.holds": {2, "INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES (gen_random_uuid(), 'in the nick of time')"},
		"conversation_members_audit": {3, `INSERT INTO conversation_members_audit
				(conversation_id, user_id, deleted_at, deleted_by, application, txid)
			VALUES (gen_random_uuid(), gen_random_uuid(), now(), 'somebody', 'test', 1)`},
		"orphan_cleaner.pauses": {1, "INSERT INTO orphan_cleaner.pauses (reason) VALUES ('in the nick of time')"},
	} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			db, _ := upTo(t, c.version)
			m := openPatiently(t, db)
			writer := connect(t, db.URL, "test", "BEGIN", c.statement)
			down := async(func() error { _, err := m.Down(context.WithoutCancel(t.Context())); return err })
			blockedBy(t, db, writer.pid())
			writer.exec(t, "COMMIT")
			wantState(t, down(), raised)
			if n := db.Count(table); n != 1 {
				t.Errorf("%d rows", n)
			}
		})
	}
}

// Whoever lost a trigger goes down and up again to get it back: that works with
// either of them gone, or both.
func TestDownWithoutTriggers(t *testing.T) {
	t.Parallel()
	const audit, truncate = "conversation_members_audit_delete", "conversation_members_refuse_truncate"
	db := testdb.New(t)
	m := open(t, db)
	want := dump(t, db)
	for _, triggers := range [][]string{{audit}, {truncate}, {audit, truncate}} {
		for _, trigger := range triggers {
			db.Exec(fmt.Sprintf("DROP TRIGGER %s ON conversation_members", trigger))
		}
		if _, err := m.DownTo(t.Context(), triggerVersion-1); err != nil {
			t.Fatalf("without %q: %v", triggers, err)
		}
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatalf("without %q: %v", triggers, err)
		}
		sameDump(t, "after down and up", want, dump(t, db))
	}
}
