package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// How long what was read is good for, and how long reading may take. Together
// the limits are well under Prometheus's 10 s for a scrape.
const (
	stateFresh   = 5 * time.Second
	stateLimit   = 2 * time.Second
	backlogFresh = time.Minute
	backlogLimit = 3 * time.Second
	// oneRunLimit is for each after a run from cron, which cron waits for.
	oneRunLimit = 700 * time.Millisecond
)

// times are the limits above that hold for a process.
type times struct{ stateFresh, stateLimit, backlogFresh, backlogLimit time.Duration }

// maxLabel bounds a label that the database has, in bytes.
const maxLabel = 200

// State are the metrics that live in the database, so that every runner says
// the same. They are read when they are asked for. While the database cannot be
// read there is orphan_cleaner_database_up, with 0, and none of the others.
type State struct {
	pool      *pgxpool.Pool // nil: there is no database
	retention time.Duration
	log       *slog.Logger
	oneRun    bool
	times     times
	descs     map[string]*prometheus.Desc

	mu      sync.Mutex
	state   cached[state]
	backlog cached[backlog]
	members cached[int64] // of candidates
}

type state struct {
	db.MetricsStateRow
	runs       []db.MetricsRunsRow
	partitions []db.MetricsPartitionsRow
	events     []db.EventBacklogRow
	targets    []db.MetricsTargetsRow
}

type backlog struct {
	db.MetricsDueRow
	breakers []db.MetricsBreakersRow
}

// cached is what was read last, and whether that succeeded.
type cached[T any] struct {
	value T
	err   error
	until time.Time
}

type stateMetric struct {
	name, help string
	labels     []string
}

// stateMetrics are what State has.
func stateMetrics() []stateMetric {
	return []stateMetric{
		{databaseUp, "1 if the database could be read for this scrape, else 0.", nil},
		{"orphan_cleaner_restored_members_total", "Members restored.", nil},
		{runsTotal, "Runs that ended, by kind and state.", []string{"kind", "state"}},
		{targetDeleted, "Rows deleted, by target.", []string{"target"}},
		{targetRows, "Rows of each target in the last run that was judged, by what became of them.", []string{"target", "outcome"}},
		{"orphan_cleaner_last_success_timestamp_seconds", "When a run last succeeded; 0: never.", nil},
		{"orphan_cleaner_last_attempt_timestamp_seconds", "When a run last began; 0: never.", nil},
		{"orphan_cleaner_everybody_checked_timestamp_seconds", "When the run began since which every user has been checked; 0: some never were.", nil},
		{"orphan_cleaner_users_checked", "Users with a valid response in the last run that ended.", nil},
		{"orphan_cleaner_users_unknown", "Users without a valid response in the last run that ended.", nil},
		{"orphan_cleaner_candidate_users", "Users in the ledger: missing, their clock running.", nil},
		{candidateMembers, "Members of candidates.", nil},
		{"orphan_cleaner_due_users", "Users with members that a run would delete now.", nil},
		{"orphan_cleaner_due_members", "Members that a run would delete now.", nil},
		{"orphan_cleaner_oldest_due_age_seconds", "How long the longest waiting due user has been due; 0: nobody is.", nil},
		{"orphan_cleaner_held_members", "Members that the last run that ended kept because of a hold.", nil},
		{"orphan_cleaner_young_members", "Members of due users that the last run that ended kept because they are younger than the retention.", nil},
		{"orphan_cleaner_resurrected_users", "Users who are alive again while members that a run deleted can be restored.", nil},
		{"orphan_cleaner_blocked_users", "Due users whose rows something in the database refuses to delete, such as a foreign key.", nil},
		{breakerTripped, "1 while this breaker's refusal is the last word: no run has succeeded since.", []string{"breaker"}},
		{breakerValue, "What this breaker would judge now: a share of 1, or a number of members.", []string{"breaker"}},
		{breakerLimit, "The limit of that figure; absent while the breaker is switched off.", []string{"breaker"}},
		{newlyMissing, "Users who went missing within a day and within 7 days.", []string{"window"}},
		{newlyMissingUsual, "How many usually do: new-missing-rate refuses over twice as many in 7 days.", []string{"window"}},
		{"orphan_cleaner_paused", "1 while runs are paused.", nil},
		{"orphan_cleaner_pause_age_seconds", "How long runs have been paused; 0: they are not.", nil},
		{"orphan_cleaner_run_open", "1 while a run is open, or was killed and is not yet given up.", nil},
		{partitionsAhead, "Days after today that have their partition without a gap, up to 62; -1: not even today.", []string{"table"}},
		{eventsBacklog, "Events of finished runs that this sink lacks.", []string{"sink"}},
		{eventsOldestAge, "How long ago the first run ended of which it lacks some; 0: it lacks none.", []string{"sink"}},
		{"orphan_cleaner_audit_default_rows", "Rows in the audit's DEFAULT partition, counted up to 100,000.", nil},
	}
}

