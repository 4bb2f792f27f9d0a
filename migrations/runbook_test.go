package migrations_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// The runbook's 4.3, as printed.
const countOverdue = `SELECT COUNT(*) FROM conversation_members cm
LEFT JOIN users u ON cm.user_id = u.id
WHERE u.deleted_at < NOW() - INTERVAL '30 days';`

// The runbook's 6.2, both statements as printed but for the times of the first
// and the day of the second, which are those of the accident.
const (
	listDeleted = `SELECT conversation_id, user_id, deleted_at
FROM conversation_members_audit
WHERE deleted_at BETWEEN '%s' AND '%s';`
	giveBack = `INSERT INTO conversation_members (conversation_id, user_id, role, joined_at)
SELECT conversation_id, user_id, role, joined_at
FROM conversation_members_backup_%s
WHERE (conversation_id, user_id) IN (
  -- 错误删除的记录
  SELECT conversation_id, user_id FROM deleted_members_list
);`
)

// byDay puts the day of the UTC now into a statement.
func byDay(db *testdb.DB, statement string) string {
	return fmt.Sprintf(statement, testdb.One[time.Time](db, "SELECT (now() AT TIME ZONE 'UTC')::date").Format("20060102"))
}

// shadow puts a user into messaging-service's shadow table.
func shadow(db *testdb.DB, user, deletedAt string) {
	db.Exec("INSERT INTO users (id, username, created_at, deleted_at) VALUES ($1, 'u', now() - interval '1 year', "+deletedAt+")", user)
}

func TestRunbookOverdue(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	shadow(db, members(db, 3), "now() - interval '31 days'")
	shadow(db, members(db, 4), "now() - interval '29 days'")
	shadow(db, members(db, 5), "NULL")
	members(db, 6)
	if n := testdb.One[int64](db, countOverdue); n != 3 {
		t.Errorf("%d members of users deleted long ago, not 3", n)
	}
}

// The restore gives back what a run deleted, and only that: not what the
// application deleted, who is back already, or whose conversation is gone.
func TestRunbookRestore(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	sameDay(t, db)
	user, left := members(db, 5), members(db, 2)
	const restored = "(SELECT conversation_id, user_id, role, joined_at FROM conversation_members) AS m"
	before := db.Snapshot(restored+" WHERE user_id = $1", user)
	db.Exec(deleteUser, left)
	if _, _, err := connect(t, db.URL, "orphan-cleaner").deleteInRun(t.Context(), openRun(db), deleteUser, user); err != nil {
		t.Fatal(err)
	}

	day := testdb.One[time.Time](db, "SELECT (now() AT TIME ZONE 'UTC')::date")
	found := db.Exec(fmt.Sprintf(listDeleted, day.Format("2006-01-02 15:04"), day.AddDate(0, 0, 1).Format("2006-01-02 15:04")))
	if found != 7 {
		t.Errorf("%d deleted members found in the audit, not 7", found)
	}
	if n := db.Exec(byDay(db, giveBack)); n != 5 {
		t.Errorf("%d members given back", n)
	}
	if diff := before.Diff(db.Snapshot(restored)); diff != "" {
		t.Errorf("the members are not what they were:\n%s", diff)
	}
	if n := db.Exec(byDay(db, giveBack)); n != 0 {
		t.Errorf("%d members given back the second time", n)
	}
	// Who leaves after that has left.
	db.Exec(deleteUser+" AND role = 'owner'", user)
	if n := db.Exec(byDay(db, giveBack)); n != 0 {
		t.Errorf("%d members given back who left by themselves", n)
	}
}

func TestRunbookRestoreOfAPart(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	sameDay(t, db)
	user := members(db, 5)
	if _, _, err := connect(t, db.URL, "orphan-cleaner").deleteInRun(t.Context(), openRun(db), deleteUser, user); err != nil {
		t.Fatal(err)
	}
	// One is back already, with another role; one has no conversation any more.
	db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, role)
		SELECT conversation_id, user_id, 'owner' FROM conversation_members_audit ORDER BY conversation_id LIMIT 1`)
	db.Exec("DELETE FROM conversations WHERE id = (SELECT max(conversation_id::text)::uuid FROM conversation_members_audit)")
	back := db.Snapshot("conversation_members")

	// A TEMP TABLE of the same name narrows the list, as the view's comment says.
	dba := connect(t, db.URL, "psql", `CREATE TEMP TABLE deleted_members_list AS
		SELECT * FROM deleted_members_list ORDER BY conversation_id LIMIT 1`)
	if n := dba.exec(t, byDay(db, giveBack)); n != 1 {
		t.Errorf("%d members given back, not 1", n)
	}
	if n := db.Exec(byDay(db, giveBack)); n != 2 {
		t.Errorf("%d members given back, not the 2 that were left", n)
	}
	if n := db.Count("conversation_members"); n != 4 {
		t.Errorf("%d members", n)
	}
	if diff := back.Diff(db.Snapshot("conversation_members WHERE role = 'owner' AND joined_at > now() - interval '1 day'")); diff != "" {
		t.Errorf("who was back already changed:\n%s", diff)
	}
}
