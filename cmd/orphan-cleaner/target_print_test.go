package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/printer"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// contentBlock is a block of docs/targets.md that begins with a line.
func contentBlock(t *testing.T, begin string) string {
	t.Helper()
	_, block, found := strings.Cut(page(t, "docs/targets.md"), "\n"+begin)
	block, _, closed := strings.Cut(block, "\n```")
	if !found || !closed {
		t.Fatalf("docs/targets.md has no block that begins with %q", begin)
	}
	return begin + block + "\n"
}

// gooseUp applies a folder with the stock goose, as docs/targets.md says.
func gooseUp(t *testing.T, dir, url string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testdb.Needed(t, "make tools", os.Getenv("ORPHAN_CLEANER_TEST_GOOSE")), "up")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOSE_DBSTRING="+url)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// The content service of docs/targets.md: its file is printed, applied by goose and listed;
// one run cleans all its tables, and a restore brings every row back, byte for byte.
func TestContentService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec(contentBlock(t, "CREATE TABLE public.posts"))
	path, dir := writeTargets(t, contentBlock(t, "# yaml-language-server")), filepath.Join(t.TempDir(), "targets")
	e := program(t, w.env, "target", "print", path, "--dir", dir).expect(t, exitDone)
	if !strings.Contains(e.stdout, "00001_index_likes.sql") || !strings.Contains(e.stdout, "&& goose up") {
		t.Errorf("%s", e)
	}
	if again := program(t, w.env, "target", "print", path, "--dir", dir, "--json").expect(t, exitDone); !strings.Contains(again.stdout, `"written": []`) {
		t.Errorf("%s", again)
	}
	gooseUp(t, dir, w.URL)
	var registry []printer.Registered
	if err := json.Unmarshal([]byte(program(t, w.env, "target", "list", "--json").expect(t, exitDone).stdout), &registry); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range registry {
		names = append(names, r.Name)
		if r.Disagrees() != "" {
			t.Error(r.Disagrees())
		}
	}
	tables := []string{"likes", "bookmarks", "shares", "comments", "posts"}
	if !slices.Equal(names, append([]string{"conversation_members"}, tables...)) {
		t.Errorf("%q", names)
	}
	if list := program(t, w.env, "target", "list").expect(t, exitDone); !strings.Contains(list.stdout, "built in") || !strings.Contains(list.stdout, "as printed") {
		t.Errorf("%s", list)
	}

	// Posts are kept for 90 days, whatever the other targets say.
	w.Exec(`UPDATE users SET deleted_at = deleted_at - interval '60 days'`)
	before := map[string]testdb.Snapshot{}
	for _, table := range tables {
		key := "post_id"
		if table == "posts" || table == "comments" {
			key = "id"
		}
		w.Exec(`INSERT INTO public.` + table + ` (` + key + `, user_id, created_at) SELECT gen_random_uuid(), m.user_id, now() - interval '100 days' FROM (SELECT DISTINCT user_id FROM conversation_members) AS m`)
		before[table] = w.Snapshot("public." + table)
	}
	program(t, append(slices.Clone(w.env), "ORPHAN_CLEANER_TARGETS="+path), "run", "--max-delete-share=1", "--max-delete-share-7d=1", "--max-delete-share-30d=1").expect(t, exitDone)
	for _, table := range tables {
		done := "public." + table + " WHERE user_id = ANY ($1)"
		if table == "posts" {
			done += " AND deleted_at IS NULL"
		}
		if n := w.Count(done, w.dead); n != 0 {
			t.Errorf("%d rows of %s are left", n, table)
		}
		if diff := before[table].Diff(w.Snapshot("public." + table)); diff == "" {
			t.Errorf("nothing of %s was cleaned", table)
		}
	}
	program(t, w.env, "restore", "--run=1", "--execute").expect(t, exitDone)
	for _, table := range tables {
		if diff := before[table].Diff(w.Snapshot("public." + table)); diff != "" {
			t.Errorf("%s is not what it was:\n%s", table, diff)
		}
	}

	// No run once the file says something else than what was applied, or a function was changed.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := writeTargets(t, strings.Replace(string(text), "deleted_at IS NULL", "deleted_at IS NULL AND body <> ''", 1))
	e = program(t, append(slices.Clone(w.env), "ORPHAN_CLEANER_TARGETS="+other), "run").expect(t, exitFailed)
	if !strings.Contains(e.stderr, "target posts: the file or the table changed since its migration was printed") {
		t.Errorf("%s", e)
	}
	if e = program(t, w.env, "target", "check", other).expect(t, exitFailed); !strings.Contains(e.stdout, "target posts: the file or the table changed") || !strings.Contains(e.stderr, "disagree") {
		t.Errorf("%s", e)
	}
	w.Exec(`CREATE OR REPLACE FUNCTION orphan_cleaner.likes_holders(user_ids uuid []) RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT unnest(user_ids)'`)
	if e = program(t, w.env, "run").expect(t, exitFailed); !strings.Contains(e.stderr, "target likes: its functions are not those that its migration made") {
		t.Errorf("%s", e)
	}
}

