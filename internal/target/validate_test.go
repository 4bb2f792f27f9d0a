package target

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// content has a table for each thing that a target can be, and cannot.
const content = `
CREATE SCHEMA content;
CREATE TYPE content.state AS ENUM ('live', 'gone');
CREATE TABLE content.posts (
    id uuid PRIMARY KEY, author_id uuid, body text NOT NULL, state content.state NOT NULL DEFAULT 'live', "order" integer, edits integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(), deleted_at timestamptz, made_at timestamp, is_gone boolean GENERATED ALWAYS AS (deleted_at IS NOT NULL) STORED
);
INSERT INTO content.posts (id, author_id, body) SELECT gen_random_uuid(), gen_random_uuid(), 'post' FROM generate_series(1, 10);
CREATE TABLE content.comments (
    id uuid PRIMARY KEY, post_id uuid REFERENCES content.posts (id) ON DELETE CASCADE, parent uuid REFERENCES content.comments (id) ON DELETE CASCADE, user_id uuid
);
CREATE TABLE content.likes (post_id uuid NOT NULL REFERENCES content.posts (id) ON DELETE CASCADE, user_id uuid NOT NULL, at timestamptz, a uuid, b uuid, c uuid NOT NULL, d uuid NOT NULL, e uuid NOT NULL);
CREATE UNIQUE INDEX likes_key ON content.likes (post_id, user_id) INCLUDE (at);
CREATE UNIQUE INDEX likes_null ON content.likes (a);
CREATE UNIQUE INDEX likes_part ON content.likes (c) WHERE at IS NULL;
ALTER TABLE content.likes ADD CONSTRAINT likes_late UNIQUE (d) DEFERRABLE;
CREATE UNIQUE INDEX likes_expression ON content.likes ((e::text));
CREATE UNIQUE INDEX likes_mixed ON content.likes (e, (c::text));
CREATE TABLE content."Shares" ("userId" uuid NOT NULL, "order" text PRIMARY KEY, "day" date, "boardId" uuid, names text []);
CREATE TABLE content.parts (id uuid, user_id uuid) PARTITION BY HASH (id);
CREATE TABLE content.part PARTITION OF content.parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE content.parent (id uuid PRIMARY KEY, user_id uuid);
CREATE TABLE content.child () INHERITS (content.parent);
CREATE VIEW content.seen AS SELECT * FROM content.likes;
CREATE MATERIALIZED VIEW content.kept AS SELECT * FROM content.likes;
CREATE EXTENSION postgres_fdw;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
CREATE FOREIGN TABLE content.remote (id uuid, user_id uuid) SERVER elsewhere;
CREATE TABLE content.boards (
    id uuid PRIMARY KEY, name text, owner uuid, day date NOT NULL, likes integer, posts numeric(9), share real, names text [], twice integer GENERATED ALWAYS AS (likes * 2) STORED,
    UNIQUE (owner, day), UNIQUE (names)
);
CREATE VIEW content.board AS SELECT * FROM content.boards;
CREATE TABLE content.plain (id uuid PRIMARY KEY, user_id uuid, edits integer);
CREATE FUNCTION content.evil() RETURNS boolean LANGUAGE sql AS 'SELECT true';
`

// one is a file of one target; further lines are given in its place.
func one(table, action string, more ...string) string {
	text := "targets:\n  - name: it\n    table: " + table + "\n    user: user_id\n    key: [id]\n    age: none\n    action: " + action + "\n"
	for _, line := range more {
		key, _, _ := strings.Cut(line, ":")
		kept := ""
		for old := range strings.Lines(text) {
			if !strings.HasPrefix(strings.TrimLeft(old, " -"), key+":") {
				kept += old
			}
		}
		text = kept + "    " + line + "\n"
	}
	return text
}

const author, softly = "user: author_id", "where: deleted_at IS NULL"

