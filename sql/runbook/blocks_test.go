package runbook_test

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// counted sends each query of gen/db to its connection, and counts the blocks of tables
// and indexes that it fetches, functions and triggers included.
type counted struct {
	conn   *pgx.Conn
	t      *testing.T
	blocks map[string]int64 // by query: 8 kB each, from shared buffers or not; the most of one call
	last   string           // the query that was sent last
	before int64            // what the transaction had fetched before it
}

var _ db.DBTX = (*counted)(nil)

var nameOfQuery = regexp.MustCompile(`^-- name: (\w+) `)

// settle books what was fetched since the last call to the last query.
func (c *counted) settle(ctx context.Context, next string) {
	c.t.Helper()
	var fetched int64
	if err := c.conn.QueryRow(ctx, "SELECT coalesce(sum(pg_stat_get_xact_blocks_fetched(c.oid)), 0)::bigint FROM pg_class AS c WHERE "+tables).Scan(&fetched); err != nil {
		c.t.Fatalf("%s: %v", c.last, err)
	}
	if c.last != "" {
		c.blocks[c.last] = max(c.blocks[c.last], fetched-c.before)
	}
	c.before, c.last = fetched, ""
	if name := nameOfQuery.FindStringSubmatch(next); name != nil {
		c.last = name[1]
	}
}

func (c *counted) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	c.settle(ctx, query)
	return c.conn.Exec(ctx, query, args...)
}

func (c *counted) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	c.settle(ctx, query)
	return c.conn.Query(ctx, query, args...)
}

func (c *counted) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	c.settle(ctx, query)
	return c.conn.QueryRow(ctx, query, args...)
}

