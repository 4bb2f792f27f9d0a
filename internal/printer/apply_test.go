package printer_test

import (
	"slices"
	"testing"

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
