package printer_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/printer"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// File, registry and functions agree once all is applied, and whatever is changed in one of
// them alone is named, in a line.
func TestCompare(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	compare := func(text string) (disagree, unapplied []string) {
		t.Helper()
		disagree, unapplied, err := printer.Compare(t.Context(), d.Pool, load(t, text))
		if err != nil {
			t.Fatal(err)
		}
		return disagree, unapplied
	}
	if disagree, unapplied := compare(contentFile); len(disagree) != 0 || len(unapplied) != 3 || !strings.Contains(unapplied[0], "target likes is in the file and not in the registry") {
		t.Errorf("before up: %q, %q", disagree, unapplied)
	}
	printed(t, d, dir, contentFile)
	up(t, d, dir)
	agree := func(what string) {
		t.Helper()
		if disagree, unapplied := compare(contentFile); len(disagree)+len(unapplied) != 0 {
			t.Errorf("%s: %q, %q", what, disagree, unapplied)
		}
	}
	agree("applied")
	withoutNotes, _, _ := strings.Cut(contentFile, "  - name: notes")
	for _, c := range []struct{ what, text, sql, undo, says string }{
		{"a limit", replaced(t, contentFile, "delete-rows: 1000", "delete-rows: 999"), "", "", "target likes: retention, limits or backup window are not those of the file"},
		{"a retention in the registry", contentFile, `UPDATE orphan_cleaner.targets SET retention = '40 days' WHERE name = 'posts'`, `UPDATE orphan_cleaner.targets SET retention = '90 days' WHERE name = 'posts'`, "target posts: retention, limits or backup window"},
		{"a backup window", replaced(t, contentFile, "{columns: [order]}", "{columns: [order], window: 120d}"), "", "", "target posts: retention, limits or backup window"},
		{"a condition", replaced(t, contentFile, "note IS DISTINCT FROM 'keep'", "note <> 'keep'"), "", "", "target notes: the file or the table changed since"},
		{"a column", contentFile, `ALTER TABLE content.notes ADD COLUMN more text`, `ALTER TABLE content.notes DROP COLUMN more`, "target notes: the file or the table changed since"},
		{"a setting of a function", contentFile, `ALTER FUNCTION orphan_cleaner.likes_page RESET row_security`, "", "target likes: its functions are not those that its migration made"},
		{"a function that is gone", contentFile, `DROP FUNCTION orphan_cleaner.posts_undone`, "", "target posts: its functions are not those"},
		{"a target more in the registry", withoutNotes, "", "", "target notes is in the registry and not in the file"},
		{"another order", replaced(t, contentFile, "    after: [likes]\n", "    after: [notes]\n"), "", "", "the targets are swept in the order [likes posts notes], and [likes notes posts] in the file"},
	} {
		if c.sql != "" {
			d.Exec(c.sql)
		}
		disagree, _ := compare(c.text)
		if !strings.Contains(strings.Join(disagree, "\n"), c.says) || strings.Contains(strings.Join(disagree, ""), "\n") {
			t.Errorf("%s: %q", c.what, disagree)
		}
		if c.undo != "" {
			d.Exec(c.undo)
			disagree, _ = compare(contentFile)
			if strings.Contains(strings.Join(disagree, "\n"), c.says) {
				t.Errorf("%s, undone: %q", c.what, disagree)
			}
		}
	}
	// Down and up again makes the functions anew.
	if _, err := migrator(t, d, dir).DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	up(t, d, dir)
	agree("down and up again")
}

// A column that an update keeps, and that is of another type or gone, is named without the file; one that it leaves alone is not.
func TestDriftedUpdate(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	printed(t, d, dir, contentFile)
	up(t, d, dir)
	for _, c := range []struct{ sql, differ string }{
		{`ALTER TABLE content.posts ADD more text, ALTER "Likes" TYPE integer`, ""},
		{`ALTER TABLE content.posts ALTER state DROP DEFAULT, ALTER state TYPE text`, "column state is text, and was content.state"},
		{`ALTER TABLE content.posts RENAME author_id TO author`, "column author_id is gone, column state is text, and was content.state"},
	} {
		d.Exec(c.sql)
		registry, err := database.Once(t.Context(), d.Pool, pgx.ReadOnly, printer.Registry)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range registry {
			if r.Name == "posts" && r.Columns != c.differ || r.Name != "posts" && r.Columns != "" {
				t.Errorf("%s: %s: %q", c.sql, r.Name, r.Columns)
			}
		}
	}
}