func TestValidate(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec(content)
	before := db.Snapshot("content.posts")
	for _, good := range []string{
		one("content.posts", "update", author, softly, "set: {deleted_at: now(), body: \"''\", author_id: NULL, edits: edits + 1}", "age: created_at", "activity: created_at", "retention: 60d"),
		// By a generated column and by an enum: what the row becomes counts, not what set says.
		one("content.posts", "update", author, "where: NOT is_gone", "set: {deleted_at: now()}"),
		one("content.posts", "update", author, "where: state <> 'gone'", "set: {state: \"'gone'\"}"),
		one("content.posts", "update", author, "where: author_id IS NOT NULL AND body <> '100 %s %I'", "set: {author_id: NULL}"),
		one("content.likes", "delete", "key: [user_id, post_id]"),
		one(`content.Shares`, "delete", "user: userId", "key: [order]", `where: '"userId" IS NOT NULL AND "order" <> ''%s'''`),
	} {
		f := loaded(t, good)
		if notes, err := f.Validate(t.Context(), db.Pool, 30*24*time.Hour); err != nil || len(notes) > 0 {
			t.Errorf("%s\n%v %v", good, notes, err)
		}
	}
	for _, c := range []struct{ text, at, says string }{
		{one("content.nothing", "delete"), "3:12", "there is no such table"},
		{one("content.parts", "delete"), "3:12", "it is partitioned"},
		{one("orphan_cleaner.candidates", "delete"), "3:12", "it is a record of runs"},
		{one("content.part", "delete"), "3:12", "it is a partition"},
		{one("content.parent", "delete"), "3:12", "inherited from"},
		{one("content.child", "delete"), "3:12", "it inherits"},
		{one("content.seen", "delete"), "3:12", "it is a view"},
		{one("content.kept", "delete"), "3:12", "it is a view"},
		{one("content.remote", "delete"), "3:12", "it is a foreign table"},
		{one("content.likes_key", "delete"), "3:12", "it is no table"},
		{one("content.SHARES", "delete"), "3:12", "there is no such table"},
		{one("content.posts", "delete"), "4:11", "has no column user_id"},
		{one("content.posts", "delete", "user: body"), "7:11", "content.posts.body is text: it must be uuid"},
		{one("content.posts", "delete", author, "age: made_at"), "7:10", "is timestamp without time zone: it must be timestamp with time zone"},
		{one("content.posts", "delete", author, "activity: edits"), "8:15", "is integer"},
		{one("content.likes", "delete"), "5:11", "has no column id"},
		{one("content.likes", "delete", "key: [a]"), "7:11", "can be null"},
		{one("content.likes", "delete", "key: [c]"), "7:10", "no primary key and no valid, whole unique index"},
		{one("content.likes", "delete", "key: [d]"), "7:10", "no primary key"},
		{one("content.likes", "delete", "key: [e]"), "7:10", "no primary key"},
		{one("content.likes", "delete", "key: [post_id]"), "7:10", "no primary key"},
		{one("content.likes", "delete", "key: [post_id, user_id, c]"), "7:10", "no primary key"},
		{one("content.posts", "update", author, softly, "set: {nothing: 1}"), "9:20", "has no column nothing"},
		{one("content.posts", "update", author, softly, "set: {deleted_at: now()}", "backup: {columns: [id, nothing]}"), "10:28", "has no column nothing"},
		{one("content.posts", "update", author, softly, "set: {deleted_at: id}"), "9:23", `column "deleted_at" is of type timestamp with time zone but expression is of type uuid`},
		{one("content.posts", "update", author, softly, "set: {deleted_at: nowhere}"), "9:23", `column "nowhere" does not exist`},
		{one("content.posts", "update", author, softly, "set: {deleted_at: now(), body: deleted}"), "9:36", `column "deleted" does not exist: a text is quoted twice, for YAML and for SQL: "'deleted'"`},
		{one("content.posts", "update", author, softly, "set: {deleted_at: now(), body: deleted user}"), "9:36", `syntax error at or near "user": a text is quoted twice, for YAML and for SQL: "'deleted user'"`},
		{one("content.posts", "update", author, softly, "set: {is_gone: true}"), "9:20", "can only be updated to DEFAULT"},
		{one("content.posts", "update", author, softly, "set: {state: \"'dead'\"}"), "9:18", "invalid input value for enum"},
		{one("content.plain", "delete", "where: edits"), "8:12", "must be type boolean, not type integer"},
		{one("content.plain", "delete", "where: a b c"), "8:12", "syntax error"},
		{one("content.plain", "delete", "where: sum = 1 AND edits"), "8:12", "does not exist"},
		{one("content.posts", "update", author, "where: edits >= 0", "set: {edits: edits + 1}"), "8:12", "where is still true after set"},
		// False at the moment of set, and true in the next run.
		{one("content.posts", "update", author, "where: deleted_at IS DISTINCT FROM now()", "set: {deleted_at: now()}"), "8:12", "where is still true after set"},
		{one("content.posts", "update", author, "where: deleted_at IS DISTINCT FROM current_timestamp", "set: {deleted_at: Now ( )}"), "8:12", "where is still true after set"},
		{one("content.posts", "update", author, "where: false", "set: {deleted_at: now()}"), "8:12", "where names no column: it finds every row or none"},
		{one("content.posts", "update", author, "where: \"now() < 'infinity'\"", "set: {deleted_at: now()}"), "8:12", "where names no column"},
		{one("content.Shares", "delete", "user: userId", "key: [order]", "where: userId IS NOT NULL"), "8:12", `column "userid" does not exist: correct it; a name with capitals is in double quotes, '"userId" …'`},
		{one("content.posts", "update", author, softly, "set: {deleted_at: now(), body: NULL}"), "9:10", "violates not-null constraint"},
		{one("content.posts", "delete", author, "retention: 29d"), "8:16", "29d is shorter than the run's, 30d"},
		{one("content.posts", "delete", author), "2:5", "content.comments, too, by the foreign key comments_post_id_fkey ON DELETE CASCADE"},
		{one("content.comments", "delete"), "2:5", "content.comments, too, by the foreign key comments_parent_fkey"},
		{"ignore:\n  - {column: content.posts.user_id, reason: staff}", "2:14", "there is no column content.posts.user_id"},
	} {
		notes, err := loaded(t, c.text).Validate(t.Context(), db.Pool, 30*24*time.Hour)
		if of, is := errors.AsType[*Error](err); !is || !strings.Contains(err.Error(), "targets.yaml:"+c.at+": ") || !strings.Contains(of.Message, c.says) {
			t.Errorf("%s%v %v; want :%s: … %s", c.text, notes, err, c.at, c.says)
		}
	}
	// Each wrong entry, not the first alone.
	text := one("content.posts", "delete") + strings.Replace(strings.TrimPrefix(one("content.seen", "delete"), "targets:\n"), "name: it", "name: other", 1) + "ignore:\n  - {column: content.posts.nothing, reason: staff}"
	if _, err := loaded(t, text).Validate(t.Context(), db.Pool, 30*24*time.Hour); err == nil || strings.Count(err.Error(), "\n") != 2 || !strings.Contains(err.Error(), ":9:12: content.seen cannot") {
		t.Errorf("%v", err)
	}
	if diff := before.Diff(db.Snapshot("content.posts")); diff != "" {
		t.Errorf("rows changed:\n%s", diff)
	}
}

