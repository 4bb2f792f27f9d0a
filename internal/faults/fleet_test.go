package faults

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// fleetRows are met by three databases with one auth-service.
func fleetRows() []row {
	return []row{
		{"a lie below every shard's floor", withFleet(lieBelowFloors)},
		{"a shard away at the first pass", withFleet(awayAtFirstPass)},
		{"a shard away at its sweep", withFleet(awayAtSweep)},
		{"one database under two names", withFleet(twoNames)},
		{"a shard is paused", withFleet(shardPaused)},
		{"an approval used again", withFleet(approvalAgain)},
		{"an approval of other databases", withFleet(approvalOfOthers)},
		{"another fleet's control database", withFleet(anotherFleet)},
		{"the control database killed", withFleet(controlKilled)},
		{"its clock set back in mid-wave", withFleet(controlClockBack)},
		{"it is restored from a backup", withFleet(controlRestored)},
		{"a worker killed in its sweep", withFleet(workerKilled)},
		{"two workers on one shard", withFleet(twoWorkers)},
	}
}

// fleet is shards, each of them a world, and the fleet.yaml that names them.
type fleet struct {
	*world // the first shard, whose auth-service is everybody's and whose note is the row's
	shards []*world
	dir    string
	file   string // beside the shards and the control database
	// control is the control database, or nil.
	control *world
}

func withFleet(meet func(f *fleet)) func(w *world) {
	return func(w *world) {
		f := &fleet{world: w, shards: []*world{w}, dir: w.t.TempDir()}
		for range 2 {
			other := newWorld(w.t, w.program)
			other.auth = w.auth
			f.shards = append(f.shards, other)
		}
		for i, shard := range f.shards {
			f.reach(i, shard.url)
		}
		f.write("")
		meet(f)
	}
}

// reach has a shard reached by this URL.
func (f *fleet) reach(shard int, url string) {
	f.t.Helper()
	f.put(fmt.Sprintf("shard-%d", shard), url)
}

