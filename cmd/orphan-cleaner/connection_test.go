package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// foreignSettings are what somebody set for every session of a role or a database,
// with other programs in mind.
func foreignSettings() map[string][]string {
	return map[string][]string{
		"read-only":          {"default_transaction_read_only = on"},
		"serializable":       {"default_transaction_isolation = serializable", "default_transaction_deferrable = on"},
		"timeouts":           {"lock_timeout = 1", "idle_in_transaction_session_timeout = '1s'", "idle_session_timeout = '1s'"},
		"texts":              {"DateStyle = 'SQL, DMY'", "IntervalStyle = sql_standard", "TimeZone = 'Asia/Shanghai'", "bytea_output = escape", "extra_float_digits = -15"},
		"iso_8601":           {"DateStyle = 'German'", "IntervalStyle = iso_8601", "TimeZone = 'America/St_Johns'"},
		"literals":           {"standard_conforming_strings = off", "backslash_quote = on", "quote_all_identifiers = on", "transform_null_equals = on"},
		"another encoding":   {"client_encoding = LATIN1"},
		"another schema":     {"search_path = tenant1, pg_temp, public"},
		"row security":       {"row_security = off"},
		"commits":            {"synchronous_commit = off", "commit_delay = 10"},
		"planner":            {"enable_seqscan = off", "enable_indexscan = off", "plan_cache_mode = force_generic_plan", "work_mem = '64kB'", "from_collapse_limit = 1", "join_collapse_limit = 1"},
		"another role":       {"role = 'orphan_cleaner_foreign'"},
		"statement timeout":  {"statement_timeout = '1s'"},
		"new tables":         {"default_tablespace = pg_default", "default_table_access_method = heap", "default_toast_compression = pglz"},
		"odd ones":           {"array_nulls = off", "enable_partition_pruning = off", "constraint_exclusion = off", "xmloption = document", "synchronize_seqscans = off", "restrict_nonsystem_relation_kind = view"},
		"a preloaded module": {"session_preload_libraries = 'auto_explain'", "check_function_bodies = off"},
	}
}

// tenant is another application's table of the same name, with living users only.
const tenant = `CREATE SCHEMA tenant1;
	CREATE TABLE tenant1.conversation_members AS SELECT * FROM public.conversation_members LIMIT 1;
	CREATE TABLE tenant1.conversations AS SELECT * FROM public.conversations LIMIT 1;
	CREATE FUNCTION tenant1.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '2100-01-01'::timestamptz $$;
	GRANT USAGE ON SCHEMA tenant1 TO public;
	GRANT ALL ON ALL TABLES IN SCHEMA tenant1 TO public`

// Whatever role and database say, each command does its work.
func TestForeignSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 0)
	w.Roles(rolesFile)
	for name, settings := range foreignSettings() {
		for _, kind := range []string{"role", "role in database"} {
			t.Run(name+" of the "+kind, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, 100, 3)
				w.Roles(rolesFile)
				login := w.Login(migrator, runner, restorer)
				user, err := url.Parse(login)
				if err != nil {
					t.Fatal(err)
				}
				w.Psql("-c", tenant)
				to := "ALTER ROLE " + user.User.Username()
				if kind == "role in database" {
					to += " IN DATABASE " + w.Name
				}
				for _, setting := range settings {
					if strings.HasPrefix(setting, "role = ") {
						setting = "role = 'orphan_cleaner_runner'"
					}
					if !strings.HasPrefix(setting, "session_preload") || kind == "role" {
						w.Exec(to + " SET " + setting)
					}
				}
				w.Settle()
				allCommands(t, w, w.envOf(login), name == "another role")
			})
		}
	}
}

