package migrations_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

const (
	triggerVersion = 4
	indexVersion   = 5
	// lockTimeout is what each migration sets.
	lockTimeout = 3 * time.Second
)

// The index is valid afterwards whatever a build before left behind.
func TestIndexAfterFailedBuild(t *testing.T) {
	t.Parallel()
	db, m := upTo(t, indexVersion-1)
	members(db, 10) // one user in ten conversations: not unique
	_, err := db.Pool.Exec(t.Context(),
		"CREATE UNIQUE INDEX CONCURRENTLY conversation_members_user_id ON conversation_members (user_id)")
	wantState(t, err, "23505")
	const valid = "SELECT indisvalid AND NOT indisunique FROM pg_index WHERE indexrelid = 'conversation_members_user_id'::regclass"
	if testdb.One[bool](db, valid) {
		t.Fatal("the failed build left a valid index: this test shows nothing")
	}
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !testdb.One[bool](db, valid) {
		t.Error("the index is not valid, or still the leftover")
	}
}

// A valid index of that name, made by hand ahead of time, stays as it is.
func TestIndexThereAlready(t *testing.T) {
	t.Parallel()
	db, m := upTo(t, indexVersion-1)
	db.Exec("CREATE INDEX conversation_members_user_id ON conversation_members (user_id)")
	const oid = "SELECT 'conversation_members_user_id'::regclass::oid::bigint"
	before := testdb.One[int64](db, oid)
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if testdb.One[int64](db, oid) != before {
		t.Error("the index was built a second time")
	}
}

// fill puts n members of as many users into one conversation.
func fill(db *testdb.DB, n int) {
	db.Exec(`
		WITH c AS (INSERT INTO conversations DEFAULT VALUES RETURNING id)
		INSERT INTO conversation_members (conversation_id, user_id)
		SELECT c.id, gen_random_uuid() FROM c, generate_series(1, $1::int)`, n)
}

// insertMember is what the application does all the time.
const insertMember = `INSERT INTO conversation_members (conversation_id, user_id)
	SELECT id, gen_random_uuid() FROM conversations LIMIT 1`

// A long transaction of the application makes the trigger migration give up
// within its lock timeout; writers that came after it wait no longer than that;
// and it can be repeated.
func TestTriggerGivesUp(t *testing.T) {
	t.Parallel()
	db, m := upTo(t, triggerVersion-1)
	const many = 200_000
	fill(db, many)
	holder := connect(t, db.URL, "messaging-service", "BEGIN", insertMember)
	before := dump(t, db)

	writer := connect(t, db.URL, "messaging-service")
	began := time.Now()
	up := async(func() error { _, err := m.UpByOne(context.WithoutCancel(t.Context())); return err })
	migrating := blockedBy(t, db, holder.pid())
	write := async(func() error { _, err := writer.Exec(context.WithoutCancel(t.Context()), insertMember); return err })
	if blocked := blockedBy(t, db, migrating); blocked != writer.pid() {
		t.Errorf("process %d waits behind the migration, not the writer", blocked)
	}
	err := up()
	wantState(t, err, lockNotAvailable)
	if err := write(); err != nil {
		t.Errorf("a writer of the application: %v", err)
	}
	if waited := time.Since(began); waited < lockTimeout {
		t.Errorf("the migration gave up after %s, not %s", waited, lockTimeout)
	}
	if v := version(t, m); v != triggerVersion-1 {
		t.Errorf("at version %d after a migration that failed", v)
	}
	sameDump(t, "after a migration that failed", before, dump(t, db))

	holder.exec(t, "COMMIT")
	if _, err := m.Up(t.Context()); err != nil {
		t.Errorf("repeating it: %v", err)
	}
	if n := db.Count("conversation_members"); n != many+2 {
		t.Errorf("%d members", n)
	}
}

// While the index is built, and waits for an old transaction, writers write.
func TestIndexLetsWritersWrite(t *testing.T) {
	t.Parallel()
	db, m := upTo(t, indexVersion-1)
	fill(db, 20_000)
	old := connect(t, db.URL, "messaging-service", "BEGIN", insertMember)
	up := async(func() error { _, err := m.UpByOne(context.WithoutCancel(t.Context())); return err })
	blockedBy(t, db, old.pid())
	writer := connect(t, db.URL, "messaging-service", "SET lock_timeout = '1s'")
	if n := writer.exec(t, insertMember); n != 1 {
		t.Errorf("%d rows written", n)
	}
	if n := writer.exec(t, "DELETE FROM conversation_members WHERE ctid = (SELECT min(ctid) FROM conversation_members)"); n != 1 {
		t.Errorf("%d rows deleted", n)
	}
	old.exec(t, "COMMIT")
	if err := up(); err != nil {
		t.Fatal(err)
	}
	if !testdb.One[bool](db, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'conversation_members_user_id'::regclass") {
		t.Error("the index is not valid")
	}
}

// No migration takes more on messaging-service's tables than its header says:
// none takes ACCESS EXCLUSIVE, and only that of the trigger makes writers wait.
func TestLocksOfEachMigration(t *testing.T) {
	t.Parallel()
	want := map[int64]string{
		3:              "conversation_members AccessShareLock, conversations AccessShareLock",
		triggerVersion: "conversation_members ShareRowExclusiveLock",
		7:              "conversation_members AccessShareLock",
		10:             "conversation_members AccessShareLock",
	}
	db := testdb.NewBare(t)
	m := openPatiently(t, db)
	ctx := context.WithoutCancel(t.Context())
	// goose makes its own table on this occasion.
	if _, err := m.UpByOne(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, source := range m.ListSources()[1:] {
		v := source.Version
		if v == indexVersion { // in no transaction: see TestIndexLetsWritersWrite
			if _, err := m.UpByOne(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		}
		// goose records a version at the end of the migration's own transaction:
		// held up there, it still has all its locks.
		gate := connect(t, db.URL, "test", "BEGIN", "LOCK TABLE public.orphan_cleaner_goose IN SHARE MODE")
		up := async(func() error { _, err := m.UpByOne(ctx); return err })
		got := strongest(t, db, blockedBy(t, db, gate.pid()))
		gate.exec(t, "COMMIT")
		if err := up(); err != nil {
			t.Fatalf("migration %d: %v", v, err)
		}
		if got != want[v] {
			t.Errorf("migration %d locks %q, not %q", v, got, want[v])
		}
	}
}

// strongest lists the strongest lock that a process holds on each of
// messaging-service's tables.
func strongest(t *testing.T, db *testdb.DB, pid uint32) string {
	t.Helper()
	modes := []string{
		"AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock",
		"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock",
	}
	rows, err := db.Pool.Query(t.Context(), `
		SELECT relation::regclass::text, mode
		FROM pg_locks
		WHERE pid = $1
			AND locktype = 'relation'
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND relation IN ('conversations'::regclass, 'conversation_members'::regclass, 'users'::regclass)`, pid)
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]int{}
	var table, mode string
	_, err = pgx.ForEachRow(rows, []any{&table, &mode}, func() error {
		rank := slices.Index(modes, mode)
		if rank < 0 {
			return fmt.Errorf("unknown lock mode %s", mode)
		}
		held[table] = max(held[table], rank)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, table := range slices.Sorted(maps.Keys(held)) {
		list = append(list, table+" "+modes[held[table]])
	}
	return strings.Join(list, ", ")
}
