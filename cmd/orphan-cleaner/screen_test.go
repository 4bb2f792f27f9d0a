package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/result"
)

// A progress line stays in one line of a narrow terminal, and nothing that is logged
// is glued to it.
func TestScreen(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &screen{w: &out, width: func() int { return 20 }}
	log := func(line string) {
		if n, err := s.Write([]byte(line)); err != nil || n != len(line) {
			t.Errorf("%q: %d, %v", line, n, err)
		}
	}
	log("before\n")
	s.show("sweep: 40 %, 用户 and much more than fits")
	log("INFO one\n")
	s.show("")
	log("INFO two\n")
	const line = "sweep: 40 %, 用户 a"
	if want := "before\n" + clearLine + line + clearLine + "INFO one\n" + line + clearLine + "INFO two\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if width := text.StringWidth(line); width != 19 {
		t.Errorf("the line has %d columns", width)
	}
}

func TestProgressLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		p    result.Progress
		want string
	}{
		{result.Progress{Phase: "preflight"}, "preflight"},
		{result.Progress{Phase: "verify", UsersAbout: 2000, UsersChecked: 500, UsersMissing: 7, MembersDue: 3}, "verify: 25 %, 30s left, 500 users checked, 7 missing, 3 members due"},
		{result.Progress{Phase: "verify", UsersChecked: 500}, "verify: 500 users checked, 0 missing, 0 members due"},
		{result.Progress{Phase: "verify", UsersAbout: 400, UsersChecked: 500}, "verify: 100 %, 500 users checked, 0 missing, 0 members due"},
		{result.Progress{Phase: "sweep", MembersDue: 1000, MembersDeleted: 100, Throttled: "replication lag"}, "sweep: 10 %, 1m30s left, 100 of 1000 members deleted, throttled by replication lag"},
	} {
		if got := progressLine(c.p, 10*time.Second); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// On a terminal the progress is drawn and gone at the end, with whole log lines around it.
func TestProgressOnATerminal(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("script, of util-linux, is not installed")
	}
	w := newWorld(t, 2000, 15)
	w.auth.SetLatency(authfake.Latency{P50: 300 * time.Millisecond, P99: 400 * time.Millisecond})
	cmd := exec.Command(script, "-qec", "stty cols 40; orphan-cleaner run", os.DevNull)
	cmd.Env = append(os.Environ(), append(w.env, "PATH="+installed(t)+":"+os.Getenv("PATH"), "COLUMNS=")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.SplitSeq(string(out), "\r\n") {
		shown := line[strings.LastIndex(line, clearLine)+1:]
		shown = strings.TrimPrefix(shown, strings.TrimPrefix(clearLine, "\r"))
		if shown != "" && !regexp.MustCompile(`^20\S+Z (INFO|WARN) \w+: `).MatchString(shown) {
			t.Errorf("a line of the log is glued to something: %q", line)
		}
	}
	if !strings.Contains(string(out), clearLine+"verify: ") {
		t.Errorf("no progress: %q", out)
	}
}

// The time is before each line, unless stderr is the journal.
func TestLogTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 1)
	p := start(t, w.env, "run")
	p.wait(t).expect(t, exitDone)
	p.stderr.mu.Lock()
	defer p.stderr.mu.Unlock()
	for line := range strings.Lines(p.stderr.text.String()) {
		if !logTime.MatchString(line) {
			t.Errorf("no time: %s", line)
		}
	}
}

func TestPaint(t *testing.T) {
	for _, c := range []struct {
		env  string
		want string
	}{
		{"", "ok"},
		{"CLICOLOR_FORCE", "\x1b[32mok\x1b[0m"},
		{"NO_COLOR", "ok"},
	} {
		t.Run(c.env, func(t *testing.T) {
			t.Setenv("NO_COLOR", "")
			if c.env != "" {
				t.Setenv(c.env, "1")
			}
			if got := paint(&bytes.Buffer{}, text.FgGreen, "ok"); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
