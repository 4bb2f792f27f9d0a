// Package process runs the programs that the lab looks at, each as a process of
// its own.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// endsWithin is how long a process may take to end once it was told to.
const endsWithin = 10 * time.Second

// Product finds the built orphan-cleaner: at path, or beside this program.
func Product(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("finding this program: %w", err)
		}
		path = filepath.Join(filepath.Dir(self), "orphan-cleaner")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the lab drives the built orphan-cleaner: %w; build it: make build", err)
	}
	return path, nil
}

// Command is a program with what add says in its environment, and without anything
// else that orphan-cleaner or PostgreSQL's programs read there: what is measured goes
// by the defaults. It is interrupted when ctx ends.
func Command(ctx context.Context, add []string, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(clean(os.Environ()), add...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endsWithin
	return cmd
}

func clean(env []string) []string {
	return slices.DeleteFunc(env, func(entry string) bool {
		return slices.ContainsFunc([]string{
			"PG", "DATABASE_", "AUTH_SERVICE_", "ORPHAN_CLEANER_", "REDIS_", "METRICS_", "PUSHGATEWAY_", "HEALTHCHECK_", "GOMEMLIMIT", "GOGC",
		}, func(prefix string) bool {
			return strings.HasPrefix(entry, prefix) && !strings.HasPrefix(entry, "ORPHAN_CLEANER_TEST_")
		})
	})
}

// Ended is a process that has ended by itself.
type Ended struct {
	Status     int
	Stdout     []byte
	Stderr     []byte
	Seconds    float64 // from before the fork until after the wait
	CPU        float64 // seconds, in user and system mode
	PeakMemory int64   // bytes
}

// Run runs a command to its end. A status other than 0 is no error.
func Run(cmd *exec.Cmd) (Ended, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	e := Ended{Seconds: time.Since(start).Seconds(), Stdout: stdout.Bytes(), Stderr: bytes.TrimSpace(stderr.Bytes())}
	if cmd.ProcessState == nil {
		return e, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	e.Status, e.PeakMemory = cmd.ProcessState.ExitCode(), peak(cmd.ProcessState)
	e.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if _, exited := errors.AsType[*exec.ExitError](err); exited && e.Status > 0 {
		err = nil
	}
	return e, err
}

// peak is the most memory that a process had, in bytes. Linux counts what the
// parent had at the fork, too: the lab itself stays small, so that it does not show.
func peak(state *os.ProcessState) int64 {
	usage, ok := state.SysUsage().(*syscall.Rusage)
	switch {
	case !ok:
		return 0
	case runtime.GOOS == "darwin":
		return usage.Maxrss // bytes
	default:
		return usage.Maxrss << 10
	}
}
