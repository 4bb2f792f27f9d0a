package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// fleetOf writes a fleet.yaml of these worlds, who are reached as the runner, and returns
// its path; all have the auth-service of the first.
func fleetOf(t *testing.T, more string, worlds ...*world) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "shards"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, w := range worlds {
		if err := os.WriteFile(filepath.Join(dir, "shards", fmt.Sprintf("shard-%d", i)), []byte(w.Login(runner)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "fleet.yaml")
	if err := os.WriteFile(path, []byte("shards: {directory: shards}\n"+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newFleet is n worlds of 300 users whom one auth-service knows; in each 15 are due.
func newFleet(t *testing.T, n int) (worlds []*world) {
	t.Helper()
	for range n {
		w := newWorld(t, 300, 15)
		w.Roles(rolesFile)
		worlds = append(worlds, w)
	}
	return worlds
}

// wide lets small databases lose a large part of themselves, over the sums as alone.
const wide = "limits: {new-missing-share: 1, new-missing-rate: 1, candidate-share: 1, delete-share: 1, delete-share-7d: 1, delete-share-30d: 1}\n"

// check, run and status of a fleet, with the runner's grants and nothing more.
func TestFleet(t *testing.T) {
	t.Parallel()
	worlds := newFleet(t, 3)
	path := fleetOf(t, wide, worlds...)
	env := slices.Concat([]string{"AUTH_SERVICE_URL=" + worlds[0].auth.URL(), "ORPHAN_CLEANER_FLEET=" + path}, wideLimits())
	e := program(t, env, "fleet", "check").expect(t, exitDone)
	for _, name := range []string{"shard-0", "shard-1", "shard-2", "auth-service"} {
		if !strings.Contains(e.stdout, name) {
			t.Errorf("no line of %s: %s", name, e)
		}
	}
	if e = program(t, env, "fleet", "status").expect(t, exitDone); strings.Count(e.stdout, "no run was made yet; first: orphan-cleaner fleet check\n") != 3 {
		t.Errorf("%s", e)
	}
	twice := filepath.Join(filepath.Dir(path), "shards", "shard-x")
	if err := os.WriteFile(twice, []byte(strings.Replace(worlds[1].Login(runner), "127.0.0.1", "localhost", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := program(t, env, "fleet", "check").expect(t, exitFailed); !strings.Contains(e.stdout, "FAIL  shard-x: database: shard-1 is the same database") {
		t.Errorf("%s", e)
	}
	if err := os.WriteFile(twice, []byte(testdb.NewEmpty(t).URL), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := program(t, env, "fleet", "check").expect(t, exitFailed); !strings.Contains(e.stdout, "hint: point the URL of this shard at messaging-service's database") || strings.Contains(e.stdout, "DATABASE_URL") {
		t.Errorf("%s", e)
	}
	if err := os.Remove(twice); err != nil {
		t.Fatal(err)
	}
	living := worlds[2].living()
	gateway := listens(t)
	e = program(t, env, "fleet", "run", "--json", "--pushgateway-url="+gateway.URL).expect(t, exitDone)
	if _, pushed := gateway.all(); len(pushed) != 1 || !strings.Contains(pushed[0], "orphan_cleaner_fleet_last_run_succeeded") {
		t.Errorf("the Pushgateway got %q", pushed)
	}
	if null := regexp.MustCompile(`"(shards|days|blocked|targets)":null`).FindString(e.stdout); null != "" {
		t.Errorf("a list is null: %s", null)
	}
	r := e.object(t)
	if r["state"] != "succeeded" || r["waves"] != 2.0 || len(r["shards"].([]any)) != 3 {
		t.Errorf("%v", r)
	}
	gone(t, worlds[2], living, 15)
	e = program(t, env, "fleet", "status").expect(t, exitDone)
	if strings.Count(e.stdout, "healthy") != 3 {
		t.Errorf("%s", e)
	}
	st := program(t, env, "fleet", "status", "--json").expect(t, exitDone).object(t)
	if shards := st["shards"].([]any); len(shards) != 3 || shards[1].(map[string]any)["shard"] != "shard-1" {
		t.Errorf("%v", st)
	}
}

// A lie of auth-service is refused with exit status 3 and changes nothing anywhere; who
// looks for the cause sees each shard.
func TestFleetRefused(t *testing.T) {
	t.Parallel()
	worlds := newFleet(t, 2)
	path := fleetOf(t, "limits: {new-missing-rate: 1, candidate-share: 1}\n", worlds...)
	env := slices.Concat([]string{"AUTH_SERVICE_URL=" + worlds[0].auth.URL(), "ORPHAN_CLEANER_FLEET=" + path}, wideLimits())
	worlds[0].auth.Delete(worlds[0].users(t, "true LIMIT 100")...)
	before := contents(t, worlds[0].DB) + contents(t, worlds[1].DB)
	file, checks := filepath.Join(t.TempDir(), "fleet.prom"), listens(t)
	e := program(t, env, "fleet", "run", "--metrics-textfile="+file, "--healthcheck-url="+checks.URL+"/key").expect(t, exitRefused)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := series(t, string(text))
	for name, want := range map[string]float64{
		"orphan_cleaner_fleet_last_run_succeeded": 0, `orphan_cleaner_fleet_breaker_tripped{breaker="new-missing-share"}`: 1,
		`orphan_cleaner_fleet_breaker_tripped{breaker="shard-outlier"}`: 0, "orphan_cleaner_fleet_interval_seconds": 3600, "orphan_cleaner_fleet_paused": 0,
	} {
		if value, there := got[name]; !there || value != want {
			t.Errorf("%s is %v (there: %v), want %v", name, value, there, want)
		}
	}
	if since := time.Since(time.Unix(int64(got["orphan_cleaner_fleet_last_run_timestamp_seconds"]), 0)); since < 0 || since > 3*limit {
		t.Errorf("the run began %s ago", since)
	}
	calls, bodies := checks.all()
	if want := []string{"POST /key/start", "POST /key/3"}; !slices.Equal(calls, want) || !strings.HasPrefix(bodies[1], "run 0 of the fleet refused: 2 shards, ") {
		t.Errorf("the health check got %v: %q", calls, bodies)
	}
	if !strings.Contains(e.stderr, "new-missing-share") || !strings.Contains(e.stderr, "over 2 shards") || !strings.Contains(e.stdout, "shard-1") ||
		strings.Contains(e.stderr, "fleet approve") { // which takes a control database
		t.Errorf("%s", e)
	}
	if contents(t, worlds[0].DB)+contents(t, worlds[1].DB) != before {
		t.Error("a refused run of the fleet changed a shard")
	}
}

// What is wrong in the file is wrong usage, and nothing was begun.
func TestFleetWrongFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(path, []byte("shards: [{name: a, url: postgres://x:s3cret@h/d}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "run", "status"} {
		e := program(t, []string{"AUTH_SERVICE_URL=http://127.0.0.1:1"}, "fleet", command, "--fleet", path).expect(t, exitUsage)
		if !strings.Contains(e.stderr, path+":1:20: field url is no key") || strings.Contains(e.stderr, "s3cret") {
			t.Errorf("%s", e)
		}
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "a"), []byte("postgres://x:s3cret@127.0.0.1:1/d"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("control_url_file: a\nshards: [{name: a, url_file: a}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"status", "pause --reason=x", "resume", "approve 1 --yes", "migrate"} {
		e := program(t, nil, append(append([]string{"fleet"}, strings.Fields(command)...), "--fleet", path)...).expect(t, exitFailed)
		if !strings.Contains(e.stderr, "hint: check control_url and that the server is up") || strings.Count(e.stderr, "\n") != 1 || strings.Contains(e.stderr, "s3cret") {
			t.Errorf("%s: %s", command, e)
		}
	}
}

// A shard that is away is a line of its own, and its password is in none.
func TestFleetAway(t *testing.T) {
	t.Parallel()
	worlds := newFleet(t, 2)
	path := fleetOf(t, wide, worlds...)
	away := strings.Replace(worlds[1].URL, "postgres@", "postgres:s3cret@", 1)
	away = strings.Replace(away, worlds[1].Name, "nobody_"+worlds[1].Name, 1)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "shards", "shard-1"), []byte(away), 0o600); err != nil {
		t.Fatal(err)
	}
	env := slices.Concat([]string{"AUTH_SERVICE_URL=" + worlds[0].auth.URL(), "ORPHAN_CLEANER_FLEET=" + path}, wideLimits())
	worlds[0].Exec(`ALTER TABLE conversation_members ALTER joined_at TYPE timestamp`) // wrong for two checks
	for command, status := range map[string]int{"check": exitFailed, "run": exitFailed, "status": exitDone} {
		e := program(t, env, "fleet", command).expect(t, status)
		if !strings.Contains(e.stdout, "shard-1: ") || strings.Contains(e.stdout+e.stderr, "s3cret") {
			t.Errorf("%s: %s", command, e)
		}
		if command == "run" && !strings.Contains(e.stderr, "WARN orphan_cleaner: Shard verified shard=shard-1 verdict=failed") {
			t.Errorf("it is not a warning that a shard failed: %s", e)
		}
		if command == "run" && !strings.Contains(e.stdout, "(1 more: orphan-cleaner fleet check)") {
			t.Errorf("the other failure is not where it says: %s", e)
		}
	}
}

// withControl adds a control database, reached by a login that has a worker's grants.
func withControl(t *testing.T, path string, control *testdb.DB) (env []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(url string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "control"), []byte(url), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, append([]byte("control_url_file: control\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	write(control.URL)
	env = []string{"ORPHAN_CLEANER_FLEET=" + path}
	if e := program(t, env, "fleet", "status").expect(t, exitFailed); !strings.Contains(e.stderr, "fix: orphan-cleaner fleet migrate") {
		t.Errorf("%s", e)
	}
	if e := program(t, append(env, "AUTH_SERVICE_URL=http://127.0.0.1:1"), "fleet", "check").expect(t, exitFailed); !strings.Contains(e.stdout, "FAIL  control database: control: ") {
		t.Errorf("%s", e)
	}
	program(t, env, "fleet", "migrate").expect(t, exitDone)
	program(t, env, "fleet", "migrate").expect(t, exitDone)
	control.Roles("../../sql/fleet_roles.sql")
	write(control.Login("orphan_cleaner_fleet"))
	return env
}

// The commands of the control database, with a worker's grants; an approval is the owner's.
func TestFleetControl(t *testing.T) {
	t.Parallel()
	worlds := newFleet(t, 3)
	path := fleetOf(t, "limits: {new-missing-share: 0.01, new-missing-rate: 1, candidate-share: 1, delete-share: 1, delete-share-7d: 1, delete-share-30d: 1}\nmax_qps: 500\n", worlds...)
	control := testdb.NewEmpty(t)
	env := withControl(t, path, control)
	env = slices.Concat(env, []string{"AUTH_SERVICE_URL=" + worlds[0].auth.URL()}, wideLimits())
	living := worlds[1].living()
	for _, step := range []struct {
		args   string
		status int
		says   string
	}{
		{"fleet pause --reason maintenance", exitDone, "paused"},
		{"fleet pause --reason again", exitUsage, "paused already"},
		{"fleet status", exitDone, "PAUSED by"},
		{"fleet run", exitDone, "maintenance"},
		{"fleet resume", exitDone, "may go on"},
		{"fleet resume", exitDone, "was not paused"},
		{"fleet approve 7 --yes", exitUsage, "there is no run 7 of the fleet"},
		{"fleet run", exitRefused, "orphan-cleaner fleet approve 1, once"},
		{"fleet status", exitDone, "fleet approve 1 admits"},
		{"fleet approve 1", exitUsage, "--yes"},
		{"fleet approve 1 --yes", exitFailed, "fix: for fleet approve and fleet migrate a control_url of the owner"},
		{"fleet approve 1 --revoke", exitFailed, "fix: for fleet approve and fleet migrate a control_url of the owner"},
	} {
		e := program(t, env, strings.Fields(step.args)...).expect(t, step.status)
		if !strings.Contains(e.stdout+e.stderr, step.says) || strings.Contains(e.stderr, "DATABASE_URL") {
			t.Errorf("%s: want %q: %s", step.args, step.says, e)
		}
	}
	if diff := living.Diff(worlds[1].living()); diff != "" || worlds[1].Count("orphan_cleaner.runs") != 0 {
		t.Errorf("a refused run of the fleet changed a shard: %s", diff)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "control"), []byte(control.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	program(t, env, "fleet", "approve", "1", "--yes").expect(t, exitDone)
	if e := program(t, env, "fleet", "approve", "1", "--revoke").expect(t, exitDone); !strings.Contains(e.stdout, "the approval of run 1 of the fleet is revoked") {
		t.Errorf("%s", e)
	}
	if e := program(t, env, "fleet", "approve", "1", "--revoke").expect(t, exitUsage); !strings.Contains(e.stderr, "run 1 of the fleet has no approval that could be revoked") {
		t.Errorf("%s", e)
	}
	program(t, env, "fleet", "run").expect(t, exitRefused)
	if e := program(t, env, "fleet", "approve", "1", "--yes", "--json").expect(t, exitDone); e.object(t)["fleet_run"] != 1.0 {
		t.Errorf("%s", e)
	}
	r := program(t, env, "fleet", "run", "--json").expect(t, exitDone).object(t)
	if r["fleet_run"] != 3.0 || r["state"] != "succeeded" {
		t.Errorf("%v", r)
	}
	gone(t, worlds[1], living, 15)
	if e := program(t, env, "fleet", "approve", "1", "--revoke", "--json").expect(t, exitUsage); !strings.Contains(e.stderr, "could be revoked") {
		t.Errorf("%s", e)
	}
	if e := program(t, env, "fleet", "approve", "1", "--yes").expect(t, exitUsage); !strings.Contains(e.stderr, "was used already") {
		t.Errorf("%s", e)
	}
	// The calls went through the budget.
	if given, made := testdb.One[int64](control, "SELECT calls FROM orphan_cleaner_fleet.budget"), worlds[0].auth.Calls(); given < int64(made) || made == 0 {
		t.Errorf("%d calls made, %d given away", made, given)
	}
}

// Twelve databases in two servers and a control database in a third, default limits, three
// workers. In the second wave, when each of them has deleted a part of a shard, two are
// killed, among them River's leader, and the server of every other shard and the control
// database with them. All shards end right, and what a breaker refuses stays refused.
func TestFleetKilled(t *testing.T) {
	t.Parallel()
	const shards, users, due = 12, 400, 15
	servers := []*pgtemp.Cluster{ownCluster(t, nil), ownCluster(t, nil)}
	dbs := testdb.NewOn(t, servers[0], shards/2)
	auth := newAuth(t)
	var worlds []*world
	var living []testdb.Snapshot
	shardOf := map[string]int{} // by user
	for i := range shards {
		db := testdb.New(t)
		if i%2 == 1 {
			db = dbs[i/2]
		}
		w := &world{DB: db, auth: auth}
		w.fill(t, fmt.Sprintf("user %d ", i), users, 0)
		w.dead = w.users(t, fmt.Sprintf("substr(username, 5)::int <= %d", due))
		w.longMissing(w.dead...)
		w.Roles(rolesFile)
		for _, id := range w.users(t, "true") {
			shardOf[id.String()] = i
		}
		auth.Delete(w.dead...)
		worlds, living = append(worlds, w), append(living, w.living())
	}
	// The last one has lost a tenth of its users and more: its own breaker refuses it.
	auth.Delete(worlds[shards-1].users(t, fmt.Sprintf("substr(username, 5)::int BETWEEN %d AND %d", due+1, due+users/8))...)

	// A shard whose server takes longer than a job may last to be there again has failed.
	path := fleetOf(t, "waves: [1, 6]\nworkers: 1\njob_timeout: 30s\n", worlds...)
	control := testdb.NewBareOn(t, servers[1])
	env := slices.Concat(withControl(t, path, control), []string{
		"AUTH_SERVICE_URL=" + auth.URL(), "ORPHAN_CLEANER_LEASE=2s", "ORPHAN_CLEANER_INTERVAL=24h", "ORPHAN_CLEANER_BATCH_SIZE=5", "ORPHAN_CLEANER_CHUNK_ROWS=5",
	})
	// Once a shard of the second wave has lost a row, its sweep stands still.
	released := make(chan struct{})
	var mu sync.Mutex
	held := map[int]int{} // calls of each shard
	auth.SetFaultFunc(func(ctx context.Context, _ int, ids []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		count := func(shard, by int) {
			mu.Lock()
			defer mu.Unlock()
			if held[shard] += by; held[shard] == 0 {
				delete(held, shard)
			}
		}
		if i := shardOf[ids[0]]; i >= 1 && i <= 3 {
			select {
			case <-released:
				return honest()
			default:
			}
			var begun bool // an error is that of a server that is killed
			err := worlds[i].Pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM conversation_members_backup)").Scan(&begun)
			if err != nil || begun {
				count(i, 1)
				defer count(i, -1)
				select {
				case <-released:
				case <-ctx.Done():
				}
			}
		}
		return honest()
	})
	var workers []*started
	work := func() {
		workers = append(workers, start(t, env, "fleet", "serve", "--metrics-addr=127.0.0.1:0"))
	}
	work()
	work()
	eventually(t, "one of two workers leads", func() bool { return control.Count("orphan_cleaner_fleet.river_leader") == 1 })
	work()
	t.Cleanup(func() {
		if t.Failed() {
			for i, p := range workers {
				t.Logf("worker %d:\n%s", i, p.stderr)
			}
		}
	})
	testdb.Eventually(t, 2*limit, "three sweeps of the second wave stand still", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(held) == 3
	})
	deleted := ""
	for _, w := range worlds[1:4] {
		n := w.Count("conversation_members_backup")
		if deleted += fmt.Sprintf(" %d", n); n == due {
			t.Error("a shard is clean before its worker is killed: this test shows nothing")
		}
	}
	for _, p := range workers[:2] {
		p.signal(t, syscall.SIGKILL)
	}
	for _, server := range servers {
		if err := server.Crash(); err != nil {
			t.Fatal(err)
		}
	}
	close(released)
	if err := servers[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	testdb.Eventually(t, 2*limit, "the last worker meets that the control database is away", func() bool {
		return strings.Contains(workers[2].stderr.String(), control.Name)
	})
	away := controlAway(t)
	if err := servers[1].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	work()
	work()
	control.Pool.Reset()
	testdb.Eventually(t, 3*limit, "the run of the fleet ends", func() bool { return control.Count("orphan_cleaner_fleet.runs WHERE state <> 'running'") == 1 })
	// The fleet's own verdict; no shard was lost on the way.
	state := testdb.One[string](control, "SELECT concat_ws(' ', state, waves, coalesce(breaker, 'no breaker'), error) FROM orphan_cleaner_fleet.runs")
	if !strings.HasPrefix(state, "refused 3 no breaker ") || !strings.Contains(state, fmt.Sprintf("of their own: shards shard-%d;", shards-1)) {
		t.Error(state)
	}
	var abandoned, runs int64
	for i, w := range worlds {
		w.Pool.Reset()
		want := due
		if i == shards-1 {
			want = 0
		}
		gone(t, w, living[i], want)
		abandoned += w.Count("orphan_cleaner.runs WHERE state = 'abandoned'")
		runs += w.Count("orphan_cleaner.runs")
	}
	if abandoned < 2 {
		t.Errorf("%d runs were given up: this test shows nothing", abandoned)
	}
	t.Logf("%d shards of %d users, %d due in each;%s rows deleted in the three held ones; 2 of 3 workers and 2 servers killed, the control database away for %s: "+
		"%s s, %d calls, %d runs, %d of them given up; %d jobs, %d of them rescued",
		shards, users, due, deleted, away, testdb.One[string](control, "SELECT extract(EPOCH FROM finished_at - started_at)::numeric(9, 1)::text FROM orphan_cleaner_fleet.runs"),
		auth.Calls(), runs, abandoned, control.Count("orphan_cleaner_fleet.river_job"), control.Count("orphan_cleaner_fleet.river_job WHERE attempt > 1"))
	for _, p := range workers[2:] {
		p.signal(t, syscall.SIGTERM)
		p.wait(t).expect(t, exitDone)
	}
}

// controlAway is how much longer the control database stays away; by default no longer
// than a worker needs to meet it.
func controlAway(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("ORPHAN_CLEANER_TEST_CONTROL_AWAY")
	if text == "" {
		return 0
	}
	away, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(away)
	return away
}

// A worker that is killed while it checks users once: what it did not keep is checked by the
// shards, each is cleaned once, and nothing else changes.
func TestFleetKilledInRange(t *testing.T) {
	t.Parallel()
	worlds := newFleet(t, 2)
	path := fleetOf(t, wide+"check_users_once: true\n", worlds...)
	control := testdb.NewEmpty(t)
	env := withControl(t, path, control)
	auth := worlds[0].auth
	env = slices.Concat(env, []string{"AUTH_SERVICE_URL=" + auth.URL()}, wideLimits())
	if e := program(t, append(env, "ORPHAN_CLEANER_CHECK_EVERY=24h"), "fleet", "run").expect(t, exitUsage); !strings.Contains(e.stderr, "check_users_once in "+path) {
		t.Errorf("%s", e)
	}
	living := []testdb.Snapshot{worlds[0].living(), worlds[1].living()}
	held := make(chan struct{})
	var calls atomic.Int32
	auth.SetFaultFunc(func(ctx context.Context, _ int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if calls.Add(1) == 3 {
			select {
			case <-held:
			case <-ctx.Done():
			}
		}
		return honest()
	})
	p := start(t, env, "fleet", "serve", "--metrics-addr=127.0.0.1:0")
	eventually(t, "a range is checked", func() bool { return calls.Load() >= 3 })
	p.signal(t, syscall.SIGKILL)
	<-p.exited
	close(held)
	if n := control.Count("orphan_cleaner_fleet.ranges WHERE asked_at IS NULL"); n != 1 {
		t.Fatalf("%d ranges are not done: this test shows nothing", n)
	}
	// The time in which another worker waits for it is over.
	control.Exec("UPDATE orphan_cleaner_fleet.river_job SET state = 'available', scheduled_at = now() WHERE kind = 'fleet_first_pass' AND state = 'scheduled'")
	if r := program(t, env, "fleet", "run", "--json").expect(t, exitDone).object(t); r["fleet_run"] != 1.0 || r["state"] != "succeeded" {
		t.Errorf("%v", r)
	}
	for i, w := range worlds {
		gone(t, w, living[i], 15)
	}
	// The next run checks the users of both, who are the same, once: 285 in three batches; and
	// each shard those whose rows it deleted.
	auth.ResetCalls()
	if r := program(t, env, "fleet", "run", "--json").expect(t, exitDone).object(t); r["fleet_run"] != 2.0 || r["state"] != "succeeded" {
		t.Errorf("%v", r)
	}
	if n := auth.Calls(); n != 3+2 {
		t.Errorf("%d calls, want 3, and one for each shard", n)
	}
}

// serve tells the length of the queue, whether the control database is there, and shows
// the last run.
func TestFleetServe(t *testing.T) {
	t.Parallel()
	worlds := newFleet(t, 2)
	path := fleetOf(t, wide, worlds...)
	if e := program(t, []string{"AUTH_SERVICE_URL=http://127.0.0.1:1", "ORPHAN_CLEANER_FLEET=" + path}, "fleet", "serve").expect(t, exitUsage); !strings.Contains(e.stderr, "no control_url") {
		t.Errorf("%s", e)
	}
	control := testdb.NewEmpty(t)
	env := withControl(t, path, control)
	env = slices.Concat(env, []string{"AUTH_SERVICE_URL=" + worlds[0].auth.URL()}, wideLimits())
	p := start(t, env, "fleet", "serve", "--metrics-addr=127.0.0.1:0")
	at := regexp.MustCompile(`Working on the fleet .*address=(\S+)`)
	eventually(t, "serve says where", func() bool { return at.MatchString(p.stderr.String()) })
	url := "http://" + at.FindStringSubmatch(p.stderr.String())[1]
	eventually(t, "a run of the fleet", func() bool { return control.Count("orphan_cleaner_fleet.runs WHERE state = 'succeeded'") == 1 })
	for path, says := range map[string]string{
		"/metrics": "orphan_cleaner_fleet_last_run_succeeded 1", "/healthz": "ok", "/readyz": "ok", "/": "shard-1",
	} {
		eventually(t, fmt.Sprintf("%s says %q", path, says), func() bool {
			status, text := get(t, url+path)
			return status == http.StatusOK && strings.Contains(text, says)
		})
	}
	rules, err := os.ReadFile("../../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Whatever alerts ask for is there.
	wanted := regexp.MustCompile(`\borphan_cleaner_fleet_\w+`).FindAllString(string(rules), -1)
	for _, want := range append(wanted, `orphan_cleaner_fleet_jobs{state="available"} 0`, `orphan_cleaner_fleet_breaker_tripped{breaker="shard-outlier"} 0`, "orphan_cleaner_fleet_interval_seconds 3600", "orphan_cleaner_build_info{") {
		eventually(t, "there is "+want, func() bool {
			_, text := get(t, url+"/metrics")
			return strings.Contains(text, "\n"+want)
		})
	}
	if len(wanted) == 0 {
		t.Error("no alert asks for a metric of a fleet")
	}
	p.signal(t, syscall.SIGTERM)
	p.wait(t).expect(t, exitDone)
}

// Workers and River work behind PgBouncer in transaction mode.
func TestFleetPooled(t *testing.T) {
	t.Parallel()
	testdb.Needed(t, "make fault-tools", "pgbouncer", "/usr/sbin/pgbouncer")
	worlds := newFleet(t, 2)
	path := fleetOf(t, wide+"max_qps: 500\n", worlds...)
	control := testdb.NewEmpty(t)
	env := withControl(t, path, control)
	pooled := bounced(t, &world{DB: control}, "transaction")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "control"), []byte(pooled), 0o600); err != nil {
		t.Fatal(err)
	}
	env = slices.Concat(env, []string{"AUTH_SERVICE_URL=" + worlds[0].auth.URL()}, wideLimits())
	living := worlds[1].living()
	if r := program(t, env, "fleet", "run", "--json").expect(t, exitDone).object(t); r["state"] != "succeeded" {
		t.Errorf("%v", r)
	}
	gone(t, worlds[1], living, 15)
}
