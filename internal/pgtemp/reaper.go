package pgtemp

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

//go:embed reaper.sh
var reaperScript string

// reaper is the process that cleans up after this program when the program
// cannot; see the package comment.
type reaper struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// startReaper starts the reaper for the cluster in dir. It runs as this
// program's own user, so that it may signal and remove what the program may.
func startReaper(dir string, keep bool) (*reaper, error) {
	r, w, err := os.Pipe() // close-on-exec: no other child inherits the writing end
	if err != nil {
		return nil, err
	}
	defer r.Close()
	keepArg := ""
	if keep {
		keepArg = "keep"
	}
	// Not CommandContext: it must live as long as the cluster, not as the start.
	cmd := exec.Command("/bin/sh", "-c", reaperScript, "orphan-cleaner-pg-reaper", "watch", dir, keepArg) //nolint:noctx // see above
	cmd.Dir = "/"
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the reaper: %w", err), w.Close())
	}
	return &reaper{cmd: cmd, pipe: w}, nil
}

// watch names the process to stop if this program dies; 0 for none. A reaper
// that is gone already is reported by dismiss.
func (r *reaper) watch(pid int) {
	line := "none\n"
	if pid != 0 {
		line = strconv.Itoa(pid) + "\n"
	}
	_, _ = io.WriteString(r.pipe, line)
}

// dismiss ends the reaper without it doing anything.
func (r *reaper) dismiss() error {
	_, writeErr := io.WriteString(r.pipe, "done\n")
	return errors.Join(writeErr, r.pipe.Close(), r.cmd.Wait())
}
