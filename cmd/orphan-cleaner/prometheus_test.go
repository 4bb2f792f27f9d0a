package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
)

// monitor is a Prometheus that scrapes replicas and evaluates our rules.
type monitor struct{ url string }

var listeningAt = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// startPrometheus scrapes and evaluates once a second.
func startPrometheus(t *testing.T, replicas ...*replica) *monitor {
	t.Helper()
	program := needTool(t, "prometheus")
	rules, err := filepath.Abs("../../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	targets := make([]string, 0, len(replicas))
	for _, r := range replicas {
		targets = append(targets, strings.TrimPrefix(r.url, "http://"))
	}
	dir := t.TempDir()
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: orphan-cleaner
    static_configs: [{targets: [%s], labels: {namespace: nova}}]
`, rules, strings.Join(targets, ", "))
	path := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &output{}
	cmd := exec.Command(program, "--config.file="+path, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	cmd.Dir, cmd.Stderr = dir, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus said\n%s", log)
		}
	})
	m := &monitor{}
	eventually(t, "Prometheus says where it listens", func() bool {
		found := listeningAt.FindStringSubmatch(log.String())
		if found == nil {
			return false
		}
		m.url = "http://" + found[1]
		return true
	})
	eventually(t, "Prometheus is ready", func() bool {
		status, _ := get(t, m.url+"/-/ready")
		return status == http.StatusOK
	})
	return m
}

// sample is one result of a query.
type sample struct {
	labels map[string]string
	value  float64
}

// query evaluates now; an error in the query fails the test.
func (m *monitor) query(t *testing.T, expr string) []sample {
	t.Helper()
	status, body := get(t, m.url+"/api/v1/query?query="+url.QueryEscape(expr))
	var answer struct {
		Data struct {
			ResultType string `json:"resultType"`
			Result     []struct {
				Metric map[string]string `json:"metric"`
				Value  [2]any            `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK || answer.Data.ResultType != "vector" {
		t.Fatalf("%s: %d %v\n%s", expr, status, err, body)
	}
	samples := make([]sample, 0, len(answer.Data.Result))
	for _, r := range answer.Data.Result {
		value, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		samples = append(samples, sample{r.Metric, value})
	}
	return samples
}

// dashboardQueries are the queries of the dashboard's panels, and of what it marks
// in them, by title.
func dashboardQueries(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana/orphan-cleaner.json")
	if err != nil {
		t.Fatal(err)
	}
	type query struct{ Expr string }
	var dashboard struct {
		Panels []struct {
			Type, Title string
			Targets     []query
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	// What Grafana puts in.
	variables := strings.NewReplacer("$namespace", "(nova)", "$job", "(orphan-cleaner)", "$__rate_interval", "1m", "$__range", "5m", "$__interval", "15s")
	queries := map[string][]string{}
	for _, p := range dashboard.Panels {
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 {
			t.Errorf("the panel %s has no query", p.Title)
		}
		for _, target := range p.Targets {
			expr := variables.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("the panel %s has a variable that this test does not know: %s", p.Title, target.Expr)
			}
			queries[p.Title] = append(queries[p.Title], expr)
		}
	}
	return queries
}

// promqlBlocks are the queries that a page shows, a blank line or a comment
// between them.
func promqlBlocks(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var queries []string
	for _, block := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		uncommented := regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(block[1], "")
		for _, query := range regexp.MustCompile(`\n\s*\n`).Split(uncommented, -1) {
			if query = strings.TrimSpace(query); query != "" {
				queries = append(queries, query)
			}
		}
	}
	return queries
}

// A real Prometheus reads three replicas that make real runs, one that deletes and
// others with wrong answers. Each panel, each query of chapter 3.2 and of docs/metrics.md
// has a value, and the figures are what happened, not three times what happened.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	program(t, w.env, "pause", "--reason=until Prometheus looks on").expect(t, exitDone)
	var replicas []*replica
	for range 3 {
		replicas = append(replicas, startServe(t, w.env, "--interval=2s", "--max-candidate-share=0.9", "--events=file:"+filepath.Join(t.TempDir(), "events")))
	}
	m := startPrometheus(t, replicas...)
	eventually(t, "Prometheus has seen three replicas before their first run", func() bool {
		samples := m.query(t, "count(count_over_time(grpc_client_requests_total[1m]) > 1)")
		return len(samples) == 1 && samples[0].value == 3
	})
	program(t, w.env, "resume").expect(t, exitDone)
	eventually(t, "a run has deleted", func() bool {
		return w.Count("orphan_cleaner.runs WHERE state = 'succeeded' AND members_deleted = 15") == 1
	})

	// One batch of the three gets no answer any more.
	spoiled := w.users(t, "deleted_at IS NULL ORDER BY id LIMIT 1")[0].String()
	w.auth.SetFaultFunc(func(ctx context.Context, call int, ids []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if slices.Contains(ids, spoiled) {
			return authfake.InBandError(ctx, call, ids, honest)
		}
		return honest()
	})
	eventually(t, "the alert on errors fires", func() bool {
		return len(m.query(t, `ALERTS{alertname="OrphanCleanerGrpcErrors",alertstate="firing"}`)) == 1 &&
			len(m.query(t, `ALERTS{alertname="OrphanCleanerUsersUnknown"}`)) == 1 &&
			len(m.query(t, "max(orphan_cleaner_paused) == 0")) == 1 // a replica keeps what it read for 5 s
	})
	for _, r := range replicas {
		if status, _ := get(t, r.url+"/healthz"); status != http.StatusOK {
			t.Error("a replica is ill")
		}
	}

	// sound is a query that has values, each a number. A replica that cannot read the
	// database in time leaves out of one scrape what it could not read.
	sound := func(where, expr string) (samples []sample) {
		t.Helper()
		eventually(t, where+" has data: "+expr, func() bool {
			samples = m.query(t, expr)
			return len(samples) > 0
		})
		for _, s := range samples {
			if math.IsNaN(s.value) || math.IsInf(s.value, 0) {
				t.Errorf("%s is %v for %v: %s", where, s.value, s.labels, expr)
			}
		}
		return samples
	}
	between := map[string][2]float64{
		"Since the last success": {0, limit.Seconds()},
		"In intervals":           {0, limit.Seconds() / 2},
		"Breakers that refuse":   {0, 0},
		"Users alive again":      {0, 0},
		"Users unknown":          {100, 100},
		"Runs":                   {0, 0},
		"Database":               {1, 1},
		"Versions":               {3, 3},
		"Members deleted and restored, an hour/0": {14, 29}, // rate() guesses beyond the first and the last scrape
		"Members deleted and restored, an hour/1": {0, 0},
		"Share of calls that failed, two hours":   {0.01, 1},
		"Rows in the audit's DEFAULT partition":   {0, 0},
		"Since everybody was checked":             {0, limit.Seconds()},
		"Longest overdue/1":                       {6, 6},
		"Members/0":                               {0, 0},
	}
	for title, queries := range dashboardQueries(t) {
		for i, expr := range queries {
			sound("the panel "+title, expr)
			name := title
			if len(queries) > 1 {
				name += "/" + strconv.Itoa(i)
			}
			if want, ok := between[name]; ok {
				delete(between, name)
				// A scrape that takes too long leaves a replica out, until the next one.
				eventually(t, fmt.Sprintf("the panel %s shows one value from %v to %v", name, want[0], want[1]), func() bool {
					samples := m.query(t, expr)
					return len(samples) == 1 && samples[0].value >= want[0] && samples[0].value <= want[1]
				})
			}
		}
	}
	for name := range between {
		t.Errorf("there is no panel %s", name)
	}

	for _, expr := range []string{ // chapter 3.2, as printed
		`rate(grpc_client_requests_total{service="auth",method="get_users_by_ids"}[5m])`,
		`rate(orphan_cleaner_deleted_members_total[1h])`,
		`sum(rate(grpc_client_errors_total{service="auth"}[5m]))
  / sum(rate(grpc_client_requests_total{service="auth"}[5m]))`,
	} {
		sound("chapter 3.2", expr)
	}
	queries := promqlBlocks(t, "../../docs/metrics.md")
	for _, expr := range queries {
		// A comparison has no value while all is well.
		if regexp.MustCompile(`[<>]|[=!]=`).MatchString(expr) {
			m.query(t, expr)
		} else {
			sound("docs/metrics.md", expr)
		}
	}
	if len(queries) < 5 {
		t.Errorf("docs/metrics.md has only %d queries", len(queries))
	}
	for _, recorded := range regexp.MustCompile(`(?m)record: (\S+)`).FindAllStringSubmatch(m.rules(t), -1) {
		// Nothing comes from cron here.
		if recorded[1] != "orphan_cleaner:one_run:info" {
			sound("the recording rule", recorded[1])
		}
	}
	if others := m.query(t, `ALERTS{alertstate="firing",alertname!~"OrphanCleanerGrpc.*"}`); len(others) > 0 {
		t.Errorf("other alerts fire: %v", others)
	}
	for _, r := range replicas {
		r.signal(t, syscall.SIGTERM)
		r.wait(t).expect(t, exitDone)
	}
}

// rules is the file that was loaded; each rule in it is healthy.
func (m *monitor) rules(t *testing.T) string {
	t.Helper()
	status, body := get(t, m.url+"/api/v1/rules")
	if status != http.StatusOK || !strings.Contains(body, `"health":"ok"`) || strings.Contains(body, `"health":"err"`) {
		t.Errorf("rules: %d %s", status, body)
	}
	text, err := os.ReadFile("../../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
