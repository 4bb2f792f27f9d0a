package migrations_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
	"github.com/nova-social/orphan-cleaner/migrations"
)

// killer ends its own session before a statement, as a server does that is
// restarted.
type killer struct {
	db        *testdb.DB
	countdown int // statements until then
	killed    bool
}

func (k *killer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if k.countdown--; k.countdown == 0 {
		k.killed = testdb.One[bool](k.db, "SELECT pg_terminate_backend($1)", conn.PgConn().PID())
	}
	return ctx
}

func (k *killer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// provider applies migrations, as `migrate` does, in sessions that the killer has his
// eye on, each with a session of its own. It reads each once: that takes longer than a kill.
func (k *killer) provider(t *testing.T) *goose.Provider {
	t.Helper()
	cfg, err := pgx.ParseConfig(k.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Tracer = k
	conn := stdlib.OpenDB(*cfg)
	conn.SetMaxIdleConns(-1)
	t.Cleanup(func() { _ = conn.Close() })
	m, err := goose.NewProvider(goose.DialectPostgres, conn, migrations.FS, goose.WithTableName(migrations.VersionTable))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Killed before every statement of every migration, goose's own around it
// included, up afterwards succeeds, and the schema is the same.
func TestKilledAtEveryStatement(t *testing.T) {
	t.Parallel()
	db, own := testdb.NewBare(t), testdb.NewBare(t)
	sameDay(t, db)
	m := open(t, own)
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	k, kills := &killer{db: db}, 0
	var killed *goose.Provider
	for i := range m.ListSources() {
		for statement := 1; ; statement++ {
			if i == 0 { // one looks only once whether the version table is there
				killed = k.provider(t)
			}
			k.countdown, k.killed = statement, false
			_, err := killed.UpByOne(t.Context())
			if !k.killed {
				// A COMMIT may have been quicker than the kill.
				if err != nil && !errors.Is(err, goose.ErrNoNextVersion) {
					t.Fatalf("after %d kills: %v", kills, err)
				}
				break
			}
			kills++
			if err == nil {
				// After the migration was committed: the next one is next.
				break
			}
		}
	}
	if _, err := open(t, db).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kills < 300 {
		t.Errorf("only %d kills", kills)
	}
	if diff := oursApplied(t).Diff(versions(db, migrations.VersionTable)); diff != "" {
		t.Errorf("our version table:\n%s", diff)
	}
	sameDump(t, "after the kills", dump(t, own), dump(t, db))
}

// Killed while it builds the index, which leaves an invalid one, up afterwards
// succeeds, and the index is valid.
func TestKilledIndexBuild(t *testing.T) {
	t.Parallel()
	db, m := upTo(t, indexVersion-1)
	fill(db, 100)
	old := connect(t, db.URL, "messaging-service", "BEGIN", insertMember)
	up := async(func() error { _, err := m.UpByOne(context.WithoutCancel(t.Context())); return err })
	building := blockedBy(t, db, old.pid())
	if !testdb.One[bool](db, "SELECT pg_terminate_backend($1, 60000)", building) {
		t.Fatal("the build went on")
	}
	if err := up(); err == nil {
		t.Fatal("a build that was killed succeeded")
	}
	old.exec(t, "COMMIT")
	const valid = "pg_index WHERE indexrelid = to_regclass('public.conversation_members_user_id') AND indisvalid"
	if db.Count(valid) != 0 {
		t.Fatal("the kill left a valid index: this test shows nothing")
	}
	if _, err := open(t, db).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if db.Count(valid) != 1 {
		t.Error("the index is not valid")
	}
}
