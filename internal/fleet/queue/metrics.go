package queue

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// collector reads the control database when it is scraped: every worker says the same.
type collector struct {
	*Worker
	up, jobs, age, succeeded, paused *prometheus.Desc
}

// scrapeLimit is well under Prometheus's 10 s.
const scrapeLimit = 3 * time.Second

// mostJobs are counted of each state; a fleet has no more.
const mostJobs = 10_000

// Collector has the metrics of the fleet. While the control database is away there is
// orphan_cleaner_fleet_control_up, with 0, and none of the others.
func (w *Worker) Collector() prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("orphan_cleaner_fleet_"+name, help, labels, nil)
	}
	return &collector{
		Worker:    w,
		up:        desc("control_up", "Whether the control database could be read."),
		jobs:      desc("jobs", "Jobs of the fleet that are not done, by state: those available are the length of the queue.", "state"),
		age:       desc("last_run_age_seconds", "Since the last run of the fleet began."),
		succeeded: desc("last_run_succeeded", "Whether the last run of the fleet that ended succeeded."),
		paused:    desc("paused", "Whether the fleet is paused."),
	}
}

func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.up, c.jobs, c.age, c.succeeded, c.paused} {
		to <- desc
	}
}

func (c *collector) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	tell := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	counts, err := c.Jobs(ctx)
	st, stateErr := c.control.State(ctx, 2)
	if err != nil || stateErr != nil {
		tell(c.up, 0)
		return
	}
	tell(c.up, 1)
	for state, n := range counts {
		tell(c.jobs, float64(n), state)
	}
	tell(c.paused, float64(len(st.Paused)))
	for i, r := range st.Runs {
		if i == 0 {
			tell(c.age, time.Since(r.StartedAt).Seconds())
		}
		if r.State != "running" {
			tell(c.succeeded, map[bool]float64{true: 1}[r.State == "succeeded"])
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
