package testdb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
)

// Needed finds the program of a test in one of the places, names on the PATH or
// paths. Where it is not there the test is skipped, but not in CI; hint is the
// command that brings it.
func Needed(tb testing.TB, hint string, places ...string) string {
	tb.Helper()
	for _, place := range places {
		if path, err := exec.LookPath(place); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		tb.Fatalf("%s is not installed: %s", places[0], hint)
	}
	tb.Skipf("%s is not installed: %s", places[0], hint)
	return ""
}

// Program finds a program of the cluster's own, such as pg_dump, which refuses a server
// that is newer than itself. Where ORPHAN_CLEANER_TEST_PG_BIN names a server that came
// without it the test is skipped, in CI too; any other server brings it along.
func Program(tb testing.TB, cluster *pgtemp.Cluster, name string) string {
	tb.Helper()
	path := filepath.Join(cluster.BinDir(), name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	missing := fmt.Sprintf("%s of PostgreSQL %d is not in %s, and that of another version does not serve", name, cluster.Version(), cluster.BinDir())
	if os.Getenv(pgtemp.BinDirEnv) == "" {
		tb.Fatal(missing)
	}
	tb.Skip(missing)
	return ""
}

// FreePort is a port of the loopback that nobody listens on, for a server that
// cannot choose one itself.
func FreePort(tb testing.TB) int {
	tb.Helper()
	port, err := pgtemp.FreePort(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

// Eventually waits until a condition holds, or fails the test after so long.
func Eventually(tb testing.TB, within time.Duration, what string, holds func() bool) {
	tb.Helper()
	deadline := time.After(within)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline:
			tb.Fatalf("not within %s: %s", within, what)
		}
	}
}