// reads runs each query that calls no function of ours.
func (p *place) reads(q *db.Queries) {
	p.t.Helper()
	ctx := p.t.Context()
	const month = 30 * 24 * time.Hour
	runs := func(condition string) int64 {
		return testdb.One[int64](p.DB, "SELECT max(run_id) FROM orphan_cleaner.runs WHERE "+condition)
	}
	last, refused, restore := runs("true"), runs("state = 'refused'"), runs("kind = 'restore'")
	day := testdb.One[string](p.DB, "SELECT min(relname)::text FROM pg_class WHERE relname ~ '^conversation_members_backup_2'")
	user := testdb.One[uuid.UUID](p.DB, "SELECT user_id FROM orphan_cleaner.candidates LIMIT 1")
	until := time.Now()
	since := until.Add(-24 * time.Hour)
	for _, run := range []func() error{
		func() error { _, err := q.ApprovalOpen(ctx); return err },
		func() error {
			_, err := q.CandidateBacklog(ctx, db.CandidateBacklogParams{Retention: month, MaxRows: 40})
			return err
		},
		func() error { _, err := q.CandidateBlocked(ctx, 1000); return err },
		func() error { _, err := q.CandidateTargets(ctx); return err },
		func() error { _, err := q.CoverageState(ctx); return err },
		func() error {
			_, err := q.CoverageOthers(ctx, db.CoverageOthersParams{FromUser: user, MaxUsers: 5000})
			return err
		},
		func() error { _, err := q.EffectList(ctx); return err },
		func() error { return q.EffectSet(ctx, db.EffectSetParams{Name: "counter", Choice: "on"}) },
		func() error { _, err := q.EffectCounterSample(ctx, 1000); return err },
		func() error { return q.EventSink(ctx, db.EventSinkParams{Sink: "stdout", FromRun: new(last - 100)}) },
		func() error { _, err := q.EventBacklog(ctx); return err },
		func() error {
			_, err := q.HoldAdd(ctx, db.HoldAddParams{UserID: &user, Reason: "a lawsuit"})
			return err
		},
		func() error { _, err := q.HoldList(ctx); return err },
		func() error { _, err := q.HoldTargets(ctx); return err },
		func() error { _, err := q.HoldLift(ctx, db.HoldLiftParams{RestoreRun: &restore}); return err },
		func() error { _, err := q.LimitList(ctx); return err },
		func() error { return q.LimitPin(ctx, db.LimitPinParams{Name: "retention", Value: 1}) },
		func() error { _, err := q.LimitUnpin(ctx, "retention"); return err },
		func() error { _, err := q.MetricsState(ctx); return err },
		func() error { _, err := q.MetricsRuns(ctx); return err },
		func() error { _, err := q.MetricsPartitions(ctx); return err },
		func() error { _, err := q.MetricsDue(ctx, month); return err },
		func() error { _, err := q.MetricsBreakers(ctx, 1000); return err },
		func() error { _, err := q.HourDays(ctx); return err },
		func() error { _, err := q.MetricsCandidateMembers(ctx); return err },
		func() error { _, err := q.PartitionsThere(ctx); return err },
		func() error {
			_, err := q.PartitionVerdicts(ctx, db.PartitionVerdictsParams{RestoreWindow: 24 * time.Hour, AuditWindow: 48 * time.Hour})
			return err
		},
		func() error {
			_, err := q.PartitionDrop(ctx, db.PartitionDropParams{PartitionName: day, RestoreWindow: 24 * time.Hour, AuditWindow: 48 * time.Hour})
			return err
		},
		func() error { _, err := q.PartitionEnsure(ctx, 7); return err },
		func() error { _, err := q.PauseInForce(ctx); return err },
		func() error { _, err := q.PauseBegin(ctx, "an incident"); return err },
		func() error { _, err := q.PauseEnd(ctx); return err },
		func() error { _, err := q.PreflightVersion(ctx); return err },
		func() error { _, err := q.RecheckAlive(ctx); return err },
		func() error { _, err := q.RecheckPage(ctx, 5000); return err },
		func() error { _, err := q.RefusalLargest(ctx, refused); return err },
		func() error { _, err := q.RefusalSummary(ctx, refused); return err },
		func() error { _, err := q.RefusalTargets(ctx, refused); return err },
		func() error { _, err := q.RefusalUnsettled(ctx); return err },
		func() error { _, err := q.ReportRange(ctx); return err },
		func() error {
			_, err := q.ReportDays(ctx, db.ReportDaysParams{Since: since, Until: until})
			return err
		},
		func() error {
			_, err := q.ReportSizes(ctx, db.ReportSizesParams{Since: since, Until: until})
			return err
		},
		func() error {
			_, err := q.ReportTargets(ctx, db.ReportTargetsParams{Since: since, Until: until})
			return err
		},
		func() error { _, err := q.RestoreLeft(ctx, restore); return err },
		func() error { _, err := q.RestoreFacts(ctx, restore); return err },
		func() error { _, err := q.RestoreSummary(ctx, restore); return err },
		func() error {
			_, err := q.RunDuePage(ctx, db.RunDuePageParams{RunID: last, MaxUsers: 5000})
			return err
		},
		func() error {
			_, err := q.RunConversations(ctx, db.RunConversationsParams{RunID: last, Since: since, Until: until, MaxRows: 20})
			return err
		},
		func() error { _, err := q.RunOne(ctx, last); return err },
		func() error { _, err := q.RunRecent(ctx, 20); return err },
		func() error {
			_, err := q.RunRestores(ctx, db.RunRestoresParams{RunID: last - 100, MaxRows: 20})
			return err
		},
		func() error { _, err := q.RunSchedule(ctx, time.Hour); return err },
		func() error {
			_, err := q.RunSpans(ctx, db.RunSpansParams{Span: 7 * 24 * time.Hour, Spans: 52})
			return err
		},
		func() error { _, err := q.RunTargets(ctx, last); return err },
		func() error { _, err := q.TargetList(ctx, []string{"page", "delete"}); return err },
		func() error { _, err := q.UserTargets(ctx); return err },
	} {
		if err := run(); err != nil {
			p.t.Fatal(err)
		}
	}
}

