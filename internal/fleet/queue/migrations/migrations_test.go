package migrations_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/nova-social/orphan-cleaner/internal/fleet/queue"
	"github.com/nova-social/orphan-cleaner/internal/fleet/queue/migrations"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func migrated(t *testing.T) *testdb.DB {
	t.Helper()
	db := testdb.NewEmpty(t)
	if err := queue.Migrate(t.Context(), db.URL, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return db
}

// Everything of ours has a comment; each function is reviewed like a setuid program, and
// nobody may call it who was not granted that.
func TestCatalog(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	for what, query := range map[string]string{
		"without a comment": `SELECT coalesce(string_agg(o.name, ', '), '') FROM (
			SELECT c.oid::regclass || '.' || a.attname AS name FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
			WHERE c.relnamespace = 'orphan_cleaner_fleet'::regnamespace AND c.relkind = 'r' AND c.relname NOT LIKE 'river%' AND a.attnum > 0
				AND col_description(c.oid, a.attnum) IS NULL
			UNION ALL SELECT c.oid::regclass::text FROM pg_class AS c
			WHERE c.relnamespace = 'orphan_cleaner_fleet'::regnamespace AND c.relkind = 'r' AND c.relname NOT LIKE 'river%' AND obj_description(c.oid, 'pg_class') IS NULL
			UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc AS p
			WHERE p.pronamespace = 'orphan_cleaner_fleet'::regnamespace AND p.proname NOT LIKE 'river%' AND obj_description(p.oid, 'pg_proc') IS NULL) AS o`,
		"unsafe": `SELECT coalesce(string_agg(p.oid::regprocedure::text, ', '), '') FROM pg_proc AS p
			WHERE p.pronamespace = 'orphan_cleaner_fleet'::regnamespace AND p.proname NOT LIKE 'river%'
				AND (NOT p.prosecdef OR NOT 'search_path=pg_catalog, pg_temp' = ANY (p.proconfig) OR EXISTS (
					SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS x WHERE x.grantee = 0))`,
	} {
		if found := testdb.One[string](db, query); found != "" {
			t.Errorf("%s: %s", what, found)
		}
	}
	if n := db.Count("pg_proc WHERE pronamespace = 'orphan_cleaner_fleet'::regnamespace AND proname NOT LIKE 'river%'"); n != 12 {
		t.Errorf("%d functions: this test shows nothing of the others", n)
	}
}

// Odd arguments change nothing.
func TestOddArguments(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	contents := func() (all string) {
		for _, table := range []string{"runs", "shards", "ranges", "approvals", "pauses", "budget"} {
			all += db.Fingerprint("orphan_cleaner_fleet."+table) + "\n"
		}
		return all
	}
	before := contents()
	for _, call := range []string{
		"take_calls(0, 1)", "take_calls(-1, 1)", "take_calls(NULL, 1)", "take_calls(1, 'NaN')", "take_calls(1, 'Infinity')", "take_calls(1, 0)", "take_calls(1, NULL)", "take_calls(100000, 1)",
		"shard_done(1, 'a', false, '{}')", "shard_done(NULL, NULL, NULL, NULL)", "wave_begin(1, 1, '{a}', '{}', NULL)", "run_end(1, 'succeeded', NULL, NULL, '{}')",
		"ranges_add(1, '{00000000-0000-0000-0000-000000000000}', '{ffffffff-ffff-ffff-ffff-ffffffffffff}')", "ranges_add(NULL, NULL, NULL)",
		"range_done(1, '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '', '{}', '0')", "range_done(NULL, NULL, NULL, NULL, NULL, NULL)",
		"approve(1, 'me', '1 day')", "approve(NULL, NULL, NULL)", "pause('me', '')", "pause('me', NULL)",
	} {
		if _, err := db.Pool.Exec(t.Context(), "SELECT orphan_cleaner_fleet."+call); err == nil {
			t.Errorf("%s was taken", call)
		}
	}
	if after := contents(); after != before {
		t.Errorf("changed:\n%s\nit was\n%s", after, before)
	}
}

// Down is real, and Up can follow it; River's tables stay, they are River's.
func TestDown(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	handle := stdlib.OpenDBFromPool(db.Pool)
	provider, err := goose.NewProvider(goose.DialectPostgres, handle, migrations.FS, goose.WithTableName(migrations.VersionTable))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if n := db.Count("pg_class WHERE relnamespace = 'orphan_cleaner_fleet'::regnamespace AND relkind = 'r' AND relname NOT LIKE 'river%'"); n != 0 {
		t.Errorf("%d tables are left", n)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := handle.Close(); err != nil {
		t.Fatal(err)
	}
}

// Of two workers that end the last two shards at once one sees both ended: the other waits for it.
func TestLastTwoShards(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	run := testdb.One[int64](db, "SELECT orphan_cleaner_fleet.run_begin('{a,b}', 'test:1', '1 hour')")
	done := func(on pgx.Tx, shard string) (isLast bool) {
		t.Helper()
		if err := on.QueryRow(t.Context(), "SELECT orphan_cleaner_fleet.shard_done($1, $2, false, '{}')", run, shard).Scan(&isLast); err != nil {
			t.Error(err)
		}
		return isLast
	}
	begin := func() pgx.Tx {
		t.Helper()
		tx, err := db.Pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	first, second := begin(), begin()
	if done(first, "a") {
		t.Error("the first is not the last")
	}
	last := make(chan bool)
	go func() { last <- done(second, "b") }()
	testdb.Eventually(t, time.Minute, "the second waits for the first", func() bool {
		return db.Count("pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == 1
	})
	if err := first.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !<-last {
		t.Error("nobody saw that all shards are done")
	}
	if err := second.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A report that comes again, as from a job that was given to somebody else, too, changes nothing.
	before := db.Fingerprint("orphan_cleaner_fleet.shards")
	if isLast := testdb.One[bool](db, "SELECT orphan_cleaner_fleet.shard_done($1, 'a', false, '{\"other\": 1}')", run); !isLast || db.Fingerprint("orphan_cleaner_fleet.shards") != before {
		t.Error("a second report replaced the first")
	}
	// A run with which nobody goes on is given up; whoever comes late with it changes nothing.
	if testdb.One[int64](db, "SELECT orphan_cleaner_fleet.run_begin('{a}', 'test:2', '-1 second')") != run+1 {
		t.Error("the run was not given up")
	}
	if _, err := db.Pool.Exec(t.Context(), "SELECT orphan_cleaner_fleet.wave_begin($1, 1, '{a}', '{}')", run); err == nil {
		t.Error("a run that was given up went on")
	}
}

// The first answer about a range stays; what cannot be one is refused, and the next run
// begins with none.
func TestRanges(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	run := testdb.One[int64](db, "SELECT orphan_cleaner_fleet.run_begin('{a}', 'test:1', '1 hour')")
	const first, middle, last = "00000000-0000-0000-0000-000000000000", "80000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
	db.Exec("SELECT orphan_cleaner_fleet.ranges_add($1, ARRAY[$2::uuid], ARRAY[$3::uuid])", run, first, last)
	for _, wrong := range []string{
		"SELECT orphan_cleaner_fleet.range_done($1, $2, $3, '\\x01', '{}', '0')", "SELECT orphan_cleaner_fleet.range_done($1, $2, $3, NULL, '{}', '0')",
		"SELECT orphan_cleaner_fleet.ranges_add($1, ARRAY[$2::uuid], ARRAY[$3::uuid])", "SELECT orphan_cleaner_fleet.ranges_add($1, ARRAY[$3::uuid], ARRAY[$2::uuid])",
	} {
		if _, err := db.Pool.Exec(t.Context(), wrong, run, first, last); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
	done := func(through string) bool {
		t.Helper()
		return testdb.One[bool](db, fmt.Sprintf("SELECT orphan_cleaner_fleet.range_done(%d, '%s', '%s', '\\x0000000000000000', '{}', '1 minute')", run, first, through))
	}
	if !done(middle) {
		t.Error("the answer was not kept")
	}
	before := db.Fingerprint("orphan_cleaner_fleet.ranges")
	if done(middle) || done(last) || db.Fingerprint("orphan_cleaner_fleet.ranges") != before {
		t.Error("a second answer replaced the first")
	}
	if n := db.Count("orphan_cleaner_fleet.ranges WHERE last_id = $1 AND asked_at BETWEEN now() - interval '2 minutes' AND now() - interval '1 minute'", middle); n != 1 {
		t.Error(before)
	}
	db.Exec("SELECT orphan_cleaner_fleet.run_end($1, 'succeeded', NULL, NULL, '{}')", run)
	db.Exec("SELECT orphan_cleaner_fleet.run_begin('{a}', 'test:1', '1 hour')")
	if n := db.Count("orphan_cleaner_fleet.ranges"); n != 0 {
		t.Errorf("%d ranges of the run before", n)
	}
}