// allCommands gives each command that a person or cron gives, and looks at what was done.
func allCommands(t *testing.T, w *world, env []string, isRunner bool) {
	t.Helper()
	living, all := w.living(), w.Snapshot("conversation_members")
	done := func(args ...string) ended { return program(t, env, args...).expect(t, exitDone) }
	done("check")
	if !isRunner {
		held := "--user=" + w.dead[0].String()
		done("hold", "add", held, "--reason=a lawsuit — Zoë")
		if e := done("hold", "list"); !strings.Contains(e.stdout, "a lawsuit — Zoë") {
			t.Errorf("%s", e)
		}
		done("hold", "remove", "1")
		done("pause", "--reason=an experiment")
		done("resume")
		done("limits", "pin", "delete-rows=1000")
		done("limits", "unpin", "delete-rows")
		done("migrate", "settle-clock")
	}
	done("limits", "list")
	done("migrate", "status")
	done("run", "--dry-run")
	if deleted := done("run", "--json").result(t)["members_deleted"]; deleted != 3.0 {
		t.Fatalf("%v members deleted", deleted)
	}
	gone(t, w, living, 3)
	if e := done("status"); !strings.Contains(e.stdout, "succeeded") {
		t.Errorf("%s", e)
	}
	startServe(t, env).all(t)
	if isRunner {
		return
	}
	done("report")
	run := fmt.Sprint(testdb.One[int64](w.DB, "SELECT max(run_id) FROM orphan_cleaner.runs WHERE members_deleted = 3"))
	done("restore", "--run", run, "--execute")
	if diff := all.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("restored rows differ:\n%s", diff)
	}
	restored := fmt.Sprint(testdb.One[int64](w.DB, "SELECT max(run_id) FROM orphan_cleaner.runs WHERE kind = 'restore'"))
	w.Settle()
	done("restore", "--revert", restored)
	done("restore", "--revert", restored, "--execute")
	done("prune", "--execute")
}

// The same of a database, behind a pooler that gives each transaction another
// session, and migrated under these settings, too.
func TestForeignSettingsOfDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	w.Psql("-c", tenant)
	u, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	for name, settings := range foreignSettings() {
		if slices.Contains([]string{"another role", "iso_8601"}, name) {
			continue
		}
		for _, setting := range settings {
			w.Exec("ALTER DATABASE " + w.Name + " SET " + setting)
			key, _, _ := strings.Cut(setting, " = ")
			query.Set(strings.ToLower(key), testdb.One[string](w.DB, "SELECT reset_val FROM pg_settings WHERE lower(name) = lower($1)", key))
		}
	}
	query.Del("session_preload_libraries") // a superuser's
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	pool, err := pgxpool.New(context.Background(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.Pool.Close()
	w.Pool = pool
	w.Settle()
	direct := slices.Clone(w.env)
	w.env = w.envOf(bounced(t, w, "transaction"))
	for _, args := range [][]string{{"check"}, {"hold", "add", "--user=" + w.dead[0].String(), "--reason=x"}, {"hold", "remove", "1"}, {"pause", "--reason=x"}, {"resume"}, {"status"}} {
		program(t, w.env, args...).expect(t, exitDone)
	}
	living := w.living()
	if deleted := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)["members_deleted"]; deleted != 3.0 {
		t.Errorf("%v members deleted", deleted)
	}
	gone(t, w, living, 3)
	// 12 is refused while there is evidence, later.
	for range 3 {
		program(t, direct, "migrate", "down").expect(t, exitDone)
	}
	program(t, direct, "migrate", "up").expect(t, exitDone)
}

// Statements of ours that wait longer than a role's statement_timeout allows go on:
// CREATE INDEX CONCURRENTLY waits for every older transaction.
func TestStatementTimeoutOfDatabase(t *testing.T) {
	t.Parallel()
	db := testdb.NewBare(t)
	old, err := db.Pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = old.Rollback(context.Background()) }()
	if _, err := old.Exec(t.Context(), "SELECT FROM conversations"); err != nil {
		t.Fatal(err)
	}
	db.Exec("ALTER DATABASE " + db.Name + " SET statement_timeout = '1s'")
	db.Exec("ALTER DATABASE " + db.Name + " SET lock_timeout = '1s'")
	p := start(t, []string{"DATABASE_URL=" + db.URL}, "migrate", "up")
	eventually(t, "CREATE INDEX CONCURRENTLY waits", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("migrate up ended: %s", p.wait(t))
		default:
		}
		return db.Count(`pg_stat_activity WHERE datname = current_database() AND query LIKE '%CREATE INDEX CONCURRENTLY%'
			AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '1500 ms'`) == 1
	})
	if err := old.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.wait(t).expect(t, exitDone)
}

