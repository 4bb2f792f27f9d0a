// Package deploy_test looks into what is deployed beside the program.
package deploy_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/internal/telemetry"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

type rule struct {
	Record      string
	Alert       string
	Expr        string
	Labels      map[string]string
	Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	load(t, "prometheus/rules.yaml", &file)
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no rules")
	}
	return all
}

func load(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// Each alert says how bad it is, what is wrong, with which command to fix it, and
// where the runbook has more.
func TestAlertsSayWhatToDo(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if seen[r.Alert] {
			t.Errorf("%s is there twice", r.Alert)
		}
		seen[r.Alert] = true
		if !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s has severity %q", r.Alert, r.Labels["severity"])
		}
		if !slices.Contains([]string{"sre", "backend", "dba"}, r.Labels["team"]) {
			t.Errorf("%s is for the team %q", r.Alert, r.Labels["team"])
		}
		if want := map[string]string{"warning": "none", "critical": "spec007-phase1"}[r.Labels["severity"]]; r.Labels["page"] != want {
			t.Errorf("%s pages %q, want %q", r.Alert, r.Labels["page"], want)
		}
		if r.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", r.Alert)
		}
		if !regexp.MustCompile("`(orphan-cleaner|psql|kubectl|grpcurl|pg_isready|systemctl) [^`]+`").MatchString(r.Annotations["description"]) {
			t.Errorf("%s names no command that fixes it: %s", r.Alert, r.Annotations["description"])
		}
		if want := "https://github.com/nova-social/orphan-cleaner/blob/main/docs/runbook.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s leads to %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
	}
}

