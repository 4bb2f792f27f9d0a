package queue

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// collector reads the control database when it is scraped: every worker says the same.
type collector struct {
	*Worker
	lastRun
	up, jobs *prometheus.Desc
}

// scrapeLimit is well under Prometheus's 10 s.
const scrapeLimit = 3 * time.Second

// mostJobs are counted of each state; a fleet has no more.
const mostJobs = 10_000

// Collector has the metrics of the fleet. While the control database is away there is
// orphan_cleaner_fleet_control_up, with 0, and none of the others.
func (w *Worker) Collector() prometheus.Collector {
	return &collector{
		Worker: w, lastRun: newLastRun(),
		up:   desc("control_up", "Whether the control database could be read."),
		jobs: desc("jobs", "Jobs of the fleet that are not done, by state: those available are the length of the queue.", "state"),
	}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("orphan_cleaner_fleet_"+name, help, labels, nil)
}

func (c *collector) Describe(to chan<- *prometheus.Desc) {
	c.lastRun.Describe(to)
	to <- c.up
	to <- c.jobs
}

// lastRun is what workers and a run from cron tell alike.
type lastRun struct{ began, interval, succeeded, tripped, paused *prometheus.Desc }

func newLastRun() lastRun {
	return lastRun{
		began:     desc("last_run_timestamp_seconds", "When the last run of the fleet began."),
		interval:  desc("interval_seconds", "The setting INTERVAL: time between two runs of the fleet."),
		succeeded: desc("last_run_succeeded", "Whether the last run of the fleet that ended succeeded."),
		tripped:   desc("breaker_tripped", "1 for the breaker that refused the last run of the fleet that ended, else 0.", "breaker"),
		paused:    desc("paused", "Whether the fleet is paused."),
	}
}

func (l lastRun) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{l.began, l.interval, l.succeeded, l.tripped, l.paused} {
		to <- desc
	}
}

func (l lastRun) tellEnd(to chan<- prometheus.Metric, state string, breaker *string) {
	is := map[bool]float64{true: 1}
	tell(to, l.succeeded, is[state == "succeeded"])
	for _, name := range append(settings.BreakerNames(), fleet.OutlierLimit) {
		tell(to, l.tripped, is[breaker != nil && *breaker == name], name)
	}
}

func tell(to chan<- prometheus.Metric, desc *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

type oneRun struct {
	lastRun
	at     time.Time
	every  time.Duration
	result fleet.Result
}

// OneRun has the metrics of a run that came to its end, begun at a time and made once in every,
// with a control database or without.
func OneRun(at time.Time, every time.Duration, r fleet.Result) prometheus.Collector {
	return &oneRun{newLastRun(), at, every, r}
}

func (o *oneRun) Collect(to chan<- prometheus.Metric) {
	tell(to, o.began, float64(o.at.Unix()))
	tell(to, o.interval, o.every.Seconds())
	tell(to, o.paused, map[bool]float64{true: 1}[o.result.State == "paused"])
	o.tellEnd(to, o.result.State, o.result.Breaker)
}

func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	counts, err := c.Jobs(ctx)
	st, stateErr := c.control.State(ctx, 2)
	if err != nil || stateErr != nil {
		tell(to, c.up, 0)
		return
	}
	tell(to, c.up, 1)
	for state, n := range counts {
		tell(to, c.jobs, float64(n), state)
	}
	tell(to, c.paused, float64(len(st.Paused)))
	tell(to, c.interval, c.every.Seconds())
	for i, r := range st.Runs {
		if i == 0 {
			tell(to, c.began, float64(r.StartedAt.Unix()))
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
