package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/crypto/bcrypt"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// replica is a `serve` under way.
type replica struct {
	*started
	url string
}

var servingAt = regexp.MustCompile(`Serving .* address=(\S+)`)

// startServe starts a `serve` on a port of its own and waits until it answers.
func startServe(t *testing.T, env []string, flags ...string) *replica {
	t.Helper()
	return serving(t, start(t, env, append([]string{"serve", "--metrics-addr=127.0.0.1:0"}, flags...)...))
}

func serving(t *testing.T, p *started) *replica {
	t.Helper()
	r := &replica{started: p}
	eventually(t, "serve says where", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("serve ended: %s", p.wait(t))
		default:
		}
		found := servingAt.FindStringSubmatch(p.stderr.String())
		if found != nil {
			r.url = "http://" + found[1]
		}
		return found != nil
	})
	return r
}

// get is the status and the body of one answer.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// series are the samples of a text exposition by name and labels, as in
// `up{job="x"}`; of a histogram the count.
func series(t *testing.T, text string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	all := map[string]float64{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := name
			if len(labels) > 0 {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			all[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// all are the metrics once the replica has read the database, which it leaves out of a scrape
// where that takes too long.
func (r *replica) all(t *testing.T) (got map[string]float64) {
	t.Helper()
	eventually(t, "the replica reads the database in time", func() bool {
		got = r.metrics(t)
		_, judged := got["orphan_cleaner_due_members"]
		_, candidates := got["orphan_cleaner_candidate_members"]
		return got["orphan_cleaner_database_up"] == 1 && judged && candidates
	})
	return got
}

// ready waits until /readyz says so: what does not answer in time is not ready, until it is asked again.
func (r *replica) ready(t *testing.T, says func(body string) bool) {
	t.Helper()
	eventually(t, "/readyz says that all is ready", func() bool {
		status, body := get(t, r.url+"/readyz")
		return status == http.StatusOK && says(body)
	})
}

func (r *replica) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	status, body := get(t, r.url+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d\n%s", status, body)
	}
	return series(t, body)
}

// runsEnded counts the runs of a schedule.
func (w *world) runsEnded() int64 { return w.Count("orphan_cleaner.runs WHERE state <> 'running'") }

// After a real run /metrics says, by the runbook's names and labels, what the run did.
func TestServeMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	living := w.living()
	r := startServe(t, w.env)
	eventually(t, "the first run has ended", func() bool { return w.runsEnded() == 1 })
	eventually(t, "its result is logged", func() bool {
		return strings.Contains(r.stderr.String(), "Cleaned 15 orphaned members from 2 conversations")
	})
	if first, _, _ := strings.Cut(r.stderr.String(), "\n"); first != "INFO orphan_cleaner: Starting orphan cleaner (interval: 1h, batch: 100, retention: 30d)" {
		t.Errorf("the first line is %q", first)
	}
	gone(t, w, living, 15)
	got := r.all(t)
	for name, want := range map[string]float64{
		`grpc_client_requests_total{method="get_users_by_ids",service="auth"}`:           4,
		`grpc_client_errors_total{method="get_users_by_ids",service="auth"}`:             0,
		`grpc_client_request_duration_seconds{method="get_users_by_ids",service="auth"}`: 4,
		"orphan_cleaner_batch_calls_total":                                               4,
		"orphan_cleaner_deleted_members_total":                                           15,
		`orphan_cleaner_runs_total{kind="clean",state="succeeded"}`:                      1,
		`orphan_cleaner_runs_total{kind="clean",state="failed"}`:                         0,
		"orphan_cleaner_users_checked":                                                   300,
		"orphan_cleaner_users_unknown":                                                   0,
		"orphan_cleaner_blocked_users":                                                   0,
		"orphan_cleaner_candidate_users":                                                 0,
		"orphan_cleaner_due_members":                                                     0,
		"orphan_cleaner_interval_seconds":                                                3600,
		"orphan_cleaner_concurrency_limit":                                               8,
		"orphan_cleaner_chunk_members":                                                   1,
		"orphan_cleaner_run_open":                                                        0,
		"orphan_cleaner_paused":                                                          0,
		"orphan_cleaner_database_up":                                                     1,
		`orphan_cleaner_breaker_tripped{breaker="canary-alive"}`:                         0,
		`orphan_cleaner_breaker_tripped{breaker="clock"}`:                                0,
		`orphan_cleaner_invalid_responses_total{reason="in_band_error"}`:                 0,
		`orphan_cleaner_retries_total{cause="deadlock"}`:                                 0,
		`orphan_cleaner_partitions_ahead_days{table="conversation_members_backup"}`:      7,
	} {
		if value, there := got[name]; !there || value != want {
			t.Errorf("%s is %v (there: %v), want %v", name, value, there, want)
		}
	}
	now := testdb.One[float64](w.DB, "SELECT extract(EPOCH FROM now())::float8")
	for _, name := range []string{"orphan_cleaner_last_success_timestamp_seconds", "orphan_cleaner_last_attempt_timestamp_seconds"} {
		if age := now - got[name]; age < 0 || age > limit.Seconds() {
			t.Errorf("%s is %v, now is %v", name, got[name], now)
		}
	}
	for _, phase := range []string{"preflight", "verify", "judge", "sweep", "finish"} {
		if got[fmt.Sprintf("orphan_cleaner_phase_duration_seconds{phase=%q}", phase)] <= 0 {
			t.Errorf("phase %s took no time: %v", phase, got)
		}
	}
	if status, body := get(t, r.url+"/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %s", status, body)
	}
	r.ready(t, func(body string) bool { return strings.Count(body, "ok    ") == 4 })
	r.signal(t, syscall.SIGTERM)
	r.wait(t).expect(t, exitDone)
}

// A port that is taken is the user's to fix, and a run needs none.
func TestServePortTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	env := append(slices.Clone(w.env), "ORPHAN_CLEANER_METRICS_ADDR="+taken.Addr().String())
	e := program(t, env, "serve").expect(t, exitUsage)
	if last := lastLine(e.stderr); !strings.Contains(last, "address already in use") || !strings.Contains(last, "ORPHAN_CLEANER_METRICS_ADDR") {
		t.Errorf("%s", e)
	}
	if n := w.Count("orphan_cleaner.runs"); n != 0 {
		t.Errorf("%d runs were made", n)
	}
	program(t, env, "run").expect(t, exitDone)
}