// A target with candidates in it cannot be dropped; a name that is taken is refused; a wrong
// file is one line of usage; and nothing is written then.
func TestTargetPrintRefuses(t *testing.T) {
	t.Parallel()
	w := testdb.New(t)
	w.Exec(contentBlock(t, "CREATE TABLE public.posts"))
	env, text := []string{"DATABASE_URL=" + w.URL}, contentBlock(t, "# yaml-language-server")
	dir := filepath.Join(t.TempDir(), "targets")
	program(t, env, "target", "print", writeTargets(t, text), "--dir", dir).expect(t, exitDone)
	gooseUp(t, dir, w.URL)
	w.Exec(`INSERT INTO public.likes (post_id, user_id) VALUES (gen_random_uuid(), md5('dead')::uuid)`)
	w.Exec(`INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings) VALUES ('clean', 'succeeded', 'finish', now(), now(), now(), '1m', 'h', 'v', '{}')`)
	w.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence) SELECT md5('dead')::uuid, now(), now(), max(run_id), 'sightings' FROM orphan_cleaner.runs`)
	entries := func(dir string) int {
		list, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return len(list)
	}
	before, empty := entries(dir), filepath.Join(t.TempDir(), "other")
	for _, c := range []struct{ text, dir, says string }{
		{"targets: []\n", dir, "targets.yaml:1:1: target likes is gone from the file, and 1 candidates have rows in it that nobody would clean any more: put it back"},
		{text, empty, "there is function orphan_cleaner.likes_delete in the database, and no migration in the folder makes it"},
		{strings.Replace(text, "name: likes", "name: target", 1), dir, "there is function orphan_cleaner.target_"},
		{strings.Replace(text, "retention: 90d", "retention: 1d", 1), dir, "1d is shorter than the run's"},
	} {
		e := program(t, env, "target", "print", writeTargets(t, c.text), "--dir", c.dir).expect(t, exitUsage)
		if !strings.Contains(e.stderr, c.says) || strings.Count(e.stderr, "\n") != 1 || e.stdout != "" {
			t.Errorf("%s, not %s", e, c.says)
		}
	}
	if entries(dir) != before || entries(empty) != 0 {
		t.Error("something was written")
	}
	w.Exec(`DELETE FROM orphan_cleaner.candidates`)
	w.Exec(`DELETE FROM public.likes`)
	w.Exec(`DELETE FROM orphan_cleaner.likes_audit`)
	e := program(t, env, "target", "print", writeTargets(t, "targets: []\n"), "--dir", dir, "--json").expect(t, exitDone)
	if strings.Count(e.stdout, "_drop_") != 5 {
		t.Errorf("%s", e)
	}
	gooseUp(t, dir, w.URL)
	if n := w.Count(`orphan_cleaner.targets`); n != 1 {
		t.Errorf("%d targets", n)
	}
}
