package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// asProgram in the environment makes this test binary the lab itself, also where the
// lab starts itself for auth-service or the floor.
const asProgram = "LAB_TEST_AS_PROGRAM"

// product is the built orphan-cleaner.
var product string

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "1" {
		main()
		return
	}
	os.Exit(withProduct(m.Run))
}

// withProduct builds the product for the tests.
func withProduct(test func() int) int {
	dir, err := os.MkdirTemp("", "orphan-cleaner-lab-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	product = filepath.Join(dir, "orphan-cleaner")
	build := exec.Command("go", "build", "-trimpath", "-o", product, "../orphan-cleaner")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as other tests do: compiled once
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return test()
}

// limit bounds whatever a test waits for.
const limit = 90 * time.Second

// lab is `lab` with these arguments, its temporary files in a directory of its own,
// and with settings in the environment that must not matter.
type lab struct {
	*exec.Cmd
	temp           string
	stdout, stderr bytes.Buffer
}

func newLab(t *testing.T, args ...string) *lab {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// In /tmp, where the user who runs PostgreSQL may enter also if the tests run as root.
	l := &lab{}
	if l.temp, err = os.MkdirTemp("/tmp", "orphan-cleaner-test-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(l.temp) })
	if err := os.Chmod(l.temp, 0o777); err != nil {
		t.Fatal(err)
	}
	l.Cmd = exec.CommandContext(t.Context(), self, args...)
	l.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+l.temp, "DATABASE_URL=postgres://nobody@127.0.0.1:1/none",
		"ORPHAN_CLEANER_RETENTION=3000d", "PGDATABASE=none")
	l.Stdout, l.Stderr = &l.stdout, &l.stderr
	return l
}

// run runs it to its end and returns its stdout; nothing may be left of it.
func (l *lab) run(t *testing.T) string {
	t.Helper()
	if err := l.Run(); err != nil {
		t.Fatalf("%v\nstdout:\n%s\nstderr:\n%s", err, &l.stdout, &l.stderr)
	}
	return l.stdout.String()
}

// fail is run where an error is wanted that says this.
func (l *lab) fail(t *testing.T, says string) {
	t.Helper()
	if err := l.Run(); err == nil || !strings.Contains(l.stderr.String(), says) {
		t.Errorf("%v: nothing about %q in\n%s%s", err, says, &l.stdout, &l.stderr)
	}
}

// nothingLeft waits until a directory is empty and no process names it.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	testdb.Eventually(t, limit, "nothing is left in "+dir, func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 0
	})
	testdb.Eventually(t, limit, "no process works in "+dir, func() bool { return len(processesIn(dir)) == 0 })
}

// processesIn are the command lines that name a directory; where there is no
// /proc it knows of none.
func processesIn(dir string) []string {
	var found []string
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if bytes.Contains(line, []byte(dir)) {
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}