// count runs everything once, in a transaction that is taken back, after what prepare
// does to the statistics, and returns the blocks that each query read.
func (p *place) count(prepare string) map[string]int64 {
	p.t.Helper()
	ctx := p.t.Context()
	// What an index-only scan need not look up is the same each time.
	p.Exec("VACUUM")
	c := &counted{t: p.t, blocks: map[string]int64{}}
	for _, work := range []func(*db.Queries){
		p.reads,
		func(q *db.Queries) {
			p.calls(c, q, func(query string, run func() error) {
				p.t.Helper()
				if err := run(); err != nil {
					p.t.Fatalf("%s: %v", query, err)
				}
			})
		},
	} {
		conn, err := pgx.Connect(ctx, p.URL)
		if err != nil {
			p.t.Fatal(err)
		}
		c.conn = conn
		for _, statement := range []string{"BEGIN", patient, prepare, "SET LOCAL jit = off", "SET LOCAL max_parallel_workers_per_gather = 0"} {
			if _, err := conn.Exec(ctx, statement); err != nil {
				p.t.Fatalf("%s: %v", statement, err)
			}
		}
		c.before, c.last = 0, ""
		work(db.New(c))
		c.settle(ctx, "")
		if err := conn.Close(ctx); err != nil {
			p.t.Fatal(err)
		}
	}
	return c.blocks
}

// What every table and index of the database, the application's and ours, has of statistics.
const (
	tables = `c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace)`
	// As they were loaded: nobody has analyzed.
	noStatistics = `WITH gone AS (DELETE FROM pg_statistic AS s USING pg_class AS c WHERE s.starelid = c.oid AND ` + tables + ` RETURNING 1)
		UPDATE pg_class AS c SET reltuples = -1, relpages = 0 WHERE ` + tables + ` AND (SELECT count(*) FROM gone) > 0`
	// Of when our lists were empty, which is when a run has ended, and the application's tables had a row: the planner
	// expects no row of ours, whatever the pages, and one row on each page of the application's.
	staleStatistics = `WITH gone AS (DELETE FROM pg_statistic AS s USING pg_class AS c WHERE s.starelid = c.oid AND ` + tables + ` RETURNING 1)
		UPDATE pg_class AS c SET relpages = 1, reltuples = (c.relname IN ('conversation_members', 'conversations'))::integer
		WHERE ` + tables + ` AND (SELECT count(*) FROM gone) > 0`
)

// atMost is how many blocks more a query may read by one plan than by another: where a list is read
// in the order of an index, or by it, that is one for each of its rows, and by another plan one for each page.
func atMost() map[string]string {
	const refused = "(SELECT count(*) FROM orphan_cleaner.refusals WHERE run_id = (SELECT max(run_id) FROM orphan_cleaner.runs WHERE state = 'refused'))"
	// The month's partition, where its BRIN does not look worth while.
	const month = "(SELECT max(pg_relation_size(c.oid)) / 8192 FROM pg_class AS c WHERE c.relname LIKE 'conversation_members_audit_2%')"
	return map[string]string{
		// By an index one for each hour.
		"HourDays":         "(SELECT count(*) FROM orphan_cleaner.hours)",
		"ClockSettle":      "(SELECT count(*) FROM orphan_cleaner.hours)",
		"RefusalLargest":   refused,
		"RefusalSummary":   "3 * " + refused,
		"RefusalTargets":   "3 * " + refused,
		"RestoreSummary":   "(SELECT count(*) FROM orphan_cleaner.restores WHERE run_id = (SELECT max(run_id) FROM orphan_cleaner.runs WHERE kind = 'restore'))",
		"RestoreFacts":     "(SELECT 2 * count(*) FROM orphan_cleaner.restores WHERE run_id = (SELECT max(run_id) FROM orphan_cleaner.runs WHERE kind = 'restore'))",
		"ReportTargets":    "(SELECT count(*) FROM orphan_cleaner.restores WHERE run_id = (SELECT max(run_id) FROM orphan_cleaner.runs WHERE kind = 'restore'))",
		"RunDuePage":       "(SELECT count(*) FROM orphan_cleaner.sightings)",
		"PartitionRows":    "(SELECT count(*) FROM orphan_cleaner.refusals) + (SELECT count(*) FROM orphan_cleaner.restores)",
		"ReportSizes":      month,
		"RunConversations": month,
		"RunRestores":      "(SELECT count(*) FROM orphan_cleaner.restores)",
		"RunStage":         refused,
		// Once for each of the restore's 10,044 rows: they are about all of them.
		"RecheckSettle": "(SELECT 10044)",
		// For each of the 44 rows of the chunk those holds that are in force: of a list that was empty any index looks good.
		"RevertChunk": "(SELECT 44 * count(*) FROM orphan_cleaner.holds_in_force)",
		// A table of unknown size is counted once a run, as one where much is due is.
		"RunBreakers": "(SELECT count(*) / 20 FROM conversation_members)",
		"RevertJudge": "(SELECT greatest(10044, count(*) / 20) FROM conversation_members)",
	}
}

