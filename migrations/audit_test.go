package migrations_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// memberColumns are those of messaging-service, in their order.
const memberColumns = "conversation_id, user_id, role, joined_at, last_read_at, is_muted, user_public_key"

// inBackup is the backup with the columns of a member only.
const inBackup = "(SELECT " + memberColumns + " FROM conversation_members_backup) AS b"

// application makes a role that may do what messaging-service does and nothing
// else, and returns its name. Roles belong to the cluster, not to the database.
func application(t *testing.T, db *testdb.DB) string {
	t.Helper()
	return role(t, db, "app", "GRANT SELECT, INSERT, DELETE ON conversations, conversation_members TO %s")
}

// role makes a role of the test's own with the grants given, and drops it.
func role(t *testing.T, db *testdb.DB, kind string, grants ...string) string {
	t.Helper()
	name := kind + "_" + strings.SplitN(db.Name, "_", 2)[0]
	db.Exec("CREATE ROLE " + name + " LOGIN")
	t.Cleanup(func() {
		db.Exec("DROP OWNED BY " + name)
		db.Exec("DROP ROLE " + name)
	})
	for _, grant := range grants {
		db.Exec(fmt.Sprintf(grant, name))
	}
	return name
}

// The application's own deletes, whatever their form, leave one audit row each
// with all that it says, and no backup.
func TestApplicationDeleteIsAudited(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"delete": deleteUser,
		"cascade": `DELETE FROM conversations WHERE id IN (
			SELECT conversation_id FROM conversation_members WHERE user_id = $1)`,
		"merge": `MERGE INTO conversation_members AS m USING (SELECT $1::uuid AS gone) AS g
			ON m.user_id = g.gone WHEN MATCHED THEN DELETE`,
		"cte": "WITH gone AS (" + deleteUser + " RETURNING *) SELECT count(*) FROM gone",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testdb.New(t)
			user, other := members(db, 7), members(db, 3)
			who := application(t, db)
			if name == "merge" {
				db.Exec("GRANT UPDATE ON conversation_members TO " + who)
			}
			before := db.Snapshot(
				"(SELECT conversation_id, user_id, role, joined_at FROM conversation_members WHERE user_id = $1) AS m", user)
			others := db.Snapshot("conversation_members WHERE user_id = $1", other)

			app := connect(t, db.URLAs(who), "messaging-service", "BEGIN")
			app.exec(t, statement, user)
			var txid int64
			var at time.Time
			if err := app.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text::bigint, now()").Scan(&txid, &at); err != nil {
				t.Fatal(err)
			}
			app.exec(t, "COMMIT")
			if len(app.notices) > 0 {
				t.Errorf("a notice: %s", app.notices[0].Message)
			}

			if n := db.Count("conversation_members WHERE user_id = $1", user); n != 0 {
				t.Errorf("%d members are left", n)
			}
			if diff := before.Diff(db.Snapshot(
				"(SELECT conversation_id, user_id, role, joined_at FROM conversation_members_audit) AS a")); diff != "" {
				t.Errorf("audit and deleted members differ:\n%s", diff)
			}
			if n := db.Count(`conversation_members_audit
				WHERE run_id IS NULL AND deleted_by = $1 AND application = 'messaging-service' AND txid = $2 AND deleted_at = $3`,
				who, txid, at); n != 7 {
				t.Errorf("%d audit rows say who deleted, with what, when and in which transaction", n)
			}
			if n := db.Count("conversation_members_backup"); n != 0 {
				t.Errorf("%d rows of the application's delete are backed up", n)
			}
			if diff := others.Diff(db.Snapshot("conversation_members")); diff != "" {
				t.Errorf("other members changed:\n%s", diff)
			}
		})
	}
}

// What a transaction rolls back is not audited.
func TestRolledBackDelete(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	app := connect(t, db.URL, "messaging-service", "BEGIN")
	app.exec(t, deleteUser, members(db, 2))
	app.exec(t, "ROLLBACK")
	if n := db.Count("conversation_members_audit"); n != 0 {
		t.Errorf("%d audit rows", n)
	}
}

