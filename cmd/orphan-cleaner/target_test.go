package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/target"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

const messagingSchema = "../../internal/target/testdata/messaging.sql"

// writeTargets writes a targets.yaml into a folder of its own.
func writeTargets(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "targets.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is left fails CI; what a file names does not; JSON and the table say the same.
func TestTargetCheck(t *testing.T) {
	t.Parallel()
	w := testdb.New(t)
	schema, err := os.ReadFile(messagingSchema)
	if err != nil {
		t.Fatal(err)
	}
	w.Exec(string(schema))
	env := []string{"DATABASE_URL=" + w.URL}
	e := program(t, env, "target", "check").expect(t, exitFailed)
	var found target.References
	if err := json.Unmarshal([]byte(program(t, env, "target", "check", "--json").expect(t, exitFailed).stdout), &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Left) != 14 || !strings.Contains(e.stderr, "14 left: columns look like user ids") || !strings.Contains(e.stdout, "targets: 1, ignored: 0, left: 14; json, views and foreign tables") {
		t.Errorf("%d left: %s", len(found.Left), e)
	}
	// What it prints is a file that leaves nothing.
	_, printed, _ := strings.Cut(e.stdout, "for each:\n\n")
	printed, _, _ = strings.Cut(printed, "\n\n")
	if e := program(t, env, "target", "check", writeTargets(t, printed)).expect(t, exitFailed); !strings.Contains(e.stdout, "left: 0;") || !strings.Contains(e.stderr, "disagree") {
		t.Errorf("%s", e)
	}
	file := "ignore:\n"
	for _, r := range found.Left {
		if !strings.Contains(e.stdout, " "+r.Column+" ") || !strings.Contains(e.stdout, strings.Split(r.Stanza, "\n")[0]) {
			t.Errorf("%s is not in the table or has no stanza: %s", r.Column, e)
		}
		if r.Column != "public.messages.sender_id" {
			file += "  - {column: " + r.Column + ", reason: of another service}\n"
		}
	}
	if e := program(t, env, "target", "check", writeTargets(t, file)).expect(t, exitFailed); !strings.Contains(e.stderr, "1 left: columns look") || !strings.Contains(e.stdout, "60 of 80") {
		t.Errorf("%s", e)
	}
	file += "targets:\n" + `  - {name: messages, table: public.messages, user: sender_id, key: [id], age: created_at, action: update, where: deleted_at IS NULL, set: {deleted_at: now()}}` + "\n"
	before := w.Snapshot("messages")
	e = program(t, env, "target", "check", writeTargets(t, file)).expect(t, exitFailed)
	if e.stdout != "target messages is in the file and not in the registry: orphan-cleaner target print, and apply what it prints\n"+
		"targets: 2, ignored: 13, left: 0; json, views and foreign tables are not looked into\n" || !strings.Contains(e.stderr, "disagree") {
		t.Errorf("%s", e)
	}
	if diff := before.Diff(w.Snapshot("messages")); diff != "" {
		t.Errorf("the rows changed:\n%s", diff)
	}
	// Wrong files, each by its place, the second only by the database.
	for wrong, says := range map[string]string{
		strings.Replace(file, "action: update", "acton: update", 1): "targets.yaml:16:91: \"acton\" is no key of a target: did you mean action?",
		strings.Replace(file, "key: [id]", "key: [body]", 1):        "targets.yaml:16:69: public.messages.body can be null",
	} {
		e := program(t, env, "target", "check", writeTargets(t, wrong)).expect(t, exitUsage)
		if e.stdout != "" || !strings.Contains(e.stderr, says) || strings.Count(e.stderr, "\n") != 1 || strings.Contains(e.stderr, "wrong usage") {
			t.Errorf("%s", e)
		}
	}
	// A line for each place.
	wrong := strings.NewReplacer("action: update", "acton: update", "key: [id]", "key: []").Replace(file)
	if e := program(t, env, "target", "check", writeTargets(t, wrong)).expect(t, exitUsage); strings.Count(e.stderr, "\n") != 2 || strings.Count(e.stderr, "orphan-cleaner: /") != 2 {
		t.Errorf("%s", e)
	}
	program(t, env, "target", "check", "nowhere.yaml").expect(t, exitUsage)
	program(t, nil, "target", "check").expect(t, exitUsage)
}

// The keys of its JSON are those of docs/output.md.
func TestTargetCheckJSONIsDocumented(t *testing.T) {
	t.Parallel()
	w := testdb.New(t)
	e := program(t, []string{"DATABASE_URL=" + w.URL}, "target", "check", "--json").expect(t, exitDone)
	if strings.Contains(e.stdout, "null") {
		t.Errorf("a list is null: %s", e)
	}
	page, err := os.ReadFile("../../docs/output.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "## `target check --json`")
	section, _, _ = strings.Cut(section, "\n## ")
	for key := range e.object(t) {
		if !found || !strings.Contains(section, "`"+key+"`") {
			t.Errorf("docs/output.md does not say what %s is", key)
		}
	}
}

// A login with the runner's role is told what it cannot see.
func TestTargetCheckAsRunner(t *testing.T) {
	t.Parallel()
	w := testdb.New(t)
	w.Exec("CREATE TABLE public.likes (post_id uuid, user_id uuid, PRIMARY KEY (post_id, user_id))")
	w.Roles(rolesFile)
	e := program(t, []string{"DATABASE_URL=" + w.Login(runner)}, "target", "check").expect(t, exitFailed)
	lines := strings.Split(e.stdout, "\n")
	if !slices.ContainsFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "not sampled: public.likes.user_id: GRANT SELECT (user_id) ON public.likes TO "+runner)
	}) || !slices.ContainsFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "not judged, only its values could tell: public.likes.post_id: GRANT SELECT (post_id) ON public.likes TO "+runner)
	}) {
		t.Errorf("%s", e)
	}
}
