package telemetry

import (
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/window"
)

// Metrics are what this process counts by itself. It observes the client of
// auth-service and the cleaner; docs/metrics.md says what each metric means.
type Metrics struct {
	calls                     []callMetrics
	batchCalls                prometheus.Counter
	deletedMembers            prometheus.Counter
	invalidResponses, retries *prometheus.CounterVec
	throttled                 *prometheus.CounterVec
	phaseDuration             *prometheus.GaugeVec
	chunkMembers              prometheus.Histogram
	concurrencyLimit          prometheus.Gauge

	runEnded func() // set by State
}

var (
	_ result.Observer = (*Metrics)(nil)
	_ source.Observer = (*Metrics)(nil)
)

// Settings are what the metrics say about this process from its start on.
type Settings struct {
	Version     string
	Interval    time.Duration
	CheckEvery  time.Duration // 0: each run checks everybody
	Source      string        // what auth-service speaks, such as [source.GRPC]
	Concurrency int
	Window      window.Weekly // in which sweeps may delete
	// OneRun is a process that makes one run and ends, as from cron. A count of
	// its own would start anew with each run: [State] then has the totals.
	OneRun bool

	times *times // nil: those that OneRun asks for
}

// Labels of the metrics of gRPC calls, as the runbook's queries have them.
const (
	serviceLabel = "auth"
	methodLabel  = "get_users_by_ids"
)

// callMetrics are those of calls under one prefix: the runbook's for gRPC, which stay 0
// for other sources, and those of any source.
type callMetrics struct {
	requests, errors prometheus.Counter
	duration         prometheus.Histogram
}

func newCallMetrics(prefix string, labels prometheus.Labels) callMetrics {
	return callMetrics{
		requests: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "_requests_total", ConstLabels: labels,
			Help: "Calls to auth-service, retries included.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "_errors_total", ConstLabels: labels,
			Help: "Calls to auth-service that failed or whose response was invalid, an error inside an OK response included.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "_request_duration_seconds", ConstLabels: labels,
			Help: "How long calls to auth-service took.",
			// Close around the runbook's 45, 80 and 100 ms.
			Buckets: []float64{.005, .01, .025, .045, .06, .08, .1, .15, .2, .3, .5, 1, 2.5, 5, 10},
		}),
	}
}

// NewMetrics registers the metrics of this process. Each label value that is
// known beforehand is there from the start, with 0.
func NewMetrics(registry prometheus.Registerer, s Settings) (*Metrics, error) {
	grpc := newCallMetrics("grpc_client", prometheus.Labels{"service": serviceLabel, "method": methodLabel})
	general := newCallMetrics("orphan_cleaner_source", prometheus.Labels{"source": s.Source})
	m := &Metrics{
		calls: []callMetrics{general},
		batchCalls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: batchCallsName, Help: batchCallsHelp,
		}),
		deletedMembers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: deletedMembersName, Help: deletedMembersHelp,
		}),
		invalidResponses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "orphan_cleaner_invalid_responses_total",
			Help: "Batches without a valid response after all retries: their users are unknown.",
		}, []string{"reason"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "orphan_cleaner_retries_total",
			Help: "Times that the database was in the way and a statement was tried again.",
		}, []string{"cause"}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "orphan_cleaner_throttled_seconds_total",
			Help: "Seconds that sweeps slept for the sake of others.",
		}, []string{"reason"}),
		phaseDuration: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "orphan_cleaner_phase_duration_seconds",
			Help: "How long each phase of this process's last run took; 0 before its first.",
		}, []string{"phase"}),
		chunkMembers: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "orphan_cleaner_chunk_members",
			Help:    "Members deleted by one transaction of a sweep.",
			Buckets: []float64{1, 10, 50, 100, 500, 1000, 2000, 5000, 10000, 100000},
		}),
		concurrencyLimit: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "orphan_cleaner_concurrency_limit",
			Help: "Calls to auth-service that may be in flight at once, as the client allows them now.",
		}),
		runEnded: func() {},
	}
	for _, reason := range append(source.Reasons(), otherReason) {
		m.invalidResponses.WithLabelValues(reason)
	}
	for _, cause := range database.Causes() {
		m.retries.WithLabelValues(cause)
	}
	for _, reason := range []string{"nice-ratio", "replication lag"} {
		m.throttled.WithLabelValues(reason)
	}
	for _, phase := range result.Phases() {
		m.phaseDuration.WithLabelValues(phase)
	}
	m.concurrencyLimit.Set(float64(s.Concurrency))
	interval := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "orphan_cleaner_interval_seconds",
		Help: "The setting INTERVAL: time between runs as it is scheduled.",
	})
	interval.Set(s.Interval.Seconds())
	checkEvery := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "orphan_cleaner_check_every_seconds",
		Help: "The setting CHECK_EVERY: time in which each user is checked once; 0: each run checks everybody.",
	})
	checkEvery.Set(s.CheckEvery.Seconds())
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "orphan_cleaner_window_open",
		Help: "1 while sweeps may delete: within the setting WINDOW, or without one; else 0.",
	}, func() float64 { return OneIf(s.Window.Open(time.Now())) })
	all := []prometheus.Collector{
		m.invalidResponses, m.retries, m.throttled, m.phaseDuration, m.chunkMembers, m.concurrencyLimit, interval, checkEvery, open, BuildInfo(s.Version),
	}
	if s.Source == source.GRPC {
		m.calls = append(m.calls, grpc)
	}
	for _, c := range []callMetrics{grpc, general} {
		all = append(all, c.requests, c.errors, c.duration)
	}
	if !s.OneRun {
		all = append(all, m.batchCalls, m.deletedMembers)
	}
	return m, register(registry, all...)
}