// A run's delete is audited with its run and backed up column by column; the
// counts add up over the statements of a transaction and end with it.
func TestRunDelete(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	user, others := members(db, 7), members(db, 4)
	before := db.Snapshot("conversation_members WHERE user_id = $1", user)
	run := openRun(db)
	s := connect(t, db.URL, "orphan-cleaner")

	const half = deleteUser + " AND role = 'admin'"
	for i, statement := range []string{half, deleteUser} {
		audited, backedUp, err := s.deleteInRun(t.Context(), run, statement, user)
		if err != nil {
			t.Fatal(err)
		}
		// Counted per transaction: a third of seven, then the others.
		if want := []string{"3", "4"}[i]; audited != want || backedUp != want {
			t.Errorf("%s: %s audited and %s backed up, not %s", statement, audited, backedUp, want)
		}
	}
	if diff := before.Diff(db.Snapshot(inBackup)); diff != "" {
		t.Errorf("the backup is not what the members were:\n%s", diff)
	}
	const pairs = `conversation_members_backup AS b JOIN conversation_members_audit AS a
		ON (a.conversation_id, a.user_id, a.run_id, a.deleted_at, a.role, a.joined_at)
		 = (b.conversation_id, b.user_id, b.run_id, b.backed_up_at, b.role, b.joined_at)
		WHERE a.run_id = $1 AND a.deleted_by = 'postgres' AND a.application = 'orphan-cleaner'`
	if n := db.Count(pairs, run); n != 7 {
		t.Errorf("%d pairs of audit and backup row", n)
	}

	// The same session, handed on by a pooler: the run's name ended with it.
	s.exec(t, deleteUser, others)
	if n := db.Count("conversation_members_audit WHERE run_id IS NULL"); n != 4 {
		t.Errorf("%d audit rows without a run", n)
	}
	if n := db.Count("conversation_members_backup"); n != 7 {
		t.Errorf("%d backup rows", n)
	}
}

// Two statements of one transaction are counted together.
func TestCountsAddUp(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	first, second, run := members(db, 2), members(db, 3), openRun(db)
	audited, backedUp, err := connect(t, db.URL, "test").deleteInRun(t.Context(), run, `
		DO $$
		BEGIN
			DELETE FROM conversation_members WHERE user_id = '`+first+`';
			DELETE FROM conversation_members WHERE user_id = '`+second+`';
		END
		$$`)
	if err != nil || audited != "5" || backedUp != "5" {
		t.Errorf("%s audited, %s backed up, %v", audited, backedUp, err)
	}
}

// A delete that carries the token of a run that is over, of none, or anything else
// in its place is nobody's error: it is somebody else's delete, and is audited as one.
func TestDeleteOfNoOpenRun(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	over := openRun(db)
	closeRun(db, over)
	token := testdb.One[string](db, "SELECT token::text FROM orphan_cleaner.runs WHERE run_id = $1", over)
	open := openRun(db)
	audited := int64(0)
	for name, setting := range map[string]string{
		"over": token, "never was": "00000000-0000-0000-0000-000000000000", "no uuid": "x", "the id of an open run": fmt.Sprint(open), "empty": "",
	} {
		user := members(db, 3)
		app := connect(t, db.URL, "messaging-service", "SET orphan_cleaner.run_token = '"+setting+"'")
		if n := app.exec(t, deleteUser, user); n != 3 {
			t.Errorf("%s: %d members deleted", name, n)
		}
		audited += 3
		if n := db.Count("conversation_members_audit WHERE run_id IS NULL"); n != audited {
			t.Errorf("%s: %d audit rows without a run, not %d", name, n, audited)
		}
		if w := warning(app.notices); w != nil {
			t.Errorf("%s: the application was warned: %s", name, w.Message)
		}
	}
	if n := db.Count("conversation_members_backup"); n != 0 {
		t.Errorf("%d rows of no run's deletes are backed up", n)
	}
}

