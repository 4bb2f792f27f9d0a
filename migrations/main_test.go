package migrations_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
	"github.com/nova-social/orphan-cleaner/migrations"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// waitLimit bounds the wait for a condition that a test brings about itself.
const waitLimit = 2 * time.Minute

// SQLSTATEs that the tests tell apart.
const (
	lockNotAvailable   = "55P03"
	undefinedColumn    = "42703"
	noPartition        = "23514" // check_violation: no partition for the row
	insufficientRights = "42501"
	raised             = "P0001" // RAISE EXCEPTION without an ERRCODE
)

// open returns goose's Provider on the test's database, as `migrate` uses it.
func open(t *testing.T, db *testdb.DB) *migrate.Migrator {
	t.Helper()
	return openSet(t, db, migrate.Embedded())
}

// openPatiently is open with migrations that wait for a lock until the test, however slow the
// machine, has seen it and lets it go.
func openPatiently(t *testing.T, db *testdb.DB) *migrate.Migrator {
	t.Helper()
	files := fstest.MapFS{}
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: bytes.ReplaceAll(text, []byte("SET LOCAL lock_timeout = '3s'"), []byte("SET LOCAL lock_timeout = '2min'"))}
	}
	return openSet(t, db, migrate.Set{Files: files, Table: migrations.VersionTable})
}

