package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"
)

// what differs from one test to the next, and what stands for it, of the same width.
var pictureNoise = []struct {
	what *regexp.Regexp
	mask string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\d \d\d:\d\d:\d\d`), "2026-01-31 22:00:00"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\d \d\d:\d\d`), "2026-01-31 22:00"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\d`), "2026-01-31"},
	{regexp.MustCompile(`\d?\d [A-Z][a-z]{2} \d\d:\d\d`), "22:00"},
	{regexp.MustCompile(`\d?\d [A-Z][a-z]{2}\b`), "31 Jan"},
	{regexp.MustCompile(`\b\d\d:\d\d\b`), "22:00"},
	{regexp.MustCompile(`\b\d+\.\d\b`), "0.1"},
	{regexp.MustCompile(`\d+ms\b`), "1ms"},
}

// What each command shows on a terminal of 80 and of 120 columns, and in a pipe. After
// a change that is meant: ORPHAN_CLEANER_TEST_UPDATE=1, and look at the difference.
func TestPictures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec("UPDATE conversation_members SET joined_at = now() - interval '100 days'")
	reason := strings.Repeat("the lawsuit of 2026 about the messages in this conversation; ", 3)
	for _, args := range [][]string{
		{"run", "--max-delete-rows=1"},
		{"run"},
		{"hold", "add", "--user=" + w.users(t, "deleted_at IS NULL ORDER BY id LIMIT 1")[0].String(), "--reason=" + reason},
		{"restore", "--run=2", "--execute"},
		{"run"},
		{"limits", "pin", "retention=60d"},
	} {
		program(t, w.env, args...)
	}
	w.auth.Delete(w.users(t, "deleted_at IS NULL ORDER BY id LIMIT 2")...)
	program(t, w.env, "run").expect(t, exitDone)
	commands := map[string][]string{
		"status": {"status"}, "hold-list": {"hold", "list"}, "limits": {"limits"}, "report": {"report", "--since=2026-01-30", "--until=2026-02-01"}, "prune": {"prune"},
		"restore": {"restore", "--run=2"}, "revert": {"restore", "--revert=3"}, "dry-run": {"run", "--dry-run"}, "migrate-status": {"migrate", "status"},
		"approve": {"approve", "1", "--yes"}, "help": {"--help"}, "help-run": {"run", "--help"}, "help-restore": {"help", "restore"},
	}
	for _, name := range slices.Sorted(maps.Keys(commands)) { // one of them changes what others show
		args := commands[name]
		for width, columns := range map[string]int{"80": 80, "120": 120, "pipe": 0} {
			if name == "approve" && width != "80" {
				continue // only once
			}
			env := w.env
			if columns > 0 {
				env = append(env[:len(env):len(env)], fmt.Sprint("COLUMNS=", columns), "CLICOLOR_FORCE=1")
			}
			got := program(t, env, args...).expect(t, exitDone).stdout
			for line := range strings.Lines(got) {
				wide := text.StringWidthWithoutEscSequences(strings.TrimSuffix(line, "\n"))
				ruler := strings.HasPrefix(strings.TrimSpace(line), "─") || strings.HasPrefix(name, "help")
				if columns > 0 && wide > columns && ruler && name != "report" {
					t.Errorf("%s at %s: %d columns: %s", name, width, wide, line)
				}
			}
			if strings.HasPrefix(name, "hold-list") && width == "pipe" && !strings.Contains(got, strings.TrimSpace(reason)) {
				t.Errorf("the reason of a hold is cut:\n%s", got)
			}
			if width == "pipe" && strings.Contains(got, "\x1b") {
				t.Errorf("%s: colours in a pipe: %q", name, got)
			}
			for _, noise := range pictureNoise {
				got = noise.what.ReplaceAllString(got, noise.mask)
			}
			lines := strings.Split(got, "\n")
			for i := range lines {
				lines[i] = strings.TrimRight(lines[i], " ")
			}
			picture(t, name+"-"+width+".txt", strings.Join(lines, "\n"))
		}
	}
}

func picture(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "pictures", name)
	if os.Getenv("ORPHAN_CLEANER_TEST_UPDATE") == "1" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := readFile(t, path); got != want {
		t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
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