// Hundreds of deletes in one transaction need one subtransaction, a delete that
// deletes nothing none.
func TestSubtransactionsOfTheApplication(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	user := members(db, 200)
	app := connect(t, db.URL, "messaging-service", "BEGIN", "CREATE TEMP TABLE xids (xid xid8)")
	for range 3 {
		app.exec(t, "DELETE FROM conversation_members WHERE false")
	}
	for range 200 {
		app.exec(t, "DELETE FROM conversation_members WHERE ctid = (SELECT min(ctid) FROM conversation_members WHERE user_id = $1)", user)
	}
	var xmins int
	if err := app.QueryRow(t.Context(), "SELECT count(DISTINCT xmin::text) FROM conversation_members_audit").Scan(&xmins); err != nil {
		t.Fatal(err)
	}
	if xmins > 2 {
		t.Errorf("200 audited deletes took %d transaction ids", xmins)
	}
	app.exec(t, "COMMIT")
	if n := db.Count("conversation_members_audit WHERE run_id IS NULL"); n != 200 {
		t.Errorf("%d audit rows", n)
	}
}

// The triggers fire where a session calls itself a replica, too.
func TestReplicaRole(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	user := members(db, 3)
	s := connect(t, db.URL, "test", "SET session_replication_role = replica")
	_, err := s.Exec(t.Context(), "TRUNCATE conversation_members")
	wantState(t, err, raised)
	s.exec(t, deleteUser+" AND role = 'owner'", user)
	if n := db.Count("conversation_members_audit WHERE run_id IS NULL"); n != 1 {
		t.Errorf("%d audit rows", n)
	}
	if _, _, err := s.deleteInRun(t.Context(), openRun(db), deleteUser, user); err != nil {
		t.Fatal(err)
	}
	if n := db.Count("conversation_members_audit"); n != 3 {
		t.Errorf("%d audit rows", n)
	}
	if n := db.Count("conversation_members_backup"); n != 2 {
		t.Errorf("%d backup rows", n)
	}
}

// What breaks the audit, the backup or both: a run's delete fails with all of
// it, the application's own passes, with a warning where it was not audited.
func TestBrokenTrigger(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		statements []string
		state      string // of the run's delete
		warns      bool   // the application's delete is not audited
	}{
		"audit refuses": {
			[]string{"ALTER TABLE conversation_members_audit ADD CONSTRAINT never CHECK (false) NOT VALID"},
			"23514", true,
		},
		"audit has no partition": {
			[]string{"DO $$ DECLARE p regclass; BEGIN FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'conversation_members_audit'::regclass LOOP EXECUTE format('DROP TABLE %s', p); END LOOP; END $$"},
			noPartition, true,
		},
		"audit is gone": {
			[]string{"DROP TABLE conversation_members_audit CASCADE"},
			"42P01", true,
		},
		"backup refuses": {
			[]string{"ALTER TABLE conversation_members_backup ADD CONSTRAINT never CHECK (false) NOT VALID"},
			"23514", false,
		},
		"backup has no partition": {
			[]string{"DO $$ DECLARE p regclass; BEGIN FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'conversation_members_backup'::regclass LOOP EXECUTE format('DROP TABLE %s', p); END LOOP; END $$"},
			noPartition, false,
		},
		"the runs are gone": {
			[]string{"DROP TABLE orphan_cleaner.runs CASCADE"},
			"42P01", false, // the token of the run is read before

		},
		"a column is new": {
			[]string{"ALTER TABLE conversation_members ADD COLUMN nickname text DEFAULT 'x'"},
			undefinedColumn, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testdb.New(t)
			user, run := members(db, 4), openRun(db)
			app, cleaner := connect(t, db.URL, "messaging-service"), connect(t, db.URL, "orphan-cleaner")
			const one = "DELETE FROM conversation_members WHERE ctid = (SELECT min(ctid) FROM conversation_members WHERE user_id = $1)"
			// Both have deleted before: what a session remembers does not help it.
			app.exec(t, one, user)
			if _, _, err := cleaner.deleteInRun(t.Context(), run, one, user); err != nil {
				t.Fatal(err)
			}
			for _, statement := range fault.statements {
				db.Exec(statement)
			}
			before := db.Snapshot("conversation_members")

			_, _, err := cleaner.deleteInRun(t.Context(), run, deleteUser, user)
			wantState(t, err, fault.state)
			if diff := before.Diff(db.Snapshot("conversation_members")); diff != "" {
				t.Errorf("the run's delete failed, and yet:\n%s", diff)
			}

			if n := app.exec(t, deleteUser, user); n != 2 {
				t.Errorf("the application deleted %d members, not 2", n)
			}
			if warned := warning(app.notices) != nil; warned != fault.warns {
				t.Errorf("a warning to the application: %t, not %t", warned, fault.warns)
			}
			if w := warning(app.notices); w != nil && w.Hint == "" {
				t.Error("a warning without a hint")
			}
			if !fault.warns {
				if n := db.Count("conversation_members_audit WHERE application = 'messaging-service'"); n != 3 {
					t.Errorf("%d of the application's deletes are audited", n)
				}
			}
		})
	}
}

