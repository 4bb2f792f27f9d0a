package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/nova-social/orphan-cleaner/internal/events"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// eventRows are what may go wrong with those who are told of deletes.
func eventRows() []row {
	return []row{
		{"Redis is gone", redisGone},
		{"killed before its cursor moves", killedBeforeTheCursor},
		{"failed over after it had told", toldOfALostTail},
	}
}

// told reads a file of events.
func (w *world) told(path string) (list []events.Event) {
	w.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var e events.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
		list = append(list, e)
	}
	return list
}

// tells asserts that events were told, at least once each, of exactly what the audit says of runs.
func (w *world) tells(list []events.Event) {
	w.t.Helper()
	told := map[string]string{}
	for _, e := range list {
		what := fmt.Sprintf("%d %s %s %s", e.RunID, e.Type, e.ConversationID, e.UserID)
		if id, is := told[what]; is && id != e.ID.String() {
			w.t.Errorf("%s was told with two ids", what)
		}
		told[what] = e.ID.String()
	}
	want := collect[string](w, `SELECT format('%s member.left %s %s', run_id, conversation_id, user_id) FROM conversation_members_audit WHERE run_id IS NOT NULL`)
	for _, what := range want {
		if _, is := told[what]; !is {
			w.t.Errorf("not told: %s", what)
		}
		delete(told, what)
	}
	for what := range told {
		w.t.Errorf("told, and did not happen: %s", what)
	}
	w.holds("I4")
}

// redisGone: the run is as good as ever, and does not wait; what happened is told once Redis is back.
func redisGone(w *world) {
	server := testdb.Needed(w.t, "make fault-tools", "redis-server")
	port := testdb.FreePort(w.t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	w.env = append(w.env, "ORPHAN_CLEANER_EVENTS=redis", "REDIS_URL=redis://"+address)
	e := w.run()
	w.bounded()
	w.expect(e, want{exit: 0, state: "succeeded", shows: "Events wait", gone: all})
	if n := w.count(`orphan_cleaner.event_cursors WHERE error IS NOT NULL`); n != 1 {
		w.t.Error("the cursor does not say why events wait")
	}
	w.holds("I7")
	spawn(w.t, nil, server, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--dir", w.t.TempDir())
	client := redis.NewClient(&redis.Options{Addr: address, DisableIdentity: true})
	w.t.Cleanup(func() { _ = client.Close() })
	ctx := context.Background()
	eventually(w.t, "Redis answers", func() bool { return client.Ping(ctx).Err() == nil })
	w.converges()
	var list []events.Event
	for _, conversation := range collect[string](w, `SELECT DISTINCT conversation_id::text FROM conversation_members_audit WHERE run_id IS NOT NULL`) {
		entries, err := client.XRange(ctx, "stream:conversation:"+conversation, "-", "+").Result()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, entry := range entries {
			var e events.Event
			if err := json.Unmarshal([]byte(fmt.Sprint(entry.Values["payload"])), &e); err != nil {
				w.t.Fatal(err)
			}
			list = append(list, e)
		}
	}
	w.tells(list)
}

// killedBeforeTheCursor: the next relay tells the page again, with the same ids.
func killedBeforeTheCursor(w *world) {
	path := filepath.Join(w.t.TempDir(), "events.jsonl")
	w.env = append(w.env, "ORPHAN_CLEANER_EVENTS=file:"+path)
	e := w.failing("delivered=kill").wait()
	if e.status != -1 || !strings.Contains(e.stderr, "failpoint: after delivered: kill") {
		w.t.Fatalf("it was to be killed: %s", e)
	}
	w.note.exit, w.note.state, w.note.shows = "killed", "succeeded", "the same events again, with the same ids"
	w.sound()
	w.amount(all)
	first := len(w.told(path))
	w.exec(`UPDATE orphan_cleaner.event_cursors SET leased_until = now() - interval '1 s'`)
	w.converges()
	list := w.told(path)
	if first == 0 || len(list) != 2*first {
		w.t.Errorf("%d lines, and %d when it was killed", len(list), first)
	}
	w.tells(list)
}

// toldOfALostTail: to an asynchronous standby that heard of two chunks of a run, and of nothing after
// them: its end, and another run. What was told and did not happen is what those runs
// told and the audit there does not say; the next run deletes these members, and tells it. No
// event is left out.
func toldOfALostTail(w *world) {
	primary := w.ownCluster(pgtemp.Options{})
	path := filepath.Join(w.t.TempDir(), "events.jsonl")
	tell := "ORPHAN_CLEANER_EVENTS=file:" + path
	w.env = append(w.env, tell)
	// One run that ended before, one in mid-sweep, and one that begins later.
	keep := func(users []uuid.UUID) {
		w.exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) SELECT u, 'later' FROM unnest($1::uuid[]) AS u`, users)
	}
	release := func() { w.exec(`UPDATE orphan_cleaner.holds SET lifted_at = now() WHERE reason = 'later'`) }
	keep(w.dead[1:])
	if e := w.run(); e.status != 0 || w.gone() != perUser {
		w.t.Fatalf("the first run: %s", e)
	}
	release()
	keep(w.dead[9:10])
	known := len(w.told(path))
	replica := standby(w.t, primary)
	there := open(w.t, replica.URL("messaging"))
	ctx := context.Background()
	p := w.stopped("commit:2")
	written := one[string](w, `SELECT pg_current_wal_insert_lsn()::text`)
	eventually(w.t, "the standby has two chunks", func() bool {
		var has bool
		return there.QueryRow(ctx, `SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn`, written).Scan(&has) == nil && has
	})
	w.cutOff(there)
	w.expect(p.goOn(), want{exit: 0, state: "succeeded", gone: some})
	release()
	w.expect(w.run(), want{exit: 0, state: "succeeded", gone: all})
	told := w.told(path)
	if err := primary.Crash(); err != nil {
		w.t.Fatal(err)
	}
	if _, err := there.Exec(ctx, `SELECT pg_promote()`); err != nil {
		w.t.Fatal(err)
	}
	w.url, w.pool, w.env = replica.URL("messaging"), there, []string{"DATABASE_URL=" + replica.URL("messaging"), tell}
	// As docs/events.md has it, before the next run begins.
	ended := one[int64](w, `SELECT max(run_id) FROM orphan_cleaner.runs WHERE state <> 'running'`)
	var beyond, happened int
	lost := map[string]bool{}
	for _, event := range told {
		if event.RunID <= ended {
			continue
		}
		beyond++
		if w.count(`conversation_members_audit WHERE run_id = $1 AND conversation_id = $2 AND user_id = $3`, event.RunID, event.ConversationID, event.UserID) > 0 {
			happened++
		} else {
			lost[event.ConversationID.String()+event.UserID.String()] = true
		}
	}
	if beyond != len(told)-known || happened != 2*chunkRows || len(lost) != beyond-happened || len(lost) <= perUser {
		w.t.Errorf("%d of %d events are of runs over %d, %d of them happened and %d did not", beyond, len(told), ended, happened, len(lost))
	}
	w.note.shows = "told, and not in the audit"
	w.leaseEnds()
	release()
	w.converges()
	again := w.told(path)[len(told):]
	w.tells(append(told[:known:known], again...))
	for _, event := range again {
		delete(lost, event.ConversationID.String()+event.UserID.String())
	}
	if len(again) != beyond || len(lost) > 0 {
		w.t.Errorf("%d events were of the lost tail, %d are told again; left out: %v", beyond, len(again), lost)
	}
}
