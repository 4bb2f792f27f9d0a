package printer_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/printer"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// step changes the file or the table, and expects what is printed then.
type step struct {
	what     string
	file     func(text string) string
	sql      string
	printed  []string
	has, not []string // in what is printed
}

// A change of the file or of a table prints the difference alone; each goes down to what
// was before, and up again; a folder that begins with the last file makes the same functions.
func TestDifferences(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	text := contentFile
	printed(t, d, dir, text)
	up(t, d, dir)
	in := func(part, with string) func(string) string {
		return func(text string) string { return replaced(t, text, part, with) }
	}
	for _, s := range []step{
		{what: "a limit, and how long backups are kept", file: in("delete-rows: 1000}", "delete-rows: 500}\n    backup: {window: 180d}"), printed: []string{"00006_change_likes_target.sql"}, has: []string{`limits = '{"delete-rows":500}'`, "backup_window = interval '180 days'", "changed: backup window, limits.\n-- Runs:     DELETE FROM "}, not: []string{"CREATE ", "ALTER TABLE"}},
		{what: "the order", file: in("    after: [likes]\n", "    after: [notes]\n"), printed: []string{"00007_order_targets.sql"}},
		{what: "a condition", file: in("deleted_at IS NULL AND", "body <> '' AND deleted_at IS NULL AND"), printed: []string{"00008_change_posts_target.sql"}, has: []string{"posts_page", "posts_undone", "\n-- Runs:     UPDATE content.posts SET ", " older than the retention and (body <> '' AND deleted_at IS NULL AND"}, not: []string{"posts_restore_plan", "posts_set(", "ALTER TABLE"}},
		{what: "a column more in a table", sql: `ALTER TABLE content."Likes" ADD COLUMN "From" jsonb`, printed: []string{"00009_change_likes_target.sql"}, has: []string{`likes_backup ADD COLUMN "From" jsonb`, "likes_restore_chunk"}, not: []string{"likes_page"}},
		{what: "a column less", sql: `ALTER TABLE content."Likes" DROP COLUMN horizon`, printed: []string{"00010_change_likes_target.sql"}, not: []string{"ALTER TABLE"}},
		{what: "the column once more", sql: `ALTER TABLE content."Likes" ADD COLUMN horizon text`, printed: []string{"00011_change_likes_target.sql"}, not: []string{"ALTER TABLE"}},
		{what: "another type", sql: `ALTER TABLE content."Likes" ALTER COLUMN pages TYPE bigint`, printed: []string{"00012_change_likes_target.sql"}, has: []string{"likes_backup ALTER COLUMN pages TYPE bigint USING pages::text::bigint"}},
		{what: "a column more that is set", file: in("set: {deleted_at: now()", "set: {order: \"1\", deleted_at: now()"), printed: []string{"00013_change_posts_target.sql"}, has: []string{"posts_set("}, not: []string{"ALTER TABLE"}},
		{what: "a counter less", file: in("    counter: {table: content.posts, key: {id: postId}, column: Likes}\n", ""), printed: []string{"00014_change_likes_target.sql"}, has: []string{"counter = NULL", "DROP FUNCTION IF EXISTS", "orphan_cleaner.likes_counts", "likes_delete(", "likes_restore_chunk(", "likes_revert_chunk("}, not: []string{"FUNCTION orphan_cleaner.likes_counts", "likes_page", "ALTER TABLE"}},
		{what: "a counter more", file: in("    limits: {delete-rows: 500}\n", "    limits: {delete-rows: 500}\n    counter: {table: content.Boards, key: {id: order, select: day}, column: counted}\n"), printed: []string{"00015_change_likes_target.sql"}, has: []string{`"column":"counted"`, "counter = '{", "FUNCTION orphan_cleaner.likes_counts"}, not: []string{"likes_page"}},
		{what: "another column that counts", file: in("select: day}, column: counted}", "select: day}, column: sign}"), printed: []string{"00016_change_likes_target.sql"}, has: []string{"likes_counts(counted"}, not: []string{"likes_delete(", "likes_restore", "likes_revert", "ALTER TABLE"}},
		{what: "a target less and one more", file: func(text string) string {
			at := strings.Index(text, "  - name: notes")
			return replaced(t, replaced(t, text[:at]+strings.ReplaceAll(text[at:], "notes\n", "memos\n"), "content.memos", "content.notes"), "[notes]", "[memos]")
		}, printed: []string{"00017_drop_notes_target.sql", "00018_create_memos_target.sql", "00019_order_targets.sql"}},
		{what: "nothing", file: func(text string) string { return "# a comment\n" + text }},
	} {
		if s.file != nil {
			text = s.file(text)
		}
		if s.sql != "" {
			d.Exec(s.sql)
		}
		before := dump(t, d)
		names := printed(t, d, dir, text)
		if !slices.Equal(names, s.printed) {
			t.Fatalf("%s: printed %q", s.what, names)
		}
		for _, name := range names {
			migration, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			upPart, _, _ := strings.Cut(string(migration), "-- +goose Down")
			for _, part := range s.has {
				if !strings.Contains(upPart, part) {
					t.Errorf("%s: no %q in %s", s.what, part, upPart)
				}
			}
			for _, part := range s.not {
				if strings.Contains(upPart, part) {
					t.Errorf("%s: %q in %s", s.what, part, upPart)
				}
			}
		}
		up(t, d, dir)
		after := dump(t, d)
		if len(names) > 0 && before.Diff(after) == "" {
			t.Errorf("%s: nothing changed", s.what)
		}
		m := migrator(t, d, dir)
		for range names {
			if _, err := m.Down(t.Context()); err != nil {
				t.Fatalf("%s: %v", s.what, err)
			}
		}
		if diff := before.Diff(dump(t, d)); diff != "" {
			t.Errorf("%s: after down:\n%s", s.what, diff)
		}
		up(t, d, dir)
		if diff := after.Diff(dump(t, d)); diff != "" {
			t.Errorf("%s: after the second up:\n%s", s.what, diff)
		}
		if again := printed(t, d, dir, text); len(again) > 0 {
			t.Errorf("%s: printed again: %q", s.what, again)
		}
	}
	// The same functions as those of a folder that has only the last file.
	const functions = `(SELECT p.oid::regprocedure::text, p.prosrc, p.proconfig FROM pg_proc AS p WHERE p.pronamespace = 'orphan_cleaner'::regnamespace) AS f`
	changed := d.Snapshot(functions)
	if _, err := migrator(t, d, dir).DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	fresh := t.TempDir()
	printed(t, d, fresh, text)
	up(t, d, fresh)
	if diff := changed.Diff(d.Snapshot(functions)); diff != "" {
		t.Errorf("printed step by step and at once differ:\n%s", diff)
	}
}

