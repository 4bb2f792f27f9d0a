package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/jedib0t/go-pretty/v6/text"
)

// what differs from one test to the next, and what stands for it, of the same width.
var pictureNoise = []struct {
	what *regexp.Regexp
	mask string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10"},
	{regexp.MustCompile(`(?m)^.* Made partitions .*\n`), ""}, // at midnight
	{regexp.MustCompile(`(?m)^.* Batch API slow: .*\n`), ""}, // where the machine stood still
	{regexp.MustCompile(`20\d\d-\d\d-\d\d \d\d:\d\d:\d\d`), "2026-01-31 22:00:00"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\d \d\d:\d\d`), "2026-01-31 22:00"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\d`), "2026-01-31"},
	{regexp.MustCompile(`\d?\d [A-Z][a-z]{2} \d\d:\d\d`), "22:00"},
	{regexp.MustCompile(`\d?\d [A-Z][a-z]{2}\b`), "31 Jan"},
	{regexp.MustCompile(`\b\d\d:\d\d\b`), "22:00"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "localhost:9080"},
	{regexp.MustCompile(`seconds=\d+(\.\d+)?`), "seconds=0.1"}, // a whole second has no point
	{regexp.MustCompile(`\b\d(\d\.\d)\b`), " $1"},
	{regexp.MustCompile(`\b\d+\.\d\b`), "0.1"},
	{regexp.MustCompile(`\d+ms\b`), "1ms"},
	{regexp.MustCompile(`\bby \S+ \(postgres\)`), "by oncall (postgres)"},
	{regexp.MustCompile(`PostgreSQL [^,\n]+, database \S+, role \S+`), "PostgreSQL 18.1, database messaging, role postgres"},
	{regexp.MustCompile(`of the server's \d+, \d+ are reserved and \d+ in use`), "of the server's 100, 3 are reserved and 20 in use"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "2026-01-31T22:00:00Z"},
	{regexp.MustCompile(`in=\S+`), "in=59m59s"},
	{regexp.MustCompile(`(?m) [ \d]\ds *$`), "  0s"}, // the lag of a shard
	// bench: its columns are as wide as its figures
	{regexp.MustCompile(`Runbook 0.1`), "Runbook 5.1"},
	{regexp.MustCompile(`verified in .* users a second`), "verified in 0.01 s: 24000 users a second"},
	{regexp.MustCompile(`here P50 +P99 +times([^─]*)─+`), "here P50   P99  times${1}" + strings.Repeat("─", 54)},
	{regexp.MustCompile(`(?m)(^ +\d+ +\d+ +\d+ +\d+) +\d+\.\d +\d+\.\d +(\d+)`), "$1       0.4   0.9      $2"},
}

// shot is a command whose output is pictured; of any other its help is.
type shot struct {
	command string   // its words
	args    []string // what it is given
	once    bool     // it changes something, or takes long: it is given on one width
}

// show is what a person sees on a terminal, the log and its times too, but for a fleet's, whose
// shards are in no order; serve is ended when it has said when the next run is.
func (s shot) show(t *testing.T, env []string, args []string) string {
	t.Helper()
	p := start(t, env, args...)
	if s.command == "serve" {
		eventually(t, "serve says when the next run is", func() bool { return strings.Contains(p.stderr.String(), "Next run") })
		p.signal(t, os.Interrupt)
	}
	e := p.wait(t).expect(t, exitDone)
	if strings.HasPrefix(s.command, "fleet") {
		return e.stdout
	}
	return p.stderr.text.String() + e.stdout
}

