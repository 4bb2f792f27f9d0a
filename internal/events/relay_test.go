package events_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/events"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// types are those of events in their order, with their runs.
func types(got []events.Event) (list []string) {
	for _, e := range got {
		list = append(list, fmt.Sprintf("%s %d", e.Type, e.RunID))
	}
	return slices.Compact(list)
}

// An open run says nothing, whatever it has committed; one that failed, or was given
// up, says all that it did; a chunk that was rolled back never was.
func TestOnlyFinishedRuns(t *testing.T) {
	p := newPlace(t)
	sink := &memory{}
	relay := p.relay(sink)
	run := p.run("running", 2, 3)
	relay.Flush(t.Context())
	if len(sink.got) > 0 {
		t.Fatalf("an open run has events: %v", sink.got)
	}

	tx, err := p.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO conversation_members_audit (conversation_id, user_id, deleted_at, deleted_by, application, run_id, txid)
		VALUES (gen_random_uuid(), gen_random_uuid(), now() - interval '30 seconds', 'test', 'test', $1, 1)`, run); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Exec("UPDATE orphan_cleaner.runs SET state = 'abandoned', finished_at = now() WHERE run_id = $1", run)
	relay.Flush(t.Context())
	if len(sink.got) != 6 {
		t.Fatalf("%d events of 6 members: %v\n%s", len(sink.got), sink.got, &p.log)
	}
	for _, e := range sink.got {
		if e.Type != "member.left" || e.RunID != run || e.ConversationID == uuid.Nil || e.UserID == uuid.Nil || e.At.IsZero() {
			t.Errorf("event: %+v", e)
		}
	}
	relay.Flush(t.Context())
	if len(sink.got) != 6 {
		t.Errorf("%d events, told again without need", len(sink.got))
	}
}

// Delete, restore, revert: in this order in each conversation, each with an id of its
// own. Members that a restore only planned are not in it.
func TestOrder(t *testing.T) {
	p := newPlace(t)
	sink := &memory{}
	relay := p.relay(sink)
	deleted := p.run("succeeded", 3, 4)
	restore := testdb.One[int64](p.DB, `INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings, members_restored)
		VALUES ('restore', 'succeeded', 'finish', now(), now(), now(), '1 minute', 'test:1', 'test', '{}', 12) RETURNING run_id`)
	revert := p.run("incomplete", 3, 4)
	p.Exec("UPDATE orphan_cleaner.runs SET kind = 'restore' WHERE run_id = $1", revert)
	p.Exec(`INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at, state, reverted_by_run)
		SELECT $1, user_id, conversation_id, $2, now(), 'reverted', $3 FROM conversation_members_audit WHERE run_id = $2`, restore, deleted, revert)
	p.Exec(`INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at) VALUES ($1, gen_random_uuid(), gen_random_uuid(), $2, now())`, restore, deleted)
	relay.Flush(t.Context())

	want := []string{fmt.Sprintf("member.left %d", deleted), fmt.Sprintf("member.joined %d", restore), fmt.Sprintf("member.left %d", revert)}
	if got := types(sink.got); !slices.Equal(got, want) || len(sink.got) != 36 {
		t.Errorf("%d events, %v, not %v", len(sink.got), got, want)
	}
	ids := map[uuid.UUID]bool{}
	for _, e := range sink.got {
		ids[e.ID] = true
	}
	if len(ids) != 36 {
		t.Errorf("%d ids of 36 events", len(ids))
	}
}

// Successors of a last owner are told with the run that made them so, and with the restore
// that took it back; the backlog counts them.
func TestPromotions(t *testing.T) {
	p := newPlace(t)
	sink := &memory{fails: func([]events.Event) (int, error) { return 0, errors.New("not now") }}
	relay := p.relay(sink)
	deleted := p.run("succeeded", 2, 2)
	restore := testdb.One[int64](p.DB, `INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings, members_restored)
		VALUES ('restore', 'succeeded', 'finish', now(), now(), now(), '1 minute', 'test:1', 'test', '{}', 1) RETURNING run_id`)
	p.Exec(`INSERT INTO orphan_cleaner.promotions (run_id, conversation_id, user_id, role_before) SELECT $1, md5('conversation ' || c)::uuid, md5('user 9')::uuid, 'admin' FROM generate_series(1, 2) AS c`, deleted)
	// What a restore found changed by others is no event: undone_at is null.
	p.Exec(`UPDATE orphan_cleaner.promotions SET undone_by_run = $1, undone_at = CASE WHEN conversation_id = md5('conversation 1')::uuid THEN now() END`, restore)
	p.Exec(`INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at, state)
		SELECT $1, user_id, conversation_id, $2, now(), 'restored' FROM conversation_members_audit WHERE run_id = $2 LIMIT 1`, restore, deleted)
	backlog := func() int64 {
		t.Helper()
		rows, err := db.New(p.Pool).EventBacklog(t.Context())
		if err != nil || len(rows) != 1 {
			t.Fatalf("%v, %v", rows, err)
		}
		return rows[0].Events
	}
	relay.Flush(t.Context())
	if n := backlog(); n != 8 {
		t.Errorf("%d events wait", n)
	}
	sink.fails = nil
	relay.Flush(t.Context())
	if n := backlog(); n != 0 {
		t.Errorf("%d events wait after all were told", n)
	}
	want := []string{
		fmt.Sprintf("member.left %d", deleted), fmt.Sprintf("member.promoted %d", deleted),
		fmt.Sprintf("member.demoted %d", restore), fmt.Sprintf("member.joined %d", restore),
	}
	if got := types(sink.got); !slices.Equal(got, want) || len(sink.got) != 8 {
		t.Errorf("%d events, %v, not %v", len(sink.got), got, want)
	}
	roles := map[string]string{"member.promoted": "owner", "member.demoted": "admin"}
	for _, e := range sink.got {
		if e.Role != roles[e.Type] || e.At.IsZero() {
			t.Errorf("%+v", e)
		}
	}
}

// A sink is told of what happens from now on, or from a run on that is asked for.
func TestNewSink(t *testing.T) {
	p := newPlace(t)
	first := p.run("succeeded", 1, 1)
	second := p.run("succeeded", 1, 2)
	open := p.run("running", 1, 3)
	sink := &memory{}
	relay := p.relay(sink)
	relay.Flush(t.Context())
	if len(sink.got) > 0 {
		t.Errorf("told of what was before: %v", sink.got)
	}
	p.Exec("UPDATE orphan_cleaner.runs SET state = 'succeeded', finished_at = now() WHERE run_id = $1", open)
	relay.Flush(t.Context())
	if got := types(sink.got); len(sink.got) != 3 {
		t.Errorf("the run that was open is told as %v", got)
	}

	p.Exec("DELETE FROM orphan_cleaner.event_cursors")
	all := &memory{}
	from := events.Patiently(events.New(p.Pool, testLog(t), &second, all))
	from.Begin(t.Context())
	from.Flush(t.Context())
	if len(all.got) != 5 || all.got[0].RunID != second {
		t.Errorf("from run %d on, behind %d: %v", second, first, types(all.got))
	}
}

// What a sink had before it failed is not told again, what it did not have is, with
// the same ids; the backlog says how much, and why.
func TestFailure(t *testing.T) {
	p := newPlace(t)
	sink := &memory{}
	var refused []events.Event
	sink.fails = func(told []events.Event) (int, error) {
		refused = told
		return 4, errors.New("it is \x1b[31mfull")
	}
	relay := p.relay(sink)
	p.run("succeeded", 2, 5)
	relay.Flush(t.Context())
	if len(sink.got) != 4 {
		t.Fatalf("%d events", len(sink.got))
	}
	if said := testdb.One[string](p.DB, "SELECT error FROM orphan_cleaner.event_cursors"); !strings.Contains(said, "full") || strings.Contains(said, "\x1b") {
		t.Errorf("error: %q", said)
	}
	sink.fails = nil
	relay.Flush(t.Context())
	if len(sink.got) != 10 {
		t.Fatalf("%d events", len(sink.got))
	}
	for i, e := range sink.got {
		if e != refused[i] {
			t.Errorf("event %d: %+v, before %+v", i, e, refused[i])
		}
	}
	if n := p.Count("orphan_cleaner.event_cursors WHERE error IS NULL AND ticket IS NULL"); n != 1 {
		t.Errorf("the failure is not over")
	}
}

// While one relay has a page, another gets none; one that woke up too late moves the
// cursor nowhere; and a lease of a clock that was ahead keeps nobody away.
func TestTwoRelays(t *testing.T) {
	p := newPlace(t)
	late, other := &memory{}, &memory{}
	one, two := p.relay(late), p.relay(other)
	p.run("succeeded", 2, 5)
	late.fails = func(told []events.Event) (int, error) {
		late.fails = nil
		two.Flush(t.Context())
		if len(other.got) > 0 {
			t.Errorf("both have the page: %v", other.got)
		}
		p.lapse()
		other.fails = func([]events.Event) (int, error) { return 7, errors.New("full") }
		two.Flush(t.Context())
		other.fails = nil
		return len(told), nil
	}
	one.Flush(t.Context())
	if n := testdb.One[int64](p.DB, "SELECT events FROM orphan_cleaner.event_cursors"); n != 7 {
		t.Errorf("the cursor is at %d, not where the second relay left it", n)
	}
	p.Exec("UPDATE orphan_cleaner.event_cursors SET ticket = gen_random_uuid(), leased_until = now() + interval '1 day'")
	two.Flush(t.Context())
	if len(other.got) != 10 {
		t.Errorf("%d events", len(other.got))
	}
}

// Where the clock was wrong, rows lie outside of their run's span: they are told all
// the same. Those of a user who was erased are not, and wait for nobody.
func TestOddRows(t *testing.T) {
	p := newPlace(t)
	sink := &memory{}
	relay := p.relay(sink)
	p.run("succeeded", 2, 5)
	p.Exec("UPDATE conversation_members_audit SET deleted_at = now() + interval '1 day' WHERE conversation_id = md5('conversation 1')::uuid")
	p.Exec("UPDATE conversation_members_audit SET user_id = '00000000-0000-0000-0000-000000000000' WHERE user_id = md5('user 2')::uuid")
	relay.Flush(t.Context())
	if len(sink.got) != 8 {
		t.Errorf("%d events, not 8", len(sink.got))
	}
	if !p.isEmpty() {
		t.Errorf("the cursor does not leave the run behind")
	}
}

// prune keeps a month of the audit while a sink lacks a run of it, and says which one.
func TestPruneKeepsWhatASinkLacks(t *testing.T) {
	p := newPlace(t)
	need := func(parent string) string {
		p.t.Helper()
		return testdb.One[string](p.DB, "SELECT coalesce(orphan_cleaner.partition_need('conversation_members', $1 LIKE '%backup', to_regclass($1), 'infinity'), '')", parent)
	}
	relay := p.relay(&memory{fails: func([]events.Event) (int, error) { return 0, errors.New("full") }})
	run := p.run("succeeded", 1, 2)
	relay.Flush(t.Context())
	if said := need("conversation_members_audit"); !strings.Contains(said, fmt.Sprintf("run %d is not relayed to the sink memory", run)) {
		t.Errorf("the audit is needed: %q", said)
	}
	p.relay(&memory{}).Flush(t.Context())
	if said := need("conversation_members_audit"); said != "" {
		t.Errorf("the audit is needed: %q", said)
	}
}

// Pages follow one another without a gap or a repetition.
func TestPages(t *testing.T) {
	p := newPlace(t)
	sink := &memory{}
	relay := p.relay(sink)
	p.run("succeeded", 50, 100)
	relay.Flush(t.Context())
	ids := map[uuid.UUID]bool{}
	for _, e := range sink.got {
		ids[e.ID] = true
	}
	if len(sink.got) != 5000 || len(ids) != 5000 {
		t.Errorf("%d events, %d of them different, not 5000", len(sink.got), len(ids))
	}
}

// A line that was cut is ended, and the event told once more.
func TestFile(t *testing.T) {
	p := newPlace(t)
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, []byte(`{"id":"cut`), 0o600); err != nil {
		t.Fatal(err)
	}
	relay := p.relay(events.NewFile(path))
	run := p.run("succeeded", 2, 2)
	relay.Flush(t.Context())
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines, not 5:\n%s", len(lines), text)
	}
	for _, line := range lines[1:] {
		var e events.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.RunID != run || e.Type != "member.left" {
			t.Errorf("%v: %s", err, line)
		}
	}

	// Moved, as logrotate does, or deleted: there is a new one for what comes next.
	for name, away := range map[string]func() error{
		"moved":   func() error { return os.Rename(path, path+".1") },
		"deleted": func() error { return os.Remove(path) },
	} {
		if err := away(); err != nil {
			t.Fatal(err)
		}
		p.run("succeeded", 1, 3)
		relay.Flush(t.Context())
		if text, err := os.ReadFile(path); err != nil || strings.Count(string(text), "\n") != 3 {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}

	// A file that cannot be written is a backlog and no more.
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := p.relay(events.NewFile(filepath.Join(t.TempDir(), "no", "events.jsonl")), events.NewFile(t.TempDir()), events.NewFile(fifo))
	p.run("succeeded", 1, 1)
	missing.Flush(t.Context())
	if text := p.log.String(); strings.Count(text, "Events wait") != 3 || !strings.Contains(text, "no regular file") {
		t.Errorf("it says:\n%s", text)
	}
}