// A counter is a number that can be set, found by a unique key of the same types, in an ordinary
// table whose rows no target deletes.
func TestValidateCounter(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec(content)
	shares := func(counter string) string {
		return one("content.Shares", "delete", "user: userId", "key: [order]", "counter: "+counter)
	}
	const boards = "{table: content.boards, key: {id: boardId}, column: likes}"
	for _, good := range []string{
		boards, "{table: content.boards, key: {day: day, owner: userId}, column: posts}", "{table: public.conversations, key: {id: boardId}, column: member_count}",
	} {
		f := loaded(t, shares(good))
		if _, err := f.Validate(t.Context(), db.Pool, 0); err != nil {
			t.Errorf("%s: %v", good, err)
		}
		if _, err := f.Shapes(t.Context(), db.Pool); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, c := range []struct{ counter, at, says string }{
		{"{table: content.nothing, key: {id: boardId}, column: likes}", "8:22", "content.nothing can have no counter, there is no such table: name an ordinary table"},
		{"{table: content.board, key: {id: boardId}, column: likes}", "8:22", "it is a view"},
		{"{table: content.parts, key: {id: boardId}, column: user_id}", "8:22", "it is partitioned"},
		{"{table: content.Shares, key: {order: order}, column: day}", "8:22", "is the target's own table: its rows would change while they are cleaned; count in another table"},
		{"{table: public.conversation_members, key: {user_id: userId, conversation_id: boardId}, column: role}", "8:22", "rows of public.conversation_members are deleted by target conversation_members, and its restore brings back the count of that time: count in another table"},
		{"{table: content.boards, key: {id: boardId}, column: nothing}", "8:66", "content.boards has no column nothing"},
		{"{table: content.boards, key: {id: boardId}, column: share}", "8:66", "content.boards.share is real: a count is smallint, integer, bigint or numeric"},
		{"{table: content.boards, key: {id: boardId}, column: name}", "8:66", "content.boards.name is text"},
		{"{table: content.boards, key: {id: boardId}, column: twice}", "8:66", "content.boards.twice is generated"},
		{"{table: content.boards, key: {nothing: boardId}, column: likes}", "8:53", "content.boards has no column nothing"},
		{"{table: content.boards, key: {id: nothing}, column: likes}", "8:48", "content.Shares has no column nothing"},
		{"{table: content.boards, key: {id: order}, column: likes}", "8:48", "content.Shares.order is text, and content.boards.id is uuid: they must be of one type"},
		{"{table: content.boards, key: {day: day}, column: likes}", "8:43", "content.boards has no primary key and no valid, whole unique index of exactly [day]"},
		{"{table: content.boards, key: {id: boardId, day: day}, column: likes}", "8:43", "exactly [id day]"},
		{"{table: content.boards, key: {names: names}, column: likes}", "8:51", "an array"},
	} {
		_, err := loaded(t, shares(c.counter)).Validate(t.Context(), db.Pool, 0)
		if of, is := errors.AsType[*Error](err); !is || !strings.Contains(err.Error(), "targets.yaml:"+c.at+": ") || !strings.Contains(of.Message, c.says) || strings.Contains(of.Message, "\n") {
			t.Errorf("%s: %v; want :%s: … %s", c.counter, err, c.at, c.says)
		}
	}
	for more, says := range map[string]string{
		"  - {name: boards, table: content.boards, user: owner, key: [id], age: none, action: delete}\n":                                                         "deleted by target boards",
		"  - {name: boards, table: content.boards, user: owner, key: [id], age: none, action: update, where: owner IS NOT NULL, set: {owner: NULL, likes: 0}}\n": "content.boards.likes is set by target boards, which restores it only while it is as it was set: take it out of its set",
	} {
		_, err := loaded(t, shares(boards)+more).Validate(t.Context(), db.Pool, 0)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want %s", err, says)
		}
	}
}

