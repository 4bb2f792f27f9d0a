package testdb

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Psql runs psql on the database, as the superuser, and returns what it printed
// to stdout. It fails the test where psql reports an error.
func (db *DB) Psql(args ...string) string {
	db.tb.Helper()
	out, err := db.PsqlAs(db.URL, args...)
	if err != nil {
		db.tb.Fatal(err)
	}
	return out
}

// PsqlAs runs psql with a connection string, see [DB.URLAs], and returns what it
// printed to stdout; the error holds what it printed to stderr. No psqlrc is
// read, and a script ends at its first error.
func (db *DB) PsqlAs(url string, args ...string) (string, error) {
	cmd := exec.CommandContext(context.Background(), filepath.Join(db.cluster.BinDir(), "psql"),
		append([]string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-d", url}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("psql %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// Roles runs sql/roles.sql, whose path the caller gives. Roles belong to the
// cluster that all tests share, so they take turns.
func (db *DB) Roles(path string, args ...string) {
	db.tb.Helper()
	db.RolesAs(db.URL, path, args...)
}

// RolesAs is Roles with a connection string, see [DB.URLAs].
func (db *DB) RolesAs(url, path string, args ...string) {
	db.tb.Helper()
	shared.roles.Lock()
	defer shared.roles.Unlock()
	if _, err := db.PsqlAs(url, append([]string{"-f", path}, args...)...); err != nil {
		db.tb.Fatal(err)
	}
}

// Login makes a role of the test's own that may log in and is a member of the
// group roles, and returns its connection string. It goes when the test ends.
func (db *DB) Login(groups ...string) string {
	db.tb.Helper()
	number, _, _ := strings.Cut(db.Name, "_")
	shared.roles.Lock()
	defer shared.roles.Unlock()
	name := pgx.Identifier{fmt.Sprintf("%s_%s_%d", groups[0], number, db.logins)}.Sanitize()
	db.logins++
	db.Exec("CREATE ROLE " + name + " LOGIN IN ROLE " + strings.Join(groups, ", "))
	db.tb.Cleanup(func() {
		shared.roles.Lock()
		defer shared.roles.Unlock()
		db.Exec("DROP OWNED BY " + name)
		db.Exec("DROP ROLE " + name)
	})
	return db.URLAs(strings.Trim(name, `"`))
}
