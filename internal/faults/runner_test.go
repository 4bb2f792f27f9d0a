package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

const sigCont = syscall.SIGCONT

// runnerRows are the faults of the machine that runs the program, and of those
// who start it.
func runnerRows() []row {
	return []row{
		{"kill -9 at every step", killedAtEveryStep},
		{"kill -9 at random moments", killedAtRandom},
		{"an error at every step", failedAtEveryStep},
		{"SIGTERM", terminated},
		{"paused past its lease", pausedPastLease},
		{"frozen inside a chunk", frozen},
		{"its login stolen", loginStolen},
		{"the stack nearly exhausted", stackExhausted},
		{"two started at once", twoAtOnce},
		{"started every minute", startedAgain},
		{"clock forward 31 days", clockForward},
		{"clock back 2 days", clockBack},
		{"memory limit", memoryLimit},
		{"stdout closed", stdoutClosed},
		{":9091 taken", portTaken},
		{"Pushgateway down", pushgatewayDown},
	}
}

// steps are the failpoints of a run, in the order in which it passes them; where
// it passes one often, the time that is in the middle.
func steps() []string {
	return []string{
		"begin", "preflight", "staged", "verify", "judge", "snapshot:3", "checked-again:3", "chunk:3", "commit:3", "recheck", "sweep", "finish",
	}
}

// eachStep meets every step in a world of its own.
func eachStep(w *world, meet func(w *world, step string)) {
	w.t.Helper()
	var mu sync.Mutex
	// A group, so that it has ended when this returns.
	w.t.Run("steps", func(t *testing.T) {
		for _, step := range steps() {
			t.Run(step, func(t *testing.T) {
				t.Parallel()
				own := newWorld(t, w.program)
				meet(own, step)
				mu.Lock()
				defer mu.Unlock()
				for invariant := range own.note.held {
					w.note.held[invariant] = true
				}
			})
		}
	})
}

// killedAtEveryStep: after each, gone = audited = backed up, and the end is that
// of a run which nobody disturbed.
func killedAtEveryStep(w *world) {
	eachStep(w, func(w *world, step string) {
		e := w.failing(step + "=kill").wait()
		if e.signal != syscall.SIGKILL {
			w.t.Fatalf("the run was not killed after %s: %s", step, e)
		}
		w.sessionsEnd()
		w.sound()
		// Nobody else gets in before its lease has ended.
		open := w.count(`orphan_cleaner.runs WHERE state = 'running'`)
		if want := map[bool]int64{true: 0, false: 1}[step == "finish"]; open != want {
			w.t.Errorf("%d runs are open, want %d", open, want)
		}
		if open == 1 {
			if e := w.run(); e.status != 4 {
				w.t.Errorf("before the lease has ended: %s", e)
			}
			w.sound()
			w.leaseEnds()
		}
		w.lastRun()
		if abandoned := w.count(`orphan_cleaner.runs WHERE state = 'abandoned'`); abandoned != open {
			w.t.Errorf("%d runs are on record as abandoned, want %d", abandoned, open)
		}
		w.converges()
	})
	w.note.exit, w.note.state = "killed", "abandoned"
	w.note.shows = fmt.Sprintf("%d steps; the next run: exit 4, after the lease 0", len(steps()))
}

// failedAtEveryStep: a run that fails ends in good order, whatever was done.
func failedAtEveryStep(w *world) {
	eachStep(w, func(w *world, step string) {
		e := w.failing(step + "=error").wait()
		switch step {
		case "begin": // opened, and nobody knows
			w.unfinished(e, "injected by a failpoint")
			w.leaseEnds()
		case "finish": // ended, and nobody knows
			if e.status != 1 || !strings.Contains(e.stderr, "injected by a failpoint") {
				w.t.Errorf("want exit status 1 and why: %s", e)
			}
		default:
			w.expect(e, want{exit: 1, state: "failed", shows: "injected by a failpoint", gone: some})
		}
		w.converges()
	})
	w.note.exit, w.note.state, w.note.shows = "1", "failed", fmt.Sprintf("%d steps; none is left half done", len(steps()))
}

func terminated(w *world) {
	for _, at := range []struct {
		step string
		gone gone
	}{{"begin", nothing}, {"staged", nothing}, {"checked-again:2", some}, {"chunk:2", some}} {
		p := w.stopped(at.step)
		p.signal(syscall.SIGTERM)
		e := p.goOn()
		w.expect(e, want{exit: 1, state: "incomplete", shows: "interrupted; the next run goes on from here", gone: at.gone})
		w.bounded()
	}
	w.converges()
}