func (f *fleet) put(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// write writes the fleet.yaml: wave 1 is the first shard, wave 2 the others, one after the other.
func (f *fleet) write(more string) {
	f.t.Helper()
	f.file = "waves: [1]\nworkers: 1\nshards: [{name: shard-0, url_file: shard-0}, {name: shard-1, url_file: shard-1}, {name: shard-2, url_file: shard-2}]\n" + more
	f.put("fleet.yaml", f.file)
}

// controlledBy gives the fleet a control database.
func (f *fleet) controlledBy(control *world) {
	f.t.Helper()
	f.control = control
	f.put("control", control.url)
	f.write("control_url_file: control\nmax_qps: 1000\njob_timeout: 1h\n")
	if e := f.command("migrate").wait(); e.status != 0 {
		f.t.Fatal(e)
	}
}

// controlled gives it one in the cluster that all rows share.
func (f *fleet) controlled() {
	f.t.Helper()
	db := testdb.NewEmpty(f.t)
	f.controlledBy(&world{t: f.t, url: db.URL, pool: db.Pool})
}

// command starts a command of the fleet.
func (f *fleet) command(args ...string) *process {
	f.t.Helper()
	return spawn(f.t, f.environment(), f.program, append([]string{"fleet"}, args...)...)
}

func (f *fleet) environment() []string {
	return append(f.settings(), "ORPHAN_CLEANER_FLEET="+filepath.Join(f.dir, "fleet.yaml"))
}

// begin starts a run of the fleet.
func (f *fleet) begin(env ...string) *process {
	f.t.Helper()
	return spawn(f.t, append(f.environment(), env...), f.program, append([]string{"fleet"}, flags()...)...)
}

func (f *fleet) run() ended {
	f.t.Helper()
	return f.begin().wait()
}

// stopped is a run that has stopped itself after a step.
func (f *fleet) stopped(step string, env ...string) *process {
	f.t.Helper()
	p := f.begin(append(env, "ORPHAN_CLEANER_TEST_FAILPOINT="+step+"=stop")...)
	name, _, _ := strings.Cut(step, ":")
	p.stopsAfter(name)
	return p
}

// expect asserts how a run of the fleet ended, and of each shard what may be read from it.
func (f *fleet) expect(e ended, want want, gone ...gone) {
	f.t.Helper()
	f.ends(e, want)
	f.amounts(gone...)
}

// amounts asserts of each shard what is gone.
func (f *fleet) amounts(gone ...gone) {
	f.t.Helper()
	for i, shard := range f.shards {
		shard.sound()
		shard.over()
		shard.amount(gone[i])
		for invariant := range shard.note.held {
			f.holds(invariant)
		}
	}
}

// converges asserts that with the fault lifted the next run does the rest, and the one after it
// nothing. That one has no control database, and is faster.
func (f *fleet) converges() {
	f.t.Helper()
	f.auth.SetFaultFunc(nil)
	var before string
	for range 2 {
		for _, shard := range f.shards {
			shard.settle()
		}
		if e := f.run(); e.status != 0 {
			f.t.Fatalf("with the fault lifted: %s", e)
		}
		f.amounts(all, all, all)
		after := ""
		for _, shard := range f.shards {
			after += shard.fingerprint() + "\n"
		}
		if before != "" && after != before {
			f.t.Errorf("another run changed something: %s, was %s", after, before)
		}
		before = after
		f.write("")
	}
	f.holds("I4")
}

// small leaves 30 living users in each shard, and nobody who is due: losing five of them is below
// the floor of a shard, and 15 of 90 is not below that of the fleet.
func (f *fleet) small() {
	f.t.Helper()
	for _, shard := range f.shards {
		shard.exec(`DELETE FROM conversation_members WHERE user_id <> ALL ($1)`, f.living[:30])
		shard.exec(`DELETE FROM orphan_cleaner.candidates`)
		shard.witness()
		shard.settle()
	}
}

// loses has auth-service lose five of these users.
func (f *fleet) loses(from int) {
	f.t.Helper()
	f.auth.Delete(f.living[from : from+5]...)
}

var refusedByFleet = want{exit: 3, state: "refused", shows: "new-missing-share"}

// lieBelowFloors: each shard alone lets it pass.
func lieBelowFloors(f *fleet) {
	f.small()
	f.controlled()
	f.loses(0)
	for _, shard := range f.shards {
		if e := spawn(f.t, shard.settings(), f.program, append(flags(), "--dry-run")...).wait(); e.status != 0 {
			f.t.Fatalf("a shard alone refuses it, and the row shows nothing: %s", e)
		}
	}
	f.expect(f.run(), refusedByFleet, nothing, nothing, nothing)
	address := net.JoinHostPort("127.0.0.1", fmt.Sprint(testdb.FreePort(f.t)))
	worker := f.command("serve", "--interval=24h", "--metrics-addr="+address)
	eventually(f.t, "a worker's metric names the breaker", func() bool {
		return strings.Contains(scrape(f.world, address), `orphan_cleaner_fleet_breaker_tripped{breaker="new-missing-share"} 1`)
	})
	f.holds("I7")
	worker.signal(syscall.SIGTERM)
	if e := worker.wait(); e.status != 0 {
		f.t.Error(e)
	}
	f.amounts(nothing, nothing, nothing)
	f.auth.Add(f.living...)
	f.converges()
}

// awayAtFirstPass: one shard may be away. It is left alone, and the others are cleaned.
func awayAtFirstPass(f *fleet) {
	f.reach(1, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/messaging", testdb.FreePort(f.t)))
	f.expect(f.run(), want{exit: 1, state: "incomplete", shows: "shards shard-1 are left for the next run"}, all, nothing, all)
	f.reach(1, f.shards[1].url)
	f.converges()
}

// awayAtSweep: it was there at the first pass.
func awayAtSweep(f *fleet) {
	proxy := f.shards[1].proxied(neverArrives, 1<<30)
	f.reach(1, strings.TrimPrefix(f.shards[1].env[0], "DATABASE_URL="))
	p := f.stopped("sweep")
	proxy.stop()
	f.expect(p.goOn(), want{exit: 1, state: "incomplete", shows: "shards shard-1 are left for the next run"}, all, nothing, all)
	f.reach(1, f.shards[1].url)
	f.converges()
}

// twoNames: by the file they are two databases.
func twoNames(f *fleet) {
	again, err := url.Parse(f.url)
	if err != nil {
		f.t.Fatal(err)
	}
	again.Host = net.JoinHostPort("localhost", again.Port())
	f.reach(2, again.String())
	f.expect(f.run(), want{exit: 1, state: "incomplete", shows: "shards shard-0 and shard-2 are the same database"}, nothing, nothing, nothing)
	f.reach(2, f.shards[2].url)
	f.converges()
}

// shardPaused: the others are cleaned, and nothing is wrong.
func shardPaused(f *fleet) {
	owner := func(command ...string) {
		f.t.Helper()
		if e := spawn(f.t, f.shards[1].settings(), f.program, command...).wait(); e.status != 0 {
			f.t.Fatal(e)
		}
	}
	owner("pause", "--reason=test")
	f.expect(f.run(), want{exit: 0, state: "succeeded"}, all, nothing, all)
	owner("resume")
	f.converges()
}

// refusedAndApproved is a run that was refused, and an approval of it.
func (f *fleet) refusedAndApproved() {
	f.t.Helper()
	f.small()
	f.controlled()
	f.loses(0)
	f.expect(f.run(), refusedByFleet, nothing, nothing, nothing)
	if e := f.approve(); e.status != 0 {
		f.t.Fatal(e)
	}
}

func (f *fleet) approve() ended {
	f.t.Helper()
	return f.command("approve", "1", "--yes").wait()
}

// approvalAgain: it admits what it was given for, once.
func approvalAgain(f *fleet) {
	f.refusedAndApproved()
	if e := f.run(); e.status != 0 {
		f.t.Fatalf("what was approved: %s", e)
	}
	for _, shard := range f.shards {
		shard.ownLedger()
	}
	if e := f.approve(); e.status != 2 || !strings.Contains(e.stderr, "was used already") {
		f.t.Errorf("approved twice: %s", e)
	}
	f.loses(5)
	f.expect(f.run(), refusedByFleet, nothing, nothing, nothing)
	f.auth.Add(f.living...)
	f.converges()
}

// approvalOfOthers: two names have changed places, and what was approved of one is not of the other.
func approvalOfOthers(f *fleet) {
	f.refusedAndApproved()
	f.reach(0, f.shards[1].url)
	f.reach(1, f.shards[0].url)
	f.expect(f.run(), refusedByFleet, nothing, nothing, nothing)
	f.auth.Add(f.living...)
	f.converges()
}

// anotherFleet: its runs and its budget are not ours.
func anotherFleet(f *fleet) {
	f.controlled()
	file := f.file
	f.put("fleet.yaml", strings.ReplaceAll(file, "name: shard-", "name: other-"))
	if e := f.run(); e.status != 0 {
		f.t.Fatalf("the other fleet: %s", e)
	}
	f.amounts(all, all, all)
	f.put("fleet.yaml", file)
	f.expect(f.run(), want{exit: 2, state: "failed", shows: "the control database is of another fleet: run 1 had the shards other-0, other-1, other-2"}, all, all, all)
	f.write("")
	f.converges()
}

// controlKilled: the sweep that is under way comes to its end, and so does the run.
func controlKilled(f *fleet) {
	cluster := startCluster(f.t, pgtemp.Options{})
	db := testdb.NewBareOn(f.t, cluster)
	f.controlledBy(&world{t: f.t, url: db.URL, pool: db.Pool})
	p := f.stopped("chunk")
	if err := cluster.Crash(); err != nil {
		f.t.Fatal(err)
	}
	p.signal(syscall.SIGCONT)
	p.says("No calls are made while the control database is away")
	if err := cluster.Restart(context.Background()); err != nil {
		f.t.Fatal(err)
	}
	f.note.shows = "No calls are made while the control database is away"
	f.expect(p.wait(), want{exit: 0, state: "succeeded", shows: f.note.shows}, all, all, all)
	f.converges()
}

// controlClockBack: nobody waits for calls until the clock is there again; the next run waits for
// somebody to look.
func controlClockBack(f *fleet) {
	control := emptyWorld(f.t, f.program, "", nil)
	clock := control.ownClock()
	f.controlledBy(control)
	clock.jump(-2 * day)
	f.expect(f.run(), want{exit: 1, state: "failed", shows: "behind this machine: no job would begin"}, nothing, nothing, nothing)
	clock.jump(2 * day)
	p := f.stopped("chunk")
	clock.jump(0)
	f.expect(p.goOn(), want{exit: 0, state: "succeeded"}, all, all, all)
	f.note.state = ""
	f.expect(f.run(), want{exit: 1, state: "failed", shows: "the clock of the control database is behind an earlier run"}, all, all, all)
	control.exec(`UPDATE orphan_cleaner_fleet.runs SET started_at = started_at - interval '2 days'`)
	f.converges()
}

// passes is whatever a lease, River's or a shard's, waits for.
func (f *fleet) passes() {
	f.t.Helper()
	f.control.exec(`UPDATE orphan_cleaner_fleet.river_job SET attempted_at = attempted_at - interval '2 hours' WHERE state = 'running'`)
	f.control.exec(`UPDATE orphan_cleaner_fleet.river_leader SET expires_at = elected_at`)
}

// goesOn is another run that goes on, once River has given it what a worker held.
func (f *fleet) goesOn() ended {
	f.t.Helper()
	f.passes()
	p := f.begin()
	eventually(f.t, "River rescues the job", func() bool {
		return f.control.count(`orphan_cleaner_fleet.river_job WHERE errors[1] ->> 'error' LIKE '%rescued%'`) == 1
	})
	f.control.exec(`UPDATE orphan_cleaner_fleet.river_job SET scheduled_at = now() WHERE state = 'retryable'`)
	return p.wait()
}

// killed is a run that was killed in the sweep of the first shard.
func (f *fleet) killed(step string) {
	f.t.Helper()
	e := f.begin("ORPHAN_CLEANER_TEST_FAILPOINT=" + step + "=kill").wait()
	if e.signal != syscall.SIGKILL {
		f.t.Fatalf("it was to be killed: %s", e)
	}
	f.note.exit, f.note.state = "killed", "abandoned"
	for _, shard := range f.shards {
		shard.sessionsEnd()
		shard.sound()
	}
}

// workerKilled: another goes on with its shard.
func workerKilled(f *fleet) {
	f.controlled()
	f.killed("chunk:2")
	f.leaseEnds()
	f.expect(f.goesOn(), want{exit: 0, state: "succeeded"}, all, all, all)
	if n := f.count(`orphan_cleaner.runs WHERE state = 'abandoned'`); n != 1 {
		f.t.Errorf("%d runs of the first shard are abandoned", n)
	}
	f.converges()
}

// twoWorkers: one is frozen in its sweep until another has the shard, and wakes as a ghost.
func twoWorkers(f *fleet) {
	f.controlled()
	ghost := f.stopped("checked-again")
	f.leaseEnds()
	f.expect(f.goesOn(), want{exit: 0, state: "succeeded"}, all, all, all)
	reports := `SELECT md5(string_agg(s::text, '' ORDER BY s.shard)) FROM orphan_cleaner_fleet.shards AS s`
	before, report := f.fingerprint(), one[string](f.control, reports)
	e := ghost.goOn()
	if !strings.Contains(e.stderr, "silent for longer than its lease") {
		f.t.Errorf("the ghost: %s", e)
	}
	f.note.shows = "silent for longer than its lease"
	if f.fingerprint() != before || one[string](f.control, reports) != report {
		f.t.Errorf("the ghost changed something: %s", e)
	}
	f.amounts(all, all, all)
	f.converges()
}

// restored is the control database as a backup has it that is a day old.
func (f *fleet) restored() *world {
	f.t.Helper()
	f.control.sessionsEnd()
	name := one[string](f.control, `SELECT current_database()`)
	f.control.pool.Close()
	f.exec(fmt.Sprintf(`CREATE DATABASE %s_restored TEMPLATE %[1]s`, name))
	restored := &world{t: f.t, url: f.cluster.URL(name + "_restored")}
	restored.pool = open(f.t, restored.url)
	restored.exec(`UPDATE orphan_cleaner_fleet.runs SET started_at = started_at - interval '1 day', progressed_at = progressed_at - interval '1 day'`)
	restored.exec(`UPDATE orphan_cleaner_fleet.river_job SET created_at = created_at - interval '1 day', attempted_at = attempted_at - interval '1 day', scheduled_at = scheduled_at - interval '1 day'`)
	restored.exec(`UPDATE orphan_cleaner_fleet.budget SET free_at = free_at - interval '1 day', taken_at = taken_at - interval '1 day'`)
	restored.exec(`DELETE FROM orphan_cleaner_fleet.river_leader`)
	return restored
}

// controlRestored: a day ago a run was in mid-wave. What was judged then is no reason to sweep now.
func controlRestored(f *fleet) {
	f.controlled()
	f.killed("sweep:2") // in wave 2, and the last shard's job waits
	backup := f.restored()
	for _, shard := range f.shards {
		shard.exec(`UPDATE orphan_cleaner.runs SET heartbeat_at = now() - lease - interval '1 s' WHERE state = 'running'`)
		if e := spawn(f.t, shard.settings(), f.program, flags()...).wait(); e.status != 0 {
			f.t.Fatal(e)
		}
	}
	f.control = backup
	f.put("control", backup.url)
	runs := f.shards[2].count(`orphan_cleaner.runs`)
	worker := f.command("serve", "--interval=24h", "--metrics-addr=127.0.0.1:0")
	eventually(f.t, "a run of the fleet is made", func() bool {
		return f.control.count(`orphan_cleaner_fleet.runs WHERE fleet_run = 2 AND state = 'succeeded'`) == 1
	})
	worker.signal(syscall.SIGTERM)
	if e := worker.wait(); e.status != 0 {
		f.t.Error(e)
	}
	f.control.none("the run of the day before went on", `SELECT shard, wave FROM orphan_cleaner_fleet.shards WHERE fleet_run = 1 AND shard = 'shard-2' AND swept IS NOT NULL`)
	if n := f.shards[2].count(`orphan_cleaner.runs`) - runs; n != 1 {
		f.t.Errorf("%d runs of the last shard, want 1", n)
	}
	f.note.exit, f.note.state, f.note.shows = "0", "succeeded", "too old to go on with"
	if !strings.Contains(worker.stderr.String(), f.note.shows) {
		f.t.Errorf("it does not say why nobody goes on: %s", worker.stderr)
	}
	f.amounts(all, all, all)
	f.converges()
}
