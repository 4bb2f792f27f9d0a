package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Each command has --json but those that print text for another program, and serve.
func TestEachCommandHasJSON(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&CLI{}, kong.Name("orphan-cleaner"), kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range parser.Model.Leaves(true) {
		command, _, _ := strings.Cut(strings.TrimPrefix(leaf.FullPath(), "orphan-cleaner "), " <")
		if flagOf(leaf, "json") == nil && command != "serve" && command != "fleet serve" && command != "help" && command != "completion" {
			t.Errorf("%s has no --json", command)
		}
	}
}

// What each command prints with --json is one value without null lists, whose fields
// docs/output.md names.
func TestJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	documented := page(t, "docs/output.md")
	user := "--user=" + w.dead[0].String()
	nullable := regexp.MustCompile(`^(breaker|choice|database_error|window|pin|set_by|set_at|applied_at|finished_at|until|user_id|conversation_id|run_id|error|cursor_id|checked_at)$`)
	var look func(command, path string, value any)
	look = func(command, path string, value any) {
		switch value := value.(type) {
		case map[string]any:
			for name, inner := range value {
				byName := strings.HasSuffix(path, "pinned") || strings.HasSuffix(path, "phases_seconds")
				if !byName && !strings.Contains(documented, "`"+name+"`") {
					t.Errorf("%s: docs/output.md does not have `%s`", command, name)
				}
				if inner == nil && !nullable.MatchString(name) {
					t.Errorf("%s: %s is null", command, name)
				}
				if text, is := inner.(string); is && name == "seconds" {
					t.Errorf("%s: seconds is the text %q", command, text)
				}
				look(command, path+"."+name, inner)
			}
		case []any:
			for _, inner := range value {
				look(command, path, inner)
			}
		}
	}
	printed := func(status int, args ...string) {
		t.Helper()
		command := strings.Join(args, " ")
		e := program(t, w.env, append(args, "--json")...).expect(t, status)
		var value any
		if err := json.Unmarshal([]byte(e.stdout), &value); err != nil || value == nil {
			t.Fatalf("%s: %v: %s", command, err, e)
		}
		look(command, "", value)
	}
	printed(exitDone, "status")
	printed(exitDone, "hold", "list")
	printed(exitDone, "check")
	printed(exitDone, "run", "--dry-run")
	printed(exitRefused, "run", "--max-delete-rows=1")
	printed(exitDone, "status")
	printed(exitDone, "approve", "1", "--yes")
	printed(exitDone, "status")
	printed(exitDone, "approve", "1", "--revoke")
	printed(exitDone, "hold", "add", user, "--reason=a lawsuit")
	printed(exitDone, "hold", "list")
	printed(exitDone, "hold", "remove", "1")
	printed(exitDone, "pause", "--reason=an incident")
	printed(exitDone, "status")
	printed(exitDone, "run")
	printed(exitDone, "resume")
	printed(exitDone, "run")
	printed(exitDone, "restore", "--run=2")
	printed(exitDone, "restore", "--run=2", "--execute")
	printed(exitDone, "restore", "--revert=3")
	printed(exitDone, "report", "--since="+time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly))
	printed(exitDone, "prune")
	printed(exitDone, "limits", "list")
	printed(exitDone, "limits", "pin", "retention=30d")
	printed(exitDone, "limits", "list")
	printed(exitDone, "limits", "unpin", "retention")
	printed(exitDone, "effects")
	printed(exitDone, "effects", "set", "counter=unread")
	printed(exitDone, "effects")
	printed(exitDone, "config")
	printed(exitDone, "bench", "--read-only", "--call-repeat=1")
	printed(exitDone, "migrate", "status")
	printed(exitDone, "migrate", "drift")
	printed(exitDone, "migrate", "settle-clock")
	printed(exitDone, "migrate", "up")
	printed(exitDone, "version")
	w.Exec("ALTER TABLE conversation_members ADD COLUMN nickname text")
	printed(exitFailed, "migrate", "drift")
	bare := testdb.NewBare(t)
	w.env = w.envOf(bare.URL)
	printed(exitDone, "migrate", "up")
	printed(exitDone, "migrate", "down")
}

// A hold that keeps nobody is placed, since a user may have members again, and warned of.
func TestHoldOfNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 1)
	e := program(t, w.env, "hold", "add", "--user=6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10", "--reason=x").expect(t, exitDone)
	if !strings.Contains(e.stderr, "warning: hold 1 keeps nobody") {
		t.Errorf("%s", e)
	}
	e = program(t, w.env, "hold", "add", "--user="+w.dead[0].String(), "--reason=x").expect(t, exitDone)
	if e.stderr != "" || !strings.Contains(e.stdout, "keeps 1 members") {
		t.Errorf("%s", e)
	}
}