// pausedPastLease: between two transactions another run takes over, and the first
// wakes as a ghost. Inside of one it has taken over once the server has ended the
// session that says nothing.
func pausedPastLease(w *world) {
	ghost := w.stopped("checked-again")
	w.leaseEnds()
	w.takesOver()
	w.haunts(ghost)

	w.die(w.living[5:15]...)
	ghost = w.stopped("chunk:2")
	w.leaseEnds()
	w.takesOver()
	w.haunts(ghost)
	w.holds("I5")
	w.converges()
	w.note.exit, w.note.state, w.note.shows = "1", "abandoned", "silent for longer than its lease"
}

func (w *world) takesOver() {
	w.t.Helper()
	if other := w.run(); other.status != 0 {
		w.t.Fatalf("the other: %s", other)
	}
	w.sound()
	w.over()
	w.amount(all)
}

// haunts wakes a run that was taken over: it changes nothing, and says why.
func (w *world) haunts(ghost *process) {
	w.t.Helper()
	before := one[string](w, fingerprint)
	if e := ghost.goOn(); e.status != 1 || !strings.Contains(e.stderr, "silent for longer than its lease and was taken over") {
		w.t.Errorf("the ghost: %s", e)
	} else {
		w.namesHint(e)
		w.holds("I7")
	}
	if after := one[string](w, fingerprint); after != before {
		w.t.Error("the ghost changed something")
	}
	if state := one[string](w, `SELECT state FROM orphan_cleaner.runs WHERE host LIKE '%:' || $1::text`, strconv.Itoa(ghost.cmd.Process.Pid)); state != "abandoned" {
		w.t.Errorf("the ghost is on record as %s", state)
	}
	w.sound()
	w.over()
}

func twoAtOnce(w *world) {
	begun := make(chan [2]*process, 1)
	var once sync.Once
	w.auth.SetFaultFunc(func(_ context.Context, _ int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		once.Do(func() { // and all others wait for that
			both := <-begun
			select {
			case <-both[0].exited:
			case <-both[1].exited:
			case <-time.After(limit): // both run, or none has ended
			}
		})
		return honest()
	})
	const patient = "--auth-service-timeout=2m"
	first, second := w.begin(patient), w.begin(patient)
	begun <- [2]*process{first, second}
	one, other := first.wait(), second.wait()
	if one.status == 4 {
		one, other = other, one
	}
	if other.status != 4 {
		w.t.Fatalf("the other: %s", other)
	}
	w.expect(one, want{exit: 0, state: "succeeded", gone: all})
	w.note.exit, w.note.state, w.note.shows = "0 and 4", "succeeded", "another run is open"
	if !strings.Contains(other.stderr, "another run is open: run ") || !strings.Contains(other.stderr, "orphan-cleaner status") {
		w.t.Errorf("it is not told who is there: %s", other)
	}
	w.converges()
}

