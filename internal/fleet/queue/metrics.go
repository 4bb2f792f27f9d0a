package queue

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// scrapeLimit is well under Prometheus's 10 s.
const scrapeLimit = 3 * time.Second

// mostJobs are counted of each state; a fleet has no more.
const mostJobs = 10_000

// gauges are the metrics of the fleet, by their names without the prefix.
type gauges map[string]*prometheus.Desc

func newGauges() gauges {
	g := gauges{}
	add := func(name, help string, labels ...string) {
		g[name] = prometheus.NewDesc("orphan_cleaner_fleet_"+name, help, labels, nil)
	}
	add("control_up", "Whether the control database could be read.")
	add("jobs", "Jobs of the fleet that are not done, by state: those available are the length of the queue.", "state")
	add("last_run_timestamp_seconds", "When the last run of the fleet began.")
	add("interval_seconds", "The setting INTERVAL: time between two runs of the fleet.")
	add("last_run_succeeded", "Whether the last run of the fleet that ended succeeded.")
	add("breaker_tripped", "1 for the breaker that refused the last run of the fleet that ended, else 0.", "breaker")
	add("paused", "Whether the fleet is paused.")
	return g
}

// Describe is for the registry.
func (g gauges) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range g {
		to <- desc
	}
}

func (g gauges) tell(to chan<- prometheus.Metric, name string, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(g[name], prometheus.GaugeValue, value, labels...)
}

func (g gauges) tellEnd(to chan<- prometheus.Metric, state string, breaker *string) {
	g.tell(to, "last_run_succeeded", telemetry.OneIf(state == "succeeded"))
	for _, name := range append(settings.BreakerNames(), fleet.OutlierLimit) {
		g.tell(to, "breaker_tripped", telemetry.OneIf(breaker != nil && *breaker == name), name)
	}
}

type oneRun struct {
	gauges
	at     time.Time
	every  time.Duration
	result fleet.Result
}

// OneRun has the metrics of a run that came to its end, begun at a time and made once in every,
// with a control database or without.
func OneRun(at time.Time, every time.Duration, r fleet.Result) prometheus.Collector {
	return &oneRun{newGauges(), at, every, r}
}

func (o *oneRun) Collect(to chan<- prometheus.Metric) {
	o.tell(to, "last_run_timestamp_seconds", float64(o.at.Unix()))
	o.tell(to, "interval_seconds", o.every.Seconds())
	o.tell(to, "paused", telemetry.OneIf(o.result.State == "paused"))
	o.tellEnd(to, o.result.State, o.result.Breaker)
}

// collector reads the control database when it is scraped: every worker says the same.
type collector struct {
	*Worker
	gauges
}

// Collector has the metrics of the fleet. While the control database is away there is
// orphan_cleaner_fleet_control_up, with 0, and none of the others.
func (w *Worker) Collector() prometheus.Collector { return &collector{w, newGauges()} }

func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	counts, err := c.Jobs(ctx)
	st, stateErr := c.control.State(ctx, 2)
	if err != nil || stateErr != nil {
		c.tell(to, "control_up", 0)
		return
	}
	c.tell(to, "control_up", 1)
	for state, n := range counts {
		c.tell(to, "jobs", float64(n), state)
	}
	c.tell(to, "paused", float64(len(st.Paused)))
	c.tell(to, "interval_seconds", c.every.Seconds())
	for i, r := range st.Runs {
		if i == 0 {
			c.tell(to, "last_run_timestamp_seconds", float64(r.StartedAt.Unix()))
		}
		if r.State != "running" {
			c.tellEnd(to, r.State, r.Breaker)
			break
		}
	}
}

// Jobs counts the jobs that are not done, by state.
func (w *Worker) Jobs(ctx context.Context) (map[string]int, error) {
	states := []rivertype.JobState{rivertype.JobStateAvailable, rivertype.JobStateRunning, rivertype.JobStateRetryable, rivertype.JobStateScheduled}
	counts := map[string]int{}
	for _, state := range states {
		counts[string(state)] = 0
	}
	list, err := w.client.JobList(ctx, river.NewJobListParams().Queues(queueName).States(states...).First(mostJobs))
	if err != nil {
		return nil, err
	}
	for _, job := range list.Jobs {
		counts[string(job.State)]++
	}
	return counts, nil
}
