package pgtemp_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
)

// helperEnv makes the test binary be the program whose end is tested: it starts
// a cluster, prints `DIR PID URL` and, detached, the stop command, and waits to
// be killed, or ends when detached.
const helperEnv = "PGTEMP_TEST_HELPER"

func helper() {
	c, err := pgtemp.Start(context.Background(), pgtemp.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	pid, err := os.ReadFile(filepath.Join(c.DataDir(), "postmaster.pid"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	first, _, _ := strings.Cut(string(pid), "\n")
	fmt.Println(c.Dir(), first, c.URL("postgres"))
	if os.Getenv(helperEnv) == "detach" {
		command, err := c.Detach()
		fmt.Println(command)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	<-make(chan struct{})
}

// program is the helper, running.
type program struct {
	cmd           *exec.Cmd
	lines         *bufio.Scanner
	dir, url      string
	postmasterPID int
}

func startHelper(t *testing.T, mode string) program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), helperEnv+"="+mode)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p := program{cmd: cmd, lines: bufio.NewScanner(out)}
	if !p.lines.Scan() {
		t.Fatal("the helper did not start a cluster")
	}
	fields := strings.Fields(p.lines.Text())
	if len(fields) != 3 {
		t.Fatalf("the helper says %q", p.lines.Text())
	}
	p.dir, p.url = fields[0], fields[2]
	if p.postmasterPID, err = strconv.Atoi(fields[1]); err != nil {
		t.Fatal(err)
	}
	return p
}

// running reports whether the process is there and not a zombie: in a container
// nobody may wait for the orphans.
func running(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

// A program killed with kill -9 leaves neither a server nor a directory.
func TestProgramKilled(t *testing.T) {
	p := startHelper(t, "wait")
	if !running(p.postmasterPID) {
		t.Fatalf("there is no postmaster %d", p.postmasterPID)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the postmaster is gone", func() bool { return !running(p.postmasterPID) })
	eventually(t, "the directory is gone", func() bool { return !exists(p.dir) })
}

// The terminal's Ctrl-C goes to the foreground process group. It must not reach
// the server, which the program stops itself.
func TestServerIsNotInOurProcessGroup(t *testing.T) {
	p := startHelper(t, "wait")
	group, err := syscall.Getpgid(p.postmasterPID)
	if err != nil {
		t.Fatal(err)
	}
	if group == syscall.Getpgrp() {
		t.Error("the server is in the program's process group")
	}
}

// A detached cluster outlives its program until its stop command is run.
func TestDetach(t *testing.T) {
	p := startHelper(t, "detach")
	if !p.lines.Scan() {
		t.Fatal("the helper printed no stop command")
	}
	command := p.lines.Text()
	if err := p.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), p.url)
	if err != nil {
		t.Fatalf("the detached server is gone: %v", err)
	}
	defer conn.Close(context.Background())

	if out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	if running(p.postmasterPID) {
		t.Error("the stop command left the server running")
	}
	if exists(p.dir) {
		t.Errorf("the stop command left %s", p.dir)
	}
}