// startedAgain: a run that takes many times its lease, and cron that does not wait.
func startedAgain(w *world) {
	release, asked := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.auth.SetFaultFunc(func(ctx context.Context, call int, ids []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if call > 20 {
			once.Do(func() { close(asked) })
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return honest()
	})
	const lease = 4 * time.Second
	long := w.begin("--lease="+lease.String(), "--auth-service-timeout=2m")
	select {
	case <-asked:
	case <-long.exited:
		w.t.Fatalf("the run ended early: %s", long.wait())
	}
	began := one[time.Time](w, `SELECT started_at FROM orphan_cleaner.runs WHERE state = 'running'`)
	starts := 0
	for starts < 3 || one[time.Time](w, `SELECT clock_timestamp()`).Sub(began) < 4*lease {
		e := w.run()
		if e.status != 4 || !strings.Contains(e.stderr, "another run is open: run ") {
			w.t.Fatalf("started meanwhile: %s", e)
		}
		starts++
	}
	w.sound()
	w.sameLedger()
	close(release)
	w.expect(long.wait(), want{exit: 0, state: "succeeded", gone: all})
	w.note.exit, w.note.shows = "0 and 4", "another run is open"
	w.converges()
}

// fakeClock is a database server whose clock a file's time of modification leads. What a
// file says would do, too, but reading it allocates memory, and the server reads its clock
// in signal handlers.
type fakeClock struct {
	w    *world
	file string
	zero time.Time // the file's time at which the clock is right
}

// ownClock moves the world to a cluster under libfaketime.
func (w *world) ownClock() *fakeClock {
	w.t.Helper()
	library := ""
	for _, pattern := range []string{"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			library = found[0]
		}
	}
	if library == "" {
		testdb.Needed(w.t, "make fault-tools", "libfaketime.so.1")
	}
	// Not the test's own temporary directory: the server's user cannot enter it.
	dir, err := os.MkdirTemp("/tmp", "orphan-cleaner-clock-")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	clock := &fakeClock{w, filepath.Join(dir, "now"), time.Now()}
	if err := os.WriteFile(clock.file, nil, 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.ownCluster(pgtemp.Options{Env: []string{
		"LD_PRELOAD=" + library, "FAKETIME=%", "FAKETIME_FOLLOW_FILE=" + clock.file, "FAKETIME_DONT_RESET=1", "FAKETIME_NO_CACHE=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1",
	}})
	// The clock began with the server.
	clock.zero = clock.zero.Add(time.Since(clock.now()))
	clock.set(0)
	return clock
}

func (c *fakeClock) now() time.Time {
	c.w.t.Helper()
	return one[time.Time](c.w, `SELECT clock_timestamp()`)
}

func (c *fakeClock) set(offset time.Duration) {
	c.w.t.Helper()
	at := c.zero.Add(offset)
	if err := os.Chtimes(c.file, at, at); err != nil {
		c.w.t.Fatal(err)
	}
}

// jump sets the clock to that much off and makes sure that the server goes by it.
func (c *fakeClock) jump(offset time.Duration) {
	c.w.t.Helper()
	c.set(offset)
	if off := time.Until(c.now()) - offset; off.Abs() > time.Minute {
		c.w.t.Fatalf("the server's clock is %s off what was wanted", off)
	}
}

const day = 24 * time.Hour

// recorded shifts what runs have recorded, as if the clocks of the database and
// of the runner had both jumped the other way.
func (w *world) recorded(by string) {
	w.t.Helper()
	w.exec(`UPDATE orphan_cleaner.runs SET started_at = started_at + $1::interval, heartbeat_at = heartbeat_at + $1::interval, finished_at = finished_at + $1::interval`, by)
}

// clockForward: in the middle of a run nobody falls due who was not when the
// ledger was written; between two runs every clock of the ledger starts anew.
func clockForward(w *world) {
	clock := w.ownClock()
	// Missing for five days, with members of 20 days: the jump must not make them old.
	w.auth.Delete(w.living[3])
	w.exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT $1, now() - interval '5 days', last_missing_at, last_missing_run, evidence FROM orphan_cleaner.candidates LIMIT 1`, w.living[3])
	w.app(`UPDATE %s SET joined_at = '`+one[string](w, `SELECT (now() - interval '20 days')::text`)+`' WHERE user_id = $1`, w.living[3])
	w.expect(w.after("judge", func() {
		clock.jump(31 * day)
		w.exec(`SELECT orphan_cleaner.partitions_ensure(7)`)
	}), want{exit: 0, state: "succeeded", gone: all})
	// The runner's own clock shows that the database's is off.
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "preflight failed: clock-skew", gone: all})

	// Both jumped: who is long due was not seen for longer than max-gap.
	clock.jump(0)
	w.recorded("-62 days")
	w.due(w.living[5:8]...)
	w.exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT u, now() - interval '71 days', now() - interval '31 days', (SELECT max(run_id) FROM orphan_cleaner.runs), 'sightings'
		FROM unnest($1::uuid[]) AS u`, w.living[5:8])
	w.expect(w.run(), want{exit: 0, state: "succeeded", gone: untouched})
	w.none("a clock did not start anew", `SELECT user_id FROM orphan_cleaner.candidates WHERE user_id = ANY ('{`+
		w.living[5].String()+`,`+w.living[6].String()+`,`+w.living[7].String()+`}') AND first_missing_at < now() - interval '1 hour'`)
	w.note.shows = "nobody falls due; then clock-skew"
}

func clockBack(w *world) {
	clock := w.ownClock()
	w.ownLedger()
	clock.jump(-2 * day)
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "preflight failed: clock-skew", gone: nothing})
	clock.jump(0)
	// Both are behind what runs have recorded.
	w.recorded("2 days")
	w.expect(w.run(), want{exit: 3, state: "refused", shows: "breaker clock", gone: nothing})
	w.recorded("-2 days")

	// In mid-run it goes on by what it knew. The audit is not found where it was
	// looked for: a false alarm, and none too many.
	e := w.after("judge", func() {
		clock.jump(-2 * day)
		w.exec(`SELECT orphan_cleaner.partitions_ensure(7)`)
	})
	w.expect(e, want{exit: 1, state: "failed", shows: "count proof failed over the whole run", gone: all})
	clock.jump(0)
	w.note.shows = "clock-skew; breaker clock"
	w.converges()
}

