package queue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/fleet/queue"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// shared gives all shards the same users, as many in the lower half of all ids as in the
// upper; they lie close together, as UUIDv7 do. Each user is checked once.
func (w *world) shared(users, due int) (all []uuid.UUID) {
	w.t.Helper()
	w.file.Once = true
	for i := range users {
		id := uuid.New()
		id[0] = 0xa0 * byte(i%2)
		all = append(all, id)
	}
	w.auth.Add(all...)
	for i, db := range w.shards {
		db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
			SELECT c.id, u, now() - interval '90 days' FROM unnest($1::uuid[]) AS u, conversations AS c`, all)
		w.users[i] = append(slices.Clone(all), w.users[i]...)
	}
	w.due(due)
	return all
}

// calls are those that check all users of some ranges once: full batches up to the end of
// a range, which is cut up after so many of them.
func (w *world) calls(ranges ...fleet.Range) (calls, jobs int) {
	w.t.Helper()
	all := slices.Concat(w.users...)
	slices.SortFunc(all, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	all = slices.Compact(all)
	for len(ranges) > 0 {
		r := ranges[0]
		ranges = ranges[1:]
		jobs++
		inside := slices.DeleteFunc(slices.Clone(all), func(id uuid.UUID) bool {
			return bytes.Compare(id[:], r.First[:]) < 0 || bytes.Compare(id[:], r.Last[:]) > 0
		})
		most := w.rangeCalls * w.cfg.BatchSize
		calls += (min(len(inside), most) + w.cfg.BatchSize - 1) / w.cfg.BatchSize
		if len(inside) < most {
			continue
		}
		// From the last of them on; that one is not asked about again.
		rest := fleet.Range{First: inside[most-1], Last: r.Last}
		parts := 2
		if r == fleet.AllIDs() {
			parts = len(w.shards)
		}
		all = slices.DeleteFunc(all, func(id uuid.UUID) bool { return id == rest.First })
		ranges = append(ranges, rest.Cut(parts)...)
	}
	return calls, jobs
}

// Shards that share users, and three workers: each user is checked once, in full batches,
// and once more by each shard in which the user is due. The ranges are shared out.
func TestEachUserIsCheckedOnce(t *testing.T) {
	for name, rangeCalls := range map[string]int{"a range": 0, "many ranges": 1} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 6, 10)
			w.rangeCalls, w.file.Workers, w.file.Waves = rangeCalls, 1, []int{1, 2}
			all := w.shared(250, 3)
			wantCalls, wantJobs := 4, 1 // 310 users
			if rangeCalls > 0 {
				wantCalls, wantJobs = w.calls(fleet.AllIDs())
				if wantJobs <= 1+len(w.shards) {
					t.Fatalf("%d ranges: this test shows nothing of those that are cut in two", wantJobs)
				}
			}
			var shared sync.Once
			w.auth.SetFaultFunc(func(_ context.Context, call int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
				if rangeCalls > 0 && call > 1 {
					shared.Do(func() { // and all others wait for that
						testdb.Eventually(t, limit, "two workers check ranges at once", func() bool {
							return w.control.Count("orphan_cleaner_fleet.river_job WHERE kind = 'fleet_range' AND state = 'running'") > 1
						})
					})
				}
				return honest()
			})
			if r, err := w.run(3); err != nil {
				t.Fatalf("%s: %v\n%s", r.State, err, w.logged())
			}
			w.cleaned(3)
			if n := w.auth.Calls(); n != wantCalls+len(w.shards) {
				t.Errorf("%d calls, want %d, and one for each of %d shards", n, wantCalls, len(w.shards))
			}
			asked := map[string]int{}
			for _, id := range w.auth.AskedIDs() {
				asked[id]++
			}
			for i, id := range slices.Concat(all, w.users[0][250:]) {
				want := 1
				if i < 3 {
					want += len(w.shards)
				}
				if asked[id.String()] != want {
					t.Errorf("user %d was checked %d times, want %d", i, asked[id.String()], want)
				}
			}
			if n := w.control.Count("orphan_cleaner_fleet.ranges WHERE asked_at IS NOT NULL"); n != int64(wantJobs) {
				t.Errorf("%d ranges, want %d", n, wantJobs)
			}
		})
	}
}

// process is a worker in a process of its own, which can be killed.
const process = "ORPHAN_CLEANER_TEST_FLEET_WORKER"

// TestWorkerProcess is what that process runs.
func TestWorkerProcess(t *testing.T) {
	text := os.Getenv(process)
	if text == "" {
		t.Skip("the process of a worker that another test kills")
	}
	w := &world{t: t, cfg: settings.DefaultRun(), rangeCalls: 1}
	if err := json.Unmarshal([]byte(text), &w.file); err != nil {
		t.Fatal(err)
	}
	w.cfg.Host, w.cfg.Version, w.authURL, w.control = "test:2", "test", os.Getenv("AUTH_SERVICE_URL"), &testdb.DB{URL: w.file.ControlURL}
	worker, _ := w.worker(queue.Options{})
	if err := worker.Serve(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// killable starts a worker in a process of its own; kill kills it and waits for that.
func (w *world) killable() (kill func()) {
	w.t.Helper()
	text, err := json.Marshal(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestWorkerProcess$", "-test.timeout="+(2*limit).String())
	cmd.Env = append(os.Environ(), process+"="+string(text), "AUTH_SERVICE_URL="+w.authURL)
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // that it was killed
	})
	w.t.Cleanup(kill)
	return kill
}

// A worker is killed while it holds a range; River gives the range to another worker. Whom the first
// was about to check is checked once more, nobody else is, and no range is lost.
func TestRescuedRange(t *testing.T) {
	w := newWorld(t, 3, 10)
	w.rangeCalls, w.file.Workers = 1, 1
	all := w.shared(450, 2)
	wantCalls, wantJobs := w.calls(fleet.AllIDs())
	const before = 2 // ranges are done
	held := make(chan []string, 1)
	w.auth.SetFaultFunc(func(ctx context.Context, call int, ids []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if call == before+1 {
			held <- ids
			<-ctx.Done() // of the process that is killed
		}
		return honest()
	})
	first, _ := w.worker(queue.Options{})
	if _, err := first.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	kill := w.killable()
	var again []string
	select {
	case again = <-held:
	case <-time.After(limit):
		t.Fatalf("no worker checks the third range\n%s", w.logged())
	}
	kill()
	const rescued = "orphan_cleaner_fleet.river_job WHERE kind = 'fleet_range' AND attempt = 2 AND state = 'completed' AND errors[1] ->> 'error' LIKE '%rescued%' AND attempted_by[1] <> attempted_by[2]"
	done := w.control.Count("orphan_cleaner_fleet.ranges WHERE asked_at IS NOT NULL")
	if open := w.control.Count("orphan_cleaner_fleet.river_job WHERE kind = 'fleet_range' AND state = 'running'"); open != 1 || done != before {
		t.Fatalf("%d ranges are held, want 1, %d are done, want %d", open, done, before)
	}
	// As after job_timeout and a lease: what the killed worker held, and that it was River's leader, is over.
	w.control.Exec("UPDATE orphan_cleaner_fleet.river_job SET attempted_at = attempted_at - interval '2 hours' WHERE state = 'running'")
	w.control.Exec("UPDATE orphan_cleaner_fleet.river_leader SET expires_at = elected_at")
	if r, err := w.run(2); err != nil {
		t.Fatalf("%s: %v\n%s", r.State, err, w.logged())
	}
	w.cleaned(2)
	if n := w.control.Count(rescued); n != 1 {
		t.Errorf("%d ranges were rescued, want 1", n)
	}
	if n := w.control.Count("orphan_cleaner_fleet.ranges WHERE asked_at IS NOT NULL"); n != int64(wantJobs) {
		t.Errorf("%d ranges are done, want %d", n, wantJobs)
	}
	if n := w.auth.Calls(); n != wantCalls+1+len(w.shards) {
		t.Errorf("%d calls, want %d, that of the killed worker, and one for each of %d shards", n, wantCalls, len(w.shards))
	}
	asked := map[string]int{}
	for _, id := range w.auth.AskedIDs() {
		asked[id]++
	}
	for i, id := range slices.Concat(all, w.users[0][len(all):], w.users[1][len(all):], w.users[2][len(all):]) {
		want := 1
		if i < 2 { // due in each shard
			want += len(w.shards)
		}
		if slices.Contains(again, id.String()) {
			want++
		}
		if asked[id.String()] != want {
			t.Errorf("user %d was checked %d times, want %d", i, asked[id.String()], want)
		}
	}
}

// What nobody knows is checked by each shard, and nothing is made out of a gap: a range
// whose worker was killed, and answers that are too old.
func TestGap(t *testing.T) {
	for name, of := range map[string]struct {
		killed bool
		age    string
		calls  int // of a pass, about 260 users in 3 batches
	}{
		"nothing":             {age: "0s", calls: 0},
		"a worker was killed": {killed: true, age: "0s", calls: 2},
		"old answers":         {age: "1h 1s", calls: 3},
		"its clock set back":  {age: "-1h", calls: 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3, 0)
			w.shared(260, 2)
			machine, _ := w.machine()
			worker, _ := w.worker(queue.Options{})
			run, err := worker.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// What a worker leaves that is killed after the first half, or at the end.
			halves := fleet.AllIDs().Cut(2)
			if !of.killed {
				halves[0] = fleet.AllIDs()
			}
			answer, rest, err := machine.Ask(t.Context(), halves[0], limit)
			if err != nil || rest != nil {
				t.Fatal(rest, err)
			}
			w.control.Exec("SELECT orphan_cleaner_fleet.range_done($1, $2, $3, $4, $5, $6::interval)", run, answer.First, answer.Last, answer.Checked, answer.Missing, of.age)
			state := "completed"
			if of.killed {
				state = "running"
				w.control.Exec("SELECT orphan_cleaner_fleet.ranges_add($1, ARRAY[$2::uuid], ARRAY[$3::uuid])", run, halves[1].First, halves[1].Last)
			}
			w.control.Exec(fmt.Sprintf(`UPDATE orphan_cleaner_fleet.river_job SET state = '%s', attempt = 1, attempted_at = now(), attempted_by = '{killed}',
				finalized_at = CASE WHEN '%[1]s' = 'completed' THEN now() END WHERE kind = 'fleet_range'`, state))
			// The time for all of it is over.
			w.control.Exec("UPDATE orphan_cleaner_fleet.river_job SET state = 'available', scheduled_at = now() WHERE kind = 'fleet_first_pass' AND state = 'scheduled'")
			w.auth.ResetCalls()
			if r, err := w.run(2); err != nil {
				t.Fatalf("%s: %v\n%s", r.State, err, w.logged())
			}
			w.cleaned(2)
			if n, want := w.auth.Calls(), len(w.shards)*(2*of.calls+1); n != want {
				t.Errorf("%d calls, want %d", n, want)
			}
		})
	}
}
