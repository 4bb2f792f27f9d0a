package testdb

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
)

// DB is the database of one test. Its methods fail the test where the database
// reports an error; use Pool for statements that are meant to fail.
type DB struct {
	Name string
	URL  string        // as the superuser postgres
	Pool *pgxpool.Pool // closed when the test ends

	cluster *pgtemp.Cluster
	tb      testing.TB
	logins  int // roles made by Login, for unique names
}

// New returns a database with messaging-service's tables and all migrations.
func New(tb testing.TB) *DB {
	tb.Helper()
	return newDB(tb, templateMigrated)
}

// NewBare returns a database with messaging-service's tables only, as it is
// before the first `orphan-cleaner migrate up`.
func NewBare(tb testing.TB) *DB {
	tb.Helper()
	return newDB(tb, templateBare)
}

// NewEmpty returns a database with nothing in it.
func NewEmpty(tb testing.TB) *DB {
	tb.Helper()
	return newDB(tb, templateEmpty)
}

// NewEncoded is NewBare in another encoding than UTF8, with clients that speak UTF8.
func NewEncoded(tb testing.TB, encoding string) *DB {
	tb.Helper()
	db := newDB(tb, templateEmpty)
	name := pgx.Identifier{db.Name}.Sanitize()
	for _, statement := range []string{
		"DROP DATABASE " + name + " WITH (FORCE)",
		"CREATE DATABASE " + name + " TEMPLATE template0 LOCALE 'C' ENCODING '" + encoding + "'",
		"ALTER DATABASE " + name + " SET client_encoding = 'UTF8'",
	} {
		if err := execute(context.Background(), db.cluster.URL("postgres"), statement); err != nil {
			tb.Fatalf("%s: %v", statement, err)
		}
	}
	db.Pool.Reset()
	if err := dbsetup.Schema(context.Background(), db.URL); err != nil {
		tb.Fatal(err)
	}
	return db
}

// NewBareOn is NewBare in a cluster of the test's own, which it may set and stop as it likes.
func NewBareOn(tb testing.TB, cluster *pgtemp.Cluster) *DB {
	tb.Helper()
	name := label(tb.Name())
	if err := dbsetup.CreateDatabase(context.Background(), cluster.URL("postgres"), name, ""); err != nil {
		tb.Fatal(err)
	}
	if err := dbsetup.Schema(context.Background(), cluster.URL(name)); err != nil {
		tb.Fatal(err)
	}
	return open(tb, cluster, name)
}

// NewOn returns so many databases like those of New, in a cluster of the test's own.
func NewOn(tb testing.TB, cluster *pgtemp.Cluster, n int) (all []*DB) {
	tb.Helper()
	first := NewBareOn(tb, cluster)
	if err := dbsetup.Migrate(context.Background(), first.URL); err != nil {
		tb.Fatal(err)
	}
	for i := 1; i < n; i++ {
		name := fmt.Sprintf("n%d_%s", i, first.Name)
		if err := dbsetup.CreateDatabase(context.Background(), cluster.URL("postgres"), name, first.Name); err != nil {
			tb.Fatal(err)
		}
		all = append(all, open(tb, cluster, name))
	}
	return append(all, first)
}

func newDB(tb testing.TB, tmpl template) *DB {
	tb.Helper()
	cluster, name, err := shared.create(tmpl, label(tb.Name()))
	if err != nil {
		tb.Fatalf("making a database for the test: %v", err)
	}
	return open(tb, cluster, name)
}

func open(tb testing.TB, cluster *pgtemp.Cluster, name string) *DB {
	tb.Helper()
	var err error
	db := &DB{Name: name, URL: cluster.URL(name), cluster: cluster, tb: tb}
	// Before the pool, so that whatever comes next the database is seen to.
	tb.Cleanup(db.cleanup)
	if db.Pool, err = pgxpool.New(context.Background(), db.URL); err != nil {
		tb.Fatalf("opening %s: %v", db.URL, err)
	}
	return db
}

// closeTimeout bounds the wait for connections that a test still holds, and for goroutines.
const closeTimeout = 30 * time.Second

// cleanup runs after the test's own cleanups.
func (db *DB) cleanup() {
	if db.tb.Failed() {
		shared.keep()
		if os.Getenv(KeepEnv) == "1" {
			db.tb.Logf("the database of this test is kept: psql '%s'", db.URL)
		} else {
			db.tb.Logf("to look into the database of this test, run it again with %s=1", KeepEnv)
		}
	} else if err := shared.drop(db.cluster, db.Name); err != nil {
		db.tb.Errorf("dropping database %s: %v", db.Name, err)
	}
	if db.Pool == nil {
		return
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		db.Pool.Close()
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
		if held := db.Pool.Stat().AcquiredConns(); held > 0 {
			db.tb.Errorf("the test did not release %d connections of its pool", held)
		}
	}
}

// URLAs returns the connection string as another role, which needs no password.
func (db *DB) URLAs(role string) string {
	db.tb.Helper()
	u, err := url.Parse(db.URL)
	if err != nil {
		db.tb.Fatal(err)
	}
	u.User = url.User(role)
	return u.String()
}

// Cluster is the cluster that all tests of the binary share: look, but do not
// stop or crash it. A test of that starts a cluster of its own with pgtemp.
func (db *DB) Cluster() *pgtemp.Cluster { return db.cluster }

var notInLabel = regexp.MustCompile(`[^a-z0-9]+`)

// label makes a test's name fit into the name of a database, which may have 63
// bytes, a dozen of them for the number.
func label(testName string) string {
	s := notInLabel.ReplaceAllString(strings.ToLower(testName), "_")
	return strings.Trim(s[:min(len(s), 50)], "_")
}
