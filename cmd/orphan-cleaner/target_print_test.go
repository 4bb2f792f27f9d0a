package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

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

// serviceTable is a table of a service, and which rows of a user who is gone are to be done.
type serviceTable struct{ name, user, due, done string } // done: of an update, what such a row is like then

// services are those of docs/targets.md and of testdata/services. Rows that are younger than
// the retention, or done already, stay.
func services(t *testing.T) map[string]service {
	t.Helper()
	file := func(name string) string {
		text, err := os.ReadFile(filepath.Join("testdata/services", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const old = " < now() - interval '30 days'"
	// Who watched something lately was alive then: nothing of theirs is due.
	const unseen = " AND NOT EXISTS (SELECT FROM public.viewer_sessions AS s WHERE s.left_at > now() - interval '30 days' AND s.viewer_id = "
	content := service{schema: contentBlock(t, "CREATE TABLE public.posts"), file: contentBlock(t, "# yaml-language-server")}
	for _, table := range []string{"likes", "bookmarks", "shares", "comments", "posts"} {
		key, c := "post_id", serviceTable{name: table, user: "user_id", due: "created_at" + old}
		if table == "posts" || table == "comments" {
			key = "id"
		}
		if table == "posts" {
			c.done = "deleted_at > now() - interval '1 hour'"
		}
		content.tables = append(content.tables, c)
		content.schema += `INSERT INTO public.` + table + ` (` + key + `, user_id, created_at)
			SELECT gen_random_uuid(), u.id, now() - make_interval(days => d) FROM users AS u, unnest(ARRAY[3, 100]) AS d;`
	}
	return map[string]service{
		"content": content,
		"feed": {file("feed.sql"), file("feed.yaml"), []serviceTable{
			{name: "metrics", user: "user_id", due: "recorded_at" + old},
			{name: "assignments", user: "user_id", due: "assigned_at" + old},
			{name: "experiments", user: "created_by", due: "created_at" + old, done: "created_by IS NULL"},
		}},
		"streaming": {file("streaming.sql"), file("streaming.yaml"), []serviceTable{
			{name: "viewer_sessions", user: "viewer_id", due: "joined_at" + old + unseen + "viewer_sessions.viewer_id)"},
			{name: "stream_keys", user: "user_id", due: "true" + unseen + "user_id)"},
			{name: "streams", user: "broadcaster_id", due: "state = 'live' AND started_at" + old + unseen + "broadcaster_id)", done: "title = 'deleted user' AND state = 'ended' AND ended_at > now() - interval '1 hour'"},
		}},
	}
}

type service struct {
	schema, file string
	tables       []serviceTable
}

// The file of each service is printed, applied by goose and listed; one run cleans all its
// tables, of exactly the rows that are due, each audited and backed up; and a restore brings
// every row back, byte for byte.
func TestServices(t *testing.T) {
	t.Parallel()
	for name, s := range services(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 300, 15)
			// Posts are kept for 90 days, whatever the other targets say.
			w.Exec(`UPDATE users SET deleted_at = deleted_at - interval '60 days'`)
			w.Exec(s.schema)
			path := s.apply(t, w)
			s.clean(t, w, path)
			if name == "content" {
				disagreements(t, w, path)
			}
		})
	}
}

