// Package deploy_test looks into what is deployed beside the program.
package deploy_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v2"

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

// Each alert says how bad it is, what is wrong, with which command to mend it, and
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
		if r.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", r.Alert)
		}
		if !regexp.MustCompile("`(orphan-cleaner|psql|kubectl|grpcurl|pg_isready|systemctl) [^`]+`").MatchString(r.Annotations["description"]) {
			t.Errorf("%s names no command that mends it: %s", r.Alert, r.Annotations["description"])
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
	settings := telemetry.Settings{Version: "v1", Interval: time.Hour, Concurrency: 8}
	metrics, err := telemetry.NewMetrics(registry, settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := telemetry.NewState(registry, metrics, testdb.New(t).Pool, 30*24*time.Hour, slog.New(slog.DiscardHandler), settings); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, family := range families {
		known[family.GetName()] = true
		if family.GetMetric()[0].GetHistogram() != nil {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				known[family.GetName()+suffix] = true
			}
		}
	}
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
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries["panel "+p.Title] += target.Expr + "\n"
		}
	}
	checked := 0
	for where, query := range queries {
		for _, name := range metricNames(query) {
			checked++
			if !known[name] {
				t.Errorf("%s asks for %s, which there is not", where, name)
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d names were found", checked)
	}
}