// Names that are needed in two places.
const (
	databaseUp        = "orphan_cleaner_database_up"
	runsTotal         = "orphan_cleaner_runs_total"
	breakerTripped    = "orphan_cleaner_breaker_tripped"
	breakerValue      = "orphan_cleaner_breaker_value"
	breakerLimit      = "orphan_cleaner_breaker_limit"
	newlyMissing      = "orphan_cleaner_newly_missing_users"
	newlyMissingUsual = "orphan_cleaner_newly_missing_usual_users"
	partitionsAhead   = "orphan_cleaner_partitions_ahead_days"
	eventsBacklog     = "orphan_cleaner_events_backlog"
	eventsOldestAge   = "orphan_cleaner_events_oldest_age_seconds"
	candidateMembers  = "orphan_cleaner_candidate_members"
	targetDeleted     = "orphan_cleaner_target_deleted_rows_total"
	targetRows        = "orphan_cleaner_target_rows"
)

// NewState registers the metrics of the database. The retention is what due
// members are reckoned by. A nil pool is a database that cannot be reached.
func NewState(registry prometheus.Registerer, m *Metrics, pool *pgxpool.Pool, retention time.Duration, log *slog.Logger, s Settings) error {
	c := &State{pool: pool, retention: retention, log: log, oneRun: s.OneRun, descs: map[string]*prometheus.Desc{}}
	for _, metric := range stateMetrics() {
		c.descs[metric.name] = prometheus.NewDesc(metric.name, metric.help, metric.labels, nil)
	}
	c.times = times{stateFresh, stateLimit, backlogFresh, backlogLimit}
	if s.OneRun {
		c.times.stateLimit, c.times.backlogLimit = oneRunLimit, oneRunLimit
		c.descs[batchCallsName] = prometheus.NewDesc(batchCallsName, batchCallsHelp, nil, nil)
		c.descs[deletedMembersName] = prometheus.NewDesc(deletedMembersName, deletedMembersHelp, nil, nil)
	}
	if s.times != nil {
		c.times = *s.times
	}
	m.runEnded = c.forget
	return register(registry, c)
}

// forget makes the next scrape read anew.
func (c *State) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.until, c.backlog.until, c.members.until = time.Time{}, time.Time{}, time.Time{}
}

// Describe is for the registry.
func (c *State) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range c.descs {
		to <- desc
	}
}

// Collect is one scrape. Scrapes at the same time share what one of them reads.
func (c *State) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The registry has no context to give; both readings have limits of their own.
	ctx := context.Background()
	refresh(ctx, c, &c.state, c.times.stateFresh, c.times.stateLimit, readState)
	if c.state.err != nil {
		c.gauge(to, databaseUp, 0)
		return
	}
	c.gauge(to, databaseUp, 1)
	c.collectState(to, c.state.value)
	refresh(ctx, c, &c.backlog, c.times.backlogFresh, c.times.backlogLimit, func(ctx context.Context, q *db.Queries) (backlog, error) {
		return readBacklog(ctx, q, c.retention)
	})
	if c.backlog.err == nil {
		c.collectBacklog(to, c.backlog.value)
	}
	refresh(ctx, c, &c.members, c.times.backlogFresh, c.times.backlogLimit, func(ctx context.Context, q *db.Queries) (int64, error) {
		return q.MetricsCandidateMembers(ctx)
	})
	if c.members.err == nil {
		c.gauge(to, candidateMembers, float64(c.members.value))
	}
}

