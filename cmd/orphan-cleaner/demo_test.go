package main

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	temp := openTemp(t)
	e := program(t, []string{"TMPDIR=" + temp}, "demo", "--conversations=10", "--members=150").expect(t, exitDone)
	for _, pattern := range []string{
		`Making messaging-service: 10 conversations, 150 members`,
		`(?m)^ checked +30 +150 *$`,
		`(?m)^ members checked +150 *$`,
		`(?m)^ calls to auth-service +2 *$`,
		`(?m)^ members deleted +5 *$`,
		`(?m)^ +audited +5 *$`,
		`(?m)^ +backed up +5 *$`,
		`(?m)^ seconds +\d+\.\d\d *$`,
		`once more: 0 members deleted, 29 users checked`,
		`5 members given back in \d+\.\d\d s, their users on hold for 30d; each row as it was: true`,
	} {
		if !regexp.MustCompile(pattern).MatchString(e.stdout) {
			t.Errorf("the demo does not show %s:\n%s", pattern, e.stdout)
		}
	}
	nothingLeft(t, temp)
}

// Ctrl-C in the midst of it leaves neither a server nor a file.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	temp := openTemp(t)
	p := start(t, []string{"TMPDIR=" + temp}, "demo", "--conversations=100000", "--members=2000000")
	eventually(t, "the demo fills its database", func() bool { return strings.Contains(p.stdout.String(), "Making messaging-service") })
	if len(processesIn(temp)) == 0 && onLinux() {
		t.Error("the throw-away PostgreSQL is not where the test looks for it")
	}
	p.signal(t, syscall.SIGINT)
	p.wait(t).expect(t, exitFailed)
	nothingLeft(t, temp)
}

func onLinux() bool {
	_, err := os.Stat("/proc/self/cmdline")
	return err == nil
}

// With --keep the printed commands work as printed.
func TestDemoKeep(t *testing.T) {
	t.Parallel()
	temp := openTemp(t)
	e := program(t, []string{"TMPDIR=" + temp}, "demo", "--conversations=10", "--members=150", "--keep").expect(t, exitDone)
	printed := regexp.MustCompile(`The database stays up: +(psql '(.+)')\nStop it with: +(.+)\n`).FindStringSubmatch(e.stdout)
	if printed == nil {
		t.Fatalf("no commands were printed: %s", e)
	}
	connect, url, stop := printed[1], printed[2], printed[3]
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			_ = exec.Command("sh", "-c", stop).Run()
		}
	})

	const query = "SELECT count(*) FROM conversation_members"
	if _, err := exec.LookPath("psql"); err == nil {
		out, err := exec.Command("sh", "-c", connect+" -Atqc '"+query+"'").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "150" {
			t.Errorf("%s: %v\n%s", connect, err, out)
		}
	} else {
		var members int64
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		err = conn.QueryRow(t.Context(), query).Scan(&members)
		_ = conn.Close(context.Background())
		if err != nil || members != 150 {
			t.Errorf("%d members are left: %v", members, err)
		}
	}
	out, err := exec.Command("sh", "-c", stop).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", stop, err, out)
	}
	stopped = true
	nothingLeft(t, temp)
}
