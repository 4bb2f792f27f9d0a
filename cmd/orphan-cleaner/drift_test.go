package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// newBackedUpWorld is a world whose first run has deleted members, with a value
// in each column, and in which ten more are due.
func newBackedUpWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 300, 15)
	w.Exec(`UPDATE conversation_members SET last_read_at = now() - interval '50 days', is_muted = true, role = 'admin',
		user_public_key = 'key of ' || user_id`)
	w.Settle()
	program(t, w.env, "run").expect(t, exitDone)
	w.Exec(`UPDATE users SET deleted_at = now() - interval '40 days'
		WHERE id IN (SELECT md5('user ' || n)::uuid FROM generate_series(16, 25) AS n)`)
	due := w.users(t, "deleted_at IS NOT NULL AND id NOT IN (SELECT user_id FROM orphan_cleaner.rechecks)")
	w.longMissing(due...)
	w.auth.Delete(due...)
	w.dead = w.users(t, "deleted_at IS NOT NULL")
	return w
}

// drifted asserts that check and run say what differs and with which statements
// it is fixed, and that the application's own delete passes; it returns the migration.
func (w *world) drifted(t *testing.T, want []string) (migration string) {
	t.Helper()
	hint := ""
	for _, f := range w.findings(t, exitFailed) {
		if f.Status == check.Fail {
			if f.Name != "backup-columns" {
				t.Errorf("check fails with %+v", f)
			}
			hint = f.Hint
		}
	}
	if _, statements, _ := strings.Cut(hint, ": "); statements != strings.Join(want, "; ") {
		t.Errorf("check would fix it with\n%s, not\n%s", statements, strings.Join(want, ";\n"))
	}
	before := w.Snapshot("conversation_members")
	result := program(t, w.env, "run", "--json").expect(t, exitFailed).result(t)
	if said, _ := result["error"].(string); !strings.Contains(said, want[0]) || result["state"] != "failed" {
		t.Errorf("the run does not say %s: %v", want[0], result)
	}
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("a run deleted in spite of the drift:\n%s", diff)
	}
	if warned := w.leave(t); warned != nil {
		t.Errorf("the application was warned: %v", warned)
	}
	if e := program(t, w.env, "migrate", "drift").expect(t, exitFailed); !strings.Contains(e.stdout, want[0]) || e.stderr != "" {
		t.Errorf("%s", e)
	}
	e := program(t, w.env, "migrate", "drift", "--print").expect(t, exitDone)
	if got := ups(e.stdout); !slices.Equal(got, want) {
		t.Errorf("the migration does\n%s", strings.Join(got, "\n"))
	}
	return e.stdout
}

