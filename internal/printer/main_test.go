package printer_test

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	"github.com/pressly/goose/v3"

	"github.com/nova-social/orphan-cleaner/internal/printer"
	"github.com/nova-social/orphan-cleaner/internal/target"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// content are the tables of a content service, with what a table can have.
const content = `
CREATE SCHEMA content;
CREATE TYPE content.state AS ENUM ('live', 'gone');
CREATE TABLE content.posts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), author_id uuid, body varchar(200) NOT NULL DEFAULT 'text', state content.state NOT NULL DEFAULT 'live', "order" integer, "Likes" smallint,
    created_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz, read_at timestamptz, is_gone boolean GENERATED ALWAYS AS (deleted_at IS NOT NULL) STORED
);
CREATE TABLE content."Likes" (
    "postId" uuid NOT NULL, user_id uuid NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), kind text NOT NULL DEFAULT 'heart', "order" numeric(10, 2), day date,
    horizon text, chosen text, happened_at timestamptz, pages integer, users text,
    twice numeric GENERATED ALWAYS AS ("order" * 2) STORED, PRIMARY KEY ("postId", user_id)
);
CREATE TABLE content.notes (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id uuid, note text, "boardId" numeric(10,2), day date);
CREATE TABLE content."Boards" (id numeric(10,2) NOT NULL, "select" date NOT NULL, counted bigint, sign numeric(4), difference text, PRIMARY KEY (id, "select"));
CREATE INDEX notes_user_id ON content.notes (user_id);
`

const contentFile = `targets:
  - name: likes
    table: content.Likes
    user: user_id
    key: [postId, user_id]
    age: created_at
    action: delete
    limits: {delete-rows: 1000}
    counter: {table: content.posts, key: {id: postId}, column: Likes}
  - name: posts
    table: content.posts
    user: author_id
    key: [id]
    age: created_at
    activity: read_at
    action: update
    where: deleted_at IS NULL AND posts.state <> 'gone'
    set: {deleted_at: now(), state: "'gone'", body: "'removed: ' || left(body, 5)", author_id: "NULL"}
    after: [likes]
    retention: 90d
    backup: {columns: [order]}
  - name: notes
    table: content.notes
    user: user_id
    key: [n]
    age: none
    action: delete
    where: note IS DISTINCT FROM 'keep'
    counter: {table: content.Boards, key: {select: day, id: boardId}, column: sign}
`

// load reads a file of that text.
func load(t *testing.T, text string) target.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "targets.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := target.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// try prints a file into a folder and says which migrations were added.
func try(t *testing.T, d *testdb.DB, dir, text string) ([]string, error) {
	t.Helper()
	file := load(t, text)
	if _, err := file.Validate(t.Context(), d.Pool, 30*24*time.Hour); err != nil {
		return nil, err
	}
	shapes, err := file.Shapes(t.Context(), d.Pool)
	if err != nil {
		return nil, err
	}
	folder, err := printer.Read(dir)
	if err != nil {
		return nil, err
	}
	files, err := folder.Print(file, shapes)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	return names, folder.Write(files)
}

func printed(t *testing.T, d *testdb.DB, dir, text string) []string {
	t.Helper()
	names, err := try(t, d, dir, text)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// migrator applies what a folder holds.
func migrator(t *testing.T, d *testdb.DB, dir string) *goose.Provider {
	t.Helper()
	return migratorAs(t, d.URL, dir)
}

func sqlOpen(t *testing.T, url string) *sql.DB {
	t.Helper()
	handle, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := handle.Close(); err != nil {
			t.Error(err)
		}
	})
	return handle
}

func migratorAs(t *testing.T, url, dir string) *goose.Provider {
	t.Helper()
	provider, err := goose.NewProvider(goose.DialectPostgres, sqlOpen(t, url), os.DirFS(dir), goose.WithTableName(printer.VersionTable))
	if err != nil {
		t.Fatal(err)
	}
	return provider
}

func up(t *testing.T, d *testdb.DB, dir string) {
	t.Helper()
	if _, err := migrator(t, d, dir).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// replaced is a text with one part replaced, which must be there.
func replaced(t *testing.T, text, part, with string) string {
	t.Helper()
	if strings.Count(text, part) != 1 {
		t.Fatalf("%q is there %d times", part, strings.Count(text, part))
	}
	return strings.Replace(text, part, with, 1)
}

// dump is the schema of the database, and the registry.
func dump(t *testing.T, d *testdb.DB) testdb.Snapshot {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), testdb.Program(t, d.Cluster(), "pg_dump"), "--schema-only", "--restrict-key=x", d.URL).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	return append(lines, d.Snapshot("(SELECT name, ordinal, table_name, user_column, action, retention, limits, counter, digest FROM orphan_cleaner.targets) AS t")...)
}