// A table that a delete cascades into has to be swept before, and by deletes.
func TestValidateCascades(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec(content)
	db.Exec("ALTER TABLE content.comments DROP CONSTRAINT comments_parent_fkey")
	const posts = "  - {name: posts, table: content.posts, user: author_id, key: [id], age: created_at, action: delete, after: [likes, comments]}\n"
	const likes = "  - {name: likes, table: content.likes, user: user_id, key: [post_id, user_id], age: none, action: delete}\n"
	const comments = "  - {name: comments, table: content.comments, user: user_id, key: [id], age: none, action: delete}\n"
	const softly = `  - {name: comments, table: content.comments, user: user_id, key: [id], age: none, action: update, where: user_id IS NOT NULL, set: {user_id: NULL}}` + "\n"
	if _, err := loaded(t, "targets:\n"+posts+likes+comments).Validate(t.Context(), db.Pool, 0); err != nil {
		t.Error(err)
	}
	for _, text := range []string{posts + likes + softly, strings.Replace(posts, ", comments", "", 1) + likes + comments} {
		if _, err := loaded(t, "targets:\n"+text).Validate(t.Context(), db.Pool, 0); err == nil || !strings.Contains(err.Error(), "comments_post_id_fkey") {
			t.Errorf("%s%v", text, err)
		}
	}
}

// What the role or the rows do not let prove is said, and is no refusal.
func TestValidateSaysWhatItCouldNotShow(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec(content)
	db.Roles("../../sql/roles.sql")
	pool, err := pgxpool.New(t.Context(), db.Login("orphan_cleaner_runner"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	soft := loaded(t, one("content.posts", "update", author, softly, "set: {deleted_at: now()}"))
	notes, err := soft.Validate(t.Context(), pool, 0)
	if err == nil || !strings.Contains(err.Error(), `permission denied for schema content: GRANT USAGE ON SCHEMA "content" TO "orphan_cleaner_runner`) {
		t.Errorf("without USAGE: %v %v", notes, err)
	}
	db.Exec("GRANT USAGE ON SCHEMA content TO orphan_cleaner_runner")
	for _, c := range []struct {
		pool         *pgxpool.Pool
		before, says string
	}{
		{pool, "SELECT", "it: not shown that where is false after set: permission denied for table posts"},
		{db.Pool, "UPDATE content.posts SET deleted_at = now()", "it: not shown that where is false after set: no row of the table is to be updated"},
		{db.Pool, "TRUNCATE content.posts CASCADE", "no row of the table"},
	} {
		db.Exec(c.before)
		if notes, err := soft.Validate(t.Context(), c.pool, 0); err != nil || len(notes) != 1 || !strings.Contains(notes[0], c.says) {
			t.Errorf("%v %v; want %s", notes, err, c.says)
		}
	}
	// Rights on the table are not needed to see that an expression is wrong.
	wrong := loaded(t, one("content.plain", "delete", "where: edits"))
	if _, err := wrong.Validate(t.Context(), pool, 0); err == nil || !strings.Contains(err.Error(), "must be type boolean") {
		t.Errorf("%v", err)
	}
}

// Somebody who has the table locked is no reason to change the file.
func TestValidateMeetsALock(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Exec(content)
	tx, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE content.plain"); err != nil {
		t.Fatal(err)
	}
	_, err = loaded(t, one("content.plain", "delete", "where: edits = 1")).Validate(t.Context(), db.Pool, 0)
	if rollback := tx.Rollback(t.Context()); rollback != nil {
		t.Fatal(rollback)
	}
	if _, is := errors.AsType[*Error](err); is || err == nil || !strings.Contains(err.Error(), "lock timeout") {
		t.Errorf("%v", err)
	}
}
