package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// redisOf starts a Redis of the test's own.
func redisOf(t *testing.T) (url string, client *redis.Client) {
	t.Helper()
	port := testdb.FreePort(t)
	running(t, exec.Command(testdb.Needed(t, "make fault-tools", "redis-server"), "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir()),
		regexp.MustCompile("Ready to accept connections"))
	client = redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", port)})
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return fmt.Sprintf("redis://127.0.0.1:%d", port), client
}

// lines are those of a file, none where it is not there.
func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// A run tells of its own deletes, the first time too; a restore is told by the next run; a dry run tells nothing.
func TestRunTells(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	url, client := redisOf(t)
	path := filepath.Join(t.TempDir(), "events.jsonl")
	w.env = append(w.env, "REDIS_URL="+url, "ORPHAN_CLEANER_EVENTS=redis,file:"+path)
	program(t, w.env, "run", "--dry-run").expect(t, exitDone)
	if n := w.Count("orphan_cleaner.event_cursors"); n != 0 {
		t.Errorf("a dry run changed the database: %d cursors", n)
	}
	run := program(t, w.env, "run", "--json").expect(t, exitDone)
	if said := run.result(t)["members_deleted"]; said != 3.0 {
		t.Fatalf("%v members deleted", said)
	}
	program(t, w.env, "restore", "--run=1", "--execute").expect(t, exitDone)
	program(t, w.env, "run").expect(t, exitDone)

	var kinds []string
	for _, line := range lines(t, path) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, fmt.Sprint(e["type"], " ", e["run_id"]))
	}
	if want := "member.left 1,member.left 1,member.left 1,member.joined 2,member.joined 2,member.joined 2"; strings.Join(kinds, ",") != want {
		t.Errorf("events %v, not %s", kinds, want)
	}
	if n, err := client.XLen(t.Context(), "stream:fanout:all-conversations").Result(); err != nil || n != 6 {
		t.Errorf("%d entries in Redis, %v", n, err)
	}
}

// A Redis that is gone is a backlog, in the metrics and in the status; the run is as good as ever.
func TestEventsWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	w.env = append(w.env, "REDIS_URL=redis://u:s3cret@127.0.0.1:1", "ORPHAN_CLEANER_EVENTS=redis")
	textfile := filepath.Join(t.TempDir(), "run.prom")
	run := program(t, w.env, "run", "--json", "--metrics-textfile="+textfile).expect(t, exitDone)
	if state := run.result(t)["state"]; state != "succeeded" {
		t.Errorf("state %v", state)
	}
	if !strings.Contains(run.stderr, "WARN orphan_cleaner: Events wait") || strings.Contains(run.stderr, "s3cret") {
		t.Errorf("%s", run)
	}
	for _, line := range strings.Split(strings.TrimSpace(run.stderr), "\n") {
		if !regexp.MustCompile(`(INFO|WARN) +(orphan_cleaner|auth_client): `).MatchString(line) {
			t.Errorf("a line that is not in the log's format: %s", line)
		}
	}
	var metrics string
	eventually(t, "a run from cron reads the database in time", func() bool {
		if metrics = strings.Join(lines(t, textfile), "\n"); strings.Contains(metrics, "orphan_cleaner_database_up 1") {
			return true
		}
		program(t, w.env, "run", "--metrics-textfile="+textfile).expect(t, exitDone)
		return false
	})
	if !strings.Contains(metrics, `orphan_cleaner_events_backlog{sink="redis"} 3`) ||
		!strings.Contains(metrics, `orphan_cleaner_events_oldest_age_seconds{sink="redis"}`) {
		t.Errorf("metrics:\n%s", metrics)
	}
	if out := program(t, w.env, "status").expect(t, exitDone).stdout; !regexp.MustCompile(`EVENTS WAIT for the sink redis: 3, the oldest for .*127\.0\.0\.1:1`).MatchString(out) {
		t.Errorf("status:\n%s", out)
	}
	if sinks, is := program(t, w.env, "status", "--json").expect(t, exitDone).object(t)["events"].([]any); !is || len(sinks) != 1 {
		t.Errorf("events %v", sinks)
	}

	url, client := redisOf(t)
	w.env = append(w.env, "REDIS_URL="+url)
	serve := startServe(t, w.env)
	eventually(t, "serve tells", func() bool {
		return client.XLen(t.Context(), "stream:fanout:all-conversations").Val() == 3
	})
	eventually(t, "nothing waits", func() bool {
		_, metrics := get(t, serve.url+"/metrics")
		return strings.Contains(metrics, `orphan_cleaner_events_backlog{sink="redis"} 0`)
	})
}

