package testdb_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

const addConversation = "INSERT INTO conversations (id, kind) VALUES (gen_random_uuid(), 'group')"

func TestKinds(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]struct {
		make        func(testing.TB) *testdb.DB
		theirs, own bool
	}{
		"migrated": {testdb.New, true, true},
		"bare":     {testdb.NewBare, true, false},
		"empty":    {testdb.NewEmpty, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := kind.make(t)
			const query = "SELECT to_regclass($1) IS NOT NULL"
			if got := testdb.One[bool](db, query, "conversation_members"); got != kind.theirs {
				t.Errorf("messaging-service's tables are there: %t", got)
			}
			if got := testdb.One[bool](db, query, "orphan_cleaner.runs"); got != kind.own {
				t.Errorf("our tables are there: %t", got)
			}
		})
	}
}

// Each test writes the same row and sees only its own.
func TestIsolation(t *testing.T) {
	t.Parallel()
	for range 8 {
		t.Run("clone", func(t *testing.T) {
			t.Parallel()
			db := testdb.New(t)
			db.Exec("CREATE TABLE mine (n int PRIMARY KEY)")
			if n := db.Exec("INSERT INTO mine VALUES (1)"); n != 1 {
				t.Errorf("%d rows inserted", n)
			}
			if n := db.Count("mine WHERE n = $1", 1); n != 1 {
				t.Errorf("%d rows counted", n)
			}
		})
	}
}

func TestPassedIsDropped(t *testing.T) {
	t.Parallel()
	db := testdb.NewEmpty(t)
	var name string
	t.Run("passes", func(t *testing.T) {
		inner := testdb.NewEmpty(t)
		name = inner.Name
		// Still connected at its end: the drop is forced.
		conn, err := pgx.Connect(t.Context(), inner.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	})
	if n := db.Count("pg_database WHERE datname = $1", name); n != 0 {
		t.Errorf("database %s is left", name)
	}
}

func TestURLAs(t *testing.T) {
	t.Parallel()
	db := testdb.NewEmpty(t)
	// Roles belong to the cluster, which the other tests share.
	db.Exec("CREATE ROLE testdb_somebody LOGIN")
	t.Cleanup(func() { db.Exec("DROP ROLE testdb_somebody") })
	conn, err := pgx.Connect(t.Context(), db.URLAs("testdb_somebody"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var user string
	if err := conn.QueryRow(t.Context(), "SELECT session_user::text").Scan(&user); err != nil || user != "testdb_somebody" {
		t.Errorf("session_user %q, %v", user, err)
	}
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	db := testdb.NewEmpty(t)
	db.Exec("CREATE TABLE moment AS SELECT n, timestamptz '2026-01-01 00:00Z' AS at FROM generate_series(1, 3) AS n")
	before, fingerprint := db.Snapshot("moment"), db.Fingerprint("moment")

	// Rows that lie elsewhere and a session that shows times in another way are
	// no difference.
	db.Exec("UPDATE moment SET at = at WHERE n = 1")
	db.Exec("ALTER ROLE postgres IN DATABASE " + db.Name + " SET timezone = 'Asia/Shanghai'")
	db.Pool.Reset()
	if diff := before.Diff(db.Snapshot("moment")); diff != "" {
		t.Errorf("the same rows differ:\n%s", diff)
	}
	if now := db.Fingerprint("moment"); now != fingerprint {
		t.Errorf("the same rows: %s, then %s", fingerprint, now)
	}

	db.Exec("UPDATE moment SET at = at + interval '1 microsecond' WHERE n = 2")
	want := "- (2,\"2026-01-01 00:00:00+00\")\n+ (2,\"2026-01-01 00:00:00.000001+00\")\n"
	if diff := before.Diff(db.Snapshot("moment")); diff != want {
		t.Errorf("a changed row:\n%s", diff)
	}
	if now := db.Fingerprint("moment"); now == fingerprint {
		t.Errorf("a changed row has the same fingerprint: %s", now)
	}
	if diff := before.Diff(db.Snapshot("moment WHERE n <> $1", 2)); strings.Count(diff, "\n") != 1 {
		t.Errorf("a missing row:\n%s", diff)
	}
}

// failEnv makes TestFails fail; TestFailedIsKept runs it in another process.
const failEnv = "TESTDB_TEST_FAIL"

func TestFails(t *testing.T) {
	if os.Getenv(failEnv) == "" {
		t.Skip("runs inside TestFailedIsKept")
	}
	db := testdb.NewBare(t)
	db.Exec(addConversation)
	t.Error("failing as asked")
}

// A failed test's database can be looked into afterwards, and be stopped by the
// command that is printed.
func TestFailedIsKept(t *testing.T) {
	t.Parallel()
	out := runFailing(t, "1")
	url := between(t, out, "psql '", "'")
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	defer conn.Close(context.Background())
	stop := between(t, out, "stop it with: ", "\n")
	defer func() {
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "/bin/sh", "-c", stop).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", stop, err, out)
		}
	}()
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM conversations").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows in the kept database, %v", n, err)
	}
}

func TestFailedSaysHowToKeep(t *testing.T) {
	t.Parallel()
	out := runFailing(t, "")
	if !strings.Contains(out, testdb.KeepEnv+"=1") || strings.Contains(out, "stop it with") {
		t.Errorf("the output of a failed test:\n%s", out)
	}
}

func runFailing(t *testing.T, keep string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestFails$")
	cmd.Env = append(os.Environ(), failEnv+"=1", testdb.KeepEnv+"="+keep)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("the failing test passed:\n%s", out)
	}
	return string(out)
}

func between(t *testing.T, s, before, after string) string {
	t.Helper()
	_, s, found := strings.Cut(s, before)
	s, _, closed := strings.Cut(s, after)
	if !found || !closed {
		t.Fatalf("nothing between %q and %q", before, after)
	}
	return s
}
