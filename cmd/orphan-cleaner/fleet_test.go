package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
	r := program(t, env, "fleet", "run", "--json").expect(t, exitDone).object(t)
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
