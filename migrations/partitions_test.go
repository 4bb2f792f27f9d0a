package migrations_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// dropPartitions drops all partitions but the DEFAULT, as on the day before the
// first run.
func dropPartitions(db *testdb.DB) {
	db.Exec(`DO $$
		DECLARE p regclass;
		BEGIN
			FOR p IN
				SELECT c.oid FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
				WHERE i.inhparent IN ('conversation_members_audit'::regclass, 'conversation_members_backup'::regclass)
					AND c.relkind = 'r' AND c.relname <> 'conversation_members_audit_default'
			LOOP
				EXECUTE format('DROP TABLE %s', p);
			END LOOP;
		END $$`)
}

// partitions lists the partitions of both parents with their bounds, in UTC.
func partitions(t *testing.T, db *testdb.DB) []string {
	t.Helper()
	rows, err := connect(t, db.URL, "test", "SET timezone = 'UTC'").Query(t.Context(), `
		SELECT c.relname || ' ' || pg_get_expr(c.relpartbound, c.oid)
		FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
		WHERE i.inhparent IN ('conversation_members_audit'::regclass, 'conversation_members_backup'::regclass)
		ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// wantPartitions is what there must be for today and as many days more: reckoned
// here from the day in UTC, not by the functions that are tested.
func wantPartitions(db *testdb.DB, daysAhead int) []string {
	const layout = "2006-01-02"
	now := testdb.One[time.Time](db, "SELECT (now() AT TIME ZONE 'UTC')::date")
	want := []string{"conversation_members_audit_default DEFAULT"}
	bounds := func(from, to string) string {
		return fmt.Sprintf(" FOR VALUES FROM ('%s 00:00:00+00') TO ('%s 00:00:00+00')", from, to)
	}
	for n := range daysAhead + 1 {
		day := now.AddDate(0, 0, n)
		want = append(want, "conversation_members_backup_"+day.Format("20060102")+
			bounds(day.Format(layout), day.AddDate(0, 0, 1).Format(layout)))
	}
	first := now.AddDate(0, 0, 1-now.Day())
	for n := range 2 + daysAhead/28 {
		month := first.AddDate(0, n, 0)
		want = append(want, "conversation_members_audit_"+month.Format("200601")+
			bounds(month.Format(layout), month.AddDate(0, 1, 0).Format(layout)))
	}
	slices.Sort(want)
	return want
}

// The partitions are those of UTC days and months, whatever the session thinks
// of time: at any moment one of these zones has another day than UTC. Shanghai's
// CST, in a datestyle that writes it so, reads back as a zone of America.
func TestPartitionsAreUTC(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	sameDay(t, db)
	for zone, days := range map[string]int{
		"UTC": 0, "Asia/Tokyo": 31, "Asia/Shanghai": 7, "America/Los_Angeles": 7, "Pacific/Kiritimati": 0, "Etc/GMT+12": 0,
	} {
		dropPartitions(db)
		s := connect(t, db.URL, "test", fmt.Sprintf("SET timezone = '%s'", zone), "SET datestyle = 'German'")
		var made int
		if err := s.QueryRow(t.Context(), "SELECT orphan_cleaner.partitions_ensure($1)", days).Scan(&made); err != nil {
			t.Fatalf("%s: %v", zone, err)
		}
		got, want := partitions(t, db), wantPartitions(db, days)
		if !slices.Equal(got, want) {
			t.Errorf("%s, %d days ahead:\n%s", zone, days, testdb.Snapshot(want).Diff(got))
		}
		if made != len(want)-1 {
			t.Errorf("%s, %d days ahead: says it made %d, not %d", zone, days, made, len(want)-1)
		}
		if err := s.QueryRow(t.Context(), "SELECT orphan_cleaner.partitions_ensure($1)", days).Scan(&made); err != nil || made != 0 {
			t.Errorf("%s: %d made the second time, %v", zone, made, err)
		}
	}
}

// A run over midnight finds the place for its backup.
func TestBackupOfTomorrow(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec(`INSERT INTO conversation_members_backup (conversation_id, user_id, backed_up_at, run_id)
		SELECT gen_random_uuid(), gen_random_uuid(), day + shift, 1
		FROM generate_series(date_trunc('day', now(), 'UTC'), date_trunc('day', now(), 'UTC') + interval '7 days', '1 day') AS day,
			(VALUES (interval '0'), (interval '1 day' - interval '1 microsecond')) AS s (shift)`)
	const wrong = `conversation_members_backup
		WHERE tableoid::regclass::text <> 'conversation_members_backup_' || to_char(backed_up_at AT TIME ZONE 'UTC', 'YYYYMMDD')`
	if n := db.Count(wrong); n != 0 {
		t.Errorf("%d rows lie in the partition of another day", n)
	}
}

func TestDaysAheadAreBounded(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	for _, days := range []int{-1, 32, 1 << 30} {
		_, err := db.Pool.Exec(t.Context(), "SELECT orphan_cleaner.partitions_ensure($1)", days)
		wantState(t, err, "22023")
	}
}

// Two callers at once take turns: both succeed, and together they make each
// partition once.
func TestConcurrentEnsure(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	sameDay(t, db)
	dropPartitions(db)
	db.Exec("ALTER FUNCTION orphan_cleaner.partitions_ensure SET lock_timeout = '2min'") // until this test has seen it wait
	first, second := connect(t, db.URL, "first", "BEGIN"), connect(t, db.URL, "second")
	var madeFirst, madeSecond int
	if err := first.QueryRow(t.Context(), "SELECT orphan_cleaner.partitions_ensure(7)").Scan(&madeFirst); err != nil {
		t.Fatal(err)
	}
	ctx := context.WithoutCancel(t.Context())
	wait := async(func() error {
		return second.QueryRow(ctx, "SELECT orphan_cleaner.partitions_ensure(7)").Scan(&madeSecond)
	})
	blockedBy(t, db, first.pid())
	first.exec(t, "COMMIT")
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if madeFirst != len(wantPartitions(db, 7))-1 || madeSecond != 0 {
		t.Errorf("the first made %d, the second %d", madeFirst, madeSecond)
	}
	if got, want := partitions(t, db), wantPartitions(db, 7); !slices.Equal(got, want) {
		t.Error(testdb.Snapshot(want).Diff(got))
	}
}

// Rows that arrived before the partition of their month are moved into it, and
// stay what they were; those of other months stay where they are.
func TestLateRowsMove(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	dropPartitions(db)
	db.Exec(deleteUser, members(db, 5))
	db.Exec(`INSERT INTO conversation_members_audit (conversation_id, user_id, deleted_at, deleted_by, application, txid)
		VALUES (gen_random_uuid(), gen_random_uuid(), now() - interval '400 days', 'somebody', 'long ago', 1)`)
	if n := db.Count("conversation_members_audit_default"); n != 6 {
		t.Fatalf("%d rows in the DEFAULT partition: this test shows nothing", n)
	}
	before := db.Snapshot("conversation_members_audit")
	db.Exec("SELECT orphan_cleaner.partitions_ensure(0)")
	if diff := before.Diff(db.Snapshot("conversation_members_audit")); diff != "" {
		t.Errorf("the audit changed:\n%s", diff)
	}
	if n := db.Count("conversation_members_audit_default WHERE application = 'long ago'"); n != 1 {
		t.Errorf("%d rows of a month that has no partition are left in the DEFAULT one", n)
	}
	if n := db.Count("conversation_members_audit_default"); n != 1 {
		t.Errorf("%d rows in the DEFAULT partition", n)
	}
}

// While partitions are made, the application deletes and a run backs up; and
// both may be in the middle of it when it begins.
func TestEnsureLetsDeletesPass(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	user, run := members(db, 6), openRun(db)
	// Those of today and this month are there, the later ones are made.
	dropPartitions(db)
	db.Exec("SELECT orphan_cleaner.partitions_ensure(0)")

	const one = "DELETE FROM conversation_members WHERE ctid = (SELECT min(ctid) FROM conversation_members WHERE user_id = $1)"
	early := connect(t, db.URL, "messaging-service", "BEGIN")
	early.exec(t, one, user)

	maker := connect(t, db.URL, "test", "BEGIN")
	var made int
	if err := maker.QueryRow(t.Context(), "SELECT orphan_cleaner.partitions_ensure(31)").Scan(&made); err != nil || made < 31 {
		t.Fatalf("%d partitions made: %v", made, err)
	}
	early.exec(t, "COMMIT")
	rows, err := maker.Query(t.Context(), `
		SELECT DISTINCT relation::regclass::text || ' ' || mode
		FROM pg_locks
		WHERE pid = pg_backend_pid()
			AND relation IN (
				'conversation_members_audit'::regclass, 'conversation_members_backup'::regclass,
				'conversation_members'::regclass, 'conversations'::regclass
			)
			AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock', 'ShareUpdateExclusiveLock')`)
	if err != nil {
		t.Fatal(err)
	}
	strong, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(strong) > 0 {
		t.Errorf("locks that make a delete wait: %q", strong)
	}
	app := connect(t, db.URL, "messaging-service", "SET lock_timeout = '1s'")
	app.exec(t, one, user)
	cleaner := connect(t, db.URL, "orphan-cleaner", "SET lock_timeout = '1s'")
	if _, _, err := cleaner.deleteInRun(t.Context(), run, deleteUser, user); err != nil {
		t.Error(err)
	}
	maker.exec(t, "COMMIT")
	if w := warning(app.notices); w != nil {
		t.Errorf("the application was warned: %s", w.Message)
	}
	if n := db.Count("conversation_members_audit"); n != 6 {
		t.Errorf("%d audit rows", n)
	}
	if n := db.Count("conversation_members_backup"); n != 4 {
		t.Errorf("%d backup rows", n)
	}
}

// A transaction that has written to the DEFAULT partition makes the maker wait,
// no longer than its lock timeout; it can be repeated.
func TestEnsureGivesUp(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	sameDay(t, db)
	dropPartitions(db)
	app := connect(t, db.URL, "messaging-service", "BEGIN")
	app.exec(t, deleteUser, members(db, 2))
	began := time.Now()
	_, err := db.Pool.Exec(t.Context(), "SELECT orphan_cleaner.partitions_ensure(7)")
	wantState(t, err, lockNotAvailable)
	if waited := time.Since(began); waited < lockTimeout {
		t.Errorf("it gave up after %s, not %s", waited, lockTimeout)
	}
	if got := partitions(t, db); len(got) != 1 {
		t.Errorf("a maker that gave up left %q", got)
	}
	app.exec(t, "COMMIT")
	db.Exec("SELECT orphan_cleaner.partitions_ensure(7)")
	if got, want := partitions(t, db), wantPartitions(db, 7); !slices.Equal(got, want) {
		t.Error(testdb.Snapshot(want).Diff(got))
	}
	if n := db.Count("conversation_members_audit_default"); n != 0 {
		t.Errorf("%d rows in the DEFAULT partition", n)
	}
}

// What the audit's indexes cost is paid by autovacuum, and not by whoever deletes:
// of the partitions that there were when that was decided as of those made since,
// whatever indexes a DBA has added.
func TestAuditIndexesAreSummarizedByVacuum(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec("CREATE INDEX by_hand ON conversation_members_audit (user_id)")
	db.Exec("SELECT orphan_cleaner.partition_add('conversation_members_audit', 'conversation_members_audit_203501', '2035-01-01Z', '2035-02-01Z')")
	const partitions = `(SELECT c.oid, c.relname, c.reloptions FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'conversation_members_audit'::regclass) AS c`
	if n := db.Count(partitions); n < 4 {
		t.Fatalf("only %d partitions are looked at", n)
	}
	for _, name := range names(t, db, "SELECT relname::text FROM "+partitions+` WHERE NOT coalesce(reloptions @> ARRAY[
		'autovacuum_vacuum_insert_threshold=100000', 'autovacuum_vacuum_insert_scale_factor=0'], false)`) {
		t.Errorf("autovacuum comes to %s as to any table", name)
	}
	indexes := names(t, db, "SELECT i.indexrelid::regclass::text || ' ' || array_to_string(x.reloptions, ' ') FROM "+partitions+`
		JOIN pg_index AS i ON i.indrelid = c.oid JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_am AS m ON m.oid = x.relam AND m.amname = 'brin'`)
	if len(indexes) != int(db.Count(partitions)) {
		t.Errorf("indexes: %v", indexes)
	}
	for _, index := range indexes {
		if !strings.Contains(index, "autosummarize=off") {
			t.Errorf("each delete is told to summarize %s", index)
		}
	}

	db.Exec(`INSERT INTO conversation_members_audit (conversation_id, user_id, deleted_at, deleted_by, application, txid)
		SELECT gen_random_uuid(), gen_random_uuid(), '2035-01-02Z', 'test', 'test', 1 FROM generate_series(1, 10000)`)
	db.Exec("VACUUM conversation_members_audit_203501")
	if left := testdb.One[int](db, "SELECT brin_summarize_new_values('conversation_members_audit_203501_deleted_at_idx')"); left > 1 {
		t.Errorf("vacuum left %d ranges without a summary", left)
	}
}

// A restore of a run locks the days since that run, and no day before: each further
// day of backups would cost a place in the server's table of locks.
func TestRestorePlanLocksNoDayBefore(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	run := openRun(db)
	s := connect(t, db.URL, "test")
	locks := func() (n int) {
		t.Helper()
		s.exec(t, "BEGIN")
		s.exec(t, "SELECT FROM orphan_cleaner.conversation_members_restore_plan($1, NULL, NULL, NULL, NULL)", run)
		if err := s.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		s.exec(t, "COMMIT")
		return n
	}
	before := locks()
	db.Exec(`DO $$
		BEGIN
			FOR n IN 3 .. 12 LOOP
				EXECUTE format('CREATE TABLE former_%s PARTITION OF conversation_members_backup FOR VALUES FROM (%L) TO (%L)',
					n, date_trunc('day', now(), 'UTC') - n * interval '1 day', date_trunc('day', now(), 'UTC') - (n - 1) * interval '1 day');
			END LOOP;
		END $$`)
	if after := locks(); after != before {
		t.Errorf("%d locks, and %d with ten days of backups before the run", before, after)
	}
}