// A command that a person gives waits for a lock longer than a statement may last
// for others.
func TestCommandOutlastsStatementTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 0)
	lock, err := w.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.Background()) }()
	if _, err := lock.Exec(t.Context(), "LOCK TABLE orphan_cleaner.pauses IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	w.Exec("ALTER DATABASE " + w.Name + " SET statement_timeout = '1s'")
	p := start(t, w.env, "pause", "--reason=an experiment")
	eventually(t, "pause waits for the lock", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("pause ended: %s", p.wait(t))
		default:
		}
		return w.Count(`pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
			AND clock_timestamp() - query_start > interval '1500 ms'`) == 1
	})
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.wait(t).expect(t, exitDone)
}

// Databases of other encodings are migrated, cleaned and restored.
func TestOtherEncodings(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "SQL_ASCII", "EUC_JP"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			db := testdb.NewEmpty(t)
			other := strings.ToLower(db.Name + "_" + encoding)
			db.Exec("CREATE DATABASE " + other + " ENCODING '" + encoding + "' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
			t.Cleanup(func() { db.Exec("DROP DATABASE " + other + " WITH (FORCE)") })
			u, err := url.Parse(db.URL)
			if err != nil {
				t.Fatal(err)
			}
			u.Path = "/" + other
			if err := dbsetup.Schema(t.Context(), u.String()); err != nil {
				t.Fatal(err)
			}
			program(t, []string{"DATABASE_URL=" + u.String()}, "migrate", "up").expect(t, exitDone)
			auth := newAuth(t)
			env := append([]string{"DATABASE_URL=" + u.String(), "AUTH_SERVICE_URL=" + auth.URL()}, wideLimits()...)
			inOther := *db
			w := &world{DB: &inOther, auth: auth, env: env}
			pool, err := pgxpool.New(context.Background(), u.String()+"&client_encoding=UTF8")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			w.Pool = pool
			w.Exec(`INSERT INTO users (id, username, created_at, deleted_at) SELECT md5('user ' || n)::uuid, 'Zoë', now() - interval '400 days',
				CASE WHEN n <= 3 THEN now() - interval '40 days' - make_interval(mins => n) END FROM generate_series(1, 100) AS n`)
			w.Exec(`INSERT INTO conversations (id, name) SELECT md5('conversation')::uuid, 'Zoë'`)
			w.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at, user_public_key)
				SELECT md5('conversation')::uuid, id, now() - interval '60 days', 'Zoë' FROM users`)
			w.auth.Add(w.users(t, "deleted_at IS NULL")...)
			w.dead = w.users(t, "deleted_at IS NOT NULL")
			w.Settle()
			living, all := w.living(), w.Snapshot("conversation_members")
			program(t, env, "check").expect(t, exitDone)
			program(t, env, "hold", "add", "--user="+w.dead[0].String(), "--reason=Zoë").expect(t, exitDone)
			if e := program(t, env, "hold", "list", "--json").expect(t, exitDone); !strings.Contains(e.stdout, "Zoë") {
				t.Errorf("%s", e)
			}
			program(t, env, "hold", "remove", "1").expect(t, exitDone)
			r := program(t, env, "run", "--json").expect(t, exitDone).result(t)
			if r["members_deleted"] != 3.0 {
				t.Errorf("%v", r)
			}
			gone(t, w, living, 3)
			program(t, env, "restore", "--run", fmt.Sprint(r["run_id"]), "--execute").expect(t, exitDone)
			if diff := all.Diff(w.Snapshot("conversation_members")); diff != "" {
				t.Errorf("restored rows differ:\n%s", diff)
			}
		})
	}
}

// A chunk, its audit and its backup need no temporary file, and neither does a restore.
func TestTemporaryFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 20_000, 8_000)
	living, all := w.living(), w.Snapshot("conversation_members")
	w.Roles(rolesFile)
	login := w.Login(runner, restorer)
	user, err := url.Parse(login)
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{"temp_file_limit = 0", "work_mem = '64kB'"} {
		w.Exec("ALTER ROLE " + user.User.Username() + " IN DATABASE " + w.Name + " SET " + setting) // others list roles
	}
	w.Settle()
	env := w.envOf(login)
	r := program(t, env, "run", "--json", "--chunk-time=10s", "--nice-ratio=0", "--max-history=0").expect(t, exitDone).result(t)
	gone(t, w, living, 8_000)
	program(t, env, "restore", "--run", fmt.Sprint(r["run_id"]), "--execute").expect(t, exitDone)
	if diff := all.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("restored rows differ:\n%s", diff)
	}
}

// What no setting of ours can lift, check says: the application's own delete of many
// members is collected for the audit.
func TestCheckTempFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 60_000, 3)
	w.Exec("ANALYZE conversation_members")
	w.Roles(rolesFile)
	is(t, findings(t, w.env, exitDone), "temp-files", "ok")
	app, err := url.Parse(w.Login(reader))
	if err != nil {
		t.Fatal(err)
	}
	w.Exec("GRANT SELECT, DELETE ON conversation_members TO " + app.User.Username())
	w.Exec("ALTER ROLE " + app.User.Username() + " IN DATABASE " + w.Name + " SET temp_file_limit = 1024")
	is(t, findings(t, w.env, exitDone), "temp-files", "warn", "temp_file_limit of role "+app.User.Username()+" is 1024 kB", "SET temp_file_limit")
	// Not less than it says, and not all.
	members := testdb.One[int64](w.DB, "SELECT (1024 * 1024 / (pg_table_size(oid) / reltuples))::bigint FROM pg_class WHERE oid = 'conversation_members'::regclass")
	for _, row := range []struct {
		members int64
		fails   bool
	}{{members, false}, {60_000, true}} {
		_, err := w.PsqlAs(app.String(), "-c", fmt.Sprintf("BEGIN; DELETE FROM conversation_members WHERE ctid IN (SELECT ctid FROM conversation_members LIMIT %d); ROLLBACK", row.members))
		if (err != nil) != row.fails || err != nil && !strings.Contains(err.Error(), "temp_file_limit") {
			t.Errorf("deleting %d members: %v", row.members, err)
		}
	}
	// migrate, by a login that may, is not bound by it.
	w.Exec("ALTER DATABASE " + w.Name + " SET temp_file_limit = 0")
	w.Exec("ALTER DATABASE " + w.Name + " SET maintenance_work_mem = '1MB'")
	for range 8 {
		program(t, w.env, "migrate", "down").expect(t, exitDone)
	}
	program(t, w.env, "migrate", "up").expect(t, exitDone)
}

// A connection string that can be read in two ways, or not at all: one line, exit
// status 2, and no part of the password, whatever the command.
func TestConnectionStrings(t *testing.T) {
	t.Parallel()
	const password = "QXZJ"
	for name, bad := range map[string]struct{ url, says string }{
		"@":               {"postgres://u:" + password + "@retTail@h/messaging", "@ as %40"},
		"/":               {"postgres://u:12/" + password + "@h/messaging", "/ as %2F"},
		"?":               {"postgres://u:12?" + password + "@h/messaging", "? as %3F"},
		"#":               {"postgres://u:12#" + password + "@h/messaging", "# as %23"},
		"%":               {"postgres://u:12%" + password + "@h/messaging", "% as %25"},
		"key words":       {"host=h dbname=messaging user=u password=" + password, "write it as a URL"},
		"service":         {"postgres://u:" + password + "@/messaging?service=x", "service file"},
		"sslrootcert":     {"postgres://u:" + password + "@h/messaging?sslrootcert=/nowhere/ca.pem", "no such file"},
		"connect_timeout": {"postgres://u:" + password + "@h/messaging?connect_timeout=5s", "whole seconds"},
		"parameter":       {"postgres://u:" + password + "@h/messaging?pgbouncer=true", "not known"},
		"no database":     {"postgres://u:" + password + "@h", "names no database"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "url")
			if err := os.WriteFile(file, []byte(bad.url+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, setting := range []string{"DATABASE_URL=" + bad.url, "DATABASE_URL_FILE=" + file} {
				for _, args := range [][]string{{"check"}, {"run"}, {"run", "--json", "--log-format=json", "--log-level=debug"}, {"serve"}, {"status"}, {"migrate", "up"}, {"hold", "list"}, {"config"}} {
					e := program(t, []string{setting, "AUTH_SERVICE_URL=http://127.0.0.1:1"}, args...).expect(t, exitUsage)
					if strings.Count(e.stderr, "\n") != 1 || !strings.Contains(e.stderr, bad.says) || strings.Contains(e.stdout+e.stderr, password) || strings.Contains(e.stdout+e.stderr, "Tail") {
						t.Errorf("%v: want one line that says %q: %s", args, bad.says, e)
					}
				}
			}
		})
	}
}

// A server that lets nobody in is up: the hint is what opens it.
func TestConnectionsThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ made, hint string }{
		"no LOGIN":           {"ALTER ROLE %s NOLOGIN", "ALTER ROLE … LOGIN"},
		"no connection left": {"ALTER ROLE %s CONNECTION LIMIT 0", "CONNECTION LIMIT"},
		"no CONNECT":         {"REVOKE CONNECT ON DATABASE %[2]s FROM PUBLIC, orphan_cleaner_runner", "psql -f sql/roles.sql"},
		"no database":        {"", "psql -l"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 10, 0)
			w.Roles(rolesFile)
			login, err := url.Parse(w.Login(runner))
			if err != nil {
				t.Fatal(err)
			}
			if c.made == "" {
				login.Path = "/nowhere"
			} else {
				w.Exec(fmt.Sprintf(c.made+" -- %[2]s", login.User.Username(), w.Name))
			}
			env := w.envOf(login.String())
			is(t, findings(t, env, exitFailed), "database", "FAIL", c.hint)
			for _, args := range [][]string{{"run"}, {"status"}} {
				if e := program(t, env, args...).expect(t, exitFailed); !strings.Contains(e.stderr, c.hint) || strings.Contains(e.stderr, "server is up") {
					t.Errorf("%v does not say %q: %s", args, c.hint, e)
				}
			}
		})
	}
}

// A file's line ends and byte order mark are no part of the URL; check says who can read it.
func TestConnectionStringFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	file := filepath.Join(t.TempDir(), "url")
	for _, text := range []string{w.URL, w.URL + "\n", w.URL + "\r\n", "\ufeff" + w.URL + "\r\n\r\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		program(t, []string{"DATABASE_URL_FILE=" + file}, "status").expect(t, exitDone)
		program(t, []string{"DATABASE_URL=" + strings.TrimPrefix(text, "\ufeff")}, "status").expect(t, exitDone)
		if e := program(t, []string{"DATABASE_URL_FILE=" + file}, "config").expect(t, exitDone); !strings.Contains(e.stdout, w.Name) {
			t.Errorf("%q: %s", text, e)
		}
	}
	env := append(slices.Clone(w.env), "DATABASE_URL_FILE="+file)
	if found := findings(t, env, exitDone); found["database-url-file"]["status"] != "ok" {
		t.Errorf("%v", found["database-url-file"])
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	is(t, findings(t, env, exitDone), "database-url-file", "warn", "everybody on this machine", "chmod o-rwx "+file)
}

// What listens at the port is no PostgreSQL, or refuses us: one line with the hint.
func TestWrongDatabaseServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	pages := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(pages.Close)
	port := hostOf(t, w.DB)
	for name, wrong := range map[string]struct{ url, says string }{
		"auth-service":     {"postgres://u:QXZJ@" + w.auth.Addr() + "/messaging", "auth-service 9080"},
		"an HTTP server":   {"postgres://u:QXZJ@" + pages.Listener.Addr().String() + "/messaging?sslmode=disable", "does not speak PostgreSQL's protocol"},
		"silence":          {"postgres://u:QXZJ@" + silent.Addr().String() + "/messaging?connect_timeout=1", "timeout"},
		"nobody":           {"postgres://u:QXZJ@127.0.0.1:1/messaging", "connection refused"},
		"name":             {"postgres://u:QXZJ@db.invalid/messaging", "db.invalid"},
		"no such database": {"postgres://postgres:QXZJ@" + port + "/nowhere", "SQLSTATE 3D000"},
		"no such role":     {"postgres://nowhere:QXZJ@" + port + "/" + w.Name, "SQLSTATE 28000"},
		"no TLS":           {"postgres://postgres:QXZJ@" + port + "/" + w.Name + "?sslmode=require", "the server takes no TLS: sslmode=disable in DATABASE_URL"},
		"no socket":        {"postgres:///messaging?host=/nowhere&user=u&password=QXZJ", "/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, args := range [][]string{{"status"}, {"check"}, {"run"}, {"migrate", "status"}} {
				e := program(t, []string{"DATABASE_URL=" + wrong.url, "AUTH_SERVICE_URL=" + w.auth.URL()}, args...).expect(t, exitFailed)
				all := e.stdout + e.stderr
				if !strings.Contains(all, wrong.says) || strings.Contains(all, "QXZJ") || strings.Contains(all, "refused TLS") && name != "no TLS" || args[0] == "status" && strings.Count(all, "\n") != 1 {
					t.Errorf("%v: want one line that says %q: %s", args, wrong.says, e)
				}
			}
		})
	}
}

// What answers is not auth-service: check and run say so once, with the hint.
func TestWrongAuthService(t *testing.T) {
	t.Parallel()
	plain := newAuth(t)
	database := newWorld(t, 100, 3)
	web := httptest.NewUnstartedServer(http.NotFoundHandler())
	web.Config.Protocols = new(http.Protocols)
	web.Config.Protocols.SetUnencryptedHTTP2(true)
	web.Start()
	t.Cleanup(web.Close)
	pages := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(pages.Close)
	for name, wrong := range map[string]struct {
		url, says string
		lines     int // of a run: the runbook's about the connection, if there was none, and its end
	}{
		"nobody":       {"http://127.0.0.1:1", "nobody listens there", 2},
		"TLS":          {"https://" + plain.Addr(), "write http:// in AUTH_SERVICE_URL", 2},
		"HTTP/1":       {pages.URL, "the server speaks no plaintext HTTP/2", 2},
		"HTTP/2":       {web.URL, "404 (Not Found)", 1},
		"the database": {"http://" + hostOf(t, database.DB), "is the port right?", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 100, 3)
			before := contents(t, w.DB, "orphan_cleaner.runs")
			env := append(slices.Clone(w.env), "AUTH_SERVICE_URL="+wrong.url, "ORPHAN_CLEANER_CANARY_ALIVE="+w.dead[0].String())
			e := program(t, env, "check").expect(t, exitFailed)
			if strings.Count(e.stdout, wrong.says) != 1 {
				t.Errorf("check: want %q once: %s", wrong.says, e)
			}
			e = program(t, env, "run").expect(t, exitFailed)
			if strings.Count(e.stdout+e.stderr, wrong.says) != wrong.lines {
				t.Errorf("run: want %q in %d lines: %s", wrong.says, wrong.lines, e)
			}
			if after := contents(t, w.DB, "orphan_cleaner.runs"); after != before {
				t.Errorf("the database changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}