// For each alert there is a test in which it fires, and one in which it then does
// not any more.
func TestAlertsHaveTests(t *testing.T) {
	t.Parallel()
	var file struct {
		Tests []struct {
			Checks []struct {
				At      string `yaml:"eval_time"`
				Expr    string
				Samples []any `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	load(t, "prometheus/rules_test.yaml", &file)
	cleared := map[string]bool{}
	for _, test := range file.Tests {
		fired := map[string]time.Duration{}
		for _, check := range test.Checks {
			found := regexp.MustCompile(`^ALERTS\{alertname="(\w+)", alertstate="firing"\}$`).FindStringSubmatch(check.Expr)
			if found == nil {
				continue
			}
			at, err := time.ParseDuration(check.At)
			if err != nil {
				t.Fatal(err)
			}
			if len(check.Samples) > 0 {
				fired[found[1]] = at
			} else if since, ok := fired[found[1]]; ok && at > since {
				cleared[found[1]] = true
			}
		}
	}
	for _, r := range rules(t) {
		if r.Alert != "" && !cleared[r.Alert] {
			t.Errorf("there is no test in which %s fires and then clears", r.Alert)
		}
	}
}

// metricNames are the names of ours in a query, recorded ones included.
func metricNames(query string) []string {
	comments := regexp.MustCompile(`(?m)#.*$|"[^"]*"`)
	return regexp.MustCompile(`\b(?:orphan_cleaner|grpc_client)[a-z0-9_:]*`).FindAllString(comments.ReplaceAllString(query, ""), -1)
}

// panel is one of a dashboard, or a row of them.
type panel struct {
	Title   string
	Targets []struct{ Expr string }
	Panels  []panel
}

// Each metric that a rule or the dashboard asks for is one that the program has,
// or that a rule records.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	process := telemetry.Settings{Version: "v1", Interval: time.Hour, Concurrency: 8}
	metrics, err := telemetry.NewMetrics(registry, process)
	if err != nil {
		t.Fatal(err)
	}
	db := testdb.New(t)
	// Before the first judged run no breaker has a figure.
	db.Exec(`INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, judged_at, lease, host, version, settings)
		VALUES ('clean', 'succeeded', 'finish', now(), now(), now(), now(), '1 minute', 'h:1', 'v', '{"delete-rows": 100000}')`)
	// Nor is there a sink that is told of events.
	db.Exec("INSERT INTO orphan_cleaner.event_cursors (sink, run_id) VALUES ('redis', 1)")
	if err := telemetry.NewState(registry, metrics, db.Pool, 30*24*time.Hour, slog.New(slog.DiscardHandler), process); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	// What of the database cannot be read in time is left out, for a minute at most.
	testdb.Eventually(t, 3*time.Minute, "all of the database is read", func() bool {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			known[family.GetName()] = true
			if family.GetMetric()[0].GetHistogram() != nil {
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					known[family.GetName()+suffix] = true
				}
			}
		}
		return known["orphan_cleaner_runs_total"] && known["orphan_cleaner_due_members"] && known["orphan_cleaner_candidate_members"]
	})
	queries := map[string]string{}
	for _, r := range rules(t) {
		known[r.Record] = true
		queries[r.Alert+r.Record] = r.Expr
	}
	text, err := os.ReadFile("grafana/orphan-cleaner.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard panel
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries["panel "+p.Title] += target.Expr + "\n"
			for _, name := range metricNames(target.Expr) {
				shown[name] = true
			}
		}
	}
	// What a reader looks at before a breaker refuses.
	for _, name := range []string{
		"orphan_cleaner_candidate_users", "orphan_cleaner_newly_missing_users", "orphan_cleaner_newly_missing_usual_users",
		"orphan_cleaner_breaker_value", "orphan_cleaner_breaker_limit", "orphan_cleaner:breaker_limit:ratio",
	} {
		if !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
	checked := 0
	for where, query := range queries {
		for _, name := range metricNames(query) {
			checked++
			// What a fleet has is held against a worker of one, in TestFleetServe.
			if !known[name] && !strings.HasPrefix(name, "orphan_cleaner_fleet_") {
				t.Errorf("%s asks for %s, which there is not", where, name)
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d names were found", checked)
	}
}

// settings are the names in the environment that the program knows.
func settings(t *testing.T) map[string]bool {
	t.Helper()
	sources, err := filepath.Glob("../cmd/orphan-cleaner/*.go")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, path := range sources {
		for _, found := range regexp.MustCompile(`env:"(\w+)"`).FindAllStringSubmatch(read(t, path), -1) {
			known[found[1]] = true
		}
	}
	return known
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// systemd has nothing to say about the units, and rates the services as well confined.
func TestSystemd(t *testing.T) {
	t.Parallel()
	known := settings(t)
	commands := map[string]string{
		"orphan-cleaner": "run", "orphan-cleaner-prune": "prune --execute", "orphan-cleaner-check": "check",
		"orphan-cleaner-connections": "bench --read-only --call-repeat=20", "orphan-cleaner-report": "report",
	}
	for _, found := range regexp.MustCompile(`(?m)^(?:Environment=)?([A-Z_]+)=`).FindAllStringSubmatch(read(t, "systemd/orphan-cleaner.env")+read(t, "systemd/orphan-cleaner.service"), -1) {
		if !known[found[1]] {
			t.Errorf("the program has no setting %s", found[1])
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no systemd-analyze here")
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "orphan-cleaner-.service.d"), os.DirFS("systemd/orphan-cleaner-.service.d")); err != nil {
		t.Fatal(err)
	}
	for name, command := range commands {
		service := read(t, "systemd/"+name+".service")
		// It looks for the program, which is not installed here.
		installed := strings.Replace(service, "ExecStart=/usr/local/bin/orphan-cleaner "+command+"\n", "ExecStart=/bin/true "+command+"\n", 1)
		if installed == service {
			t.Fatalf("%s does not start /usr/local/bin/orphan-cleaner %s", name, command)
		}
		for suffix, text := range map[string]string{".service": installed, ".timer": read(t, "systemd/"+name+".timer")} {
			if err := os.WriteFile(filepath.Join(dir, name+suffix), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name := range commands {
		unit := filepath.Join(dir, name+".service")
		if out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit, filepath.Join(dir, name+".timer")).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("verify: %v\n%s", err, out)
		}
		// In tenths; of 10, a service without any confinement has 9.6.
		if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=15", unit).CombinedOutput(); err != nil {
			t.Errorf("security: %v\n%s", err, out)
		}
	}
}

// Each line of the crontab has a time, a user and a command of ours, and cron
// makes no newline of a % in it.
func TestCron(t *testing.T) {
	t.Parallel()
	known := settings(t)
	commands := map[string]bool{}
	for line := range strings.Lines(read(t, "cron/orphan-cleaner")) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if name, _, ok := strings.Cut(line, "="); ok && regexp.MustCompile(`^[A-Z_]+$`).MatchString(name) {
			if !known[name] && name != "SHELL" && name != "PATH" {
				t.Errorf("the program has no setting %s", name)
			}
			continue
		}
		found := regexp.MustCompile(`^(?:[\d*]+\s+){5}orphan-cleaner\S*\s+(\w+)=\S+ (orphan-cleaner [a-z -]+) 2>&1 \| logger -t orphan-cleaner$`).FindStringSubmatch(line)
		if found == nil || strings.Contains(line, "%") {
			t.Errorf("cron cannot read %q", line)
			continue
		}
		if !known[found[1]] {
			t.Errorf("the program has no setting %s", found[1])
		}
		commands[found[2]] = true
	}
	if !commands["orphan-cleaner run"] || !commands["orphan-cleaner prune --execute"] || len(commands) != 2 {
		t.Errorf("cron starts %v", commands)
	}
}