// What each command shows on a terminal of 80 and of 120 columns, as docs/commands.md has
// it, and in a pipe. After a change that is meant: make screenshots, and look at the difference.
func TestPictures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec("UPDATE conversation_members SET joined_at = now() - interval '100 days'")
	w.Settle()
	reason := strings.Repeat("the lawsuit of 2026 about the messages in this conversation; ", 3)
	living := w.users(t, "deleted_at IS NULL ORDER BY id LIMIT 3")
	for _, args := range [][]string{
		{"run", "--max-delete-rows=1"},
		{"run"},
		{"hold", "add", "--user=" + living[0].String(), "--reason=" + reason},
		{"restore", "--run=2", "--execute"},
		{"run"},
		{"limits", "pin", "retention=60d"},
	} {
		program(t, w.env, args...)
	}
	w.auth.Delete(living[:2]...)
	program(t, w.env, "run").expect(t, exitDone)
	shards := newFleet(t, 2)
	fleet := slices.Concat([]string{"AUTH_SERVICE_URL=" + shards[0].auth.URL(), "ORPHAN_CLEANER_FLEET=" + fleetOf(t, wide, shards...)}, wideLimits())
	pictured := pictures{t: t, page: map[string][]string{}}
	for _, s := range []shot{
		{"approve", []string{"1", "--yes"}, true},
		{"hold add", []string{"--user=" + living[2].String(), "--reason=legal hold 17", "--until=90d"}, true},
		{"run", []string{"--dry-run"}, false},
		{"status", nil, false},
		{"report", []string{"--since=2026-01-30", "--until=2026-02-01"}, false},
		{"hold list", nil, false},
		{"restore", []string{"--run=2"}, false},
		{"restore", []string{"--revert=3"}, false},
		{"hold remove", []string{"2"}, true},
		{"pause", []string{"--reason=auth-service is being restored"}, true},
		{"resume", nil, true},
		{"migrate status", nil, false},
		{"limits list", nil, false},
		{"limits unpin", []string{"retention"}, true},
		{"check", []string{"--canary-alive=" + living[2].String()}, false},
		{"bench", []string{"--read-only", "--call-repeat=1"}, false},
		{"run", []string{"--canary-alive=" + living[2].String()}, true},
		{"serve", []string{"--metrics-addr=127.0.0.1:0"}, true},
		{"fleet check", nil, false},
		{"fleet run", nil, true},
		{"fleet status", nil, false},
		{"effects list", nil, false},
		{"prune", nil, false},
		{"target list", nil, false},
		{"target check", nil, false},
		{"config", nil, false},
		{"version", nil, true},
		{"help", nil, false},
	} {
		outputs := map[string]string{}
		args := append(strings.Fields(s.command), s.args...)
		for width, columns := range map[string]int{"80": 80, "120": 120, "pipe": 0} {
			if s.once && width != "80" {
				continue
			}
			env := w.env
			if s.command == "config" {
				env = []string{"ORPHAN_CLEANER_RETENTION=40d"} // and no URLs, whose ports are never the same
			}
			if strings.HasPrefix(s.command, "fleet") {
				env = fleet
			}
			if columns > 0 {
				env = append(env[:len(env):len(env)], fmt.Sprint("COLUMNS=", columns), "CLICOLOR_FORCE=1")
			}
			got := s.show(t, env, args)
			for line := range strings.Lines(got) {
				wide := text.StringWidthWithoutEscSequences(strings.TrimSuffix(line, "\n"))
				ruler := strings.HasPrefix(strings.TrimSpace(line), "─") || s.command == "help"
				if columns > 0 && wide > columns && ruler && s.command != "report" && s.command != "target list" {
					t.Errorf("%s at %s: %d columns: %s", s.command, width, wide, line)
				}
			}
			if s.command == "hold list" && width == "pipe" && !strings.Contains(got, strings.TrimSpace(reason)) {
				t.Errorf("the reason of a hold is cut:\n%s", got)
			}
			if width == "pipe" && strings.Contains(got, "\x1b") {
				t.Errorf("%s: colours in a pipe: %q", s.command, got)
			}
			if s.command != "config" && s.command != "help" { // the same on each machine
				got = withoutNoise(got)
			}
			outputs[width] = withoutBlanks(got)
		}
		if s.once {
			outputs["120"] = outputs["80"]
		} else {
			golden(t, filepath.Join("testdata", "pictures", pictureName(s.command, args)+".txt"), outputs["pipe"])
		}
		pictured.add(s.command, args, outputs)
	}
	parser, err := kong.New(&CLI{}, kong.Name("orphan-cleaner"), kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range parser.Model.Leaves(false) {
		command := strings.TrimPrefix(leaf.Path(), "orphan-cleaner ")
		if _, is := pictured.page[command]; is && command != "restore" {
			continue
		}
		args, outputs := append(strings.Fields(command), "--help"), map[string]string{}
		for _, columns := range []string{"80", "120"} {
			outputs[columns] = withoutBlanks(program(t, []string{"COLUMNS=" + columns}, args...).expect(t, exitDone).stdout)
		}
		pictured.add(command, args, outputs)
	}
	pictured.write(parser.Model)
}

func withoutNoise(got string) string {
	for _, noise := range pictureNoise {
		got = noise.what.ReplaceAllString(got, noise.mask)
	}
	return got
}

// withoutBlanks ends each line where its text does.
func withoutBlanks(got string) string {
	lines := strings.Split(got, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// golden compares a file of the tree with what it should be.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("ORPHAN_CLEANER_TEST_UPDATE") == "1" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := readFile(t, path); got != want {
		t.Errorf("%s is\n%s\nwant\n%s", path, got, want)
	}
}

// A refusal that nobody can approve is not offered for approval, and --watch shows what changed.
func TestStatusOfRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	watching := start(t, w.env, "status", "--watch=50ms")
	eventually(t, "status says that there was no run", func() bool { return strings.Contains(watching.stdout.String(), "new; no run was made yet") })
	program(t, w.env, "run", "--canary-alive="+w.dead[0].String()).expect(t, exitRefused)
	eventually(t, "status says that a run was refused", func() bool {
		return strings.Contains(watching.stdout.String(), "refused; run 1 was refused by canary-alive")
	})
	watching.signal(t, os.Interrupt)
	watching.wait(t).expect(t, exitDone)
	e := program(t, w.env, "status").expect(t, exitDone)
	if strings.Contains(e.stdout, "orphan-cleaner approve") || !strings.Contains(e.stdout, "REFUSED run 1") || !strings.Contains(e.stdout, "it cannot be approved") {
		t.Errorf("%s", e)
	}
}