// otherReason is the reason of an invalid response that names none.
const otherReason = "other"

// What a process counts by itself, or finds in the database when it makes one
// run only.
const (
	batchCallsName     = "orphan_cleaner_batch_calls_total"
	batchCallsHelp     = "Batches of users that were checked with auth-service; a retried batch counts once."
	deletedMembersName = "orphan_cleaner_deleted_members_total"
	deletedMembersHelp = "Members deleted, each audited and backed up."
)

func register(registry prometheus.Registerer, collectors ...prometheus.Collector) error {
	var failed []error
	for _, c := range collectors {
		failed = append(failed, registry.Register(c))
	}
	return errors.Join(failed...)
}

// CallDone counts one attempt of a call; see [source.Observer]. There is one method
// only, so that the label is constant.
func (m *Metrics) CallDone(_ string, _ int, took time.Duration, err error) {
	for _, c := range m.calls {
		c.requests.Inc()
		c.duration.Observe(took.Seconds())
		if err != nil {
			c.errors.Inc()
		}
	}
}

// BatchDone counts a batch, and the reason when its response is invalid; see [result.Observer].
func (m *Metrics) BatchDone(err error) {
	m.batchCalls.Inc()
	if err == nil {
		return
	}
	reason := otherReason
	if invalid, ok := errors.AsType[*source.BatchError](err); ok {
		reason = invalid.Reason
	}
	m.invalidResponses.WithLabelValues(reason).Inc()
}

// PhaseDone keeps the duration of a phase.
func (m *Metrics) PhaseDone(phase string, took time.Duration) {
	m.phaseDuration.WithLabelValues(phase).Set(took.Seconds())
}

// ChunkDone counts what a chunk deleted.
func (m *Metrics) ChunkDone(members int64) {
	m.deletedMembers.Add(float64(members))
	m.chunkMembers.Observe(float64(members))
}

// Throttled counts how long the sweep slept for the sake of others.
func (m *Metrics) Throttled(reason string, pause time.Duration) {
	m.throttled.WithLabelValues(reason).Add(pause.Seconds())
}

// Retried counts a cause.
func (m *Metrics) Retried(cause string) { m.retries.WithLabelValues(cause).Inc() }

// RunBegan is for other observers: the database says that a run is open.
func (m *Metrics) RunBegan() {}

// RunEnded makes the next scrape read the database anew.
func (m *Metrics) RunEnded(result.Run) { m.runEnded() }

// ConcurrencyLimit says how many calls may be in flight from now on.
func (m *Metrics) ConcurrencyLimit(calls int) { m.concurrencyLimit.Set(float64(calls)) }

// BuildInfo is 1, labelled with the version of this program and of Go.
func BuildInfo(version string) prometheus.Collector {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "orphan_cleaner_build_info", ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
		Help: "1, labelled with the version of this program and of Go.",
	})
	build.Set(1)
	return build
}