// ups are the ALTERs of a migration's Up part.
func ups(migration string) []string {
	up, _, _ := strings.Cut(migration, "-- +goose Down")
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^(ALTER .*);$`).FindAllStringSubmatch(up, -1) {
		found = append(found, m[1])
	}
	return found
}

func (w *world) findings(t *testing.T, status int) check.Findings {
	t.Helper()
	var findings check.Findings
	e := program(t, w.env, "check", "--json").expect(t, status)
	if err := json.Unmarshal([]byte(e.stdout), &findings); err != nil {
		t.Fatal(err)
	}
	return findings
}

// leave deletes one member of a living user as the application does, which must
// neither fail nor wait for a lock. It returns the warning that came with it.
func (w *world) leave(t *testing.T) (warning *pgconn.Notice) {
	t.Helper()
	cfg, err := pgx.ParseConfig(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["application_name"] = "messaging-service"
	cfg.RuntimeParams["lock_timeout"] = "200ms"
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { warning = n }
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	const audited = "conversation_members_audit WHERE run_id IS NULL"
	before := w.Count(audited)
	tag, err := conn.Exec(t.Context(), `DELETE FROM conversation_members
		WHERE ctid = (SELECT max(ctid) FROM conversation_members WHERE user_id <> ALL ($1))`, w.dead)
	if err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("the application's own delete: %s, %v", tag, err)
	}
	if n := w.Count(audited); warning == nil && n != before+1 {
		t.Errorf("%d deletes of the application are audited, not %d", n, before+1)
	}
	return warning
}

const driftTable = "orphan_drift_version"

// keepMigration puts a migration into a folder of its own.
func keepMigration(t *testing.T, migration string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	name := regexp.MustCompile(`drift/(\d{14}_\w+\.sql)`).FindStringSubmatch(migration)
	if name == nil {
		t.Fatalf("the migration does not say where to keep it:\n%s", migration)
	}
	if err := os.WriteFile(filepath.Join(dir, name[1]), []byte(migration), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// stockGoose is the stock program with a command.
func stockGoose(t *testing.T, w *world, dir, command string) error {
	t.Helper()
	program := os.Getenv("ORPHAN_CLEANER_TEST_GOOSE")
	if program == "" {
		t.Skip("ORPHAN_CLEANER_TEST_GOOSE is not set: make test sets it")
	}
	out, err := exec.CommandContext(t.Context(), program, "-dir", dir, "-table", driftTable, "postgres", w.URL, command).CombinedOutput()
	if err != nil {
		return fmt.Errorf("goose %s: %w: %s", command, err, out)
	}
	return nil
}

// embeddedGoose is goose's Provider, as `migrate` uses it.
func embeddedGoose(t *testing.T, url, dir string) *goose.Provider {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*cfg)
	t.Cleanup(func() { _ = db.Close() })
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS(dir), goose.WithTableName(driftTable))
	if err != nil {
		t.Fatal(err)
	}
	return provider
}

// settled is a world without drift, in which a run deletes what is due: rewritten rows, too.
func (w *world) settled(t *testing.T) {
	t.Helper()
	w.Settle()
	for _, f := range w.findings(t, exitDone) {
		if f.Status != check.OK && f.Name != "limits" && f.Name != "member-count" && f.Name != "canaries" {
			t.Errorf("check: %+v", f)
		}
	}
	for _, args := range [][]string{{}, {"--print"}} {
		if e := program(t, w.env, append([]string{"migrate", "drift"}, args...)...).expect(t, exitDone); !strings.Contains(e.stdout, "no drift") || len(ups(e.stdout)) > 0 {
			t.Errorf("%s", e)
		}
	}
}

const backup = "ALTER TABLE public.conversation_members_backup "

// Whatever messaging-service does to a column: check, run and migrate drift say
// with which statements the backup follows, the printed migration does it, no
// value of the backup is lost, and the next run backs up the new column's values.
func TestDrift(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change []string // what messaging-service does
		want   []string // what brings the backup along
		// What is compared of the members that go and of their backup, as columns of both.
		columns string
		// What the backup held before, and where it is afterwards.
		kept, keptAs string
	}{
		"gained": {
			[]string{
				"ALTER TABLE conversation_members ADD COLUMN nickname text NOT NULL DEFAULT 'x'",
				"UPDATE conversation_members SET nickname = 'nick ' || user_id",
			},
			[]string{backup + "ADD COLUMN nickname text DEFAULT 'x'::text", backup + "ALTER COLUMN nickname DROP DEFAULT"},
			"nickname", "is_muted", "is_muted",
		},
		"gained, and may be null": {
			[]string{"ALTER TABLE conversation_members ADD COLUMN nickname text DEFAULT 'x'"},
			[]string{backup + "ADD COLUMN nickname text"},
			"nickname", "is_muted, NULL", "is_muted, nickname",
		},
		"gained, with names and types that want quotes": {
			[]string{
				`CREATE SCHEMA "My app"`, `CREATE TYPE "My app"."Mood" AS ENUM ('good', 'b''ad')`,
				`ALTER TABLE conversation_members ADD COLUMN "Nick; ""%name'" "My app"."Mood" DEFAULT 'b''ad'`,
			},
			[]string{backup + `ADD COLUMN "Nick; ""%name'" "My app"."Mood"`},
			`"Nick; ""%name'"`, "is_muted", "is_muted",
		},
		"gained, a domain that refuses nulls": {
			[]string{
				"CREATE DOMAIN short AS varchar(20)", "CREATE DOMAIN handle AS short NOT NULL DEFAULT 'none' CHECK (value <> '')",
				"ALTER TABLE conversation_members ADD COLUMN handle handle", "UPDATE conversation_members SET handle = left(user_id::text, 8)",
			},
			[]string{backup + "ADD COLUMN handle character varying(20) DEFAULT 'none'::character varying", backup + "ALTER COLUMN handle DROP DEFAULT"},
			"handle", "is_muted", "is_muted",
		},
		"gained, generated": {
			[]string{"ALTER TABLE conversation_members ADD COLUMN loud text GENERATED ALWAYS AS (upper(role)) STORED"},
			[]string{backup + "ADD COLUMN loud text GENERATED ALWAYS AS (upper(role)) STORED", backup + "ALTER COLUMN loud DROP EXPRESSION"},
			"role", "upper(role)", "loud", // new backups leave generated columns to the restore
		},
		"gained, generated from another": {
			[]string{"ALTER TABLE conversation_members ADD COLUMN nickname text NOT NULL DEFAULT 'x', ADD COLUMN length int NOT NULL GENERATED ALWAYS AS (length(nickname)) STORED"},
			[]string{
				backup + "ADD COLUMN nickname text DEFAULT 'x'::text", backup + "ALTER COLUMN nickname DROP DEFAULT",
				backup + "ADD COLUMN length integer GENERATED ALWAYS AS (length(nickname)) STORED", backup + "ALTER COLUMN length DROP EXPRESSION",
			},
			"nickname", "'x', 1", "nickname, length",
		},
		"gained, filled before it was made NOT NULL": {
			[]string{
				"ALTER TABLE conversation_members ADD COLUMN nickname text", "UPDATE conversation_members SET nickname = 'y'",
				"ALTER TABLE conversation_members ALTER COLUMN nickname SET DEFAULT 'x', ALTER COLUMN nickname SET NOT NULL",
			},
			[]string{backup + "ADD COLUMN nickname text DEFAULT 'x'::text", backup + "ALTER COLUMN nickname DROP DEFAULT"},
			"nickname", "'x'", "nickname",
		},
		"gained, an identity, and one with a collation": {
			[]string{"ALTER TABLE conversation_members ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY, ADD COLUMN note text COLLATE \"C\" DEFAULT 'n'"},
			[]string{
				backup + "ADD COLUMN note text",
				backup + "ADD COLUMN number bigint DEFAULT nextval('public.conversation_members_number_seq'::regclass)", backup + "ALTER COLUMN number DROP DEFAULT",
			},
			"number, note", "is_muted", "is_muted",
		},
		"gained, a name that is taken by nothing but looks retired": {
			[]string{"ALTER TABLE conversation_members ADD COLUMN retired_at timestamptz DEFAULT now()"},
			[]string{backup + "ADD COLUMN retired_at timestamp with time zone"},
			"retired_at", "is_muted", "is_muted",
		},
		"lost": {
			[]string{"ALTER TABLE conversation_members DROP COLUMN is_muted"},
			[]string{backup + "RENAME COLUMN is_muted TO retired_is_muted"},
			"role", "is_muted", "retired_is_muted",
		},
		"lost for the second time": {
			[]string{
				backup + "ADD COLUMN retired_is_muted boolean", backup + "ADD COLUMN retired_2_is_muted boolean",
				"ALTER TABLE conversation_members DROP COLUMN is_muted",
			},
			[]string{backup + "RENAME COLUMN is_muted TO retired_3_is_muted"},
			"role", "is_muted", "retired_3_is_muted",
		},
		"lost, what shows who is active": {
			[]string{"ALTER TABLE conversation_members DROP COLUMN last_read_at"},
			[]string{backup + "RENAME COLUMN last_read_at TO retired_last_read_at"},
			"role", "last_read_at", "retired_last_read_at",
		},
		"lost, the role": {
			[]string{"ALTER TABLE conversation_members DROP COLUMN role"},
			[]string{backup + "RENAME COLUMN role TO retired_role"},
			"is_muted", "role", "retired_role",
		},
		"renamed: lost and gained": {
			[]string{"ALTER TABLE conversation_members RENAME COLUMN is_muted TO muted"},
			[]string{backup + "RENAME COLUMN is_muted TO retired_is_muted", backup + "ADD COLUMN muted boolean DEFAULT false", backup + "ALTER COLUMN muted DROP DEFAULT"},
			"muted", "is_muted", "retired_is_muted",
		},
		"retyped, a length": {
			[]string{"ALTER TABLE conversation_members ALTER COLUMN user_public_key TYPE varchar(100)"},
			[]string{backup + "ALTER COLUMN user_public_key TYPE character varying(100) USING user_public_key::character varying(100)"},
			"user_public_key", "user_public_key", "user_public_key",
		},
		"retyped, an enum": {
			[]string{
				"CREATE TYPE member_role AS ENUM ('member', 'admin', 'owner')",
				"ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_role_check, ALTER COLUMN role DROP DEFAULT",
				"ALTER TABLE conversation_members ALTER COLUMN role TYPE member_role USING role::member_role",
			},
			[]string{backup + "ALTER COLUMN role TYPE public.member_role USING role::public.member_role"},
			"role", "role", "role",
		},
		"retyped, by way of text": {
			[]string{
				"CREATE TYPE flag AS ENUM ('true', 'false')",
				"ALTER TABLE conversation_members ALTER COLUMN is_muted DROP DEFAULT, ALTER COLUMN is_muted TYPE flag USING is_muted::text::flag",
			},
			[]string{backup + "ALTER COLUMN is_muted TYPE public.flag USING is_muted::text::public.flag"},
			"is_muted", "is_muted::text", "is_muted",
		},
		"retyped, a time without zone": {
			[]string{
				"ALTER TABLE conversation_members ADD COLUMN muted_until timestamptz", backup + "ADD COLUMN muted_until timestamptz",
				"UPDATE conversation_members_backup SET muted_until = last_read_at",
				"SET timezone = 'UTC'; ALTER TABLE conversation_members ALTER COLUMN muted_until TYPE timestamp",
			},
			[]string{backup + "ALTER COLUMN muted_until TYPE timestamp without time zone USING muted_until::timestamp without time zone"},
			"muted_until", "last_read_at AT TIME ZONE 'UTC'", "muted_until",
		},
		"retyped, a domain": {
			[]string{
				"CREATE DOMAIN number AS numeric(10, 2) CHECK (value >= 0)",
				"ALTER TABLE conversation_members ALTER COLUMN is_muted DROP DEFAULT, ALTER COLUMN is_muted TYPE number USING is_muted::int",
			},
			[]string{backup + "ALTER COLUMN is_muted TYPE numeric(10,2) USING is_muted::text::numeric(10,2)"},
			"is_muted", "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newBackedUpWorld(t)
			if name == "retyped, a domain" {
				// 'true' is no number: see TestDriftRefusesToLose for such a value.
				w.Exec("UPDATE conversation_members_backup SET is_muted = NULL")
			}
			var kept testdb.Snapshot
			if c.kept != "" {
				kept = w.Snapshot("(SELECT conversation_id, user_id, " + c.kept + " FROM conversation_members_backup) AS b")
			}
			for _, statement := range c.change {
				w.execSimple(t, statement)
			}
			dir := keepMigration(t, w.drifted(t, c.want))
			if err := stockGoose(t, w, dir, "up"); err != nil {
				t.Fatal(err)
			}
			w.settled(t)
			if c.kept != "" {
				if diff := kept.Diff(w.Snapshot("(SELECT conversation_id, user_id, " + c.keptAs + " FROM conversation_members_backup) AS b")); diff != "" {
					t.Errorf("the backup lost values:\n%s", diff)
				}
			}
			going := w.Snapshot("(SELECT conversation_id, user_id, "+c.columns+" FROM conversation_members WHERE user_id = ANY ($1)) AS m", w.dead)
			if len(going) != 10 {
				t.Fatalf("%d members are due", len(going))
			}
			living := w.living()
			program(t, w.env, "run").expect(t, exitDone)
			gone(t, w, living, 25)
			latest := testdb.One[int64](w.DB, "SELECT max(run_id) FROM orphan_cleaner.runs")
			if diff := going.Diff(w.Snapshot("(SELECT conversation_id, user_id, "+c.columns+" FROM conversation_members_backup WHERE run_id = $1) AS b", latest)); diff != "" {
				t.Errorf("the backup is not what the members were:\n%s", diff)
			}
			if warned := w.leave(t); warned != nil {
				t.Errorf("the application was warned: %v", warned)
			}

			// Both can be given back: what went before the column came, and since.
			for run, members := range map[int64]int64{latest: 10, 1: 15} {
				if run == 1 && c.kept == "" {
					continue // its values were taken away above
				}
				program(t, w.env, "restore", fmt.Sprintf("--run=%d", run), "--execute").expect(t, exitDone)
				if n := w.Count("conversation_members AS m JOIN conversation_members_backup AS b USING (conversation_id, user_id) WHERE b.run_id = $1", run); n != members {
					t.Errorf("%d members of run %d were given back", n, run)
				}
			}
			if diff := going.Diff(w.Snapshot("(SELECT conversation_id, user_id, "+c.columns+" FROM conversation_members AS m WHERE EXISTS ("+
				"SELECT FROM conversation_members_backup AS b WHERE b.run_id = $1 AND b.user_id = m.user_id)) AS m", latest)); diff != "" {
				t.Errorf("what came back is not what went:\n%s", diff)
			}
		})
	}
}

// execSimple runs statements, several at once where they are.
func (w *world) execSimple(t *testing.T, statements string) {
	t.Helper()
	conn, err := w.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Conn().PgConn().Exec(t.Context(), statements).ReadAll(); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

// What changes no value is no drift.
func TestNoDrift(t *testing.T) {
	t.Parallel()
	w := newBackedUpWorld(t)
	for _, statement := range []string{
		`ALTER TABLE conversation_members ALTER COLUMN role TYPE text COLLATE "C"`,
		"ALTER TABLE conversation_members ALTER COLUMN is_muted DROP NOT NULL, ALTER COLUMN is_muted SET DEFAULT true",
		"CREATE DOMAIN public_key AS text CHECK (value <> '')",
		"ALTER TABLE conversation_members ALTER COLUMN user_public_key TYPE public_key",
		"ALTER TABLE conversation_members ADD CONSTRAINT known CHECK (role <> '')",
		backup + "ADD COLUMN retired_nickname text",
	} {
		w.Exec(statement)
		w.settled(t)
	}
	living := w.living()
	program(t, w.env, "run").expect(t, exitDone)
	gone(t, w, living, 25)
}

// Up refuses to lose a stored value, says how to keep it, and that works; the
// backup is as it was until then.
func TestDriftRefusesToLose(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"a text that is too long now": "ALTER TABLE conversation_members ALTER COLUMN user_public_key TYPE varchar(3) USING left(user_public_key, 3)",
		"a text that is no number":    "ALTER TABLE conversation_members ALTER COLUMN user_public_key TYPE integer USING 7",
		"a time that is rounded":      "ALTER TABLE conversation_members ALTER COLUMN last_read_at TYPE timestamptz(0)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newBackedUpWorld(t)
			before := w.Snapshot("conversation_members_backup")
			w.Exec(change)
			migration := program(t, w.env, "migrate", "drift", "--print").expect(t, exitDone).stdout
			_, err := embeddedGoose(t, w.URL, keepMigration(t, migration)).Up(t.Context())
			refusal, ok := errors.AsType[*pgconn.PgError](err)
			if !ok || refusal.Code != "P0001" {
				t.Fatalf("the migration does not refuse: %v", err)
			}
			if diff := before.Diff(w.Snapshot("conversation_members_backup")); diff != "" {
				t.Errorf("a migration that refused changed the backup:\n%s", diff)
			}
			_, instead, _ := strings.Cut(refusal.Hint, ": ")
			w.execSimple(t, instead)
			w.settled(t)
		})
	}
}

// Down gives back the columns that were, in the opposite order; it refuses once
// a value would be lost.
func TestDriftDown(t *testing.T) {
	t.Parallel()
	w := newBackedUpWorld(t)
	w.Exec(`ALTER TABLE conversation_members DROP COLUMN is_muted, ADD COLUMN nickname text DEFAULT 'x',
		ALTER COLUMN user_public_key TYPE varchar(60)`)
	const shape = `(SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid = 'conversation_members_backup'::regclass AND attnum > 0 AND NOT attisdropped) AS a`
	columns, rows := w.Snapshot(shape), w.Snapshot("conversation_members_backup")
	migration := program(t, w.env, "migrate", "drift", "--print").expect(t, exitDone).stdout
	dir := keepMigration(t, migration)
	provider := embeddedGoose(t, w.URL, dir)
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.settled(t)
	if err := stockGoose(t, w, dir, "down"); err != nil {
		t.Fatal(err)
	}
	if diff := columns.Diff(w.Snapshot(shape)); diff != "" {
		t.Errorf("the columns after down:\n%s", diff)
	}
	if diff := rows.Diff(w.Snapshot("conversation_members_backup")); diff != "" {
		t.Errorf("the rows after down:\n%s", diff)
	}
	again := program(t, w.env, "migrate", "drift", "--print").expect(t, exitDone).stdout
	if !slices.Equal(ups(again), ups(migration)) {
		t.Errorf("after down the drift is another:\n%s", again)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	program(t, w.env, "run").expect(t, exitDone)
	backedUp := w.Snapshot("conversation_members_backup")
	_, err := provider.Down(t.Context())
	if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != "P0001" || !strings.Contains(refusal.Message, "nickname") {
		t.Errorf("down threw away what was backed up: %v", err)
	}
	if diff := backedUp.Diff(w.Snapshot("conversation_members_backup")); diff != "" {
		t.Errorf("a down that refused changed the backup:\n%s", diff)
	}
}

// While the migration holds its locks the application deletes.
func TestDriftLocksNoDelete(t *testing.T) {
	t.Parallel()
	w := newBackedUpWorld(t)
	w.Exec("ALTER TABLE conversation_members ALTER COLUMN user_public_key TYPE varchar(60), ADD COLUMN nickname text, DROP COLUMN is_muted")
	up := ups(program(t, w.env, "migrate", "drift", "--print").expect(t, exitDone).stdout)
	if len(up) != 3 {
		t.Fatalf("the migration does %q", up)
	}
	tx, err := w.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	for _, statement := range up {
		if _, err := tx.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if warned := w.leave(t); warned != nil {
		t.Errorf("the application was warned: %v", warned)
	}
}

// Where no statement helps, it says so and prints none; the application's own
// deletes pass.
func TestDriftWithoutRemedy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change, says string
		warns        bool
	}{
		"a name of the backup's own": {"ALTER TABLE conversation_members ADD COLUMN run_id text", "rename run_id", false},
		"joined_at is gone":          {"ALTER TABLE conversation_members DROP COLUMN joined_at", "knows the new joined_at", false},
		"joined_at is a date":        {"ALTER TABLE conversation_members ALTER COLUMN joined_at TYPE date", "knows the new joined_at", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newBackedUpWorld(t)
			w.Exec(c.change)
			before := w.Snapshot("conversation_members")
			for _, args := range [][]string{{"check"}, {"run"}, {"migrate", "drift"}, {"migrate", "drift", "--print"}} {
				e := program(t, w.env, args...).expect(t, exitFailed)
				if !strings.Contains(e.stdout+e.stderr, c.says) || len(ups(e.stdout)) > 0 {
					t.Errorf("%q: %s", args, e)
				}
			}
			if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
				t.Errorf("a run deleted:\n%s", diff)
			}
			if warned := w.leave(t); (warned != nil) != c.warns {
				t.Errorf("the application was warned: %v", warned)
			}
		})
	}
}