// Three replicas make one run an interval: none is made twice, and the beat is kept. An
// interval is skipped only where none of them came to it in time.
func TestServeReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	living := w.living()
	const interval, want = 4 * time.Second, 5
	replicas := []*replica{}
	for range 3 {
		replicas = append(replicas, startServe(t, w.env, "--interval="+interval.String()))
	}
	// In intervals, how long after the one before it a run was due.
	const after = `(SELECT extract(EPOCH FROM scheduled_for - lag(scheduled_for) OVER (ORDER BY run_id)) / 4 AS intervals FROM orphan_cleaner.runs) AS a WHERE `
	eventually(t, "five runs, one of them an interval after another", func() bool { return w.runsEnded() >= want && w.Count(after+"intervals = 1") > 0 })
	for _, r := range replicas {
		r.signal(t, syscall.SIGTERM)
	}
	for _, r := range replicas {
		r.wait(t).expect(t, exitDone)
	}
	gone(t, w, living, 15)
	if n := w.Count("orphan_cleaner.runs WHERE state <> 'succeeded' AND run_id <= $1", want); n != 0 {
		t.Errorf("%d of the runs did not succeed", n)
	}
	// Each counts anew, though one process made several.
	if n := w.Count("orphan_cleaner.runs WHERE run_id <= $1 AND members_total <> CASE WHEN run_id = 1 THEN 300 ELSE 285 END", want); n != 0 {
		t.Errorf("%d runs count members of runs before them: %v", n, w.Snapshot("orphan_cleaner.runs"))
	}
	if w.Count(after+"intervals < 1 OR intervals % 1 <> 0") != 0 {
		t.Errorf("off the beat: %v", w.Snapshot("orphan_cleaner.runs"))
	}
	if n := w.Count("orphan_cleaner.runs WHERE started_at NOT BETWEEN scheduled_for AND scheduled_for + make_interval(secs => $1)", interval.Seconds()); n != 0 {
		t.Errorf("%d runs began early, or an interval late: %v", n, w.Snapshot("orphan_cleaner.runs"))
	}
	if n := w.Count(`orphan_cleaner.runs AS a JOIN orphan_cleaner.runs AS b ON a.run_id < b.run_id AND a.finished_at > b.started_at`); n != 0 {
		t.Errorf("%d pairs of runs overlap", n)
	}
}

