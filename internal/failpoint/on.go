//go:build failpoint

package failpoint

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

// Env names the variable that says where to stop, and how.
const Env = "ORPHAN_CLEANER_TEST_FAILPOINT"

// ErrInjected is what a step fails with under the action error.
var ErrInjected = errors.New("injected by a failpoint")

var form = regexp.MustCompile(`^([a-z-]+)(?::([1-9][0-9]*))?=(kill|stop|error)$`)

type point struct {
	name, action string
	left         atomic.Int64 // passes until it acts
}

//nolint:gochecknoglobals // one environment, one point a process; there is none in the release build
var chosen = sync.OnceValue(func() *point {
	text := os.Getenv(Env)
	if text == "" {
		return &point{}
	}
	parts := form.FindStringSubmatch(text)
	if parts == nil {
		panic(fmt.Sprintf("%s is %q, want name[:n]=kill|stop|error", Env, text))
	}
	p := &point{name: parts[1], action: parts[3]}
	p.left.Store(1)
	if parts[2] != "" {
		n, err := strconv.ParseInt(parts[2], 10, 64)
		if err != nil {
			panic(err)
		}
		p.left.Store(n)
	}
	return p
})

// After passes on the error of the step name, or acts when the step went well
// and it is the one that was chosen.
func After(name string, err error) error {
	p := chosen()
	if err != nil || name != p.name || p.left.Add(-1) != 0 {
		return err
	}
	fmt.Fprintf(os.Stderr, "failpoint: after %s: %s\n", name, p.action)
	switch p.action {
	case "error":
		return fmt.Errorf("after %s: %w", name, ErrInjected)
	case "stop":
		// Another thread may be the one that gets the signal, some time later:
		// until the program goes on again, this goroutine must not.
		goesOn := make(chan os.Signal, 1)
		signal.Notify(goesOn, syscall.SIGCONT)
		if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
			panic(err)
		}
		<-goesOn
		signal.Stop(goesOn)
		return nil
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {} // until the signal is delivered
}
