package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// told is an HTTP server that keeps what it is told.
type told struct {
	*httptest.Server
	mu     sync.Mutex
	calls  []string // method and path
	bodies []string
	auth   []string
	status int
}

func listens(t *testing.T) *told {
	t.Helper()
	l := &told{status: http.StatusOK}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.calls, l.bodies = append(l.calls, r.Method+" "+r.URL.RequestURI()), append(l.bodies, string(body))
		user, password, _ := r.BasicAuth()
		l.auth = append(l.auth, user+":"+password)
		w.WriteHeader(l.status)
		_, _ = io.WriteString(w, "as told")
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *told) all() (calls, bodies []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls), slices.Clone(l.bodies)
}

// A run from cron leaves its metrics in a file and in the Pushgateway, and calls
// when it begins and when it has ended.
func TestPublish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	gateway, checks := listens(t), listens(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "orphan_cleaner.prom")
	env := append(slices.Clone(w.env),
		"ORPHAN_CLEANER_CANARY_ALIVE="+w.users(t, "deleted_at IS NULL ORDER BY id LIMIT 1")[0].String(),
		"ORPHAN_CLEANER_METRICS_TEXTFILE="+file,
		"ORPHAN_CLEANER_PUSHGATEWAY_URL="+strings.Replace(gateway.URL, "//", "//cron:s3cret@", 1),
		"ORPHAN_CLEANER_HEALTHCHECK_URL="+checks.URL+"/b5c7-key?rid=1")
	e := program(t, env, "run").expect(t, exitDone)
	if lines := strings.Split(e.stderr, "\n"); strings.Contains(strings.Join(slices.DeleteFunc(lines, isSlow), "\n"), "WARN") {
		t.Errorf("%s", e)
	}
	// One run more: the totals are of both.
	w.Exec(`UPDATE conversation_members SET joined_at = now() - interval '70 days'`)
	w.Settle()
	runs := 1.0
	var got map[string]float64
	// A run from cron reads the metrics of the database in 700 ms each, or not at all.
	eventually(t, "a run reads the database in time", func() bool {
		program(t, env, "run").expect(t, exitDone)
		runs++
		got = series(t, readFile(t, file))
		_, due := got["orphan_cleaner_due_members"]
		_, judged := got[`orphan_cleaner_breaker_tripped{breaker="history"}`]
		return got["orphan_cleaner_database_up"] == 1 && due && judged
	})

	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o644 {
		t.Errorf("the file has mode %o", info.Mode().Perm())
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the file there are %v, %v", entries, err)
	}
	for name, want := range map[string]float64{
		"orphan_cleaner_deleted_members_total":                                 15,
		"orphan_cleaner_batch_calls_total":                                     4 + 3*(runs-1),
		`orphan_cleaner_runs_total{kind="clean",state="succeeded"}`:            runs,
		`grpc_client_requests_total{method="get_users_by_ids",service="auth"}`: 3,
		"orphan_cleaner_users_checked":                                         285,
		"orphan_cleaner_database_up":                                           1,
		"orphan_cleaner_due_members":                                           0,
		`orphan_cleaner_breaker_tripped{breaker="history"}`:                    0,
	} {
		if value, there := got[name]; !there || value != want {
			t.Errorf("%s is %v (there: %v), want %v", name, value, there, want)
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			t.Errorf("%s would clash with node_exporter's own", name)
		}
	}

	calls, _ := gateway.all()
	if len(calls) != int(runs) || !strings.HasPrefix(calls[0], "PUT /metrics/job/orphan_cleaner/instance/") || gateway.auth[0] != "cron:s3cret" {
		t.Errorf("the Pushgateway got %v as %v", calls, gateway.auth)
	}
	calls, bodies := checks.all()
	want := slices.Repeat([]string{"POST /b5c7-key/start?rid=1", "POST /b5c7-key?rid=1"}, int(runs))
	if !slices.Equal(calls, want) {
		t.Errorf("the health check got %v, want %v", calls, want)
	}
	if !strings.HasPrefix(bodies[1], "run 1 succeeded: 15 members deleted from 2 conversations, 300 users checked, 0 unknown, ") {
		t.Errorf("the health check got %q", bodies)
	}

	// A dry run is nobody's news.
	program(t, env, "run", "--dry-run").expect(t, exitDone)
	if calls, _ := checks.all(); len(calls) != len(want) {
		t.Errorf("a dry run called: %v", calls)
	}
	// What does not succeed is told with its exit status, in one line.
	w.auth.Stop()
	program(t, env, "run").expect(t, exitFailed)
	calls, bodies = checks.all()
	if last := len(calls) - 1; calls[last] != "POST /b5c7-key/1?rid=1" || !strings.Contains(bodies[last], "auth-service") || strings.Contains(bodies[last], "\n") {
		t.Errorf("the health check got %v and %q", calls[last], bodies[last])
	}
	program(t, env, "run", "--database-url=postgres://nobody@127.0.0.1:1/nothing").expect(t, exitFailed)
	if text, err := os.ReadFile(file); err != nil || series(t, string(text))["orphan_cleaner_database_up"] != 0 {
		t.Errorf("without a database: %v\n%s", err, text)
	}
	if calls, _ := checks.all(); calls[len(calls)-1] != "POST /b5c7-key/1?rid=1" {
		t.Errorf("the health check got %v", calls)
	}
}