// Whatever the statistics say, each query reads about the same: at most twice as many blocks, and a few
// for a list that has but a few.
func TestBlocks(t *testing.T) {
	t.Parallel()
	const few = 200
	p := &place{DB: testdb.New(t), t: t}
	p.Psql("-f", "testdata/history.sql")
	// Autovacuum would better what is taken away, and PartitionDrop waits for nobody long.
	p.Exec(`DO $$
		DECLARE ours regclass;
		BEGIN
			FOR ours IN SELECT c.oid FROM pg_class AS c WHERE c.relkind = 'r' AND ` + tables + ` LOOP
				EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', ours);
			END LOOP;
		END
		$$`)
	fresh, none, stale := p.count("SELECT 1"), p.count(noStatistics), p.count(staleStatistics)
	allowed := atMost()
	for _, query := range slices.Sorted(maps.Keys(fresh)) {
		least, most := min(fresh[query], none[query], stale[query]), max(fresh[query], none[query], stale[query])
		line := fmt.Sprintf("%-24s %8d blocks with fresh statistics, %8d without, %8d with those of an empty list", query, fresh[query], none[query], stale[query])
		if most <= 2*least+few {
			t.Log(line)
		} else if more := allowed[query]; more == "" || most > 2*least+few+testdb.One[int64](p.DB, "SELECT ("+more+")::bigint") {
			t.Error(line)
		} else {
			t.Log(line + ", and may")
		}
	}
	for query, header := range headers(t) {
		if _, known := fresh[query]; !known && !strings.Contains(header, "Locks: none") {
			t.Errorf("%s is not counted", query)
		}
	}
}

