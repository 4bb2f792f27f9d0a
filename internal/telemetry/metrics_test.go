package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

const retention = 30 * 24 * time.Hour

// all is a registry with every metric of ours.
func all(t *testing.T, pool *pgxpool.Pool, log *slog.Logger, oneRun bool) (*prometheus.Registry, *telemetry.Metrics) {
	t.Helper()
	return register(t, pool, log, telemetry.Patiently(telemetry.Settings{Source: source.GRPC, Version: "v1", Interval: time.Hour, Concurrency: 8, OneRun: oneRun}))
}

func register(t *testing.T, pool *pgxpool.Pool, log *slog.Logger, about telemetry.Settings) (*prometheus.Registry, *telemetry.Metrics) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	metrics, err := telemetry.NewMetrics(registry, about)
	if err != nil {
		t.Fatal(err)
	}
	if err := telemetry.NewState(registry, metrics, pool, retention, log, about); err != nil {
		t.Fatal(err)
	}
	return registry, metrics
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func gather(t *testing.T, registry *prometheus.Registry) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*dto.MetricFamily{}
	for _, family := range families {
		found[family.GetName()] = family
	}
	return found
}

// value is the value of one sample; labels as in breaker="clock".
func value(t *testing.T, registry *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	family := gather(t, registry)[name]
	for _, m := range family.GetMetric() {
		var has []string
		for _, l := range m.GetLabel() {
			has = append(has, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
		}
		if slices.Equal(has, labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	t.Fatalf("there is no %s %v in %v", name, labels, family)
	return 0
}

// docs/metrics.md has every metric with its type and labels, and no other.
func TestDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (\\w+) \\|([^|]*)\\|([^|]+)\\|([^|]+)\\|").FindAllStringSubmatch(string(text), -1) {
		if strings.TrimSpace(row[4]) == "" || !slices.Contains([]string{"process", "database", "backlog", "last run"}, strings.TrimSpace(row[5])) {
			t.Errorf("%s has no meaning, or is from %q", row[1], row[5])
		}
		labels := regexp.MustCompile("[a-z]+").FindAllString(row[3], -1)
		slices.Sort(labels)
		documented[row[1]] = row[2] + " " + strings.Join(labels, ", ")
	}
	for _, oneRun := range []bool{false, true} {
		db := testdb.New(t)
		judgedRun(db, "succeeded", 0, 0)
		db.Exec("INSERT INTO orphan_cleaner.event_cursors (sink, run_id) VALUES ('redis', 1)")
		registry, _ := all(t, db.Pool, quiet(), oneRun)
		registered := map[string]string{}
		for name, family := range gather(t, registry) {
			labels := map[string]bool{}
			for _, l := range family.GetMetric()[0].GetLabel() {
				labels[l.GetName()] = true
			}
			registered[name] = strings.ToLower(family.GetType().String()) + " " + strings.Join(slices.Sorted(maps.Keys(labels)), ", ")
		}
		for name, form := range registered {
			if documented[name] != form {
				t.Errorf("%s: the page says %q, the registry %q", name, documented[name], form)
			}
		}
		for name := range documented {
			if _, there := registered[name]; !there {
				t.Errorf("%s is documented, but there is none", name)
			}
		}
	}
}

// promlint has nothing to say, but for days, which a partition has.
func TestLint(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	judgedRun(db, "succeeded", 0, 0)
	registry, _ := all(t, db.Pool, quiet(), false)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Metric != "orphan_cleaner_partitions_ahead_days" {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// Calls of another source are none of gRPC, whose metrics are there all the same.
func TestCallsBySource(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{source.GRPC, source.SQL, source.HTTP} {
		registry := prometheus.NewPedanticRegistry()
		m, err := telemetry.NewMetrics(registry, telemetry.Settings{Source: kind})
		if err != nil {
			t.Fatal(err)
		}
		m.CallDone("get_users_by_ids", 100, time.Millisecond, &source.BatchError{Reason: "lagging"})
		byGRPC := 0.0
		if kind == source.GRPC {
			byGRPC = 1
		}
		got, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]float64{
			"orphan_cleaner_source_requests_total": 1, "orphan_cleaner_source_errors_total": 1,
			"grpc_client_requests_total": byGRPC, "grpc_client_errors_total": byGRPC,
		} {
			i := slices.IndexFunc(got, func(f *dto.MetricFamily) bool { return f.GetName() == name })
			if i < 0 || got[i].Metric[0].Counter.GetValue() != want {
				t.Errorf("%s: %s is not %v: %v", kind, name, want, got)
			}
		}
	}
}

// What the process is told, it counts; an error inside an OK reply is an error.
func TestProcess(t *testing.T) {
	t.Parallel()
	registry, m := all(t, nil, quiet(), false)
	call := []string{`method="get_users_by_ids"`, `service="auth"`}
	m.CallDone("get_users_by_ids", 100, 30*time.Millisecond, nil)
	m.CallDone("get_users_by_ids", 100, 30*time.Millisecond, &source.BatchError{Reason: "in_band_error"})
	m.BatchDone(nil)
	m.BatchDone(fmt.Errorf("checking: %w", &source.BatchError{Reason: "in_band_error"}))
	m.BatchDone(&source.BatchError{Reason: "status_internal"})
	m.BatchDone(errors.New("who knows"))
	m.ChunkDone(7)
	m.ChunkDone(8)
	m.Retried("deadlock")
	m.Throttled("nice-ratio", 1500*time.Millisecond)
	m.Throttled("nice-ratio", 500*time.Millisecond)
	m.Throttled("", 0) // the end of a sleep
	m.PhaseDone("verify", 2*time.Second)
	m.ConcurrencyLimit(3)
	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{2, "grpc_client_requests_total", call},
		{1, "grpc_client_errors_total", call},
		{2, "grpc_client_request_duration_seconds", call},
		{2, "orphan_cleaner_source_requests_total", []string{`source="grpc"`}},
		{1, "orphan_cleaner_source_errors_total", []string{`source="grpc"`}},
		{2, "orphan_cleaner_source_request_duration_seconds", []string{`source="grpc"`}},
		{4, "orphan_cleaner_batch_calls_total", nil},
		{1, "orphan_cleaner_invalid_responses_total", []string{`reason="in_band_error"`}},
		{1, "orphan_cleaner_invalid_responses_total", []string{`reason="status_internal"`}},
		{1, "orphan_cleaner_invalid_responses_total", []string{`reason="other"`}},
		{0, "orphan_cleaner_invalid_responses_total", []string{`reason="foreign_id"`}},
		{15, "orphan_cleaner_deleted_members_total", nil},
		{2, "orphan_cleaner_chunk_members", nil},
		{1, "orphan_cleaner_retries_total", []string{`cause="deadlock"`}},
		{2, "orphan_cleaner_throttled_seconds_total", []string{`reason="nice-ratio"`}},
		{0, "orphan_cleaner_throttled_seconds_total", []string{`reason="replication lag"`}},
		{2, "orphan_cleaner_phase_duration_seconds", []string{`phase="verify"`}},
		{3, "orphan_cleaner_concurrency_limit", nil},
		// There is no database here.
		{0, "orphan_cleaner_database_up", nil},
	} {
		if got := value(t, registry, want.name, want.labels...); got != want.value {
			t.Errorf("%s %v is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	if gather(t, registry)["orphan_cleaner_candidate_users"] != nil {
		t.Error("without a database there is a number of candidates")
	}
}

// What the database knows, every process says.
func TestState(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	registry, m := all(t, db.Pool, quiet(), true)
	is := func(want float64, name string, labels ...string) {
		t.Helper()
		if got := value(t, registry, name, labels...); got != want {
			t.Errorf("%s %v is %v, want %v", name, labels, got, want)
		}
	}
	about := func(want float64, name string) { // hours apart, and the test takes minutes at most
		t.Helper()
		if got := value(t, registry, name); got < want || got > want+1800 {
			t.Errorf("%s is %v, want about %v", name, got, want)
		}
	}
	run := `INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, judged_at, lease, host, version, settings, members_deleted, batch_calls,
		users_checked, users_unknown, members_held, members_kept_young, breaker)
		VALUES ($1, $2, 'finish', now() - $3::interval, now() - $3::interval, CASE WHEN $2 <> 'running' THEN now() - $3::interval END, now() - $3::interval, '1 minute', 'h:1', 'v', '{}', $4, 3, 10, 1, 4, 5, $5)`
	is(0, "orphan_cleaner_last_success_timestamp_seconds")
	is(0, "orphan_cleaner_last_attempt_timestamp_seconds")
	is(0, "orphan_cleaner_oldest_due_age_seconds")

	db.Exec(run, "clean", "succeeded", "5 hours", 7, nil)
	db.Exec(run, "clean", "refused", "3 hours", 0, "delete-share")
	db.Exec(run, "clean", "abandoned", "2 hours", 20, nil)
	db.Exec(run, "restore", "succeeded", "1 hour", 0, nil)
	is(0, "orphan_cleaner_last_success_timestamp_seconds") // what was read a moment ago
	m.RunEnded(result.Run{})
	now := testdb.One[float64](db, "SELECT extract(EPOCH FROM now())::float8")
	about(now-5*3600-60, "orphan_cleaner_last_success_timestamp_seconds")
	about(now-2*3600-60, "orphan_cleaner_last_attempt_timestamp_seconds")
	is(1, "orphan_cleaner_runs_total", `kind="clean"`, `state="succeeded"`)
	is(1, "orphan_cleaner_runs_total", `kind="clean"`, `state="abandoned"`)
	is(1, "orphan_cleaner_runs_total", `kind="restore"`, `state="succeeded"`)
	is(0, "orphan_cleaner_runs_total", `kind="clean"`, `state="failed"`)
	is(0, "orphan_cleaner_runs_total", `kind="clean"`, `state="paused"`)
	// One run from cron counts what all of them did.
	is(27, "orphan_cleaner_deleted_members_total")
	is(12, "orphan_cleaner_batch_calls_total")
	is(1, "orphan_cleaner_breaker_tripped", `breaker="delete-share"`)
	for _, breaker := range settings.BreakerNames() {
		if breaker != "delete-share" {
			is(0, "orphan_cleaner_breaker_tripped", fmt.Sprintf("breaker=%q", breaker))
		}
	}
	// Nobody was ever checked; some were not; all were, the first two hours ago, and
	// in the next cycle those up to the cursor an hour ago.
	const everybody = "orphan_cleaner_everybody_checked_timestamp_seconds"
	ran := func(state string) int64 {
		return testdb.One[int64](db, "SELECT run_id FROM orphan_cleaner.runs WHERE kind = 'clean' AND state = $1", state)
	}
	first, last := ran("succeeded"), ran("abandoned")
	is(0, everybody)
	db.Exec(`INSERT INTO orphan_cleaner.coverage (cursor_id, cycle_run_id, run_id, checked_at, users, users_so_far)
		VALUES ('80000000-0000-0000-0000-000000000000', $1, $1, now() - interval '5 hours', 10, 10)`, first)
	m.RunEnded(result.Run{})
	is(0, everybody)
	db.Exec(`UPDATE orphan_cleaner.coverage SET cursor_id = NULL, previous_run_id = $1`, first)
	m.RunEnded(result.Run{})
	about(now-5*3600-30, everybody)
	db.Exec(`UPDATE orphan_cleaner.runs SET checked_through = '80000000-0000-0000-0000-000000000000' WHERE run_id = $1`, first)
	db.Exec(`UPDATE orphan_cleaner.coverage SET cursor_id = '80000000-0000-0000-0000-000000000000', cycle_run_id = $1, run_id = $1`, last)
	m.RunEnded(result.Run{})
	about(now-3*3600-30, everybody)
	db.Exec(`INSERT INTO orphan_cleaner.unknowns (user_id, unknown_since) VALUES (gen_random_uuid(), now() - interval '9 hours')`)
	m.RunEnded(result.Run{})
	about(now-9*3600-30, everybody)
	is(10, "orphan_cleaner_users_checked")
	is(1, "orphan_cleaner_users_unknown")
	is(0, "orphan_cleaner_blocked_users")
	is(4, "orphan_cleaner_held_members")
	is(5, "orphan_cleaner_young_members")
	is(0, "orphan_cleaner_run_open")
	is(0, "orphan_cleaner_paused")
	is(7, "orphan_cleaner_partitions_ahead_days", `table="conversation_members_backup"`)

	// Three candidates: one due with two members, one of whose is young; one due
	// but on hold; one that is waiting.
	db.Exec(`INSERT INTO conversations (id) SELECT md5('c' || n)::uuid FROM generate_series(1, 2) AS n`)
	db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT md5('c' || c)::uuid, md5('u' || u)::uuid, now() - CASE WHEN (c, u) = (2, 1) THEN interval '1 day' ELSE interval '60 days' END
		FROM generate_series(1, 2) AS c, generate_series(1, 4) AS u`)
	db.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT md5('u' || u)::uuid, now() - make_interval(days => 50 - u * 10, hours => 5), now(), 1, 'sightings' FROM generate_series(1, 3) AS u`)
	db.Exec(`UPDATE orphan_cleaner.candidates SET first_missing_at = now() - interval '30 days 5 hours' WHERE user_id = md5('u2')::uuid`)
	db.Exec(`UPDATE orphan_cleaner.candidates SET first_missing_at = now() - interval '2 days' WHERE user_id = md5('u3')::uuid`)
	db.Exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES (md5('u2')::uuid, 'legal')`)
	db.Exec(`INSERT INTO orphan_cleaner.pauses (reason, paused_at) VALUES ('restoring', now() - interval '2 hours')`)
	db.Exec(`INSERT INTO conversation_members_audit_default SELECT gen_random_uuid(), gen_random_uuid(), 'member', now(), '2001-01-01', 'app', 'app', NULL, n FROM generate_series(1, 3) AS n`)
	day := testdb.One[string](db, "SELECT to_char((now() AT TIME ZONE 'UTC') + interval '3 days', 'YYYYMMDD')")
	db.Exec("ALTER TABLE conversation_members_backup DETACH PARTITION conversation_members_backup_" + day)
	db.Exec(run, "clean", "running", "1 second", 0, nil)
	db.Exec("UPDATE orphan_cleaner.runs SET members_restored = 11 WHERE kind = 'restore'")
	db.Exec("INSERT INTO orphan_cleaner.rechecks (user_id, alive_at) SELECT gen_random_uuid(), CASE WHEN n > 1 THEN now() END FROM generate_series(1, 3) AS n")
	db.Exec("UPDATE orphan_cleaner.candidates SET blocked_since = now(), blocked_by = '{}' WHERE user_id <> md5('u3')::uuid")
	m.RunEnded(result.Run{})
	is(2, "orphan_cleaner_blocked_users")
	is(2, "orphan_cleaner_resurrected_users")
	is(11, "orphan_cleaner_restored_members_total")
	is(3, "orphan_cleaner_candidate_users")
	is(6, "orphan_cleaner_candidate_members")
	is(1, "orphan_cleaner_due_users")
	is(1, "orphan_cleaner_due_members")
	about(10*24*3600+5*3600, "orphan_cleaner_oldest_due_age_seconds")
	is(1, "orphan_cleaner_paused")
	about(2*3600, "orphan_cleaner_pause_age_seconds")
	is(1, "orphan_cleaner_run_open")
	is(3, "orphan_cleaner_audit_default_rows")
	is(2, "orphan_cleaner_partitions_ahead_days", `table="conversation_members_backup"`)

	db.Exec(`UPDATE orphan_cleaner.runs SET state = 'failed', finished_at = now() WHERE state = 'running'`)
	m.RunEnded(result.Run{})
	is(1, "orphan_cleaner_breaker_tripped", `breaker="delete-share"`)
	db.Exec(run, "clean", "succeeded", "0", 0, nil)
	m.RunEnded(result.Run{})
	is(0, "orphan_cleaner_breaker_tripped", `breaker="delete-share"`)
	today := testdb.One[string](db, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
	db.Exec("ALTER TABLE conversation_members_backup DETACH PARTITION conversation_members_backup_" + today)
	m.RunEnded(result.Run{})
	is(-1, "orphan_cleaner_partitions_ahead_days", `table="conversation_members_backup"`)
}

// A database that keeps a scrape waiting costs it the metrics of the database,
// and no more, and a line in the log once.
func TestStateOfAStuckDatabase(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	var log bytes.Buffer
	registry, m := register(t, db.Pool, slog.New(slog.NewTextHandler(&log, nil)), telemetry.Settings{Source: source.GRPC})
	isUp := func() bool {
		t.Helper()
		m.RunEnded(result.Run{})
		families := gather(t, registry)
		up := families["orphan_cleaner_database_up"].GetMetric()[0].GetGauge().GetValue() == 1
		if there := families["orphan_cleaner_run_open"] != nil; there != up {
			t.Errorf("the metrics of the database are there: %v", there)
		}
		if families["grpc_client_requests_total"] == nil {
			t.Error("the metrics of the process are not there")
		}
		return up
	}
	testdb.Eventually(t, time.Minute, "the database can be read", isUp)
	before := strings.Count(log.String(), "level=WARN")
	tx, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }() // a second time it does nothing
	if _, err := tx.Exec(t.Context(), "LOCK TABLE orphan_cleaner.runs IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if isUp() {
			t.Error("a table that is locked was read")
		}
	}
	if lines := strings.Count(log.String(), "level=WARN") - before; lines != 1 {
		t.Errorf("%d lines in the log:\n%s", lines, log.String())
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	testdb.Eventually(t, time.Minute, "the database can be read again", isUp)
}

// Each target has its own rows, those of all runs and those of the last one.
func TestTargetMetrics(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	db.Targets("likes")
	for run := 1; run <= 2; run++ {
		judgedRun(db, "succeeded", 0, 0)
		db.Exec(`INSERT INTO orphan_cleaner.run_targets (run_id, target, rows_due, rows_deleted, rows_kept_young, rows_held, rows_changed, rows_blocked)
			SELECT r.run_id, t.target, t.due, 11, 3, 4, 5, $1::bigint
			FROM (SELECT max(run_id) AS run_id FROM orphan_cleaner.runs) AS r, (VALUES ('likes', 20), ('conversation_members', 7)) AS t (target, due)`, run)
	}
	registry, _ := all(t, db.Pool, quiet(), false)
	for outcome, want := range map[string]float64{"due": 20, "deleted": 11, "kept_young": 3, "held": 4, "changed": 5, "blocked": 2} {
		if got := value(t, registry, "orphan_cleaner_target_rows", `outcome="`+outcome+`"`, `target="likes"`); got != want {
			t.Errorf("%s: %v, not %v", outcome, got, want)
		}
	}
	if got := value(t, registry, "orphan_cleaner_target_rows", `outcome="due"`, `target="conversation_members"`); got != 7 {
		t.Errorf("%v members due", got)
	}
	if got := value(t, registry, "orphan_cleaner_target_deleted_rows_total", `target="likes"`); got != 22 {
		t.Errorf("%v likes deleted", got)
	}
}