// Whatever is wrong with those who are told, even that they never answer: the run is the
// same, ends, and says so in one line each, without a secret.
func TestReportInVain(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connects, and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() }) // after the parallel tests below
	broken := listens(t)
	broken.status = http.StatusInternalServerError
	for name, c := range map[string]struct{ url, says string }{
		"never answers": {"http://u:s3cret@" + silent.Addr().String(), "deadline"},
		"refuses":       {"http://u:s3cret@127.0.0.1:1", "refused"},
		"fails":         {strings.Replace(broken.URL, "//", "//u:s3cret@", 1), "500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 300, 15)
			living := w.living()
			e := program(t, w.env, "run", "--json", "--metrics-textfile="+filepath.Join(t.TempDir(), "no", "such", "dir.prom"),
				"--pushgateway-url="+c.url, "--healthcheck-url="+c.url+"/s3cret").expect(t, exitDone)
			gone(t, w, living, 15)
			if e.result(t)["state"] != "succeeded" {
				t.Fatalf("%s", e)
			}
			for _, to := range []string{"to=textfile", "to=pushgateway", "to=healthcheck"} {
				lines := 0
				for line := range strings.Lines(e.stderr) {
					if strings.HasPrefix(line, "WARN orphan_cleaner: Telling how the run went failed") && strings.Contains(line, to) {
						lines++
					}
				}
				if lines == 0 || lines > 2 { // the health check's two calls
					t.Errorf("%d lines %s: %s", lines, to, e)
				}
			}
			if !strings.Contains(e.stderr, c.says) || strings.Contains(e.stderr, "s3cret") {
				t.Errorf("want %q, and no secret: %s", c.says, e)
			}
		})
	}
}

// serve calls for each run that it makes, SIGTERM included.
func TestServeHealthcheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	checks := listens(t)
	r := startServe(t, w.env, "--healthcheck-url="+checks.URL+"/key")
	eventually(t, "two calls", func() bool { calls, _ := checks.all(); return len(calls) == 2 })
	r.signal(t, syscall.SIGTERM)
	r.wait(t).expect(t, exitDone)
	if calls, _ := checks.all(); !slices.Equal(calls, []string{"POST /key/start", "POST /key"}) {
		t.Errorf("the health check got %v", calls)
	}
}

// What is no URL is refused before anything is begun, and not repeated.
func TestReportWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	for _, flag := range []string{"--healthcheck-url=s3cret", "--pushgateway-url=ftp://s3cret", "--pushgateway-url=http://"} {
		if e := program(t, w.env, "run", flag).expect(t, exitUsage); strings.Contains(e.stderr, "s3cret") || !strings.Contains(e.stderr, "_URL is not a URL") {
			t.Errorf("%s", e)
		}
	}
	if n := w.Count("orphan_cleaner.runs"); n != 0 {
		t.Errorf("%d runs were made", n)
	}
}
