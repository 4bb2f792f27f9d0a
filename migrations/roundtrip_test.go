package migrations_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// gooseEnv names the stock goose program; `make test` sets it.
const gooseEnv = "ORPHAN_CLEANER_TEST_GOOSE"

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
	for _, object := range []string{"orphan_runs", "conversation_members_audit_delete", "deleted_members_list", "conversation_members_user_id"} {
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
		if v == 6 || v == 7 {
			// The partitions that version 8 made stay with their tables, as it says.
			if missing := leftOut(want, dump(t, db)); missing != "" {
				t.Errorf("down to %d took away what was there:\n%s", v, missing)
			}
			continue
		}
		sameDump(t, fmt.Sprintf("after down to %d", v), want, dump(t, db))
	}
}

// leftOut returns the lines of want that got has not.
func leftOut(want, got string) string {
	has := map[string]bool{}
	for line := range strings.Lines(got) {
		has[line] = true
	}
	var b strings.Builder
	for line := range strings.Lines(want) {
		if !has[line] {
			b.WriteString(line)
		}
	}
	return b.String()
}

// The stock goose program works on the same files, and leaves what our own
// `migrate` leaves.
func TestStockGoose(t *testing.T) {
	t.Parallel()
	program := os.Getenv(gooseEnv)
	if program == "" {
		t.Skipf("%s is not set: make test sets it", gooseEnv)
	}
	db, own := testdb.NewBare(t), testdb.NewBare(t)
	sameDay(t, db)
	bare := dump(t, db)
	if _, err := open(t, own).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := dump(t, own)
	goose := func(command string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, "-dir", ".", "postgres", db.URL, command)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("goose %s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	pending := regexp.MustCompile(`(?m)Pending\s+-- `)
	status := func(wantPending int) {
		t.Helper()
		if out := goose("status"); len(pending.FindAllString(out, -1)) != wantPending {
			t.Errorf("want %d pending migrations, goose status says:\n%s", wantPending, out)
		}
	}
	latest, err := migrate.Latest()
	if err != nil {
		t.Fatal(err)
	}
	status(int(latest))
	goose("up")
	status(0)
	sameDump(t, "after goose up", want, dump(t, db))
	// What one of them applied the other knows.
	if has, err := open(t, db).HasPending(t.Context()); err != nil || has {
		t.Errorf("our migrate sees pending migrations after goose up: %t, %v", has, err)
	}
	for range latest {
		goose("down")
	}
	status(int(latest))
	sameDump(t, "after goose down", bare, dump(t, db))
	goose("up")
	sameDump(t, "after the second goose up", want, dump(t, db))
}
