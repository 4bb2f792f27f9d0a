package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// HealthcheckFlags say who wants to know that runs are made.
type HealthcheckFlags struct {
	HealthcheckURL string `help:"Called when a run begins (/start), when it succeeds, and when it does not (/STATUS), as healthchecks.io has it." env:"ORPHAN_CLEANER_HEALTHCHECK_URL" placeholder:"URL"`
}

// PublishFlags say where a run from cron leaves its metrics.
type PublishFlags struct {
	MetricsTextfile string `help:"File for node_exporter's textfile collector, written after the run; its name ends in .prom." env:"ORPHAN_CLEANER_METRICS_TEXTFILE" placeholder:"FILE"`
	PushgatewayURL  string `help:"Prometheus Pushgateway that gets the metrics after the run." env:"ORPHAN_CLEANER_PUSHGATEWAY_URL" placeholder:"URL"`
	HealthcheckFlags
}

func (f *HealthcheckFlags) outlets() (telemetry.Outlets, error) {
	return checkedOutlets(telemetry.Outlets{Healthcheck: f.HealthcheckURL})
}

func (f *PublishFlags) outlets() (telemetry.Outlets, error) {
	return checkedOutlets(telemetry.Outlets{Textfile: f.MetricsTextfile, Pushgateway: f.PushgatewayURL, Healthcheck: f.HealthcheckURL})
}

func checkedOutlets(outlets telemetry.Outlets) (telemetry.Outlets, error) {
	if err := outlets.Check(); err != nil {
		return outlets, fmt.Errorf("%w: %w", errUsage, err)
	}
	return outlets, nil
}

// instance is this host's name, which tells its runs and metrics from another's.
func instance() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}

// maxResultLine bounds what is told about a run, in bytes.
const maxResultLine = 1000

// resultLine is a run in one line, for a human elsewhere.
func resultLine(r result.Run) string {
	return oneLineOf(fmt.Sprintf("run %d %s: %d members deleted from %d conversations, %d users checked, %d unknown, %.1f s",
		r.RunID, r.State, r.MembersDeleted, r.Conversations, r.UsersChecked, r.UsersUnknown, r.Seconds), r.Error)
}

func oneLineOf(line, failure string) string {
	if failure != "" {
		line += "; " + failure
	}
	line = strings.Join(strings.Fields(line), " ")
	return strings.ToValidUTF8(line[:min(len(line), maxResultLine)], "")
}
