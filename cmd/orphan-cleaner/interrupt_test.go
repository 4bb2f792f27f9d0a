package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// The sweep of these settings takes the 200 due users in chunks of 10, a call each:
// the first 30 are deleted, then auth-service is silent.
const (
	sweepUsers, sweepDue = 2000, 200
	sweepVerifyCalls     = sweepUsers / 10
	sweepGroupCalls      = 3
	sweptFirst           = 10 * sweepGroupCalls // members of the first group
)

var sweepFlags = []string{"run", "--json", "--batch-size=10", "--chunk-rows=10"}

// stuckInSweep starts a run that has swept its first group and now waits for
// auth-service's word about the second.
func stuckInSweep(t *testing.T, w *world, flags ...string) *started {
	t.Helper()
	return stuckWith(t, w, append(append([]string{}, sweepFlags...), flags...)...)
}

// stuckWith is stuckInSweep of a program with these arguments, which are to make
// batches of 10.
func stuckWith(t *testing.T, w *world, args ...string) *started {
	t.Helper()
	stuck := make(chan struct{})
	var once sync.Once
	w.auth.SetFaultFunc(func(ctx context.Context, call int, ids []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if call <= sweepVerifyCalls+sweepGroupCalls {
			return honest()
		}
		once.Do(func() { close(stuck) })
		return authfake.NeverAnswers(ctx, call, ids, honest)
	})
	p := start(t, w.env, args...)
	select {
	case <-stuck:
	case <-p.exited:
		t.Fatalf("the run ended early: %s", p.wait(t))
	}
	eventually(t, "what was checked again is deleted", func() bool {
		return w.Count("orphan_cleaner.runs WHERE state = 'running' AND members_deleted = $1", sweptFirst) == 1
	})
	return p
}

// SIGTERM and Ctrl-C end a run in mid-sweep in good order: what went is audited
// and backed up, the row says so, and the next run does the rest.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sweepUsers, sweepDue)
			living := w.living()
			p := stuckInSweep(t, w, "--auth-service-timeout=1m")

			// Meanwhile nobody else gets in, and is told who is there.
			other := program(t, w.env, "run", "--json").expect(t, exitAnotherRun)
			holder := testdb.One[string](w.DB, "SELECT host FROM orphan_cleaner.runs WHERE state = 'running'")
			if last := lastLine(other.stderr); !strings.Contains(holder, fmt.Sprintf(":%d", p.cmd.Process.Pid)) ||
				!strings.Contains(last, "run 1 (clean, phase sweep) of "+holder) || !strings.Contains(last, "orphan-cleaner status") {
				t.Errorf("the run of %s (pid %d) is not named: %s", holder, p.cmd.Process.Pid, last)
			}
			if got := other.result(t); got["members_deleted"] != 0.0 || got["state"] != "failed" {
				t.Errorf("%s", other)
			}

			p.signal(t, signal)
			e := p.wait(t).expect(t, exitFailed)
			if got := e.result(t); got["state"] != "incomplete" || got["members_deleted"] != float64(sweptFirst) {
				t.Errorf("%s", e)
			}
			if row := testdb.One[string](w.DB, "SELECT state || ' in ' || phase || ', ' || members_deleted FROM orphan_cleaner.runs WHERE finished_at IS NOT NULL AND run_id = 1"); row != fmt.Sprintf("incomplete in sweep, %d", sweptFirst) {
				t.Errorf("the run's row says %q", row)
			}
			if last := lastLine(e.stderr); !strings.Contains(last, "interrupted") {
				t.Errorf("the last line is %q", last)
			}
			gone(t, w, living, sweptFirst)

			w.auth.SetFaultFunc(nil)
			program(t, w.env, sweepFlags...).expect(t, exitDone)
			gone(t, w, living, sweepDue)
		})
	}
}

// A run that is interrupted before it has judged leaves the ledger alone.
func TestInterruptedInVerify(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	before := contents(t, w.DB, "orphan_cleaner.runs")
	asked := make(chan struct{})
	var once sync.Once
	w.auth.SetFaultFunc(func(ctx context.Context, call int, ids []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if call == 1 {
			return honest()
		}
		once.Do(func() { close(asked) })
		return authfake.NeverAnswers(ctx, call, ids, honest)
	})
	p := start(t, w.env, "run", "--json", "--auth-service-timeout=1m")
	select {
	case <-asked:
	case <-p.exited:
		t.Fatalf("the run ended early: %s", p.wait(t))
	}
	p.signal(t, syscall.SIGTERM)
	if e := p.wait(t).expect(t, exitFailed); e.result(t)["state"] != "incomplete" {
		t.Errorf("%s", e)
	}
	if row := testdb.One[string](w.DB, "SELECT state || ' in ' || phase FROM orphan_cleaner.runs WHERE finished_at IS NOT NULL"); row != "incomplete in verify" {
		t.Errorf("the run's row says %q", row)
	}
	if after := contents(t, w.DB, "orphan_cleaner.runs"); after != before {
		t.Errorf("the database changed:\n%s\nwas\n%s", after, before)
	}
}

