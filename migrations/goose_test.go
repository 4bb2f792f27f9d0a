package migrations_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
	"github.com/nova-social/orphan-cleaner/migrations"
)

// gooseEnv names the stock goose program; `make test` sets it.
const gooseEnv = "ORPHAN_CLEANER_TEST_GOOSE"

// stockGoose returns the stock program, as somebody runs it in a folder. Arguments
// NAME=VALUE in front are variables, as in a shell.
func stockGoose(t *testing.T, db *testdb.DB) (run func(dir string, args ...string) (string, error)) {
	t.Helper()
	program := os.Getenv(gooseEnv)
	if program == "" {
		t.Skipf("%s is not set: make test sets it", gooseEnv)
	}
	return func(dir string, args ...string) (string, error) {
		variables := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
		for strings.HasPrefix(args[0], "GOOSE_") {
			variables, args = append(variables, args[0]), args[1:]
		}
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir, cmd.Env = dir, variables
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

// checkout is the root of this tree, where .env is.
const checkout = ".."

// versions lists what a version table has applied, without goose's own 0.
func versions(db *testdb.DB, table string) testdb.Snapshot {
	return db.Snapshot("(SELECT version_id FROM " + table + " WHERE is_applied AND version_id > 0) AS v")
}

// oursApplied is what our version table holds when everything is applied.
func oursApplied(t *testing.T) testdb.Snapshot {
	t.Helper()
	latest, err := migrate.Latest()
	if err != nil {
		t.Fatal(err)
	}
	var want testdb.Snapshot
	for v := range latest {
		want = append(want, fmt.Sprintf("(%d)", v+1))
	}
	slices.Sort(want)
	return want
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
		cmd := exec.CommandContext(t.Context(), program, "-dir", ".", "-table", migrations.VersionTable, "postgres", db.URL, command)
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

// application is another program that uses goose on this database, with its own
// table goose_db_version: a folder of migrations, one more with each version.
type gooseApplication struct {
	t   *testing.T
	dir string
	run func(dir string, args ...string) (string, error)
	db  *testdb.DB
}

// migrate adds migrations of these versions and applies them.
func (a gooseApplication) migrate(versions ...int64) {
	a.t.Helper()
	for _, v := range versions {
		text := fmt.Sprintf("-- +goose Up\nCREATE TABLE application_%[1]d (n integer);\n-- +goose Down\nDROP TABLE application_%[1]d;\n", v)
		if err := os.WriteFile(filepath.Join(a.dir, fmt.Sprintf("%05d_application.sql", v)), []byte(text), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	if out, err := a.run(a.dir, "-dir", a.dir, "postgres", a.db.URL, "up"); err != nil {
		a.t.Fatalf("the application's goose up: %v\n%s", err, out)
	}
}

// An application that uses goose itself, at whatever version, before us or after
// us: both version tables are right, and the application's next migration runs.
func TestGooseBesideAnApplication(t *testing.T) {
	t.Parallel()
	for _, at := range []int64{2, 5, 12, 40, 20260131123456} {
		for _, first := range []string{"application", "ours"} {
			t.Run(fmt.Sprintf("%d/%s first", at, first), func(t *testing.T) {
				t.Parallel()
				db := testdb.NewBare(t)
				goose := stockGoose(t, db)
				app := gooseApplication{t: t, dir: t.TempDir(), run: goose, db: db}
				ours := func() {
					t.Helper()
					if out, err := goose(checkout, "GOOSE_DBSTRING="+db.URL, "up"); err != nil {
						t.Fatalf("goose up in the checkout: %v\n%s", err, out)
					}
				}
				if first == "ours" {
					ours()
				}
				app.migrate(1, at)
				ours()
				app.migrate(at + 1)
				if diff := oursApplied(t).Diff(versions(db, migrations.VersionTable)); diff != "" {
					t.Errorf("our version table:\n%s", diff)
				}
				want := testdb.Snapshot{"(1)", fmt.Sprintf("(%d)", at), fmt.Sprintf("(%d)", at+1)}
				slices.Sort(want)
				if diff := want.Diff(versions(db, "public.goose_db_version")); diff != "" {
					t.Errorf("the application's version table:\n%s", diff)
				}
				if n := db.Count("pg_class WHERE relname = $1", fmt.Sprintf("application_%d", at+1)); n != 1 {
					t.Error("the application's next migration did not run")
				}
				if has, err := open(t, db).HasPending(t.Context()); err != nil || has {
					t.Errorf("our migrate sees pending migrations: %t, %v", has, err)
				}
			})
		}
	}
}

// In the root of the checkout .env names the table, the driver and the folder. The
// stock program takes a driver of .env and one of the command line for two words of
// the command: with a driver as argument, that of .env is to be empty.
func TestGooseInTheCheckout(t *testing.T) {
	t.Parallel()
	for name, args := range map[string]func(url string) []string{
		"plain": func(url string) []string { return []string{"GOOSE_DBSTRING=" + url, "up"} },
		"with a driver": func(url string) []string {
			return []string{"GOOSE_DRIVER=", "-dir", "migrations", "postgres", url, "up"}
		},
		"without the .env": func(url string) []string {
			return []string{"-env", "none", "-dir", "migrations", "-table", migrations.VersionTable, "postgres", url, "up"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testdb.NewBare(t)
			if out, err := stockGoose(t, db)(checkout, args(db.URL)...); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if diff := oursApplied(t).Diff(versions(db, migrations.VersionTable)); diff != "" {
				t.Errorf("our version table:\n%s", diff)
			}
			if n := db.Count("pg_class WHERE relname = 'goose_db_version'"); n != 0 {
				t.Error("there is a goose_db_version")
			}
		})
	}
}

// With two drivers goose stops at once, before it has looked at the database.
func TestGooseWithTwoDrivers(t *testing.T) {
	t.Parallel()
	db := testdb.NewBare(t)
	before := dump(t, db)
	if out, err := stockGoose(t, db)(checkout, "-dir", "migrations", "postgres", db.URL, "up"); err == nil {
		t.Errorf("goose understands a driver beside that of .env by now: say so in docs/runbook.md\n%s", out)
	}
	sameDump(t, "after goose stopped", before, dump(t, db))
}

// The first migration refuses to be recorded in another program's version table,
// says why and how to do it, and leaves nothing behind.
func TestRefusesAForeignVersionTable(t *testing.T) {
	t.Parallel()
	folder, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(t *testing.T, db *testdb.DB, app gooseApplication){
		"no version table yet": func(*testing.T, *testdb.DB, gooseApplication) {},
		"the application's":    func(_ *testing.T, _ *testdb.DB, app gooseApplication) { app.migrate(0x7fff) },
		// Somebody went down to 0, or was refused before: ours is there and empty.
		"ours is there": func(t *testing.T, db *testdb.DB, app gooseApplication) {
			t.Helper()
			app.migrate(0x7fff)
			if _, err := open(t, db).GetDBVersion(t.Context()); err != nil {
				t.Fatal(err)
			}
			db.Exec("CREATE TABLE IF NOT EXISTS public.orphan_cleaner_goose (id integer, version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp)")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testdb.NewBare(t)
			goose := stockGoose(t, db)
			prepare(t, db, gooseApplication{t: t, dir: t.TempDir(), run: goose, db: db})
			foreign := testdb.Snapshot{}
			if db.Count("pg_class WHERE relname = 'goose_db_version'") == 1 {
				foreign = versions(db, "public.goose_db_version")
			}
			out, err := goose(t.TempDir(), "-dir", folder, "-allow-missing", "postgres", db.URL, "up")
			if err == nil {
				t.Fatalf("it was not refused:\n%s", out)
			}
			for _, part := range []string{"refusing to migrate", "another version table than public.orphan_cleaner_goose"} {
				if !strings.Contains(out, part) {
					t.Errorf("the refusal does not say %q:\n%s", part, out)
				}
			}
			if diff := foreign.Diff(versions(db, "public.goose_db_version")); diff != "" {
				t.Errorf("the foreign version table changed:\n%s", diff)
			}
			if n := db.Count("pg_namespace WHERE nspname = 'orphan_cleaner'"); n != 0 {
				t.Error("a schema orphan_cleaner was left behind")
			}
			// And the right way works afterwards.
			if out, err := goose(checkout, "GOOSE_DBSTRING="+db.URL, "up"); err != nil {
				t.Errorf("goose up in the checkout afterwards: %v\n%s", err, out)
			}
			if diff := foreign.Diff(versions(db, "public.goose_db_version")); diff != "" {
				t.Errorf("the foreign version table changed:\n%s", diff)
			}
		})
	}
}

// A database of a development version is refused, and stays as it is.
func TestRefusesADevelopmentVersion(t *testing.T) {
	t.Parallel()
	db := testdb.NewBare(t)
	m := open(t, db)
	db.Exec("CREATE TABLE public.orphan_runs (run_id bigint)")
	before := dump(t, db)
	_, err := m.Up(t.Context())
	wantState(t, err, raised)
	if !strings.Contains(err.Error(), "development version") || hint(err) == "" {
		t.Errorf("the refusal: %v, hint %q", err, hint(err))
	}
	sameDump(t, "after a refusal", before, dump(t, db))
}

// Neither a schema named like the login nor a search_path, of the role or of the
// database, changes where anything of ours is made or what it works on.
func TestSearchPathChangesNothing(t *testing.T) {
	t.Parallel()
	own := testdb.NewBare(t)
	sameDay(t, own)
	if _, err := open(t, own).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := dump(t, own)
	for name, statements := range map[string][]string{
		"a schema named like the login": {"CREATE SCHEMA postgres"},
		"of the database":               {"CREATE SCHEMA elsewhere", "ALTER DATABASE %s SET search_path = elsewhere, public"},
		"with shadows": {
			"CREATE SCHEMA elsewhere", "ALTER DATABASE %s SET search_path = elsewhere, pg_catalog, public",
			"CREATE TABLE elsewhere.conversation_members (nothing integer)", "CREATE TABLE elsewhere.orphan_cleaner_goose (nothing integer)",
			"CREATE TABLE elsewhere.runs (nothing integer)",
			"CREATE FUNCTION elsewhere.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT ''2000-01-01Z''::timestamptz'",
			"CREATE FUNCTION elsewhere.to_regclass(text) RETURNS regclass LANGUAGE sql AS 'SELECT NULL::regclass'",
			"CREATE FUNCTION elsewhere.gen_random_uuid() RETURNS uuid LANGUAGE sql AS 'SELECT ''00000000-0000-0000-0000-000000000000''::uuid'",
		},
	} {
		for _, by := range []string{"migrate", "goose"} {
			t.Run(name+"/"+by, func(t *testing.T) {
				t.Parallel()
				db := testdb.NewBare(t)
				for _, statement := range statements {
					db.Exec(strings.ReplaceAll(statement, "%s", db.Name))
				}
				shadows := db.Snapshot("(SELECT relname FROM pg_class WHERE relnamespace IN (to_regnamespace('elsewhere'), to_regnamespace('postgres'))) AS s")
				if by == "migrate" {
					if _, err := open(t, db).Up(t.Context()); err != nil {
						t.Fatal(err)
					}
				} else if out, err := stockGoose(t, db)(checkout, "GOOSE_DBSTRING="+db.URL, "up"); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if diff := shadows.Diff(db.Snapshot("(SELECT relname FROM pg_class WHERE relnamespace IN (to_regnamespace('elsewhere'), to_regnamespace('postgres'))) AS s")); diff != "" {
					t.Errorf("something was made in another schema:\n%s", diff)
				}
				if diff := oursApplied(t).Diff(versions(db, migrations.VersionTable)); diff != "" {
					t.Errorf("our version table:\n%s", diff)
				}
				db.Exec("DROP SCHEMA IF EXISTS elsewhere, postgres CASCADE")
				sameDump(t, "with "+name, want, dump(t, db))
			})
		}
	}
}
