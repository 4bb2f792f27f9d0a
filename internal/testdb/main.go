package testdb

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"go.uber.org/goleak"
)

// KeepEnv names the environment variable that, set to 1, keeps the cluster
// running after the tests when one of them failed.
const KeepEnv = "ORPHAN_CLEANER_TEST_KEEP"

// Main is the body of a package's TestMain: it runs the tests, stops the
// cluster if one was started, checks that no goroutine is left, and exits.
// A package that does not call it leaves the cluster to pgtemp's reaper.
// [testing.M] is what runs the tests, or what wraps it.
//
// Unless -parallel says otherwise, four tests run at once where there are fewer
// processors: most of them wait, for a program, a server, a lock or a lease.
func Main(m interface{ Run() int }, options ...goleak.Option) {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	if err := shared.close(os.Getenv(KeepEnv) == "1"); err != nil {
		fmt.Fprintln(os.Stderr, "testdb:", err)
		code = max(code, 1)
	}
	// After a failure goroutines may well be left, and are not the news.
	if code == 0 {
		err := goleak.Find(options...)
		// It looks for half a second. On a busy machine, what is ending takes longer.
		for began := time.Now(); err != nil && time.Since(began) < closeTimeout; {
			err = goleak.Find(options...)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "testdb: goroutines left after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}
