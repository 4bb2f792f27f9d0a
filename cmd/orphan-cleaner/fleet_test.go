package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
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
	if e = program(t, env, "fleet", "status").expect(t, exitDone); strings.Count(e.stdout, "no run was made yet") != 3 {
		t.Errorf("%s", e)
	}
	living := worlds[2].living()
	e = program(t, env, "fleet", "run", "--json").expect(t, exitDone)
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
	e := program(t, env, "fleet", "run").expect(t, exitRefused)
	if !strings.Contains(e.stderr, "new-missing-share") || !strings.Contains(e.stderr, "over 2 shards") || !strings.Contains(e.stdout, "shard-1") {
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
	for command, status := range map[string]int{"check": exitFailed, "run": exitFailed, "status": exitDone} {
		e := program(t, env, "fleet", command).expect(t, status)
		if !strings.Contains(e.stdout, "shard-1: ") || strings.Contains(e.stdout+e.stderr, "s3cret") {
			t.Errorf("%s: %s", command, e)
		}
	}
}

// withControl adds a control database, reached by a login that has a worker's grants.
func withControl(t *testing.T, path string) (control *testdb.DB, env []string) {
	t.Helper()
	control = testdb.NewEmpty(t)
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
	return control, env
}

// The commands of the control database, with a worker's grants; an approval is the owner's.
func TestFleetControl(t *testing.T) {
	t.Parallel()
	worlds := newFleet(t, 3)
	path := fleetOf(t, "limits: {new-missing-share: 0.01, new-missing-rate: 1, candidate-share: 1, delete-share: 1, delete-share-7d: 1, delete-share-30d: 1}\nmax_qps: 500\n", worlds...)
	control, env := withControl(t, path)
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
		{"fleet approve 7 --yes", exitFailed, "fleet status"},
		{"fleet run", exitRefused, "new-missing-share"},
		{"fleet status", exitDone, "fleet approve 1 admits"},
		{"fleet approve 1", exitUsage, "--yes"},
		{"fleet approve 1 --yes", exitFailed, "permission denied"},
	} {
		e := program(t, env, strings.Fields(step.args)...).expect(t, step.status)
		if !strings.Contains(e.stdout+e.stderr, step.says) {
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
	if e := program(t, env, "fleet", "approve", "1", "--yes", "--json").expect(t, exitDone); e.object(t)["fleet_run"] != 1.0 {
		t.Errorf("%s", e)
	}
	r := program(t, env, "fleet", "run", "--json").expect(t, exitDone).object(t)
	if r["fleet_run"] != 2.0 || r["state"] != "succeeded" {
		t.Errorf("%v", r)
	}
	gone(t, worlds[1], living, 15)
	if e := program(t, env, "fleet", "approve", "1", "--yes").expect(t, exitUsage); !strings.Contains(e.stderr, "was used already") {
		t.Errorf("%s", e)
	}
	// The calls went through the budget.
	if given, made := testdb.One[int64](control, "SELECT calls FROM orphan_cleaner_fleet.budget"), worlds[0].auth.Calls(); given < int64(made) || made == 0 {
		t.Errorf("%d calls made, %d given away", made, given)
	}
}

// Three workers; one is killed while it sweeps. Its shard is taken over, each shard is
// cleaned once, and nothing else changes.
func TestFleetKilled(t *testing.T) {
	t.Parallel()
	worlds := newFleet(t, 4)
	path := fleetOf(t, wide+"waves: [1, 1]\nworkers: 1\njob_timeout: 10s\n", worlds...)
	control, env := withControl(t, path)
	auth := worlds[0].auth
	env = slices.Concat(env, []string{"AUTH_SERVICE_URL=" + auth.URL(), "ORPHAN_CLEANER_LEASE=2s", "ORPHAN_CLEANER_INTERVAL=24h"}, wideLimits())
	var workers []*started
	for range 3 {
		workers = append(workers, start(t, env, "fleet", "serve", "--metrics-addr=127.0.0.1:0"))
	}
	var living []testdb.Snapshot
	for _, w := range worlds {
		living = append(living, w.living())
	}
	// The second sweep stands still in its first call.
	held := make(chan struct{})
	var calls atomic.Int32
	auth.SetFaultFunc(func(ctx context.Context, _ int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if worlds[1].Count("orphan_cleaner.runs WHERE state = 'running'") > 0 && calls.Add(1) == 1 {
			select {
			case <-held:
			case <-ctx.Done():
			}
		}
		return honest()
	})
	eventually(t, "a sweep of the second shard is under way", func() bool { return calls.Load() > 0 })
	pid := testdb.One[string](worlds[1].DB, "SELECT split_part(host, ':', 2) FROM orphan_cleaner.runs WHERE state = 'running'")
	i := slices.IndexFunc(workers, func(p *started) bool { return strconv.Itoa(p.cmd.Process.Pid) == pid })
	if i < 0 {
		t.Fatalf("no worker is %s", pid)
	}
	workers[i].signal(t, syscall.SIGKILL)
	<-workers[i].exited
	close(held)
	testdb.Eventually(t, 2*limit, "the run of the fleet ends", func() bool { return control.Count("orphan_cleaner_fleet.runs WHERE state <> 'running'") == 1 })
	if state := testdb.One[string](control, "SELECT state || ' ' || waves || ' ' || coalesce(error, '') FROM orphan_cleaner_fleet.runs"); state != "succeeded 3 " {
		t.Error(state)
	}
	for i, w := range worlds {
		gone(t, w, living[i], 15)
	}
	if runs := worlds[1].Count("orphan_cleaner.runs WHERE state = 'abandoned'"); runs != 1 {
		t.Errorf("%d runs of the second shard were given up: this test shows nothing", runs)
	}
	for j, p := range workers {
		if j != i {
			p.signal(t, syscall.SIGTERM)
			p.wait(t).expect(t, exitDone)
		}
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
	control, env := withControl(t, path)
	env = slices.Concat(env, []string{"AUTH_SERVICE_URL=" + worlds[0].auth.URL()}, wideLimits())
	p := start(t, env, "fleet", "serve", "--metrics-addr=127.0.0.1:0")
	at := regexp.MustCompile(`Working on the fleet .*address=(\S+)`)
	eventually(t, "serve says where", func() bool { return at.MatchString(p.stderr.String()) })
	url := "http://" + at.FindStringSubmatch(p.stderr.String())[1]
	eventually(t, "a run of the fleet", func() bool { return control.Count("orphan_cleaner_fleet.runs WHERE state = 'succeeded'") == 1 })
	for path, says := range map[string]string{
		"/metrics": "orphan_cleaner_fleet_last_run_succeeded 1", "/healthz": "ok", "/readyz": "ok", "/": "shard-1",
	} {
		if status, text := get(t, url+path); status != http.StatusOK || !strings.Contains(text, says) {
			t.Errorf("%s: %d, want %q: %s", path, status, says, text)
		}
	}
	if _, text := get(t, url+"/metrics"); !strings.Contains(text, `orphan_cleaner_fleet_jobs{state="available"} 0`) {
		t.Errorf("%s", text)
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
	control, env := withControl(t, path)
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
