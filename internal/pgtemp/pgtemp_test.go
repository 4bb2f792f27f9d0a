package pgtemp_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		helper()
		return
	}
	goleak.VerifyTestMain(m)
}

// start starts a cluster that the test's end stops.
func start(t *testing.T, opts pgtemp.Options) *pgtemp.Cluster {
	t.Helper()
	c, err := pgtemp.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// ask returns the one text that a query answers.
func ask(t *testing.T, c *pgtemp.Cluster, query string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var answer string
	if err := conn.QueryRow(t.Context(), query).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}

// execute runs a statement.
func execute(t *testing.T, c *pgtemp.Cluster, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	testdb.Eventually(t, 2*time.Minute, what, holds)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestStartStop(t *testing.T) {
	// The temporary directory of this test alone, so that a leftover shows. It
	// must be open to the user that runs the server when we are root.
	temp, err := os.MkdirTemp("/tmp", "pgtemp-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := os.Chmod(temp, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)

	c := start(t, pgtemp.Options{Settings: map[string]string{
		"timezone":         "Asia/Shanghai",
		"application_name": `it's a \ backslash`,
		"work_mem":         "5MB",
	}})
	if dir := filepath.Dir(c.Dir()); dir != temp {
		t.Errorf("the cluster is in %s, not in the temporary directory %s", dir, temp)
	}
	for query, want := range map[string]string{
		"SHOW listen_addresses":        "127.0.0.1",
		"SHOW max_connections":         "100",
		"SHOW fsync":                   "off",
		"SHOW timezone":                "Asia/Shanghai",
		"SHOW work_mem":                "5MB",
		"SHOW server_encoding":         "UTF8",
		"SHOW unix_socket_directories": c.SocketDir(),
		"SELECT session_user::text":    "postgres",
		"SELECT reset_val FROM pg_settings WHERE name = 'log_line_prefix'":                       "%m [%p] %q%a %u@%d ",
		"SELECT setting FROM pg_file_settings WHERE name = 'application_name' AND error IS NULL": `it's a \ backslash`,
	} {
		if got := ask(t, c, query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if log := c.LogTail(5); !strings.Contains(log, "ready to accept connections") {
		t.Errorf("end of the log: %s", log)
	}

	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if err := c.Restart(t.Context()); !errors.Is(err, pgtemp.ErrEnded) {
		t.Errorf("Restart after Stop: %v", err)
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left in the temporary directory: %v", left)
	}
}

func TestStopEndsOpenSessions(t *testing.T) {
	c := start(t, pgtemp.Options{})
	conn, err := pgx.Connect(t.Context(), c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	// By a fast shutdown, and not at last by an immediate one.
	_, err = conn.WaitForNotification(t.Context())
	if said, is := errors.AsType[*pgconn.PgError](err); !is || said.Message != "terminating connection due to administrator command" {
		t.Errorf("an idle session was ended by %v", err)
	}
}

func TestTwoAtOnce(t *testing.T) {
	a, b := start(t, pgtemp.Options{}), start(t, pgtemp.Options{})
	if a.Port() == b.Port() || a.Dir() == b.Dir() {
		t.Fatalf("two clusters share a port or a directory: %d %d, %s %s", a.Port(), b.Port(), a.Dir(), b.Dir())
	}
	if got := ask(t, b, "SHOW data_directory"); got != b.DataDir() {
		t.Errorf("the second cluster's port leads to %s", got)
	}
}

func TestPortTaken(t *testing.T) {
	c := start(t, pgtemp.Options{})
	_, err := pgtemp.Start(t.Context(), pgtemp.Options{Port: c.Port()})
	if err == nil {
		t.Fatal("a second cluster started on a port that is taken")
	}
	if !strings.Contains(err.Error(), "port is taken") {
		t.Errorf("the error does not say that the port is taken: %v", err)
	}
}

func TestCrashRestart(t *testing.T) {
	c := start(t, pgtemp.Options{Durable: true})
	execute(t, c, "CREATE TABLE kept AS SELECT 42 AS answer")

	// A session in the middle of its transaction, which must not survive.
	conn, err := pgx.Connect(t.Context(), c.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "BEGIN; DELETE FROM kept"); err != nil {
		t.Fatal(err)
	}
	port := c.Port()
	if err := c.Crash(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "COMMIT"); err == nil {
		t.Error("a session of the killed server still answers")
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.Port() != port {
		t.Errorf("port %d became %d", port, c.Port())
	}
	if got := ask(t, c, "SELECT string_agg(answer::text, ',') FROM kept"); got != "42" {
		t.Errorf("after recovery the table holds %q, want 42", got)
	}
	if !strings.Contains(c.LogTail(50), "was not properly shut down") {
		t.Errorf("the server did not recover, so it had not crashed:\n%s", c.LogTail(50))
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Errorf("Restart of a running server: %v", err)
	}
	if got := ask(t, c, "SELECT answer::text FROM kept"); got != "42" {
		t.Errorf("after an orderly restart: %q", got)
	}
}

func TestCrashThenStop(t *testing.T) {
	c := start(t, pgtemp.Options{})
	if err := c.Crash(); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if exists(c.Dir()) {
		t.Errorf("%s is left", c.Dir())
	}
}

func TestStartCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := pgtemp.Start(ctx, pgtemp.Options{BinDir: binDir(t)}); err == nil {
		t.Error("started in a context that was over", c.Stop())
	}
}

func TestBadSettingShowsLog(t *testing.T) {
	_, err := pgtemp.Start(t.Context(), pgtemp.Options{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil {
		t.Fatal("started with a setting that does not exist")
	}
	if !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("the error does not show the server's log: %v", err)
	}
}

func TestDirNotEmpty(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pgtemp.Start(t.Context(), pgtemp.Options{Dir: dir}); err == nil {
		t.Error("started in a directory that is not empty")
	}
	if !exists(filepath.Join(dir, "precious")) {
		t.Error("a file that was there before is gone")
	}
}

func TestNoPostgres(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "/nonexistent"} {
		t.Setenv(pgtemp.BinDirEnv, dir)
		if _, err := pgtemp.Start(t.Context(), pgtemp.Options{}); !errors.Is(err, pgtemp.ErrNoPostgres) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestOldPostgres(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"initdb", "postgres"} {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) 14.19'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := pgtemp.FindBinDir(t.Context(), dir)
	if !errors.Is(err, pgtemp.ErrNoPostgres) || !strings.Contains(err.Error(), "version 14") {
		t.Error(err)
	}
}

func binDir(t *testing.T) string {
	t.Helper()
	dir, version, err := pgtemp.FindBinDir(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if version < pgtemp.MinVersion {
		t.Fatalf("found version %d", version)
	}
	return dir
}