// apply makes targets of the tables and returns the path of the file.
func (s service) apply(t *testing.T, w *world) string {
	t.Helper()
	path, dir := writeTargets(t, s.file), filepath.Join(t.TempDir(), "targets")
	e := program(t, w.env, "target", "print", path, "--dir", dir).expect(t, exitDone)
	first, last := s.tables[0].name, s.tables[len(s.tables)-1].name
	if !strings.Contains(e.stdout, "_create_"+first+"_target.sql") || !strings.Contains(e.stdout, "orphan-cleaner target apply --dir "+dir) {
		t.Errorf("%s", e)
	}
	if again := program(t, w.env, "target", "print", path, "--dir", dir).expect(t, exitDone); !strings.Contains(again.stdout, "nothing to print") || !strings.Contains(again.stdout, fmt.Sprintf("not applied: %d targets", len(s.tables))) {
		t.Errorf("%s", again)
	}
	if again := program(t, w.env, "target", "print", path, "--dir", dir, "--json").expect(t, exitDone); !strings.Contains(again.stdout, `"written": []`) {
		t.Errorf("%s", again)
	}
	if e := program(t, w.env, "target", "check", path).expect(t, exitFailed); strings.Count(e.stdout, "is in the file and not in the registry") != len(s.tables) || !strings.Contains(e.stderr, "disagree") {
		t.Errorf("%s", e)
	}
	empty := contents(t, w.DB)
	if e := program(t, w.env, "target", "apply", "--dir", dir, "--show-sql").expect(t, exitDone); !strings.Contains(e.stdout, "-- 00001_") || !strings.Contains(e.stdout, "CREATE TABLE orphan_cleaner."+last+"_audit") || contents(t, w.DB) != empty {
		t.Errorf("%s", e)
	}
	if e := program(t, w.env, "target", "apply", "--dir", dir).expect(t, exitDone); !strings.Contains(e.stdout, "_create_"+last+"_target.sql") || !strings.Contains(e.stdout, "psql -f sql/roles.sql") {
		t.Errorf("%s", e)
	}
	gooseUp(t, dir, w.URL) // which finds all of them recorded
	if e := program(t, w.env, "target", "apply", "--dir", dir, "--show-sql").expect(t, exitDone); e.stdout != "-- no migration is pending\n" {
		t.Errorf("%s", e)
	}
	if again := program(t, w.env, "target", "print", path, "--dir", dir).expect(t, exitDone); strings.Contains(again.stdout, "not applied") {
		t.Errorf("%s", again)
	}
	for _, wrong := range []string{filepath.Join(t.TempDir(), "nowhere"), filepath.Dir(path), "../../migrations"} {
		if e := program(t, w.env, "target", "apply", "--dir", wrong).expect(t, exitUsage); strings.Count(e.stderr, "\n") != 1 {
			t.Errorf("%s", e)
		}
	}
	var registry []printer.Registered
	if err := json.Unmarshal([]byte(program(t, w.env, "target", "list", "--json").expect(t, exitDone).stdout), &registry); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range registry[1:] {
		names = append(names, r.Name)
		if r.Disagrees() != "" {
			t.Error(r.Disagrees())
		}
	}
	var want []string
	for _, table := range s.tables {
		want = append(want, table.name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	return path
}

func (s service) clean(t *testing.T, w *world, path string) {
	t.Helper()
	before, stay, due, sum := map[string]testdb.Snapshot{}, map[string]testdb.Snapshot{}, map[string]int64{}, int64(0)
	for _, c := range s.tables {
		is := c.user + " = ANY ($1) AND " + c.due
		before[c.name], stay[c.name] = w.Snapshot("public."+c.name), w.Snapshot("public."+c.name+" WHERE ("+is+") IS NOT TRUE", w.dead)
		due[c.name] = w.Count("public."+c.name+" WHERE "+is, w.dead)
		sum += due[c.name]
		if due[c.name] == 0 || w.Count("public."+c.name+" WHERE "+c.user+" = ANY ($1)", w.dead) == due[c.name] {
			t.Fatalf("%s: %d rows are due, and none of the same users is not", c.name, due[c.name])
		}
	}
	w.Settle()
	dry := program(t, append(slices.Clone(w.env), "ORPHAN_CLEANER_TARGETS="+path), "run", "--dry-run").expect(t, exitDone)
	for _, c := range s.tables {
		if !regexp.MustCompile(fmt.Sprintf(` %s +\d+ +%d `, c.name, due[c.name])).MatchString(dry.stdout) {
			t.Errorf("not %d rows of %s: %s", due[c.name], c.name, dry)
		}
	}
	run := program(t, append(slices.Clone(w.env), "ORPHAN_CLEANER_TARGETS="+path), "run").expect(t, exitDone)
	members := w.Count("public.conversation_members_audit WHERE run_id = 1")
	if !regexp.MustCompile(fmt.Sprintf(`\brows_due=%d\b`, sum+members)).MatchString(dry.stderr) || !regexp.MustCompile(fmt.Sprintf(`\brows_deleted=%d\b`, sum+members)).MatchString(run.stderr) {
		t.Errorf("not %d and %d rows: %s%s", members, sum, dry, run)
	}
	for _, c := range s.tables {
		left := "public." + c.name
		if c.done != "" {
			// What was updated is what was backed up.
			done := left + " WHERE id IN (SELECT b.id FROM orphan_cleaner." + c.name + "_backup AS b)"
			if n := w.Count(done + " AND " + c.done); n != due[c.name] {
				t.Errorf("%s: %d rows were updated, not %d", c.name, n, due[c.name])
			}
			left += " WHERE id NOT IN (SELECT b.id FROM orphan_cleaner." + c.name + "_backup AS b)"
		}
		if diff := stay[c.name].Diff(w.Snapshot(left)); diff != "" {
			t.Errorf("%s: other rows than those that were due:\n%s", c.name, diff)
		}
		audited, backedUp := w.Count("orphan_cleaner."+c.name+"_audit WHERE run_id = 1"), w.Count("orphan_cleaner."+c.name+"_backup WHERE run_id = 1")
		if audited != due[c.name] || backedUp != due[c.name] {
			t.Errorf("%s: %d audited and %d backed up, not %d", c.name, audited, backedUp, due[c.name])
		}
	}
	// What a restore or a revert says is of all targets, also where no member is among its rows.
	restored := func(e ended, says string, rows int64, logged string) {
		t.Helper()
		if e.expect(t, exitDone); !regexp.MustCompile(fmt.Sprintf(` %s +%d *\n`, says, rows)).MatchString(e.stdout) || !strings.Contains(e.stderr, logged) {
			t.Errorf("%s", e)
		}
	}
	one := s.tables[len(s.tables)-1].name // the others may refer to it
	restored(program(t, w.env, "restore", "--run=1", "--target="+one, "--execute"), "restored", due[one], `revert="orphan-cleaner restore --revert 2"`)
	// A revert that a breaker refused is nothing to approve, and nothing that status waits for.
	e := program(t, w.env, "restore", "--revert=2", "--execute", "--max-delete-rows=1").expect(t, exitRefused)
	if !strings.Contains(e.stderr, "if what it found is right: a higher --max-delete-rows, and where") {
		t.Errorf("%s", e)
	}
	if e = program(t, w.env, "approve", "3", "--yes").expect(t, exitUsage); !strings.Contains(e.stderr, "run 3 was a revert") || strings.Count(e.stderr, "\n") != 1 {
		t.Errorf("%s", e)
	}
	if e = program(t, w.env, "status").expect(t, exitDone); strings.Contains(e.stdout, "not settled") {
		t.Errorf("%s", e)
	}
	if _, err := w.Pool.Exec(t.Context(), "SELECT orphan_cleaner.approve(3, 'me', '1 hour')"); err == nil || !strings.Contains(err.Error(), "nothing to approve") {
		t.Errorf("approved: %v", err)
	}
	w.Settle()
	restored(program(t, w.env, "restore", "--revert=2", "--execute"), "deleted again", due[one], fmt.Sprintf("rows_reverted=%d", due[one]))
	restored(program(t, w.env, "restore", "--run=4", "--execute"), "restored", due[one], `revert="orphan-cleaner restore --revert 5"`)
	restored(program(t, w.env, "restore", "--run=1", "--execute"), "restored", sum+members-due[one], fmt.Sprintf("rows_restored=%d", sum+members-due[one]))
	if e := program(t, w.env, "status").expect(t, exitDone); !strings.Contains(e.stdout, "\nrevert 4 ") || !strings.Contains(e.stdout, "\nrestore 6 ") || !strings.Contains(e.stdout, "due, deleted and restored are members") {
		t.Errorf("%s", e)
	}
	for _, c := range s.tables {
		if diff := before[c.name].Diff(w.Snapshot("public." + c.name)); diff != "" {
			t.Errorf("%s is not what it was:\n%s", c.name, diff)
		}
	}
}

// No run once the file says something else than what was applied, or a function was changed.
func disagreements(t *testing.T, w *world, path string) {
	t.Helper()
	if list := program(t, w.env, "target", "list").expect(t, exitDone); !strings.Contains(list.stdout, "built in") || !strings.Contains(list.stdout, "as printed") {
		t.Errorf("%s", list)
	}
	// No run while a table has other columns than its backup was printed for: none could back up its rows.
	w.Exec(`ALTER TABLE public.likes ADD COLUMN note text; ALTER TABLE public.shares DROP COLUMN created_at CASCADE; ALTER TABLE public.comments ALTER COLUMN body TYPE varchar(9000); ALTER TABLE public.posts ADD COLUMN note text`)
	likes, ledger := w.Snapshot("public.likes"), w.Snapshot("orphan_cleaner.candidates")
	e := program(t, w.env, "run").expect(t, exitFailed)
	for _, says := range []string{
		"target likes: column note is new: its backup was printed for other columns: orphan-cleaner target print",
		"target comments: column body is character varying(9000), and was text", "target shares: column created_at is gone",
	} {
		if !strings.Contains(e.stderr, says) || strings.Contains(e.stderr, "target posts") {
			t.Errorf("%s, not %s", e, says)
		}
	}
	if list := program(t, w.env, "target", "list").expect(t, exitDone); strings.Count(list.stdout, "CHANGED") != 3 {
		t.Errorf("%s", list)
	}
	if diff := likes.Diff(w.Snapshot("public.likes")) + ledger.Diff(w.Snapshot("orphan_cleaner.candidates")); diff != "" {
		t.Errorf("something changed:\n%s", diff)
	}
	w.Exec(`ALTER TABLE public.likes DROP COLUMN note; ALTER TABLE public.shares ADD COLUMN created_at timestamptz; ALTER TABLE public.comments ALTER COLUMN body TYPE text; ALTER TABLE public.posts DROP COLUMN note`)

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
	w.Exec(`CREATE TABLE public.keyless (id uuid NOT NULL, user_id uuid, created_at timestamptz);
		CREATE TABLE public.texts (id uuid PRIMARY KEY, user_id text, created_at timestamptz);
		CREATE TABLE public.parts (id uuid PRIMARY KEY, user_id uuid, created_at timestamptz) PARTITION BY HASH (id);
		CREATE VIEW public.seen AS SELECT id, user_id, created_at FROM public.posts;
		CREATE FOREIGN DATA WRAPPER elsewhere;
		CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
		CREATE FOREIGN TABLE public.remote (id uuid, user_id uuid, created_at timestamptz) SERVER elsewhere;
		INSERT INTO public.posts (id, user_id) VALUES (gen_random_uuid(), gen_random_uuid())`)
	also := func(entry string) string { // a further entry of the list
		return strings.Replace(text, "ignore: []", entry, 1)
	}
	of := func(table string) string {
		return also("  - {name: more, table: public." + table + ", user: user_id, key: [id], age: created_at, action: delete}\n")
	}
	const everything = `(SELECT md5(string_agg(o::text, '' ORDER BY o::text)) FROM (
		SELECT c.oid, c.relname FROM pg_class AS c UNION ALL SELECT p.oid, p.proname FROM pg_proc AS p UNION ALL SELECT t.ordinal::oid, t.name::name FROM orphan_cleaner.targets AS t) AS o) AS s CROSS JOIN public.posts`
	before, empty, database := entries(dir), filepath.Join(t.TempDir(), "other"), w.Snapshot(everything)
	for _, c := range []struct {
		text, dir, says string
		checks          bool // target check says so, too
	}{
		{"targets: []\n", dir, "targets.yaml:1:1: target likes is gone from the file, and 1 candidates have rows in it that nobody would clean any more: put it back", false},
		{text, empty, "there is function orphan_cleaner.likes_delete in the database, and no migration in the folder makes it", false},
		{strings.Replace(text, "name: likes", "name: target", 1), dir, "there is function orphan_cleaner.target_", false},
		{strings.Replace(text, "retention: 90d", "retention: 1d", 1), dir, "targets.yaml:28:16: 1d is shorter than the run's, 30d: a target's may only be longer", true},
		{of("keyless"), dir, "public.keyless has no primary key and no valid, whole unique index of exactly [id]: name the columns of one, or create it", true},
		{of("texts"), dir, "public.texts.user_id is text: it must be uuid", true},
		{of("parts"), dir, "targets.yaml:30:25: public.parts cannot be a target, it is partitioned: name an ordinary table", true},
		{of("seen"), dir, "targets.yaml:30:25: public.seen cannot be a target, it is a view: name an ordinary table", true},
		{of("remote"), dir, "targets.yaml:30:25: public.remote cannot be a target, it is a foreign table: name an ordinary table", true},
		{strings.Replace(strings.Replace(text, "after: [comments]", "after: [likes]", 1), "action: delete\n", "action: delete\n    after: [posts]\n", 1), dir, "take the cycle out of after", true},
		{strings.Replace(text, "where: deleted_at IS NULL", "where: created_at IS NOT NULL", 1), dir, "where is still true after set: each run would update the same rows again; change where or set", true},
		{of("likes"), dir, "public.likes.user_id is the column of target likes already: a column has one target", true},
		{strings.Replace(text, "    user: user_id", "    users: user_id", 1), dir, "did you mean user?", true},
	} {
		path := writeTargets(t, c.text)
		calls := [][]string{{"target", "print", path, "--dir", c.dir}}
		if c.checks {
			calls = append(calls, []string{"target", "check", path})
		}
		for _, call := range calls {
			e := program(t, env, call...).expect(t, exitUsage)
			if !strings.Contains(e.stderr, c.says) || strings.Count(e.stderr, "\n") != 1 || e.stdout != "" {
				t.Errorf("%s, not %s", e, c.says)
			}
		}
	}
	if entries(dir) != before || entries(empty) != 0 {
		t.Error("something was written")
	}
	if diff := database.Diff(w.Snapshot(everything)); diff != "" {
		t.Errorf("the database changed:\n%s", diff)
	}
	w.Exec(`DELETE FROM public.posts`)
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

// A target is retired by the commands of docs/targets.md, in their order. Afterwards everything goes on, and its rows are there.
func TestRetireTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Exec(`CREATE TABLE public.likes (id uuid PRIMARY KEY, user_id uuid NOT NULL);
		INSERT INTO public.likes SELECT gen_random_uuid(), user_id FROM (SELECT DISTINCT user_id FROM conversation_members) AS m`)
	dir := filepath.Join(t.TempDir(), "targets")
	likes := writeTargets(t, "targets:\n  - {name: likes, table: public.likes, user: user_id, key: [id], age: none, action: delete}\n")
	for _, args := range [][]string{{"print", likes, "--dir"}, {"apply", "--dir"}} {
		program(t, w.env, append(append([]string{"target"}, args...), dir)...).expect(t, exitDone)
	}
	w.Roles(rolesFile)
	w.Settle()
	program(t, w.env, "run").expect(t, exitDone)
	left := w.Snapshot("public.likes")
	none := writeTargets(t, "targets: []\nignore:\n  - {column: public.likes.user_id, reason: retired}\n")
	program(t, w.env, "target", "print", none, "--dir", dir).expect(t, exitDone)
	if e := program(t, w.env, "target", "apply", "--dir", dir).expect(t, exitFailed); !strings.Contains(e.stderr, "refusing to drop orphan_cleaner.likes_audit: it holds evidence") || !strings.Contains(e.stderr, "Copy the rows elsewhere and empty the table first") {
		t.Errorf("%s", e)
	}
	copies := t.TempDir()
	evidence := strings.ReplaceAll(contentBlock(t, `\copy (TABLE orphan_cleaner.likes_audit)`), "'likes_", "'"+copies+"/likes_")
	w.Psql("-f", writeTargets(t, evidence))
	for _, name := range []string{"likes_audit.csv", "likes_backup.csv"} {
		if lines := strings.Count(readFile(t, filepath.Join(copies, name)), "\n"); lines != 1+15 {
			t.Errorf("%s has %d lines", name, lines)
		}
	}
	program(t, w.env, "target", "apply", "--dir", dir).expect(t, exitDone)
	w.Psql("-f", writeTargets(t, contentBlock(t, "REVOKE SELECT, INSERT, DELETE")))
	w.Roles(rolesFile)
	if n := testdb.One[int64](w.DB, `SELECT count(*) FROM pg_class WHERE relname LIKE '%likes\_%' AND relname <> 'likes_pkey'`) + testdb.One[int64](w.DB, `SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.likes'::regclass`); n != 0 {
		t.Errorf("%d tables, indexes and triggers are left", n)
	}
	if testdb.One[bool](w.DB, `SELECT has_table_privilege('orphan_cleaner_owner', 'public.likes', 'DELETE')`) {
		t.Error("the owner of our functions may still delete likes")
	}
	for _, args := range []string{"target check " + none, "target print " + none + " --dir " + dir, "check", "run --targets " + none, "status", "report --since " + time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly), "prune", "hold list", "restore --run 1 --execute"} {
		program(t, w.env, strings.Fields(args)...).expect(t, exitDone)
	}
	if diff := left.Diff(w.Snapshot("public.likes")); diff != "" {
		t.Errorf("likes changed:\n%s", diff)
	}
}

// A target whose table was dropped, or has another name now, stops every run until it is retired.
func TestRetireTargetOfADroppedTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 20, 1)
	w.Exec(`CREATE TABLE public.likes (id uuid PRIMARY KEY, user_id uuid NOT NULL)`)
	dir := filepath.Join(t.TempDir(), "targets")
	program(t, w.env, "target", "print", writeTargets(t, "targets:\n  - {name: likes, table: public.likes, user: user_id, key: [id], age: none, action: delete}\n"), "--dir", dir).expect(t, exitDone)
	program(t, w.env, "target", "apply", "--dir", dir).expect(t, exitDone)
	w.Exec(`DROP TABLE public.likes`)
	w.Roles(rolesFile)
	is(t, findings(t, w.env, exitFailed), "table-kind", "FAIL", "likes is registered as a target, and not there", "retire the target, see docs/targets.md")
	program(t, w.env, "target", "print", writeTargets(t, "targets: []\n"), "--dir", dir).expect(t, exitDone)
	program(t, w.env, "target", "apply", "--dir", dir).expect(t, exitDone)
	program(t, w.env, "run").expect(t, exitDone)
}