func warning(notices []*pgconn.Notice) *pgconn.Notice {
	for _, n := range notices {
		if n.Severity == "WARNING" {
			return n
		}
	}
	return nil
}

// Once the backup has the new column, too, a run deletes again, and every column
// is backed up under its own name, whatever the order.
func TestBackupAfterNewColumn(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	user, run := members(db, 3), openRun(db)
	db.Exec("ALTER TABLE conversation_members ADD COLUMN \"Nick name\" text, DROP COLUMN is_muted")
	db.Exec("UPDATE conversation_members SET \"Nick name\" = 'nick ' || role")
	db.Exec("ALTER TABLE conversation_members_backup ADD COLUMN \"Nick name\" text")
	const columns = `conversation_id, user_id, role, joined_at, last_read_at, user_public_key, "Nick name"`
	before := db.Snapshot("(SELECT " + columns + " FROM conversation_members) AS m")
	if _, _, err := connect(t, db.URL, "test").deleteInRun(t.Context(), run, deleteUser, user); err != nil {
		t.Fatal(err)
	}
	if diff := before.Diff(db.Snapshot("(SELECT " + columns + " FROM conversation_members_backup) AS b")); diff != "" {
		t.Errorf("the backup is not what the members were:\n%s", diff)
	}
}

// A column that messaging-service lets be null later is backed up all the same.
func TestBackupTakesNulls(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	user, run := members(db, 1), openRun(db)
	db.Exec("ALTER TABLE conversation_members ALTER COLUMN joined_at DROP NOT NULL, ALTER COLUMN role DROP NOT NULL")
	db.Exec("UPDATE conversation_members SET joined_at = NULL, role = NULL")
	if _, _, err := connect(t, db.URL, "test").deleteInRun(t.Context(), run, deleteUser, user); err != nil {
		t.Fatal(err)
	}
	if n := db.Count("conversation_members_backup WHERE joined_at IS NULL AND role IS NULL"); n != 1 {
		t.Errorf("%d backup rows", n)
	}
}

// TRUNCATE is refused, whichever way it comes, and says what to do instead.
func TestTruncateIsRefused(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	members(db, 3)
	for _, statement := range []string{
		"TRUNCATE conversation_members",
		"TRUNCATE conversations CASCADE",
		"TRUNCATE conversations, conversation_members",
	} {
		_, err := db.Pool.Exec(t.Context(), statement)
		wantState(t, err, raised)
		if !strings.Contains(hint(err), "DELETE") {
			t.Errorf("%s: hint %q", statement, hint(err))
		}
	}
	if members, conversations := db.Count("conversation_members"), db.Count("conversations"); members != 3 || conversations != 3 {
		t.Errorf("%d members and %d conversations are left", members, conversations)
	}
	// The hint's own statement works, for who means it.
	db.Exec("ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_refuse_truncate")
	db.Exec("TRUNCATE conversation_members")
}

// A delete that deletes nothing writes nothing, and needs no open run's rows.
func TestEmptyDelete(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	const none = "DELETE FROM conversation_members WHERE false"
	db.Exec(none)
	audited, backedUp, err := connect(t, db.URL, "test").deleteInRun(t.Context(), openRun(db), none)
	if err != nil || audited != "" || backedUp != "" {
		t.Errorf("%q audited, %q backed up, %v", audited, backedUp, err)
	}
	if n := db.Count("conversation_members_audit"); n != 0 {
		t.Errorf("%d audit rows", n)
	}
}
