package main

import (
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/lab/document"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	l := newLab(t, "demo", "--program="+product, "--conversations=10", "--members=150")
	out := l.run(t)
	for _, pattern := range []string{
		`Making messaging-service: 10 conversations, 150 members`,
		`(?m)^\$ orphan-cleaner migrate up$`,
		`(?m)^\$ orphan-cleaner check\nok `,
		`(?m)^warn  canaries: none is configured`,
		`(?m)^\$ orphan-cleaner run --dry-run$`,
		`(?m)^ checked +30 +150 *$`,
		`(?m)^That took \d+\.\d\d s and 2 calls\. Deleted: 5 of 150 members; audited: 5; backed up: 5\.$`,
		`(?m)^\$ orphan-cleaner restore --run 1 --execute$`,
		`(?m)^Each row of conversation_members is as it was before the run\.$`,
	} {
		if !regexp.MustCompile(pattern).MatchString(out) {
			t.Errorf("the demo does not show %s:\n%s", pattern, out)
		}
	}
	for _, line := range []string{"Cleaned 5 orphaned members", "Cleaned 0 orphaned members"} {
		if !strings.Contains(l.stderr.String(), line) {
			t.Errorf("the log of the demo does not have %q:\n%s", line, &l.stderr)
		}
	}
	nothingLeft(t, l.temp)
}

var update = flag.Bool("update", false, "write the output of the demo of targets into docs/targets.md")

// What docs/targets.md shows is what `make demo-targets` prints, but for the time that it took.
func TestDemoTargets(t *testing.T) {
	t.Parallel()
	const page, begin, end = "../../docs/targets.md", "<!-- demo: `go test ./cmd/lab -run TestDemoTargets -update` writes it -->", "<!-- demo: end -->"
	l := newLab(t, "demo", "--program="+product, "--targets="+page)
	_, out, _ := strings.Cut(l.run(t), "\n$ orphan-cleaner target print ")
	out = regexp.MustCompile(` +\n`).ReplaceAllString("```\n$ orphan-cleaner target print "+out+"```\n", "\n")
	nothingLeft(t, l.temp)
	if *update {
		if err := document.Replace(page, begin, end, out); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(text), begin+"\n\n")
	shown, _, _ = strings.Cut(shown, "\n"+end)
	took := regexp.MustCompile(`took \d+\.\d\d s|  [\d.]+m?s\b`)
	if took.ReplaceAllString(out, "took") != took.ReplaceAllString(shown, "took") {
		t.Errorf("docs/targets.md does not show what the demo prints; go test ./cmd/lab -run %s -update writes it:\n%s", t.Name(), out)
	}
}

func TestDemoUsage(t *testing.T) {
	t.Parallel()
	newLab(t, "demo", "--members=0").fail(t, "1 or more")
	newLab(t, "demo", "--program=/nowhere/orphan-cleaner").fail(t, "make build")
	newLab(t, "demo", "--program="+product, "--targets=../../README.md").fail(t, "no block of sql")
}

// Ctrl-C in the midst of it leaves neither a server nor a file.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	l := newLab(t, "demo", "--program="+product, "--conversations=100000", "--members=2000000")
	l.Stdout = nil
	stdout, err := l.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	for text := ""; !strings.Contains(text, "Making messaging-service"); {
		part := make([]byte, 1024)
		n, err := stdout.Read(part)
		if err != nil {
			t.Fatalf("%v after %q\n%s", err, text, &l.stderr)
		}
		text += string(part[:n])
	}
	if err := l.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := l.Wait(); err == nil {
		t.Error("an interrupted demo ends as if all were well")
	}
	nothingLeft(t, l.temp)
}

// With --keep the printed commands work as printed: the product finds the database and
// auth-service, and nothing is left after the last line.
func TestDemoKeep(t *testing.T) {
	t.Parallel()
	l := newLab(t, "demo", "--program="+product, "--conversations=10", "--members=150", "--keep")
	out := l.run(t)
	printed := regexp.MustCompile(`(?s)To use them:\n(.*)  psql .*\nTo stop them:\n(.+)\n$`).FindStringSubmatch(out)
	if printed == nil {
		t.Fatalf("no commands were printed:\n%s", out)
	}
	use, stop := printed[1], printed[2]
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			_ = exec.Command("sh", "-c", stop).Run()
		}
	})
	status, err := exec.Command("sh", "-c", use).CombinedOutput()
	if err != nil || !regexp.MustCompile(`(?m)^ *1 +succeeded `).Match(status) {
		t.Errorf("%s: %v\n%s", use, err, status)
	}
	check, err := exec.Command("sh", "-c", strings.Replace(use, " status\n", " check\n", 1)).CombinedOutput()
	if err != nil || !strings.Contains(string(check), "ok    auth-service: SERVING") {
		t.Errorf("check: %v\n%s", err, check)
	}
	if out, err := exec.Command("sh", "-c", stop).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", stop, err, out)
	}
	stopped = true
	pid := regexp.MustCompile(`kill (\d+)`).FindStringSubmatch(stop)[1]
	testdb.Eventually(t, limit, "auth-service has ended", func() bool { return exec.Command("kill", "-0", pid).Run() != nil })
	nothingLeft(t, l.temp)
}