// A run that is interrupted while auth-service keeps its preflight waiting ends
// at once.
func TestInterruptedInPreflight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	before := contents(t, w.DB, "orphan_cleaner.runs")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	p := start(t, append(w.env, "AUTH_SERVICE_URL=http://"+silent.Addr().String()), "run", "--json", "--auth-service-timeout=10m")
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	p.signal(t, syscall.SIGTERM)
	e := p.wait(t).expect(t, exitFailed)
	if got := e.result(t); got["members_deleted"] != 0.0 {
		t.Errorf("%s", e)
	}
	if after := contents(t, w.DB, "orphan_cleaner.runs"); after != before {
		t.Errorf("the database changed:\n%s\nwas\n%s", after, before)
	}
}

// kill -9 in mid-sweep, then a run after the lease: everything went once.
func TestKilled(t *testing.T) {
	t.Parallel()
	for name, into := range map[string]func(t *testing.T, w *world) (p *started, release func()){
		"between chunks": func(t *testing.T, w *world) (*started, func()) {
			t.Helper()
			return stuckInSweep(t, w, "--auth-service-timeout=1m"), func() {}
		},
		"in a delete": stuckInDelete,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sweepUsers, sweepDue)
			living := w.living()
			p, release := into(t, w)
			p.signal(t, syscall.SIGKILL)
			<-p.exited
			release()
			w.lapse(t)
			half := testdb.One[int64](w.DB, "SELECT members_deleted FROM orphan_cleaner.runs WHERE state = 'running'")
			if half == 0 || half == sweepDue {
				t.Fatalf("the run had deleted %d members when it was killed: not in the middle", half)
			}
			if audited, backedUp := w.Count("conversation_members_audit"), w.Count("conversation_members_backup"); audited != half || backedUp != half ||
				w.Count("conversation_members") != sweepUsers-half {
				t.Errorf("%d deleted, %d audited, %d backed up", half, audited, backedUp)
			}

			w.auth.SetFaultFunc(nil)
			e := program(t, w.env, sweepFlags...).expect(t, exitDone)
			if got := e.result(t); got["members_deleted"] != float64(sweepDue-half) {
				t.Errorf("%d were left: %s", sweepDue-half, e)
			}
			if state := testdb.One[string](w.DB, "SELECT state FROM orphan_cleaner.runs WHERE run_id = 1"); state != "abandoned" {
				t.Errorf("the killed run is %s", state)
			}
			// Its staging is unlogged and its own; the run that took over emptied it.
			gone(t, w, living, sweepDue)
		})
	}
}

// lapse waits until the server gives up the sessions of a killed program, and ends its lease.
func (w *world) lapse(t *testing.T) {
	t.Helper()
	eventually(t, "the server gives up the killed program's sessions", func() bool {
		return w.Count("pg_stat_activity WHERE datname = $1 AND application_name = 'orphan-cleaner'", w.Name) == 0
	})
	w.Exec("UPDATE orphan_cleaner.runs SET heartbeat_at = now() - 2 * lease WHERE state = 'running'")
}

// stuckInDelete starts a run that waits, inside the transaction of a chunk, for as long
// as a trigger of the application takes: a lock it would wait for half a second only.
func stuckInDelete(t *testing.T, w *world) (p *started, release func()) {
	t.Helper()
	// In the order of the sweep, the middle of a chunk in the first group.
	middle := testdb.One[string](w.DB, `SELECT user_id::text FROM conversation_members WHERE user_id = ANY ($1) ORDER BY user_id OFFSET 52 LIMIT 1`, w.dead)
	w.Script(`CREATE TABLE stuck AS SELECT 1;
		CREATE FUNCTION stick() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			WHILE EXISTS (SELECT FROM public.stuck) LOOP
				PERFORM pg_sleep(0.01);
			END LOOP;
			RETURN OLD;
		END
		$$;
		CREATE TRIGGER stick BEFORE DELETE ON conversation_members FOR EACH ROW WHEN (OLD.user_id = '` + middle + `') EXECUTE FUNCTION stick()`)
	release = func() { w.Exec("DELETE FROM stuck") } // a second time it does nothing
	t.Cleanup(release)
	p = start(t, w.env, sweepFlags...)
	// Its heartbeat may wait too, for its own row: that is not meant.
	eventually(t, "a chunk of the run waits in the trigger", func() bool {
		return w.Count("orphan_cleaner.runs WHERE members_deleted > 0") == 1 && w.Count(`pg_stat_activity WHERE datname = $1
			AND application_name = 'orphan-cleaner' AND wait_event = 'PgSleep' AND query LIKE '%RunSweepChunk%'`, w.Name) > 0
	})
	return p, release
}

// Whoever places a hold or pauses the runs waits for the chunk in flight, which
// may not have seen it.
func TestHoldWaitsForTheChunkInFlight(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"hold":  {"hold", "add", "--conversation=" + uuid.NewString(), "--reason=test"},
		"pause": {"pause", "--reason=test"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sweepUsers, sweepDue)
			p, release := stuckInDelete(t, w)
			asker := start(t, w.env, args...)
			eventually(t, "it waits for the chunk", func() bool {
				return w.Count(`pg_locks WHERE locktype = 'relation' AND NOT granted
					AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) > 0
			})
			release()
			asker.wait(t).expect(t, exitDone)
			<-p.exited
		})
	}
}