// SIGTERM in mid-sweep ends at once, whatever auth-service does, and with 0; what is
// gone is audited and backed up, and the next run does the rest.
func TestServeInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sweepUsers, sweepDue)
	living := w.living()
	p := stuckWith(t, w, "serve", "--metrics-addr=127.0.0.1:0", "--batch-size=10", "--chunk-rows=10", "--auth-service-timeout=1h")
	r := serving(t, p)
	eventually(t, "the metrics show the open run and what it deleted", func() bool {
		got := r.metrics(t)
		return got["orphan_cleaner_run_open"] == 1 && got["orphan_cleaner_deleted_members_total"] == sweptFirst
	})
	p.signal(t, syscall.SIGTERM)
	p.wait(t).expect(t, exitDone)
	if row := testdb.One[string](w.DB, "SELECT state || ' in ' || phase || ', ' || members_deleted FROM orphan_cleaner.runs"); row != fmt.Sprintf("incomplete in sweep, %d", sweptFirst) {
		t.Errorf("the run's row says %q", row)
	}
	gone(t, w, living, sweptFirst)
	w.auth.SetFaultFunc(nil)
	program(t, w.env, "run").expect(t, exitDone)
	gone(t, w, living, sweepDue)
}

// SIGTERM while the database keeps a chunk waiting, too.
func TestServeInterruptedInDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	living := w.living()
	tx, err := w.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "SELECT FROM conversation_members WHERE user_id = ANY ($1) FOR UPDATE", w.dead); err != nil {
		t.Fatal(err)
	}
	r := startServe(t, w.env)
	eventually(t, "a delete waits", func() bool {
		return w.Count(`pg_stat_activity WHERE datname = $1 AND application_name = 'orphan-cleaner' AND wait_event_type = 'Lock' AND query LIKE '%RunSweepChunk%'`, w.Name) > 0
	})
	r.signal(t, syscall.SIGTERM)
	r.wait(t).expect(t, exitDone) // the lock is held all the time
	gone(t, w, living, 0)
}

// The run of a replica that was killed is taken over by another once its lease
// is over, long before the next one is due.
func TestServeTakesOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sweepUsers, sweepDue)
	living := w.living()
	flags := []string{"serve", "--metrics-addr=127.0.0.1:0", "--batch-size=10", "--chunk-rows=10", "--auth-service-timeout=1m", "--lease=10s"}
	p := stuckWith(t, w, flags...)
	other := serving(t, start(t, w.env, flags...))
	p.signal(t, syscall.SIGKILL)
	<-p.exited
	w.auth.SetFaultFunc(nil)
	eventually(t, "the other replica has made a run", func() bool { return w.Count("orphan_cleaner.runs WHERE state = 'succeeded'") == 1 })
	if states := w.Snapshot("(SELECT run_id, state FROM orphan_cleaner.runs) AS r"); !slices.Equal(states, testdb.Snapshot{"(1,abandoned)", "(2,succeeded)"}) {
		t.Errorf("the runs are %v", states)
	}
	gone(t, w, living, sweepDue)
	if got := other.all(t); got[`orphan_cleaner_runs_total{kind="clean",state="abandoned"}`] != 1 || got["orphan_cleaner_run_open"] != 0 {
		t.Errorf("%v", got)
	}
	other.signal(t, syscall.SIGTERM)
	other.wait(t).expect(t, exitDone)
}

// door is an address that leads to another while it is open.
type door struct {
	listener net.Listener
	mu       sync.Mutex
	open     bool
	through  []net.Conn
}

func newDoor(t *testing.T, to string) *door {
	t.Helper()
	return newDoorAt(t, "127.0.0.1:0", to)
}

func newDoorAt(t *testing.T, at, to string) *door {
	t.Helper()
	listener, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	d := &door{listener: listener}
	t.Cleanup(func() {
		_ = listener.Close()
		d.set(false)
	})
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			if out, err := net.Dial("tcp", to); err != nil || !d.open {
				_ = in.Close()
			} else {
				d.through = append(d.through, in, out)
				for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
					go func() {
						_, _ = io.Copy(way[0], way[1])
						_ = way[0].Close()
					}()
				}
			}
			d.mu.Unlock()
		}
	}()
	return d
}

