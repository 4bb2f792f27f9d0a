package printer_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// What is printed goes up, down to nothing of ours, and up again to the same; printed again
// it is nothing.
func TestUpDownUp(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	names := printed(t, d, dir, contentFile)
	want := []string{"00001_index_likes.sql", "00002_create_likes_target.sql", "00003_index_posts.sql", "00004_create_posts_target.sql", "00005_create_notes_target.sql"}
	if !slices.Equal(names, want) {
		t.Errorf("printed: %q", names)
	}
	if again := printed(t, d, dir, contentFile); len(again) > 0 {
		t.Errorf("printed again: %q", again)
	}
	m := migrator(t, d, dir)
	if _, err := m.GetDBVersion(t.Context()); err != nil {
		t.Fatal(err)
	}
	bare := dump(t, d)
	up(t, d, dir)
	first := dump(t, d)
	if again := printed(t, d, dir, contentFile); len(again) > 0 {
		t.Errorf("printed once applied: %q", again)
	}
	if _, err := m.DownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if diff := bare.Diff(dump(t, d)); diff != "" {
		t.Errorf("after down:\n%s", diff)
	}
	up(t, d, dir)
	if diff := first.Diff(dump(t, d)); diff != "" {
		t.Errorf("after the second up:\n%s", diff)
	}
}

// A migration that would be recorded in the application's version table, or that psql reads, is refused at its
// beginning, whichever it is, and nothing changes: psql would run Up and Down.
func TestAppliedOtherwise(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(content)
	names := printed(t, d, dir, contentFile)
	before := dump(t, d)
	psql := func(name string, flags ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), testdb.Program(t, d.Cluster(), "psql"), append(flags, "-X", "-q", "-d", d.URL, "-f", filepath.Join(dir, name))...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "refusing to migrate: psql would run Up and Down") || !strings.Contains(string(out), "orphan-cleaner target apply --dir DIR") {
			t.Errorf("%s %q: %v: %s", name, flags, err, out)
		}
	}
	for _, name := range names {
		psql(name)
	}
	if diff := before.Diff(dump(t, d)); diff != "" {
		t.Errorf("psql changed:\n%s", diff)
	}
	others, err := goose.NewProvider(goose.DialectPostgres, sqlOpen(t, d.URL), os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := others.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "refusing to migrate: these migrations would be recorded in another version table") {
		t.Errorf("%v", err)
	}
	if n := d.Count(`public.goose_db_version WHERE version_id > 0`); n != 0 {
		t.Errorf("%d are recorded with the application's", n)
	}
	up(t, d, dir)
	after := dump(t, d)
	psql(names[1], "-1")
	psql(names[4])
	if diff := after.Diff(dump(t, d)); diff != "" {
		t.Errorf("psql changed:\n%s", diff)
	}
}
