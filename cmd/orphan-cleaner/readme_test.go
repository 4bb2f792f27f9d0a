package main

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The README knows each command, each setting with its name in the environment
// and its default, each breaker and each field of the result.
func TestReadme(t *testing.T) {
	t.Parallel()
	text := readme(t)
	needs := func(what string) {
		t.Helper()
		if !strings.Contains(text, what) {
			t.Errorf("the README does not have %s", what)
		}
	}
	parser, err := kong.New(&CLI{})
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Children {
		if !regexp.MustCompile("`" + command.Name + "[ `]").MatchString(text) {
			t.Errorf("the README does not have the command %s", command.Name)
		}
		if command.Name != "run" && command.Name != "serve" {
			continue
		}
		for _, flag := range command.Flags {
			if len(flag.Envs) == 0 {
				continue
			}
			row := "| `--" + flag.Name + "` | `" + flag.Envs[0] + "` |"
			if flag.HasDefault {
				row += " `" + flag.Default + "` |"
			}
			needs(row)
		}
	}
	for _, breaker := range cleaner.Breakers() {
		needs("| `" + breaker.Name + "` |")
	}
	for _, field := range resultFields {
		needs("`" + field + "`")
	}
}

// The README's SQL gives back what a run deleted, byte for byte, under the grants of
// a restorer, and a hold keeps it from being deleted again.
func TestReadmeGivesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec("UPDATE conversation_members SET last_read_at = now() - interval '50 days', is_muted = true, user_public_key = 'key', role = 'admin'")
	before := w.Snapshot("conversation_members")
	program(t, w.env, "run").expect(t, exitDone)
	gone(t, w, w.living(), 15)

	block := regexp.MustCompile("(?s)```sql\n(.*?)```").FindStringSubmatch(readme(t))
	if block == nil {
		t.Fatal("the README has no SQL")
	}
	today := testdb.One[string](w.DB, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
	script := strings.NewReplacer("run_id = 42", "run_id = 1", "_20260131", "_"+today).Replace(block[1])
	w.Roles(rolesFile)
	conn, err := pgx.Connect(t.Context(), w.Login(restorer))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for range 2 { // a second time there is nothing to restore
		if _, err := conn.PgConn().Exec(t.Context(), script).ReadAll(); err != nil {
			t.Fatalf("%v in\n%s", err, script)
		}
	}
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("what came back is not what went:\n%s", diff)
	}

	for _, user := range w.dead {
		program(t, w.env, "hold", "add", "--user="+user.String(), "--reason=deleted by mistake").expect(t, exitDone)
	}
	program(t, w.env, "run").expect(t, exitDone)
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("members on hold were deleted:\n%s", diff)
	}
}