// A run a minute for a year, of which hardly any succeeded: what is asked at each scrape, for the status and the report
// of a day, and at the beginning of a run, reads few runs; and yet the counters are the sums of all.
func TestYearOfMinutes(t *testing.T) {
	t.Parallel()
	p := testdb.New(t)
	ctx := t.Context()
	const runs = 525_600
	p.Exec(`INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, judged_at, lease, host, version, settings, members_deleted, batch_calls, breaker, totals)
		SELECT 'clean', state, 'finish', at, at, at, CASE state WHEN 'succeeded' THEN at END, '1 minute', 'test:1', 'test', '{}', n % 7, 3, CASE state WHEN 'refused' THEN 'delete-share' END,
			jsonb_build_object('clean failed', count(*) FILTER (WHERE state = 'failed') OVER so_far, 'clean refused', count(*) FILTER (WHERE state = 'refused') OVER so_far,
				'clean succeeded', count(*) FILTER (WHERE state = 'succeeded') OVER so_far, 'members_deleted', sum(n % 7) OVER so_far, 'members_restored', 0,
				'batch_calls', 3 * n, 'rows_deleted conversation_members', sum(n % 7) OVER so_far)
		FROM generate_series(1, $1::integer) AS n
		CROSS JOIN LATERAL (SELECT now() - make_interval(mins => $1 + 1 - n) AS at,
			CASE WHEN n = 1 THEN 'refused' WHEN n % 1000 = 2 THEN 'succeeded' ELSE 'failed' END AS state) AS s
		WINDOW so_far AS (ORDER BY n)`, runs)
	p.Exec("INSERT INTO orphan_cleaner.run_targets (run_id, target, rows_deleted) SELECT run_id, 'conversation_members', members_deleted FROM orphan_cleaner.runs")
	p.Exec("INSERT INTO orphan_cleaner.coverage (cycle_run_id, previous_run_id, run_id, checked_at, users, users_so_far) SELECT max(run_id), max(run_id), max(run_id), now(), 1, 1 FROM orphan_cleaner.runs WHERE state = 'succeeded'")
	p.Exec("INSERT INTO orphan_cleaner.rechecks (user_id) SELECT gen_random_uuid() FROM generate_series(1, 100)")
	p.Exec("ANALYZE orphan_cleaner.runs")

	conn, err := pgx.Connect(ctx, p.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	c := &counted{conn: conn, t: t, blocks: map[string]int64{}}
	q := db.New(c)
	token := uuid.New()
	begun, err := q.RunBegin(ctx, db.RunBeginParams{
		Token: token, Kind: "clean", Phase: "verify", Lease: time.Minute, Host: "test:1", Version: "test", Settings: settingsOfARun(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.RunFinish(ctx, db.RunFinishParams{RunID: begun.RunID, Token: token, State: "incomplete", Counts: []byte(`{"batch_calls": 11}`)}); err != nil {
		t.Fatal(err)
	}
	state, err := q.MetricsState(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := q.MetricsRuns(ctx)
	if err != nil {
		t.Fatal(err)
	}
	targets, err := q.MetricsTargets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []func() error{
		func() error { _, err := q.MetricsBreakers(ctx, 0); return err },
		func() error { _, err := q.RefusalUnsettled(ctx); return err },
		func() error { _, err := q.RunRecent(ctx, 20); return err },
		func() error { _, err := q.RunSchedule(ctx, time.Hour); return err },
		func() error { _, err := q.CoverageState(ctx); return err },
		func() error { _, err := q.RecheckPage(ctx, 100); return err },
		// What the status page asks: of a day, a month and a year.
		func() error {
			_, err := q.RunSpans(ctx, db.RunSpansParams{Span: time.Hour, Spans: 24})
			return err
		},
		func() error {
			_, err := q.RunSpans(ctx, db.RunSpansParams{Span: 24 * time.Hour, Spans: 30})
			return err
		},
		func() error {
			_, err := q.RunSpans(ctx, db.RunSpansParams{Span: 7 * 24 * time.Hour, Spans: 52})
			return err
		},
		func() error { _, err := q.RunOne(ctx, runs/2); return err },
		func() error {
			_, err := q.RunRestores(ctx, db.RunRestoresParams{RunID: runs / 2, MaxRows: 20})
			return err
		},
		func() error {
			_, err := q.ReportDays(ctx, db.ReportDaysParams{Since: time.Now().Add(-24 * time.Hour), Until: time.Now()})
			return err
		},
		func() error {
			_, err := q.ReportTargets(ctx, db.ReportTargetsParams{Since: time.Now().Add(-24 * time.Hour), Until: time.Now()})
			return err
		},
	} {
		if err := run(); err != nil {
			t.Fatal(err)
		}
	}
	c.settle(ctx, "")
	for query, blocks := range c.blocks {
		// The table has some 20,000; a day's runs lie on 60.
		if blocks > 300 {
			t.Errorf("%s reads %d blocks", query, blocks)
		}
	}

	deleted := testdb.One[int64](p, "SELECT sum(members_deleted)::bigint FROM orphan_cleaner.runs")
	if state.BatchCalls != 3*runs+11 || state.MembersDeleted != deleted || targets[0].DeletedTotal != deleted {
		t.Errorf("%d batches and %d members, %+v, not %d and %d", state.BatchCalls, state.MembersDeleted, targets, 3*runs+11, deleted)
	}
	for _, of := range ended {
		want := map[string]int64{"succeeded": 526, "refused": 1, "failed": runs - 527, "incomplete": 1}[of.State]
		if of.Kind == "clean" && of.Runs != want {
			t.Errorf("%d runs %s, not %d", of.Runs, of.State, want)
		}
	}
}
