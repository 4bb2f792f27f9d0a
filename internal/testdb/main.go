package testdb

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// KeepEnv names the environment variable that, set to 1, keeps the cluster
// running after the tests when one of them failed.
const KeepEnv = "ORPHAN_CLEANER_TEST_KEEP"

// Main is the body of a package's TestMain: it runs the tests, stops the
// cluster if one was started, checks that no goroutine is left, and exits.
// A package that does not call it leaves the cluster to pgtemp's reaper.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	if err := shared.close(os.Getenv(KeepEnv) == "1"); err != nil {
		fmt.Fprintln(os.Stderr, "testdb:", err)
		code = max(code, 1)
	}
	// After a failure goroutines may well be left, and are not the news.
	if code == 0 {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintln(os.Stderr, "testdb: goroutines left after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}
