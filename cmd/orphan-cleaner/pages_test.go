package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// page is the text of README.md or of a page of docs/.
func page(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The README knows each command; each setting with its name in the environment and
// its default, each breaker and each field of the result has a line on its page.
func TestPages(t *testing.T) {
	t.Parallel()
	needs := func(path, what string) {
		t.Helper()
		if !strings.Contains(page(t, path), what) {
			t.Errorf("%s does not have %s", path, what)
		}
	}
	parser, err := kong.New(&CLI{})
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Children {
		if !regexp.MustCompile("`" + command.Name + "[ `]").MatchString(page(t, "README.md")) {
			t.Errorf("README.md does not have the command %s", command.Name)
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
			needs("docs/settings.md", row)
		}
	}
	for _, breaker := range settings.BreakerNames() {
		needs("docs/breakers.md", "| `"+breaker+"` |")
	}
	for _, field := range resultFields {
		needs("docs/output.md", "`"+field+"`")
	}
}

// The SQL of the page about restores restores what a run deleted, byte for byte, and a
// hold keeps it from being deleted again.
func TestPageRestores(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec("UPDATE conversation_members SET last_read_at = now() - interval '50 days', is_muted = true, user_public_key = 'key', role = 'admin'")
	w.Settle()
	before := w.Snapshot("conversation_members")
	program(t, w.env, "run").expect(t, exitDone)
	gone(t, w, w.living(), 15)

	block := regexp.MustCompile("(?s)```sql\n(.*?)```").FindStringSubmatch(page(t, "docs/restore.md"))
	if block == nil {
		t.Fatal("docs/restore.md has no SQL")
	}
	today := testdb.One[string](w.DB, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
	script := strings.NewReplacer("run_id = 42", "run_id = 1", "_20260131", "_"+today).Replace(block[1])
	conn, err := pgx.Connect(t.Context(), w.URL)
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

// Each function of the reader's tour is in the file that it names.
func TestReadersTour(t *testing.T) {
	t.Parallel()
	_, tour, _ := strings.Cut(page(t, "CONTRIBUTING.md"), "## A reader's tour")
	tour, _, _ = strings.Cut(tour, "\n## ")
	stops := regexp.MustCompile("(?m)^\\| \\d \\| `([^`]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(tour, -1)
	if len(stops) == 0 || len(stops) > 8 {
		t.Fatalf("the tour has %d stops", len(stops))
	}
	for _, stop := range stops {
		text := page(t, stop[1])
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(stop[2], -1) {
			if !regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|CREATE FUNCTION orphan_cleaner\.)` + name[1] + `\(`).MatchString(text) {
				t.Errorf("%s has no function %s", stop[1], name[1])
			}
		}
	}
}

// Each guarantee names tests that exist.
func TestGuaranteesAreTested(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			tests[name[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(page(t, "docs/guarantees.md"), "## Guaranteed")
	list, _, _ = strings.Cut(list, "\n## ")
	guarantees := regexp.MustCompile(`(?m)^\d+\. `).Split(list, -1)[1:]
	if len(guarantees) == 0 {
		t.Fatal("docs/guarantees.md guarantees nothing")
	}
	faults := page(t, "docs/faults.md")
	for i, guarantee := range guarantees {
		_, shown, _ := strings.Cut(guarantee, "Shown by")
		names := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(shown, -1)
		if len(names) == 0 {
			t.Errorf("guarantee %d names no test", i+1)
		}
		for _, name := range names {
			if !tests[name[1]] {
				t.Errorf("guarantee %d names %s, which does not exist", i+1, name[1])
			}
		}
		for _, fault := range regexp.MustCompile(`\*([^*]+)\*`).FindAllStringSubmatch(shown, -1) {
			if !strings.Contains(faults, fault[1]+"  ") {
				t.Errorf("guarantee %d names the fault %q, which docs/faults.md does not show", i+1, fault[1])
			}
		}
	}
}