func (c *State) collectState(to chan<- prometheus.Metric, s state) {
	c.gauge(to, "orphan_cleaner_last_success_timestamp_seconds", s.LastSuccess)
	c.gauge(to, "orphan_cleaner_last_attempt_timestamp_seconds", s.LastAttempt)
	c.gauge(to, "orphan_cleaner_everybody_checked_timestamp_seconds", s.EverybodyChecked)
	c.gauge(to, "orphan_cleaner_users_checked", float64(s.UsersChecked))
	c.gauge(to, "orphan_cleaner_users_unknown", float64(s.UsersUnknown))
	c.gauge(to, "orphan_cleaner_candidate_users", float64(s.CandidateUsers))
	c.counter(to, "orphan_cleaner_restored_members_total", s.MembersRestored)
	c.gauge(to, "orphan_cleaner_resurrected_users", float64(s.ResurrectedUsers))
	c.gauge(to, "orphan_cleaner_blocked_users", float64(s.BlockedUsers))
	c.gauge(to, "orphan_cleaner_held_members", float64(s.MembersHeld))
	c.gauge(to, "orphan_cleaner_young_members", float64(s.MembersKeptYoung))
	c.gauge(to, "orphan_cleaner_paused", OneIf(s.Paused))
	c.gauge(to, "orphan_cleaner_pause_age_seconds", s.PauseAge)
	c.gauge(to, "orphan_cleaner_run_open", OneIf(s.RunOpen))
	for _, breaker := range settings.BreakerNames() {
		c.gauge(to, breakerTripped, OneIf(breaker == s.Tripped), breaker)
	}
	for _, table := range s.partitions {
		c.gauge(to, partitionsAhead, float64(table.DaysAhead), table.TableName)
	}
	for _, sink := range s.events {
		name := safetext.Line(sink.Sink, maxLabel)
		c.gauge(to, eventsBacklog, float64(sink.Events), name)
		c.gauge(to, eventsOldestAge, sink.OldestAge, name)
	}
	for _, t := range s.targets {
		c.counter(to, targetDeleted, t.DeletedTotal, t.Target)
		for outcome, rows := range map[string]int64{
			"due": t.Due, "deleted": t.Deleted, "kept_young": t.KeptYoung, "held": t.Held, "changed": t.Changed, "blocked": t.Blocked,
		} {
			c.gauge(to, targetRows, float64(rows), t.Target, outcome)
		}
	}
	for _, runs := range s.runs {
		c.counter(to, runsTotal, runs.Runs, runs.Kind, runs.State)
	}
	if c.oneRun {
		c.counter(to, batchCallsName, s.BatchCalls)
		c.counter(to, deletedMembersName, s.MembersDeleted)
	}
}

func (c *State) collectBacklog(to chan<- prometheus.Metric, b backlog) {
	c.gauge(to, "orphan_cleaner_due_users", float64(b.DueUsers))
	c.gauge(to, "orphan_cleaner_due_members", float64(b.DueMembers))
	c.gauge(to, "orphan_cleaner_oldest_due_age_seconds", b.OldestDueAge)
	c.gauge(to, "orphan_cleaner_audit_default_rows", float64(b.AuditDefaultRows))
	for _, breaker := range b.breakers {
		c.gauge(to, breakerValue, breaker.Figure, breaker.Breaker)
		if breaker.IsOn {
			c.gauge(to, breakerLimit, breaker.LimitValue, breaker.Breaker)
		}
		if breaker.Breaker == "new-missing-rate" {
			c.gauge(to, newlyMissing, breaker.New1d, "1d")
			c.gauge(to, newlyMissing, breaker.New7d, "7d")
			c.gauge(to, newlyMissingUsual, breaker.Usual1d, "1d")
			c.gauge(to, newlyMissingUsual, breaker.Usual7d, "7d")
		}
	}
}

func (c *State) gauge(to chan<- prometheus.Metric, name string, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, value, labels...)
}

func (c *State) counter(to chan<- prometheus.Metric, name string, value int64, labels ...string) {
	to <- prometheus.MustNewConstMetric(c.descs[name], prometheus.CounterValue, float64(value), labels...)
}

// OneIf is the value of a gauge that says whether.
func OneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