// What was printed by another version, or was edited since, is brought in line by the next
// print: a function that is not printed any more goes, one that was not printed comes.
func TestOtherFunctions(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	printed(t, d, dir, contentFile)
	path := filepath.Join(dir, "00002_create_likes_target.sql")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.ReplaceAll(string(text), "likes_proof", "likes_evidence")
	edited = strings.Replace(edited, "AND c.first_missing_at <= $2", "", 1)
	// Another result, and other arguments, than those that are printed now.
	edited = strings.Replace(edited, "is_whole boolean, counted jsonb)", "is_whole boolean, was_counted jsonb)", 1)
	edited = strings.Replace(edited, "likes_counts(counted jsonb, sign integer)", "likes_counts(counted jsonb, sign bigint)", 1)
	if err := os.WriteFile(path, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	up(t, d, dir)
	before := dump(t, d)
	if names := printed(t, d, dir, contentFile); !slices.Equal(names, []string{"00006_change_likes_target.sql"}) {
		t.Errorf("%q", names)
	}
	up(t, d, dir)
	if disagree, unapplied, err := printer.Compare(t.Context(), d.Pool, load(t, contentFile)); err != nil || len(disagree)+len(unapplied) > 0 {
		t.Errorf("%q, %q, %v", disagree, unapplied, err)
	}
	if n := d.Count(`pg_proc WHERE proname IN ('likes_evidence', 'likes_counts', 'likes_delete')`); n != 2 {
		t.Errorf("%d functions, and not those 2 that are printed", n)
	}
	if _, err := migrator(t, d, dir).Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := before.Diff(dump(t, d)); diff != "" {
		t.Errorf("after down:\n%s", diff)
	}
}

// A target keeps its table, its action and its user; a folder of other files is refused;
// nothing is written then.
func TestRefusals(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	d.Exec(`CREATE TABLE content.others (id uuid PRIMARY KEY, user_id uuid, run_id uuid); CREATE TABLE content.moved (id uuid PRIMARY KEY, "postId" uuid, user_id uuid, at timestamptz)`)
	d.Exec(`CREATE TABLE content.odd (id uuid PRIMARY KEY, user_id uuid, "a""; $$ b" text)`)
	d.Exec("CREATE TYPE content.\"an '; $$ type\" AS ENUM ('a')")
	d.Exec("CREATE TABLE content.typed (id uuid PRIMARY KEY, user_id uuid, at \"content\".\"an '; $$ type\")")
	printed(t, d, dir, contentFile)
	one := func(table, rest string) string {
		return "targets:\n  - {name: others, table: content." + table + ", user: user_id, key: [id], age: none, " + rest + "}\n"
	}
	likes := replaced(t, contentFile, "table: content.Likes", "table: content.moved")
	likes = replaced(t, likes, "key: [postId, user_id]\n    age: created_at", "key: [id]\n    age: at")
	for _, c := range []struct{ text, says string }{
		{likes, ":3:12: target likes was printed for content.\"Likes\": its backups are of that; give the target of content.moved another name"},
		{replaced(t, contentFile, "    age: created_at\n    action: delete\n", "    age: created_at\n    action: update\n    where: kind <> 'x'\n    set: {kind: \"'x'\"}\n"), ":7:13: target likes was printed with action delete"},
		{one("others", "action: delete"), ":2:27: content.others.run_id has the name of a column that the backup has itself: rename it"},
		{one("odd", "action: delete"), `:2:27: content.odd has the column "a\"; $$ b": a migration names columns of letters, digits and _ only`},
		{one("typed", "action: delete"), `content.typed.at is "content.\"an '; $$ type\"": a migration names types of letters`},
	} {
		_, err := try(t, d, dir, c.text)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, not %s", err, c.says)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 6 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "00001_create_users.sql"), []byte("-- +goose Up\nSELECT 1;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := try(t, d, foreign, contentFile); err == nil || !strings.Contains(err.Error(), "00001_create_users.sql: not printed by orphan-cleaner: --dir names a folder for printed migrations alone") {
		t.Errorf("%v", err)
	}
}
