package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// limit bounds whatever a test waits for.
const limit = 3 * time.Minute

// build builds the program as it is shipped, but for the flags given.
func build(t *testing.T, flags ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "orphan-cleaner")
	args := append([]string{"build", "-trimpath", "-o", path}, flags...)
	cmd := exec.Command("go", append(args, "github.com/nova-social/orphan-cleaner/cmd/orphan-cleaner")...)
	// The stacks of C threads would count under a limit of memory.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return path
}

// ended is what a program left behind.
type ended struct {
	status         int // -1: by a signal
	signal         syscall.Signal
	stdout, stderr string
	metrics        string // what it left for node_exporter; nothing if it was killed
	took           time.Duration
}

func (e ended) String() string {
	return fmt.Sprintf("exit status %d (%v)\nstdout:\n%s\nstderr:\n%s", e.status, e.signal, e.stdout, e.stderr)
}

// result is the part of the object at the end of `run --json` that rows read.
type result struct {
	RunID          int64   `json:"run_id"`
	State          string  `json:"state"`
	UsersChecked   int64   `json:"users_checked"`
	UsersUnknown   int64   `json:"users_unknown"`
	MembersDeleted int64   `json:"members_deleted"`
	MembersChanged int64   `json:"members_changed"`
	UsersBlocked   int64   `json:"users_blocked"`
	Breaker        *string `json:"breaker"`
	Error          string  `json:"error"`
}

// result reads the last line of stdout; a program that was killed left none.
func (e ended) result() (result, error) {
	lines := strings.Split(strings.TrimSuffix(e.stdout, "\n"), "\n")
	var r result
	err := json.Unmarshal([]byte(lines[len(lines)-1]), &r)
	return r, err
}

// output is what a program wrote so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// process is a program under way.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	began          time.Time
	took           time.Duration // once exited is closed
	stdout, stderr *output
	textfile       string
	exited         chan struct{}
}

// spawn starts a program with these settings and nothing else of ours or of
// PostgreSQL's in its environment. It is killed when the test ends before it.
func spawn(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path, args...), stdout: &output{}, stderr: &output{}, exited: make(chan struct{})}
	p.textfile = filepath.Join(t.TempDir(), "run.prom")
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "ORPHAN_CLEANER_METRICS_TEXTFILE=" + p.textfile,
	}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.start()
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the status is read from ProcessState
		p.took = time.Since(p.began)
		close(p.exited)
	}()
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // an error means that it has ended
		<-p.exited
	})
}

// signal sends a signal; a program that has ended already is no error.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	select {
	case <-p.exited:
	default:
		if err := p.cmd.Process.Signal(s); err != nil && !p.over() {
			p.t.Fatal(err)
		}
	}
}

func (p *process) over() bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(time.Second):
		return false
	}
}

// wait waits for the end of the program.
func (p *process) wait() ended {
	p.t.Helper()
	return p.waitFor(limit)
}

// waitFor is wait, for a program that takes longer than others.
func (p *process) waitFor(most time.Duration) ended {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(most):
		p.t.Fatalf("the program did not end within %s\nstdout:\n%s\nstderr:\n%s", most, p.stdout, p.stderr)
	}
	e := ended{status: p.cmd.ProcessState.ExitCode(), stdout: p.stdout.String(), stderr: p.stderr.String(), took: p.took}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.signal = status.Signal()
	}
	text, err := os.ReadFile(p.textfile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatal(err)
	}
	e.metrics = string(text)
	return e
}

// says waits until the program has written something to stderr.
func (p *process) says(text string) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("the program says %q", text), func() bool {
		if strings.Contains(p.stderr.String(), text) {
			return true
		}
		select {
		case <-p.exited:
			if !strings.Contains(p.stderr.String(), text) {
				p.t.Fatalf("the program ended without saying %q: %s", text, p.wait())
			}
		default:
		}
		return false
	})
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	testdb.Eventually(t, limit, what, holds)
}