// memoryLimit: 100,000 users under a limit of the kernel on what the program may
// write to.
func memoryLimit(w *world) {
	const (
		limitKiB = 128 << 10 // a Go program that does nothing takes 70 of these MiB, and touches few
		peak     = 64 << 20
	)
	w.crowd(100_000)
	w.env = append(w.env, "ORPHAN_CLEANER_TEST_FAILPOINT=finish=stop")
	p := w.limited(fmt.Sprintf("ulimit -d %d", limitKiB), "--batch-size=100")
	p.stopsAfter("finish")
	took := p.peak()
	w.env = w.env[:len(w.env)-1]
	w.expect(p.goOn(), want{exit: 0, state: "succeeded", gone: all})
	if took > peak {
		w.t.Errorf("the run took %d MiB at its peak, want %d MiB at most", took>>20, peak>>20)
	}
	w.holds("I5")
	w.note.shows = fmt.Sprintf("100,000 users in %d MiB", took>>20)
	w.converges("--batch-size=100")

	// The limit is one: with less the program cannot even start, and does nothing.
	before := one[string](w, fingerprint)
	if e := w.limited("ulimit -d 2048").wait(); e.status == 0 {
		w.t.Error("the limit does not limit")
	}
	if one[string](w, fingerprint) != before {
		w.t.Error("a program without memory changed something")
	}
}

var peakPattern = regexp.MustCompile(`VmHWM:\s*(\d+) kB`)

// peak is the most memory, in bytes, that the program has touched so far. What
// wait4 reports would count the test's own, from before the exec.
func (p *process) peak() int64 {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	found := peakPattern.FindSubmatch(status)
	if found == nil {
		p.t.Fatalf("no peak in %s", status)
	}
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return kib << 10
}

// limited starts a run in a shell that limits it.
func (w *world) limited(command string, more ...string) *process {
	w.t.Helper()
	args := append([]string{"-c", command + ` && exec "$0" "$@"`, w.program}, append(flags(), more...)...)
	return spawn(w.t, w.settings(), "/bin/sh", args...)
}

// crowd adds living users with a member each.
func (w *world) crowd(size int) {
	w.t.Helper()
	w.exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT md5('conversation ' || u % 50)::uuid, md5('crowd ' || u)::uuid, now() - interval '60 days'
		FROM generate_series(1, $1::int) AS u`, size)
	w.exec(`ANALYZE conversation_members`)
	w.auth.Add(collect[uuid.UUID](w, `SELECT md5('crowd ' || u)::uuid FROM generate_series(1, $1::int) AS u`, size)...)
	w.witness()
}

// stdoutClosed: closed from the start, which is to Go like /dev/null; one that
// takes nothing; and a pipe that nobody reads any more.
func stdoutClosed(w *world) {
	if e := w.limited("exec >&-").wait(); e.status != 0 || e.stdout != "" {
		w.t.Errorf("with stdout closed: %s", e)
	}
	w.sound()
	w.over()
	w.amount(all)
	w.die(w.living[10:13]...)
	e := w.limited("exec >/dev/full").wait()
	if e.status != 1 || !strings.Contains(e.stderr, "writing the result") {
		w.t.Errorf("want exit status 1 and why: %s", e)
	}
	w.sound()
	w.over()
	w.amount(all)
	w.note.exit, w.note.state, w.note.shows = "1", "succeeded", "writing the result"
	w.none("the runs' rows do not say how they ended", `SELECT state FROM orphan_cleaner.runs WHERE run_id > 1 AND state <> 'succeeded'`)

	// Both streams at once: the first line of the log ends the program, like a kill.
	w.die(w.living[5:8]...)
	read, write, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := read.Close(); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(w.program, flags()...)
	cmd.Env, cmd.Stdout, cmd.Stderr = w.settings(), write, write
	if err := cmd.Run(); err == nil {
		w.t.Error("nobody could read what the run said, and it says that all is well")
	}
	if err := write.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.sessionsEnd()
	w.sound()
	w.leaseEnds()
	w.converges()
}
