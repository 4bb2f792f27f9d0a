package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

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
	p := start(t, env, append([]string{"serve", "--metrics-addr=127.0.0.1:0"}, flags...)...)
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

func (r *replica) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	status, body := get(t, r.url+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d\n%s", status, body)
	}
	return series(t, body)
}

// runsEnded counts the runs of a schedule.
func (w *world) runsEnded() int64 { return w.Count("orphan_runs WHERE state <> 'running'") }

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
	got := r.metrics(t)
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
		`orphan_cleaner_void_batches_total{reason="in_band_error"}`:                      0,
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
	if status, body := get(t, r.url+"/readyz"); status != http.StatusOK || strings.Count(body, "ok    ") != 4 {
		t.Errorf("/readyz: %d %s", status, body)
	}
	r.signal(t, syscall.SIGTERM)
	r.wait(t).expect(t, exitDone)
}

// A port that is taken is the user's to mend, and a run needs none.
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
	if n := w.Count("orphan_runs"); n != 0 {
		t.Errorf("%d runs were made", n)
	}
	program(t, env, "run").expect(t, exitDone)
}

// Three replicas make one run an interval: none is skipped, none is made twice,
// and the beat is kept.
func TestServeReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	living := w.living()
	const interval, want = 2 * time.Second, 10
	replicas := []*replica{}
	for range 3 {
		replicas = append(replicas, startServe(t, w.env, "--interval="+interval.String()))
	}
	eventually(t, "ten runs", func() bool { return w.runsEnded() >= want })
	for _, r := range replicas {
		r.signal(t, syscall.SIGTERM)
	}
	for _, r := range replicas {
		r.wait(t).expect(t, exitDone)
	}
	gone(t, w, living, 15)
	if n := w.Count("orphan_runs WHERE state <> 'succeeded' AND run_id <= $1", want); n != 0 {
		t.Errorf("%d of the runs did not succeed", n)
	}
	// The beat: the n-th run was due n intervals after the first.
	beat := w.Snapshot(`(SELECT run_id, (extract(EPOCH FROM scheduled_for - min(scheduled_for) OVER ()) / $1::float8)::float8
		<> row_number() OVER (ORDER BY run_id) - 1 AS off FROM orphan_runs WHERE run_id <= $2) AS b WHERE off`, interval.Seconds(), want)
	if len(beat) > 0 {
		t.Errorf("off the beat: %v\n%v", beat, w.Snapshot("orphan_runs"))
	}
	if late := testdb.One[float64](w.DB, "SELECT max(extract(EPOCH FROM started_at - scheduled_for))::float8 FROM orphan_runs WHERE run_id <= $1", want); late >= interval.Seconds() {
		t.Errorf("a run began %.1f s late", late)
	}
	if n := w.Count(`orphan_runs AS a JOIN orphan_runs AS b ON a.run_id < b.run_id AND a.finished_at > b.started_at`); n != 0 {
		t.Errorf("%d pairs of runs overlap", n)
	}
}