// A pipe that nobody reads keeps no run waiting. Read later, it has all of the events.
func TestPipeNobodyReads(t *testing.T) {
	p := newPlace(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	relay := p.relay(events.NewStdout(write))
	p.run("succeeded", 10, 100) // 230 KB, and a pipe has room for 64 KiB
	flushed := make(chan struct{})
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	go func() {
		defer close(flushed)
		relay.Flush(ctx)
	}()
	first := make([]byte, 1) // the rest is on its way, and does not fit
	if _, err := io.ReadFull(read, first); err != nil {
		t.Fatal(err)
	}
	giveUp()
	select {
	case <-flushed:
		if !strings.Contains(p.log.String(), "nobody takes what was written") {
			t.Errorf("it says:\n%s", &p.log)
		}
	case <-time.After(limit):
		t.Fatal("the relay waits for whoever reads the pipe")
	}
	told := make(chan map[string]int)
	go func() {
		ids := map[string]int{}
		for in := json.NewDecoder(io.MultiReader(bytes.NewReader(first), read)); ; {
			var e events.Event
			if err := in.Decode(&e); err != nil {
				told <- ids
				return
			}
			ids[e.ID.String()]++
		}
	}()
	relay.Flush(t.Context())
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if ids := <-told; len(ids) != 1000 {
		t.Errorf("%d of 1000 events", len(ids))
	}
}

// The runner's role may do this and no more, and no other role may move a cursor.
func TestRights(t *testing.T) {
	p := newPlace(t)
	p.Roles("../../sql/roles.sql")
	for role, want := range map[string]bool{"orphan_cleaner_runner": true, "orphan_cleaner_restorer": false, "orphan_cleaner_reader": false} {
		for _, function := range []string{"event_sink(text, bigint)", "event_page(text, uuid, integer, interval)", "event_advance(text, uuid, text, uuid, uuid, bigint, text)"} {
			if may := testdb.One[bool](p.DB, "SELECT has_function_privilege($1, 'orphan_cleaner.' || $2, 'EXECUTE')", role, function); may != want {
				t.Errorf("%s may execute %s: %v", role, function, may)
			}
		}
		if testdb.One[bool](p.DB, "SELECT has_table_privilege($1, 'orphan_cleaner.event_cursors', 'INSERT, UPDATE, DELETE, TRUNCATE')", role) {
			t.Errorf("%s may write event_cursors", role)
		}
	}
}
