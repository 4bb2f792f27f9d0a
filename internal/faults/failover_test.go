package faults

import (
	"context"
	"fmt"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
)

// latecomers adds users with a member each who went 40 days ago: more than one
// page of the sweep.
func (w *world) latecomers(name string) {
	w.t.Helper()
	w.exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT md5('conversation ' || u % 50)::uuid, md5($1 || u)::uuid, now() - interval '60 days' FROM generate_series(1, 10500) AS u`, name)
	w.exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT md5($1 || u)::uuid, now() - interval '40 days', now() - interval '1 hour', (SELECT max(run_id) FROM orphan_cleaner.runs), 'sightings'
		FROM generate_series(1, 10500) AS u`, name)
	w.exec(`INSERT INTO witness.members SELECT * FROM conversation_members WHERE user_id IN (SELECT md5($1 || u)::uuid FROM generate_series(1, 10500) AS u)`, name)
	w.exec(`INSERT INTO witness.due SELECT conversation_id, user_id FROM conversation_members WHERE user_id IN (SELECT md5($1 || u)::uuid FROM generate_series(1, 10500) AS u)`, name)
	w.exec(`ANALYZE conversation_members`)
	w.exec(`ANALYZE witness.members`)
}

// crashedBetweenPages: staging is unlogged, so that the second page of due users
// is empty. What the first one held is deleted, and the run says what is missing;
// also where the answer to a chunk was lost.
func crashedBetweenPages(w *world) {
	cluster := w.ownCluster(pgtemp.Options{})
	direct := w.env
	flags := append(unlimited(), "--batch-size=100", "--chunk-rows=1000")
	w.latecomers("late ")
	p := w.stopped("chunk:1", flags...)
	if err := cluster.Crash(); err != nil {
		w.t.Fatal(err)
	}
	w.restart(cluster)
	w.sound()
	failed := want{exit: 1, state: "failed", shows: "staging lost users after it was judged", gone: some}
	w.expect(p.goOn(), failed)
	if left := w.count(`witness.due`) - w.gone(); left == 0 {
		w.t.Error("no second page was left: the row tests nothing")
	}
	w.converges(flags...)

	w.latecomers("later ")
	proxy := w.proxied(answerLost, 1)
	p = w.stopped("commit:2", flags...)
	w.exec(`DELETE FROM orphan_cleaner.sightings`)
	w.expect(p.goOn(), failed)
	if err := proxy.struck(); err != nil {
		w.t.Fatal(err)
	}
	w.env = direct
	w.converges(flags...)
}

// failedOver: to an asynchronous standby that never heard of the run. Another run
// gets its id there; then the old runner wakes.
func failedOver(w *world) {
	primary := w.ownCluster(pgtemp.Options{})
	replica := standby(w.t, primary)
	there := open(w.t, replica.URL("messaging"))
	ctx := context.Background()
	w.cutOff(there)

	proxy := w.proxied(neverArrives, 0)
	ghost := w.stopped("checked-again")
	id := one[int64](w, `SELECT run_id FROM orphan_cleaner.runs WHERE state = 'running'`)
	if err := primary.Crash(); err != nil {
		w.t.Fatal(err)
	}
	if _, err := there.Exec(ctx, `SELECT pg_promote()`); err != nil {
		w.t.Fatal(err)
	}
	w.url, w.pool, w.env = replica.URL("messaging"), there, []string{"DATABASE_URL=" + replica.URL("messaging")}
	proxy.leadTo(w.url)
	// A sequence runs 32 numbers ahead on a standby: so many runs would have to be lost.
	w.exec(fmt.Sprintf(`ALTER TABLE orphan_cleaner.runs ALTER run_id RESTART WITH %d`, id))
	other := w.stopped("judge")
	if reused := one[int64](w, `SELECT run_id FROM orphan_cleaner.runs WHERE state = 'running'`); reused != id {
		w.t.Fatalf("the other run is %d, want the id %d", reused, id)
	}

	e := ghost.goOn()
	if e.status != 1 || !strings.Contains(e.stderr, "was taken over") {
		w.t.Errorf("the ghost: %s", e)
	} else {
		w.namesHint(e)
	}
	if gone := w.gone(); gone != 0 {
		w.t.Errorf("the ghost deleted %d members in the run of the other", gone)
	}
	if open := w.count(`orphan_cleaner.runs WHERE run_id = $1 AND state = 'running'`, id); open != 1 {
		w.t.Error("the ghost ended the run of the other")
	}
	w.expect(other.goOn(), want{exit: 0, state: "succeeded", gone: all})
	w.note.exit, w.note.shows = "1 and 0", "silent for longer than its lease"
	w.holds("I7")
	w.converges()
}

// goneBlack: every connection stays up and says nothing more, in the middle of
// staging.
func goneBlack(w *world) {
	direct := w.env
	proxy := w.proxied(goesBlack, 1)
	e := w.run("--lease=6s")
	if err := proxy.struck(); err != nil {
		w.t.Fatal(err)
	}
	proxy.stop()
	w.env = direct
	w.unfinished(e, "no heartbeat reached the database for longer than the lease of 6s")
	w.bounded()
	w.converges()
}

// stagingLocked: somebody sits on staging, and the run does not wait for them
// without end.
func stagingLocked(w *world) {
	locker, _ := w.session()
	w.does(locker, `BEGIN`)
	w.does(locker, `LOCK TABLE orphan_cleaner.sightings IN ACCESS EXCLUSIVE MODE`)
	e := w.run()
	w.does(locker, `ROLLBACK`)
	w.unfinished(e, "canceling statement due to lock timeout")
	w.bounded()
	w.leaseEnds()
	w.converges()
}

// unfinished asserts that a run failed and could not even write that down: it
// deleted nothing, and its row is open until its lease has ended.
func (w *world) unfinished(e ended, shows string) {
	w.t.Helper()
	r, err := e.result()
	if err != nil || e.status != 1 || r.State != "failed" || !strings.Contains(e.stderr, shows) {
		w.t.Errorf("want a failed run that says %q: %s", shows, e)
	}
	w.note.exit, w.note.state, w.note.shows = "1", "failed", shows
	w.namesHint(e)
	w.holds("I7")
	w.sound()
	w.amount(nothing)
}

// synchronousCommitOff: what the run said to be done is on disk.
func synchronousCommitOff(w *world) {
	cluster := w.ownCluster(pgtemp.Options{Settings: map[string]string{"wal_writer_delay": "10s"}})
	w.setForDatabase(`SET synchronous_commit = off`)
	e := w.run()
	if err := cluster.Crash(); err != nil {
		w.t.Fatal(err)
	}
	w.restart(cluster)
	w.expect(e, want{exit: 0, state: "succeeded", gone: all})
	w.converges()
}
