package target

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// messaging is a database with testdata/messaging.sql.
func messaging(t *testing.T, db *testdb.DB) *testdb.DB {
	t.Helper()
	text, err := os.ReadFile("testdata/messaging.sql")
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(string(text))
	return db
}

// file loads a text as targets.yaml.
func file(t *testing.T, text string) (File, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "targets.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			if !strings.HasPrefix(line, path+":") {
				t.Errorf("a line without its place: %v", err)
			}
		}
	}
	return f, err
}

func loaded(t *testing.T, text string) File {
	t.Helper()
	f, err := file(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The fourteen references, each by what tells it, and no other column.
var fourteen = []string{
	"content.bookmarks.user_id name values 10 of 10",
	"content.comments.user_id name 0 of 0",
	"content.likes.user_id name 0 of 0",
	"content.polls.picked values 10 of 20",
	"content.posts.author_id name values 10 of 10",
	"content.posts.moderated_by name 0 of 0",
	"content.shares.shared_by name 0 of 0",
	"public.experiment_assignments.unit values 30 of 30",
	"public.message_reactions.user_id name 0 of 0",
	"public.message_read_receipts.userId name 0 of 0",
	"public.messages.sender_id name values 60 of 80",
	"public.metrics.subject values 30 of 100",
	"streaming.stream_keys.holder foreign-key 0 of 0",
	"streaming.viewer_sessions.viewer_id name values 20 of 20",
}

func left(found References) (lines []string) {
	for _, r := range found.Left {
		known := "not sampled"
		if r.Sampled != nil {
			known = fmt.Sprintf("%d of %d", *r.Known, *r.Sampled)
		}
		lines = append(lines, r.Column+" "+strings.Join(r.Reasons, " ")+" "+known)
	}
	return lines
}

func find(t *testing.T, f File, pool *pgxpool.Pool) References {
	t.Helper()
	found, err := f.FindReferences(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFindReferences(t *testing.T) {
	t.Parallel()
	// Before the first migration and with all of them: our own tables are none.
	for name, db := range map[string]*testdb.DB{"migrated": messaging(t, testdb.New(t)), "bare": messaging(t, testdb.NewBare(t))} {
		found := find(t, File{}, db.Pool)
		if got := left(found); !slices.Equal(got, fourteen) {
			t.Errorf("%s: found\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(fourteen, "\n"))
		}
		if !slices.Equal(found.Targets, []string{"public.conversation_members.user_id"}) || len(found.Unsampled) > 0 {
			t.Errorf("%s: targets %v, unsampled %v", name, found.Targets, found.Unsampled)
		}
		for _, r := range found.Left {
			if r.Column == "public.messages.sender_id" && (r.RowsEstimate == nil || *r.RowsEstimate != 80) {
				t.Errorf("%s: %s has the estimate %v", name, r.Column, r.RowsEstimate)
			}
		}
	}
}

// What is printed for the file is a file, and leaves nothing.
func TestStanzasAreAFile(t *testing.T) {
	t.Parallel()
	db := messaging(t, testdb.New(t))
	targets, ignored := "", ""
	for _, r := range find(t, File{}, db.Pool).Left {
		if strings.HasPrefix(r.Stanza, "- name:") {
			targets += r.Stanza
		} else {
			ignored += r.Stanza
		}
	}
	f := loaded(t, "targets:\n"+targets+"ignore:\n"+ignored)
	if len(f.Targets) != 9 || len(f.Ignored) != 5 { // a text, an array, a domain, no key, partitioned
		t.Errorf("%d targets and %d ignored:\n%s%s", len(f.Targets), len(f.Ignored), targets, ignored)
	}
	if got := left(find(t, f, db.Pool)); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	notes, err := f.Validate(t.Context(), db.Pool, 0)
	if err != nil || len(notes) != 2 || !strings.HasPrefix(notes[0], "posts_moderated_by: not shown") || !strings.HasPrefix(notes[1], "stream_keys_holder: not shown") {
		t.Errorf("%v %v in\n%s", notes, err, targets)
	}
}

// What can be no target, since its names cannot be printed or are those of our own columns, is there to be ignored;
// a name is one that a target may have.
func TestStanzasOfOddNames(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec(`CREATE TABLE public."User Notes" (id uuid PRIMARY KEY, user_id uuid NOT NULL);
		CREATE TABLE public.reviews (id uuid PRIMARY KEY, deleted_by uuid);
		CREATE TABLE public.installs (application uuid, txid bigint, user_id uuid NOT NULL, PRIMARY KEY (application, txid));
		CREATE TABLE public._2fa (id uuid PRIMARY KEY, user_id uuid NOT NULL, run_id uuid);
		CREATE TABLE public.pages (id uuid PRIMARY KEY, author_id uuid GENERATED ALWAYS AS (id) STORED);
		ALTER TABLE public.conversation_members ADD COLUMN added_by uuid NOT NULL DEFAULT gen_random_uuid()`)
	targets, ignored := "", ""
	for _, r := range find(t, File{}, db.Pool).Left {
		if strings.HasPrefix(r.Stanza, "- name:") {
			targets += r.Stanza
		} else {
			ignored += r.Stanza
		}
	}
	f := loaded(t, "ignore:\n"+ignored)
	if got := left(find(t, f, db.Pool)); targets != "" || len(f.Ignored) != 6 || len(got) > 0 || !strings.Contains(strings.Join(strings.Fields(ignored), " "), "public.reviews.deleted_by has the name of a column that the audit has itself") {
		t.Errorf("left: %v\n%s%s", got, targets, ignored)
	}
	db.Exec("ALTER TABLE public._2fa DROP COLUMN run_id")
	now := find(t, File{}, db.Pool).Left
	f = loaded(t, "targets:\n"+now[slices.IndexFunc(now, func(r Reference) bool { return r.Column == "public._2fa.user_id" })].Stanza)
	if _, err := f.Shapes(t.Context(), db.Pool); err != nil || f.Targets[0].Name != "fa" {
		t.Errorf("%v of %+v", err, f.Targets)
	}
}

// Without the shadow table its foreign keys are gone, too, and members alone are known.
func TestFindReferencesWithoutShadow(t *testing.T) {
	t.Parallel()
	db := messaging(t, testdb.New(t))
	db.Exec("DROP TABLE public.users CASCADE")
	want := slices.DeleteFunc(slices.Clone(fourteen), func(line string) bool { return strings.Contains(line, "foreign-key") })
	if got := left(find(t, File{}, db.Pool)); !slices.Equal(got, want) {
		t.Errorf("found\n%s", strings.Join(got, "\n"))
	}
}

// The runner's role reads members and nothing else: names and foreign keys still tell, and
// for the rest it is said what is lacking.
func TestFindReferencesAsRunner(t *testing.T) {
	t.Parallel()
	db := messaging(t, testdb.New(t))
	db.Roles("../../sql/roles.sql")
	pool, err := pgxpool.New(t.Context(), db.Login("orphan_cleaner_runner"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	login := pool.Config().ConnConfig.User
	found := find(t, File{}, pool)
	for _, r := range found.Left {
		if r.Sampled != nil || !strings.Contains(r.NotSampled, "GRANT SELECT (") || !strings.HasSuffix(r.NotSampled, " TO "+login) {
			t.Errorf("%s: sampled %v, %q", r.Column, r.Sampled, r.NotSampled)
		}
	}
	unsampled := fmt.Sprint(found.Unsampled)
	for _, column := range []string{"public.metrics.subject", "content.polls.picked", "public.experiment_assignments.unit"} {
		if !strings.Contains(unsampled, column) {
			t.Errorf("%s is not said to be unsampled: %s", column, unsampled)
		}
	}
	if got := left(found); len(got) != 12 { // eleven, and a text by its name that nobody saw: content.posts.author
		t.Errorf("%d: %v", len(got), got)
	}
	// The grants that it names are enough.
	for _, u := range found.Unsampled {
		for grant := range strings.SplitSeq(u.Reason, "; ") {
			db.Exec(grant)
		}
	}
	for _, r := range found.Left {
		for grant := range strings.SplitSeq(r.NotSampled, "; ") {
			db.Exec(grant)
		}
	}
	again := find(t, File{}, pool)
	columns := func(lines []string) (names []string) {
		for _, line := range lines {
			names = append(names, strings.Fields(line)[0])
		}
		return names
	}
	if got := columns(left(again)); !slices.Equal(got, columns(fourteen)) || len(again.Unsampled) > 0 {
		t.Errorf("with the grants: %v, unsampled %v", got, again.Unsampled)
	}
}

// A table that somebody has locked, a policy and hostile names: said, not waited for.
func TestFindReferencesMeetsTrouble(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec(`CREATE TABLE public."x""; DROP TABLE conversations; --" (id uuid PRIMARY KEY, "user_id'; SELECT" uuid, "%s %I_user_id" uuid)`)
	db.Exec(`CREATE TABLE public.locked (user_id uuid)`)
	tx, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE public.locked"); err != nil {
		t.Fatal(err)
	}
	found := find(t, File{}, db.Pool)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := left(found); len(got) != 2 || !strings.HasPrefix(got[0], "public.locked.user_id name not sampled") || !strings.HasPrefix(got[1], `public.x"; DROP TABLE conversations; --.%s %I_user_id name 0 of 0`) {
		t.Errorf("%q", got)
	}
	if !strings.Contains(found.Left[0].NotSampled, "lock timeout") {
		t.Errorf("%q", found.Left[0].NotSampled)
	}
}