func openSet(t *testing.T, db *testdb.DB, set migrate.Set) *migrate.Migrator {
	t.Helper()
	// Its own 10 seconds are few where four tests and their servers share a busy processor.
	m, err := migrate.Open(t.Context(), db.URL+"&connect_timeout=60", set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// upTo returns a database with the tables of messaging-service and the
// migrations up to and including version.
func upTo(t *testing.T, version int64) (*testdb.DB, *migrate.Migrator) {
	t.Helper()
	db := testdb.NewBare(t)
	m := open(t, db)
	if version > 0 {
		if _, err := m.UpTo(t.Context(), version); err != nil {
			t.Fatal(err)
		}
	}
	return db, m
}

// version is the version that the database is at.
func version(t *testing.T, m *migrate.Migrator) int64 {
	t.Helper()
	v, err := m.GetDBVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// dump is the schema as pg_dump writes it, without goose's own table. Where the server
// came without pg_dump, and that of an older version refuses it, it is the catalog's.
func dump(t *testing.T, db *testdb.DB) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(db.Cluster().BinDir(), "pg_dump")); err != nil {
		if os.Getenv(pgtemp.BinDirEnv) == "" {
			t.Fatal(err)
		}
		return strings.Join(db.Snapshot("("+catalog+") AS c"), "\n")
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(db.Cluster().BinDir(), "pg_dump"),
		"--schema-only", "--exclude-table=public.orphan_cleaner_goose*", db.URL)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("pg_dump: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("pg_dump: %v", err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		// \restrict carries a random token.
		if !strings.HasPrefix(line, `\`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// catalog describes each object of the schema in a line or more, by names and not by oids.
const catalog = `
	WITH ours AS (
		SELECT c.* FROM pg_class AS c
		JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname !~ '^(pg_|information_schema)'
		WHERE c.relname !~ '^orphan_cleaner_goose'
	)
	SELECT format('schema %s %s %s', n.nspname, n.nspowner::regrole, n.nspacl) FROM pg_namespace AS n WHERE n.nspname !~ '^pg_'
	UNION ALL
	SELECT format('%s %s %s %s %s %s %s %s %s %s %s %s', c.oid::regclass, c.relkind, c.relowner::regrole, c.relacl, c.reloptions, c.relreplident,
		c.relpersistence, c.relrowsecurity, (SELECT i.inhparent::regclass FROM pg_inherits AS i WHERE i.inhrelid = c.oid),
		pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid), CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END)
	FROM ours AS c
	UNION ALL
	SELECT format('%s.%s %s %s %s %s %s %s %s', c.oid::regclass, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull,
		pg_get_expr(d.adbin, d.adrelid), a.attgenerated, a.attidentity, a.attacl)
	FROM ours AS c
	JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	UNION ALL
	SELECT format('%s %s %s %s %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid), k.convalidated, k.conislocal)
	FROM pg_constraint AS k JOIN ours AS c ON c.oid = k.conrelid
	UNION ALL
	SELECT format('%s %s %s', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisreplident) FROM pg_index AS i JOIN ours AS c ON c.oid = i.indrelid
	UNION ALL
	SELECT format('%s %s', pg_get_triggerdef(g.oid), g.tgenabled) FROM pg_trigger AS g JOIN ours AS c ON c.oid = g.tgrelid WHERE NOT g.tgisinternal
	UNION ALL
	SELECT format('%s %s %s', pg_get_functiondef(p.oid), p.proowner::regrole, p.proacl)
	FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname !~ '^(pg_|information_schema)'
	UNION ALL
	SELECT format('%s: %s', pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description)
	FROM pg_description AS d
	WHERE d.objoid >= 16384 AND pg_describe_object(d.classoid, d.objoid, d.objsubid) !~ 'orphan_cleaner_goose'
	UNION ALL
	SELECT format('default %s %s %s %s', d.defaclrole::regrole, d.defaclnamespace::regnamespace, d.defaclobjtype, d.defaclacl) FROM pg_default_acl AS d`

// sameDump fails the test where two dumps differ, and shows the lines that do.
func sameDump(t *testing.T, what, before, after string) {
	t.Helper()
	if before == after {
		return
	}
	diff := testdb.Snapshot(strings.Split(before, "\n")).Diff(strings.Split(after, "\n"))
	t.Errorf("%s: the schema is another:\n%s", what, diff)
}

// session is a connection of its own, and the notices that it got.
type session struct {
	*pgx.Conn
	notices []*pgconn.Notice
}

// connect opens a session with an application name and runs statements in it.
func connect(t *testing.T, url, application string, statements ...string) *session {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{}
	cfg.RuntimeParams["application_name"] = application
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { s.notices = append(s.notices, n) }
	if s.Conn, err = pgx.ConnectConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Conn.Close(context.Background()) })
	for _, statement := range statements {
		s.exec(t, statement)
	}
	return s
}

// exec runs a statement that must succeed, and returns how many rows it touched.
func (s *session) exec(t *testing.T, statement string, args ...any) int64 {
	t.Helper()
	tag, err := s.Exec(t.Context(), statement, args...)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return tag.RowsAffected()
}

// pid is the process of a session's server side.
func (s *session) pid() uint32 { return s.PgConn().PID() }

// wantState fails the test unless err is PostgreSQL's and has the SQLSTATE.
func wantState(t *testing.T, err error, state string) {
	t.Helper()
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != state {
		t.Fatalf("want SQLSTATE %s, got: %v", state, err)
	}
}

// hint is what PostgreSQL's error advises, if it is one and does.
func hint(err error) string {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return ""
	}
	return pgErr.Hint
}

// blockedBy waits until somebody waits for a lock that the process holds, and
// returns who.
func blockedBy(t *testing.T, db *testdb.DB, pid uint32) uint32 {
	t.Helper()
	// Not autovacuum, which may wait for the same lock.
	const waiting = `SELECT coalesce(min(pid), 0)::bigint FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND $1::int = ANY (pg_blocking_pids(pid))`
	var waits uint32
	testdb.Eventually(t, waitLimit, "somebody waits for a lock", func() bool {
		waits = testdb.One[uint32](db, waiting, pid)
		return waits != 0
	})
	return waits
}

// async runs f in a goroutine; the returned function waits for its error.
func async(f func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return func() error { return <-done }
}

// members adds n conversations with one member each, all of one user, and
// returns the user. Each column has a value that is not its default.
func members(db *testdb.DB, n int) (user string) {
	user = testdb.One[string](db, "SELECT gen_random_uuid()::text")
	db.Exec(`
		WITH made AS (
			INSERT INTO conversations (kind, name, member_count)
			SELECT 'group', 'c' || n, 1 FROM generate_series(1, $1::int) AS n
			RETURNING id
		)
		INSERT INTO conversation_members
			(conversation_id, user_id, role, joined_at, last_read_at, is_muted, user_public_key)
		SELECT id, $2::uuid, (ARRAY['member', 'admin', 'owner'])[1 + (row_number() OVER ())::int % 3],
			now() - make_interval(days => 60, secs => (row_number() OVER ())::int),
			CASE WHEN row_number() OVER () % 2 = 0 THEN now() END, true, 'key ''"\ of ' || id
		FROM made`, n, user)
	return user
}

// openRun opens a run and returns its id.
func openRun(db *testdb.DB) int64 {
	return testdb.One[int64](db, `
		INSERT INTO orphan_cleaner.runs (kind, phase, started_at, heartbeat_at, lease, host, version, settings)
		VALUES ('clean', 'sweep', now(), now(), '1 minute', 'test:1', 'test', '{}')
		RETURNING run_id`)
}

// closeRun ends a run.
func closeRun(db *testdb.DB, run int64) {
	db.Exec("UPDATE orphan_cleaner.runs SET state = 'succeeded', finished_at = now() WHERE run_id = $1", run)
}

// deleteInRun deletes as a run does: in a transaction that carries the run's token and the
// target for the trigger. It returns the counts that the trigger reported.
func (s *session) deleteInRun(ctx context.Context, run int64, statement string, args ...any) (audited, backedUp string, err error) {
	err = pgx.BeginFunc(ctx, s.Conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT set_config('orphan_cleaner.run_token',
			(SELECT token::text FROM orphan_cleaner.runs WHERE run_id = $1), true), set_config('orphan_cleaner.target', 'conversation_members', true)`, run); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, statement, args...); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT coalesce(current_setting('orphan_cleaner.audited', true), ''),
			coalesce(current_setting('orphan_cleaner.backed_up', true), '')`).Scan(&audited, &backedUp)
	})
	return audited, backedUp, err
}

const deleteUser = "DELETE FROM conversation_members WHERE user_id = $1"