// A target in a schema of its own, and what check says without the file: which command is missing, from roles.sql to
// a column that the next delete could not back up.
func TestTargetOfAnotherSchema(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 20, 1)
	w.Exec(`CREATE SCHEMA content; CREATE TABLE content.reactions (id uuid PRIMARY KEY, user_id uuid NOT NULL)`)
	w.Roles(rolesFile)
	run := w.envOf(w.Login(runner))
	path, dir := writeTargets(t, "targets:\n  - {name: reactions, table: content.reactions, user: user_id, key: [id], age: none, action: delete, retention: 60d, limits: {delete-share: 0.2, delete-rows: 5}}\n"), filepath.Join(t.TempDir(), "targets")
	program(t, w.env, "target", "print", path, "--dir", dir).expect(t, exitDone)
	text, err := os.ReadFile(filepath.Join(dir, "00002_create_reactions_target.sql"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"-- Makes:    tables orphan_cleaner.reactions_audit and reactions_backup; triggers on content.reactions that audit each DELETE, whoever makes it, and refuse TRUNCATE;\n",
		"-- Runs:     DELETE FROM content.reactions of users who are due, whatever the age of the row\n",
	} {
		if !strings.Contains(string(text), line) {
			t.Errorf("no %s in %.1500s", line, text)
		}
	}
	program(t, w.env, "target", "apply", "--dir", dir).expect(t, exitDone)
	is(t, findings(t, run, exitFailed), "surroundings", "FAIL", "permission denied for schema content", "psql -f sql/roles.sql")
	// What stops status is a right of our functions' owner, and no trigger of the application.
	if e := program(t, run, "status").expect(t, exitFailed); !strings.Contains(e.stderr, "hint: psql -f sql/roles.sql gives role orphan_cleaner_owner, as which this runs, what it lacks") {
		t.Errorf("%s", e)
	}
	w.Roles(rolesFile)
	is(t, findings(t, run, exitDone), "targets", "ok", "2, with the functions and columns that were printed")
	// A pin that is stricter than the target's own limit is what is in force.
	program(t, w.env, "limits", "pin", "delete-share=0.05", "delete-rows=9", "retention=90d").expect(t, exitDone)
	if e := program(t, run, "target", "list").expect(t, exitDone); !strings.Contains(e.stdout, "90d (pinned; 60d in the file)") || !strings.Contains(e.stdout, "delete-rows 5, delete-share 0.05 (pinned; 0.2 in the file)") {
		t.Errorf("%s", e)
	}
	if e := program(t, run, "target", "list", "--json").expect(t, exitDone); strings.Count(e.stdout, `"delete-share": 0.2`) != 1 || strings.Count(e.stdout, `"delete-share": 0.05`) != 1 {
		t.Errorf("%s", e)
	}
	program(t, w.env, "limits", "unpin", "delete-share", "delete-rows", "retention").expect(t, exitDone)
	w.Exec("ALTER TABLE content.reactions ADD COLUMN note text")
	is(t, findings(t, run, exitFailed), "targets", "FAIL", "target reactions: column note is new: its backup was printed for other columns", "orphan-cleaner target print")
	program(t, w.env, "target", "print", path, "--dir", dir).expect(t, exitDone)
	program(t, w.env, "target", "apply", "--dir", dir).expect(t, exitDone)
	w.Roles(rolesFile)
	is(t, findings(t, run, exitDone), "targets", "ok")
	// What somebody changed in the database is made anew by a further migration, and by one only. It cannot go
	// down and up instead: there is evidence.
	w.Exec(`INSERT INTO content.reactions VALUES (gen_random_uuid(), gen_random_uuid()); DELETE FROM content.reactions;
		ALTER FUNCTION orphan_cleaner.reactions_page RESET row_security; DROP FUNCTION orphan_cleaner.reactions_total;
		UPDATE orphan_cleaner.targets SET retention = '1 day' WHERE name = 'reactions'`)
	is(t, findings(t, run, exitFailed), "targets", "FAIL", "its functions are not those that its migration made", "orphan-cleaner target print")
	for _, says := range []string{"/00004_change_reactions_target.sql\n", "nothing to print; not applied: "} {
		if e := program(t, w.env, "target", "print", path, "--dir", dir).expect(t, exitDone); !strings.Contains(e.stdout, says) {
			t.Errorf("not %s: %s", says, e)
		}
	}
	program(t, w.env, "target", "apply", "--dir", dir).expect(t, exitDone)
	w.Roles(rolesFile)
	is(t, findings(t, run, exitDone), "targets", "ok")
	if e := program(t, w.env, "target", "print", path, "--dir", dir).expect(t, exitDone); !strings.Contains(e.stdout, "match the file and the tables, and are applied") {
		t.Errorf("%s", e)
	}
}