// set opens the door, or shuts it and breaks off whatever goes through.
func (d *door) set(open bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = open
	if !open {
		for _, conn := range d.through {
			_ = conn.Close()
		}
		d.through = nil
	}
}

// Whatever is down, at the start or later: serve keeps serving, /readyz says
// what it is, no run is begun, and one is as soon as all is there.
func TestServeOutages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	living := w.living()
	database := newDoor(t, fmt.Sprintf("127.0.0.1:%d", w.Cluster().Port()))
	auth := newDoor(t, w.auth.Addr())
	r := startServe(t, []string{
		"DATABASE_URL=" + strings.Replace(w.URL, fmt.Sprintf(":%d/", w.Cluster().Port()), fmt.Sprintf(":%d/", database.listener.Addr().(*net.TCPAddr).Port), 1),
		"AUTH_SERVICE_URL=http://" + auth.listener.Addr().String(),
	}, "--interval=1s", "--auth-service-timeout=1s")
	readyz := func(want int, parts ...string) {
		t.Helper()
		var body string
		eventually(t, fmt.Sprintf("/readyz says %d %v", want, parts), func() bool {
			var status int
			status, body = get(t, r.url+"/readyz")
			return status == want && !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(body, part) })
		})
	}
	readyz(http.StatusServiceUnavailable, "FAIL  database", "FAIL  schema", "FAIL  auth-service")
	if got := r.metrics(t); got["orphan_cleaner_database_up"] != 0 || got["orphan_cleaner_interval_seconds"] != 1 {
		t.Errorf("%v", got)
	}
	database.set(true)
	readyz(http.StatusServiceUnavailable, "ok    database", "ok    schema", "FAIL  auth-service")
	eventually(t, "the log says what is not ready", func() bool {
		return strings.Contains(r.stderr.String(), "WARN orphan_cleaner: Not ready for a run") && strings.Contains(r.stderr.String(), "auth-service: ")
	})
	if n := w.Count("orphan_cleaner.runs"); n != 0 {
		t.Errorf("%d runs were begun without auth-service", n)
	}
	auth.set(true)
	readyz(http.StatusOK, "ok    database", "ok    schema", "ok    auth-service: SERVING", "ok    runs: not paused")
	eventually(t, "a run", func() bool { return w.Count("orphan_cleaner.runs WHERE state = 'succeeded'") > 0 })
	gone(t, w, living, 15)

	database.set(false)
	readyz(http.StatusServiceUnavailable, "FAIL  database")
	if status, body := get(t, r.url+"/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	eventually(t, "the metrics say so", func() bool { return r.metrics(t)["orphan_cleaner_database_up"] == 0 })
	before := w.Count("orphan_cleaner.runs WHERE state = 'succeeded'")
	database.set(true)
	eventually(t, "runs again", func() bool { return w.Count("orphan_cleaner.runs WHERE state = 'succeeded'") > before })
	eventually(t, "the metrics say so", func() bool { return r.metrics(t)["orphan_cleaner_database_up"] == 1 })
	r.signal(t, syscall.SIGTERM)
	r.wait(t).expect(t, exitDone)
}

// A run that fails is made once an interval, whoever makes it, and not at once again.
func TestServeFailsOnceAnInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	living := w.living()
	w.Exec("ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete")
	one, other := startServe(t, w.env, "--interval=2s"), startServe(t, w.env, "--interval=2s")
	eventually(t, "three runs", func() bool { return w.runsEnded() >= 3 })
	if n := w.Count(`(SELECT state, phase, extract(EPOCH FROM scheduled_for - lag(scheduled_for) OVER (ORDER BY run_id)) / 2 AS intervals FROM orphan_cleaner.runs WHERE run_id <= 3) AS r
		WHERE (state, phase) <> ('failed', 'preflight') OR intervals < 1 OR intervals % 1 <> 0`); n != 0 {
		t.Errorf("the runs are %v", w.Snapshot("orphan_cleaner.runs"))
	}
	gone(t, w, living, 0)
	w.Exec("ALTER TABLE conversation_members ENABLE ALWAYS TRIGGER conversation_members_audit_delete")
	eventually(t, "a run succeeds", func() bool { return w.Count("orphan_cleaner.runs WHERE state = 'succeeded'") > 0 })
	gone(t, w, living, 3)
	for _, r := range []*replica{one, other} {
		r.signal(t, syscall.SIGTERM)
		r.wait(t).expect(t, exitDone)
	}
}