// The password of Redis is in a file, or in the environment, and never in ps.
func TestRedisPassword(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	url, client := redisOf(t)
	file := filepath.Join(t.TempDir(), "redis-url")
	if err := os.WriteFile(file, []byte("\ufeff"+url+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "REDIS_URL=redis://u:s3cret@127.0.0.1:1", "REDIS_URL_FILE="+file)
	program(t, w.env, "run", "--events=redis").expect(t, exitDone)
	if n := client.XLen(t.Context(), "stream:fanout:all-conversations").Val(); n != 3 {
		t.Errorf("%d events by the URL of the file", n)
	}
	found := findings(t, append(w.env, "ORPHAN_CLEANER_EVENTS=redis"), exitDone)
	is(t, found, "redis", "ok", "events may be added")
	is(t, found, "redis-url-file", "ok")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	is(t, findings(t, w.env, exitDone), "redis-url-file", "warn", "chmod o-rwx "+file)
	for args, says := range map[string]string{
		"--redis-url=redis://u:s3cret@h:6379":                                         "seen by everybody in ps: give it by the environment REDIS_URL or by --redis-url-file",
		"--redis-url=rediss://:s3cret@h:6379":                                         "seen by everybody in ps",
		"--redis-url=redis+sentinel://u@h:1/0?master_name=m&sentinel_password=s3cret": "seen by everybody in ps",
		"--redis-url-file=redis://u:s3cret@h":                                         "REDIS_URL_FILE is the name of a file",
		"--redis-url-file=/nowhere/url":                                               "/nowhere/url",
		"--redis-urls=redis://u:s3cret@h":                                             "unknown flag",
	} {
		for _, command := range []string{"run", "check"} {
			e := program(t, w.env, command, args).expect(t, exitUsage)
			if !strings.Contains(e.stderr, says) || strings.Contains(e.stderr+e.stdout, "s3cret") || strings.Count(e.stderr, "\n") != 1 {
				t.Errorf("%s %s: %s", command, args, e)
			}
		}
	}
}

// Wrong settings of events are refused before anything is changed.
func TestEventSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	for args, says := range map[string]string{
		"--events=kafka":                           "no sink: redis, stdout or file:PATH",
		"--events=redis":                           "REDIS_URL is not set",
		"--events=redis --redis-url=http://u@h":    "not a Redis URL",
		"--events=stdout,stdout":                   "twice",
		"--events=stdout --json":                   "the last line of stdout is the run",
		"--events=stdout --events-stream-maxlen=x": "events-stream-maxlen",
		"--events-fanout-maxlen=-1":                "must be 0 or more",
	} {
		e := program(t, w.env, append([]string{"run"}, strings.Fields(args)...)...).expect(t, exitUsage)
		if !strings.Contains(e.stderr, says) {
			t.Errorf("%s: %s", args, e.stderr)
		}
	}
	if n := w.Count("orphan_cleaner.runs"); n != 0 {
		t.Errorf("%d runs", n)
	}
	// Whoever read stdout is gone: the run is as good as ever, and its events wait.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := read.Close(); err != nil {
		t.Fatal(err)
	}
	alone := exec.Command(built.path(t), "run", "--events=stdout")
	alone.Env, alone.Stdout = w.env, write
	if err := alone.Run(); err != nil {
		t.Errorf("with nobody at the end of stdout: %v", err)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if out := program(t, w.env, "run", "--events=stdout").expect(t, exitDone).stdout; strings.Count(out, `"type":"member.left"`) != 3 {
		t.Errorf("stdout:\n%s", out)
	}
}

// What check says of files where events go there. It makes none.
func TestCheckFilesForEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	directory := t.TempDir()
	path := filepath.Join(directory, "events.jsonl")
	is(t, findings(t, w.env, exitDone, "--events=file:"+path), "events-file", "ok", path)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("check made the file: %v", err)
	}
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	is(t, findings(t, w.env, exitDone, "--events=file:"+path), "events-file", "ok", path)
	for bad, says := range map[string]string{
		filepath.Join(directory, "none", "events.jsonl"): "no file can be made in " + filepath.Join(directory, "none") + ": no such file",
		filepath.Join(path, "events.jsonl"):              "not a directory",
		directory:                                        "no regular file",
	} {
		is(t, findings(t, w.env, exitDone, "--events=file:"+path, "--events=file:"+bad), "events-file", "warn", says, "events wait")
	}
}

// What check says of Redis where events go there.
func TestCheckRedisForEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	url, client := redisOf(t)
	env := append(slices.Clone(w.env), "REDIS_URL="+url, "ORPHAN_CLEANER_EVENTS=redis")
	do := func(args ...any) {
		t.Helper()
		if err := client.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	is(t, findings(t, env, exitDone), "redis", "ok", "version", "maxmemory-policy noeviction", "events may be added")
	do("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")
	is(t, findings(t, env, exitDone), "redis", "warn", "allkeys-lru", "drops whole streams", "noeviction")
	do("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
	is(t, findings(t, env, exitDone), "redis", "warn", "OOM")
	do("CONFIG", "SET", "maxmemory", "0")
	do("ACL", "SETUSER", "app", "on", ">s3cret", "~*", "-@all", "+ping")
	mine := append(slices.Clone(env), "REDIS_URL="+strings.Replace(url, "redis://", "redis://app:s3cret@", 1))
	is(t, findings(t, mine, exitDone), "redis", "warn", "NOPERM", "+xadd")
	do("ACL", "SETUSER", "app", "+info", "+multi", "+exec", "+xadd")
	is(t, findings(t, mine, exitDone), "redis", "ok", "events may be added")
	if n := client.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("check wrote %d keys", n)
	}
	gone := program(t, append(env, "REDIS_URL=redis://127.0.0.1:1"), "check").expect(t, exitDone)
	if strings.Contains(gone.stderr, "redis:") {
		t.Errorf("the library's own line reaches stderr:\n%s", gone.stderr)
	}
}
