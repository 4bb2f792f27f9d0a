package migrations_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// sameDay skips a test that compares schemas when a day began while it ran: the
// partitions carry the day in their names.
func sameDay(t *testing.T, db *testdb.DB) {
	t.Helper()
	const today = "SELECT (now() AT TIME ZONE 'UTC')::date::text"
	before := testdb.One[string](db, today)
	t.Cleanup(func() {
		if t.Failed() && testdb.One[string](db, today) != before {
			t.Log("midnight UTC passed during this test: run it again")
		}
	})
}

// Up, down and up again leave the same schema, and down leaves nothing of ours
// and everything of messaging-service's.
func TestUpDownUp(t *testing.T) {
	t.Parallel()
	db, m := upTo(t, 0)
	sameDay(t, db)
	user := members(db, 5)
	bare, rows := dump(t, db), db.Snapshot("conversation_members")
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	latest, err := migrate.Latest()
	if err != nil {
		t.Fatal(err)
	}
	if v := version(t, m); v != latest {
		t.Errorf("at version %d, not %d", v, latest)
	}
	first := dump(t, db)
	for _, object := range []string{"orphan_cleaner.runs", "conversation_members_audit_delete", "deleted_members_list", "conversation_members_user_id"} {
		if !strings.Contains(first, object) {
			t.Errorf("the dump knows nothing of %s", object)
		}
	}
	if _, err := m.DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	sameDump(t, "after down", bare, dump(t, db))
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameDump(t, "after the second up", first, dump(t, db))
	if diff := rows.Diff(db.Snapshot("conversation_members")); diff != "" {
		t.Errorf("the rows of user %s are not what they were:\n%s", user, diff)
	}
}

// Each single migration goes down to exactly the schema that it found.
func TestEachDown(t *testing.T) {
	t.Parallel()
	db, m := upTo(t, 0)
	sameDay(t, db)
	latest, err := migrate.Latest()
	if err != nil {
		t.Fatal(err)
	}
	before := []string{dump(t, db)}
	for v := int64(1); v <= latest; v++ {
		if _, err := m.UpTo(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		before = append(before, dump(t, db))
	}
	for v := latest - 1; v >= 0; v-- {
		if _, err := m.DownTo(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		want := before[v]
		sameDump(t, fmt.Sprintf("after down to %d", v), want, dump(t, db))
	}
}