// A run by hand is made now; the schedule counts from it. A pause keeps serve
// waiting and ready.
func TestServeBesideOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	r := startServe(t, w.env)
	eventually(t, "the first run", func() bool { return w.runsEnded() == 1 })
	program(t, w.env, "run").expect(t, exitDone)
	if row := testdb.One[string](w.DB, "SELECT state || ', ' || coalesce(scheduled_for::text, 'by hand') FROM orphan_cleaner.runs WHERE run_id = 2"); row != "succeeded, by hand" {
		t.Errorf("the run by hand is %q", row)
	}
	r.signal(t, syscall.SIGTERM)
	r.wait(t).expect(t, exitDone)

	program(t, w.env, "pause", "--reason=restoring auth-service").expect(t, exitDone)
	r = startServe(t, w.env, "--interval=1s")
	eventually(t, "the log says that runs are paused", func() bool { return strings.Contains(r.stderr.String(), "WARN orphan_cleaner: Runs are paused") })
	r.ready(t, func(body string) bool { return strings.Contains(body, "restoring auth-service") })
	if got := r.all(t); got["orphan_cleaner_paused"] != 1 {
		t.Errorf("%v", got)
	}
	if n := w.Count("orphan_cleaner.runs"); n != 2 {
		t.Errorf("%d runs in spite of the pause", n-2)
	}
	program(t, w.env, "resume").expect(t, exitDone)
	eventually(t, "runs go on", func() bool { return w.Count("orphan_cleaner.runs WHERE state = 'succeeded'") > 2 })
	r.signal(t, syscall.SIGTERM)
	r.wait(t).expect(t, exitDone)
}

// The web configuration file asks for a password, and a wrong one is refused.
func TestServeWebConfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	path := filepath.Join(t.TempDir(), "web.yml")
	hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "basic_auth_users:\n  prometheus: %s\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startServe(t, w.env, "--metrics-web-config="+path)
	for _, path := range []string{"/metrics", "/", "/style.css", "/runs/1"} {
		if status, _ := get(t, r.url+path); status != http.StatusUnauthorized {
			t.Errorf("%s without a password: %d", path, status)
		}
	}
	for _, path := range []string{"/metrics", "/", "/style.css"} {
		eventually(t, path+" with the password", func() bool {
			status, _ := get(t, strings.Replace(r.url, "//", "//prometheus:open%20sesame@", 1)+path)
			return status == http.StatusOK
		})
	}
	if err := os.WriteFile(path, []byte("tls_server_config: [not, a, map]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := program(t, w.env, "serve", "--metrics-addr=127.0.0.1:0", "--metrics-web-config="+path).expect(t, exitUsage); !strings.Contains(e.stderr, "METRICS_WEB_CONFIG") {
		t.Errorf("%s", e)
	}
	r.signal(t, syscall.SIGTERM)
	r.wait(t).expect(t, exitDone)
}

// The status page of serve tells of the run that serve made, as the role of a runner.
func TestServePage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.Roles("../../sql/roles.sql")
	r := startServe(t, append(w.env, "DATABASE_URL="+w.Login("orphan_cleaner_runner"), "ORPHAN_CLEANER_RETENTION=30d"))
	eventually(t, "the first run has ended", func() bool { return w.runsEnded() == 1 })
	eventually(t, "the page of run 1", func() bool {
		status, run := get(t, r.url+"/runs/1")
		return status == http.StatusOK && regexp.MustCompile(`Members deleted</th><td class="n">15<`).MatchString(run)
	})
	eventually(t, "the status page", func() bool {
		status, page := get(t, r.url+"/")
		return status == http.StatusOK && strings.Contains(page, "<b>healthy</b> last run ") && strings.Contains(page, `href="./runs/1">`)
	})
	if status, _ := get(t, r.url+"/nothing"); status != http.StatusNotFound {
		t.Errorf("what is not there: %d", status)
	}
	r.signal(t, syscall.SIGTERM)
	r.wait(t).expect(t, exitDone)
}
