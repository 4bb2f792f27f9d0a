package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/status"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// reportHistory is a March with known answers, in a database whose sessions
// think of it in Tokyo. Elements of the histograms: 1 is up to 1 ms, 5 up to 2, 9
// up to 4, 21 up to 32, 61 anything.
func reportHistory(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 100, 0)
	w.Exec("ALTER DATABASE " + w.Name + " SET timezone = 'Asia/Tokyo'")
	w.Pool.Reset()
	w.Exec(`INSERT INTO orphan_cleaner.runs (run_id, started_at, kind, state, users_checked, batch_calls, members_deleted, members_restored,
			members_held, members_kept_young, call_ms_buckets, call_ms_max, phase, heartbeat_at, finished_at, lease, host, version, settings)
		OVERRIDING SYSTEM VALUE
		SELECT v.id, v.at::timestamptz, v.kind, v.state, v.checked, v.calls, v.deleted, v.restored, v.held, v.young,
			(SELECT array_agg(coalesce((v.elements ->> n::text)::bigint, 0) ORDER BY n) FROM generate_series(1, 61) AS n WHERE v.elements IS NOT NULL),
			v.slowest, 'finish', v.at::timestamptz + interval '10 seconds', v.at::timestamptz + interval '10 seconds', '1 minute', 'test:1', 'test', '{}'
		FROM (VALUES
			(1, '2025-02-28 23:59:59.999999Z', 'clean', 'succeeded', 7000, 70, 700, 0, 70, 70, '{"61": 70}'::jsonb, 99000::float8),
			(2, '2025-03-01 00:00:00Z', 'clean', 'succeeded', 1000, 10, 3, 0, 5, 1, '{"1": 9, "21": 1}', 30),
			(3, '2025-03-01 12:00:00Z', 'clean', 'refused', 1000, 10, 0, 0, 7, 2, '{"9": 10}', 3.9),
			(4, '2025-03-01 23:59:59.999999Z', 'clean', 'failed', 0, 0, 0, 0, 0, 0, NULL, NULL),
			(5, '2025-03-02 00:00:00Z', 'clean', 'incomplete', 900, 10, 2, 0, 8, 0, '{"61": 10}', 60000),
			(6, '2025-03-15 09:00:00Z', 'restore', 'succeeded', 0, 4, 1, 2, 0, 0, NULL, NULL),
			(7, '2025-03-20 09:00:00Z', 'clean', 'abandoned', 0, 0, 0, 0, 0, 0, NULL, NULL),
			(8, '2025-03-31 23:59:59Z', 'clean', 'succeeded', 1000, 1, 6, 0, 1, 6, '{"5": 1}', 1.9),
			(9, '2025-04-01 00:00:00Z', 'clean', 'succeeded', 5000, 50, 500, 0, 50, 50, '{"61": 50}', 99000)
		) AS v (id, at, kind, state, checked, calls, deleted, restored, held, young, elements, slowest)`)
	w.Exec("ALTER TABLE orphan_cleaner.runs ALTER COLUMN run_id RESTART WITH 100")
	w.Exec(`INSERT INTO conversations (id) SELECT md5('c' || n)::uuid FROM generate_series(1, 7) AS n`)
	// Who is there, by conversation, the number of the first user and when they joined.
	members := func(conversation, first, n int, joined string) {
		w.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
			SELECT md5('c' || $1::int)::uuid, md5('u' || n)::uuid, $4::timestamptz FROM generate_series($2::int, $2::int + $3::int - 1) AS n`,
			conversation, first, n, joined)
	}
	deleted := func(run any, conversation, first, n int, joined, at string) {
		w.Exec(`INSERT INTO conversation_members_audit (conversation_id, user_id, joined_at, deleted_at, deleted_by, application, run_id, txid)
			SELECT md5('c' || $1::int)::uuid, md5('u' || n)::uuid, $4::timestamptz, $5::timestamptz, 'x', 'x', $6::bigint, 1
			FROM generate_series($2::int, $2::int + $3::int - 1) AS n`, conversation, first, n, joined, at, run)
	}
	const before = "2024-06-01Z"
	members(1, 1, 1, before) // 2 members
	deleted(2, 1, 2, 1, before, "2025-03-01 00:00:01Z")
	members(2, 1, 1, "2025-03-10Z") // 3, with the one who left in April, without the one who came in March
	deleted(5, 2, 2, 2, before, "2025-03-02 00:00:01Z")
	deleted(nil, 2, 4, 1, before, "2025-04-10Z")
	members(3, 1, 6, before) // 10; the run went on into April
	deleted(8, 3, 7, 4, before, "2025-04-01 00:00:05Z")
	members(4, 1, 11, before) // 11, two of them given back
	deleted(1, 4, 1, 2, before, "2025-02-20Z")
	w.Exec(`INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at, state, reverted_by_run)
		SELECT 6, md5('u' || n)::uuid, md5('c4')::uuid, 1, '2025-02-20Z', (ARRAY['restored', 'reverted', 'planned'])[n], CASE n WHEN 2 THEN 6 END
		FROM generate_series(1, 3) AS n`)
	deleted(6, 4, 20, 1, before, "2025-03-15 09:00:05Z") // a revert is no cleaning, and deletes
	members(5, 1, 99, before)                            // 100: of the two deleted one is there again
	deleted(2, 5, 99, 2, before, "2025-03-01 00:00:01Z")
	deleted(8, 6, 1, 1, "2025-03-05Z", "2025-04-01 00:00:05Z") // nobody had joined before March
	members(7, 1, 1000, before)                                // 1001
	deleted(8, 7, 2000, 1, before, "2025-03-31 23:59:59.5Z")
	return w
}

func (w *world) report(t *testing.T, args ...string) report {
	t.Helper()
	var r report
	e := program(t, w.env, append([]string{"report", "--json"}, args...)...).expect(t, exitDone)
	if err := json.Unmarshal([]byte(e.stdout), &r); err != nil {
		t.Fatalf("%v: %s", err, e)
	}
	return r
}

func TestReport(t *testing.T) {
	t.Parallel()
	w := reportHistory(t)
	r := w.report(t, "--month=2025-03")
	if r.Since != time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC) || r.Until != time.Date(2025, 4, 1, 0, 0, 0, 0, time.UTC) || len(r.Days) != 31 {
		t.Fatalf("%d days from %s until %s", len(r.Days), r.Since, r.Until)
	}
	want := map[string]db.ReportDaysRow{
		"2025-03-01": {
			Runs: 3, Refused: 1, Failed: 1, UsersChecked: 2000, BatchCalls: 20, MembersDeleted: 3, MembersHeld: 7, MembersKeptYoung: 2,
			SlowestMs: 30, P50Ms: 4, P99Ms: 30, // not 2.5, the mean of 1 and 4
		},
		"2025-03-02": {
			Runs: 1, Incomplete: 1, UsersChecked: 900, BatchCalls: 10, MembersDeleted: 2, MembersHeld: 8,
			SlowestMs: 60000, P50Ms: 60000, P99Ms: 60000,
		},
		"2025-03-15": {MembersDeleted: 1, MembersRestored: 2},
		"2025-03-20": {Runs: 1, Failed: 1},
		"2025-03-31": {
			Runs: 1, UsersChecked: 1000, BatchCalls: 1, MembersDeleted: 6, MembersHeld: 1, MembersKeptYoung: 6,
			SlowestMs: 1.9, P50Ms: 1.9, P99Ms: 1.9,
		},
	}
	for i, got := range r.Days {
		name := r.Since.AddDate(0, 0, i).Format(time.DateOnly)
		wanted := want[name]
		if wanted.Day = name; got != wanted {
			t.Errorf("%+v,\nnot %+v", got, wanted)
		}
	}
	total := db.ReportDaysRow{
		Runs: 6, Refused: 1, Incomplete: 1, Failed: 2, UsersChecked: 3900, BatchCalls: 31, MembersDeleted: 12, MembersRestored: 2,
		MembersHeld: 1, MembersKeptYoung: 6, SlowestMs: 60000, P50Ms: 4, P99Ms: 60000,
	}
	if r.Total != total {
		t.Errorf("%+v,\nnot %+v", r.Total, total)
	}
	sizes := []db.ReportSizesRow{
		{Size: "0", Conversations: 1, MembersDeleted: 1},
		{Size: "1-2", Conversations: 1, MembersDeleted: 1},
		{Size: "3-10", Conversations: 2, MembersDeleted: 6},
		{Size: "11-100", Conversations: 2, MembersDeleted: 3, MembersRestored: 2},
		{Size: "101-1000"},
		{Size: ">1000", Conversations: 1, MembersDeleted: 1},
	}
	if !slices.Equal(r.Sizes, sizes) {
		t.Errorf("%+v,\nnot %+v", r.Sizes, sizes)
	}
}

// With several targets status and report say what was done in each.
func TestStatusAndReportOfTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1234, 15)
	if e := program(t, w.env, "status").expect(t, exitDone); strings.Contains(e.stdout, "Targets") {
		t.Errorf("a table of one target: %s", e)
	}
	w.Targets("likes")
	w.Exec(`INSERT INTO likes (post_id, user_id, created_at)
		SELECT gen_random_uuid(), m.user_id, now() - interval '90 days' FROM (SELECT DISTINCT user_id FROM conversation_members) AS m, generate_series(1, 2)`)
	w.Settle()
	if e := program(t, w.env, "run", "--dry-run").expect(t, exitDone); !strings.Contains(e.stderr, "Dry run: would clean up to 15 orphaned members, and 30 rows of other targets ") {
		t.Errorf("%s", e)
	}
	if e := program(t, w.env, "run").expect(t, exitDone); !regexp.MustCompile(`Cleaned 15 orphaned members from \d+ conversations, and 30 rows of other targets run_id=`).MatchString(e.stderr) {
		t.Errorf("%s", e)
	}
	var st status.Status
	e := program(t, w.env, "status", "--json").expect(t, exitDone)
	if err := json.Unmarshal([]byte(e.stdout), &st); err != nil {
		t.Fatal(err)
	}
	want := []db.MetricsTargetsRow{
		{Target: "conversation_members", DeletedTotal: 15, Due: 15, Deleted: 15},
		{Target: "likes", DeletedTotal: 30, Due: 30, Deleted: 30},
	}
	if !slices.Equal(st.Targets, want) {
		t.Errorf("%+v, not %+v", st.Targets, want)
	}
	restored := program(t, w.env, "restore", "--run=1", "--target=likes", "--execute", "--json").expect(t, exitDone).result(t)
	if e := program(t, w.env, "report").expect(t, exitDone); strings.Count(e.stdout, "\n") != 1 ||
		!strings.Contains(e.stdout, "nothing to report of the last month. This month: orphan-cleaner report --month "+time.Now().UTC().Format("2006-01")) {
		t.Errorf("the report of a young database: %s", e)
	}
	// The preview of a revert says what would refuse it, and a refusal is told where the result is.
	revert := []string{"restore", "--revert", fmt.Sprint(restored["run_id"])}
	const judged = "30 rows of likes are due, limit 29"
	strict := append(slices.Clone(revert), "--max-delete-rows=29")
	if e := program(t, w.env, strict...).expect(t, exitDone); !strings.Contains(e.stdout, "Breaker delete-rows would refuse it if auth-service returns none of these users: "+judged) {
		t.Errorf("%s", e)
	}
	if e := program(t, w.env, append(strict, "--execute")...).expect(t, exitRefused); !strings.Contains(e.stdout, "\nrefused: ") || !strings.Contains(e.stdout, judged) {
		t.Errorf("%s", e)
	}
	if got := program(t, w.env, append(strict, "--execute", "--json")...).expect(t, exitRefused).result(t); got["breaker"] != "delete-rows" || got["error"] == nil {
		t.Errorf("%v", got)
	}
	if e := program(t, w.env, revert...).expect(t, exitDone); !strings.Contains(e.stdout, "No breaker would refuse that now") {
		t.Errorf("%s", e)
	}
	// On the hold of that restore, and on one of a living user and of a conversation.
	living := testdb.One[string](w.DB, `SELECT min(user_id::text) FROM conversation_members`)
	conversation := testdb.One[string](w.DB, `SELECT min(conversation_id::text) FROM conversation_members`)
	program(t, w.env, "hold", "add", "--user="+living, "--reason=a lawsuit").expect(t, exitDone)
	program(t, w.env, "hold", "add", "--conversation="+conversation, "--reason=a lawsuit").expect(t, exitDone)
	var holds []listedHold
	e = program(t, w.env, "hold", "list", "--json").expect(t, exitDone)
	if err := json.Unmarshal([]byte(e.stdout), &holds); err != nil || len(holds) != 3 {
		t.Fatalf("%v: %s", err, e)
	}
	for i, want := range [][]heldRows{
		{{"likes", 30}},
		{{"conversation_members", holds[1].Members}, {"likes", 2}},
		{{"conversation_members", holds[2].Members}},
	} {
		if !slices.Equal(holds[i].Targets, want) {
			t.Errorf("hold %d: %+v, not %+v", i, holds[i].Targets, want)
		}
	}
	if e = program(t, w.env, "hold", "list").expect(t, exitDone); strings.Count(e.stdout, "keeps rows of other targets, too: likes ") != 2 {
		t.Errorf("%s", e)
	}
	// Candidates again, by a run that was refused over them.
	w.Exec(`INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, state, phase, finished_at, lease, host, version, settings, breaker)
		VALUES (now(), now(), 'clean', 'refused', 'judge', now(), '1m', 'x', 'x', '{}', 'delete-rows')`)
	w.Exec(`INSERT INTO orphan_cleaner.refusals (run_id, user_id, is_due) SELECT (SELECT max(run_id) FROM orphan_cleaner.runs), user_id, true FROM (SELECT DISTINCT user_id FROM orphan_cleaner.likes_backup) AS u`)
	w.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
		SELECT DISTINCT user_id, now(), now(), 1, 'sightings' FROM orphan_cleaner.likes_backup ON CONFLICT DO NOTHING`)
	refused := testdb.One[string](w.DB, `SELECT max(run_id)::text FROM orphan_cleaner.runs`)
	if e = program(t, w.env, "approve", refused, "--yes").expect(t, exitDone); !regexp.MustCompile(`rows of likes, as of now +30\b`).MatchString(e.stdout) {
		t.Errorf("%s", e)
	}
	program(t, w.env, "approve", refused, "--revoke").expect(t, exitDone)
	if e = program(t, w.env, "approve", refused, "--yes", "--json").expect(t, exitDone); !strings.Contains(strings.Join(strings.Fields(e.stdout), ""), `{"target":"likes","row_count":30}`) {
		t.Errorf("%s", e)
	}
	r := w.report(t, "--since="+testdb.One[string](w.DB, "SELECT (now() AT TIME ZONE 'UTC')::date::text"))
	if want := []db.ReportTargetsRow{{Target: "conversation_members", RowsDeleted: 15}, {Target: "likes", RowsDeleted: 30, RowsRestored: 30}}; !slices.Equal(r.Targets, want) {
		t.Errorf("%+v, not %+v", r.Targets, want)
	}
	for command, line := range map[string]string{
		"status": `likes +30 +30 +0 +0 +0 +0 +30 +30`, "report": `likes +30 +30`,
	} {
		args := []string{command}
		if command == "report" {
			args = append(args, "--since="+r.Since.Format(time.DateOnly))
		}
		if e := program(t, w.env, args...).expect(t, exitDone); !regexp.MustCompile(line).MatchString(e.stdout) {
			t.Errorf("%s without %q", e, line)
		}
	}
}

// A span is half-open, in UTC, whatever zone it is written in.
func TestReportSpans(t *testing.T) {
	t.Parallel()
	w := reportHistory(t)
	for _, c := range []struct {
		args          []string
		days          int
		runs, deleted int64
	}{
		{[]string{"--since=2025-03-02", "--until=2025-03-03"}, 1, 1, 2},
		{[]string{"--since=2025-03-01", "--until=2025-03-02"}, 1, 3, 3},
		{[]string{"--since=2025-03-02T09:00:00+09:00", "--until=2025-03-02T09:00:00.000001+09:00"}, 1, 1, 2},
		{[]string{"--since=2025-03-01T23:59:59.9Z", "--until=2025-03-02T00:00:00Z"}, 1, 1, 0},
		{[]string{"--since=2025-03-01T12:00:00Z", "--until=2025-03-02T12:00:00Z"}, 2, 3, 2},
		{[]string{"--month=2025-02"}, 28, 1, 700},
		{[]string{"--month=2024-02"}, 29, 0, 0},
		{[]string{"--since=2025-03-03", "--until=2025-03-10"}, 7, 0, 0},
	} {
		r := w.report(t, c.args...)
		if len(r.Days) != c.days || r.Total.Runs != c.runs || r.Total.MembersDeleted != c.deleted {
			t.Errorf("%q: %d days, %+v", c.args, len(r.Days), r.Total)
		}
		if c.runs == 0 && r.Total != (db.ReportDaysRow{}) {
			t.Errorf("%q: %+v", c.args, r.Total)
		}
	}

	// Without arguments the last month; one that is under way goes up to today.
	now := testdb.One[time.Time](w.DB, "SELECT now()").UTC()
	first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	w.Exec(`INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, state, phase, finished_at, lease, host, version, settings, members_deleted)
		SELECT s, s, 'clean', 'succeeded', 'finish', s, '1 minute', 'test:1', 'test', '{}', d FROM (VALUES ($1::timestamptz, 10), ($2, 100)) AS v (s, d)`,
		first.Add(-time.Second), first)
	if r := w.report(t); r.Since != first.AddDate(0, -1, 0) || r.Until != first || r.Total.MembersDeleted != 10 || len(r.Days) != first.Add(-time.Second).Day() {
		t.Errorf("the last month: from %s until %s, %d days, %+v", r.Since, r.Until, len(r.Days), r.Total)
	}
	if r := w.report(t, "--month="+now.Format("2006-01")); r.Total.MembersDeleted != 100 || len(r.Days) != now.Day() {
		t.Errorf("this month: %d days, %+v", len(r.Days), r.Total)
	}
	if r := w.report(t, "--since="+first.Format(time.DateOnly)); r.Total.MembersDeleted != 100 || len(r.Days) != now.Day() {
		t.Errorf("since the first: %d days, %+v", len(r.Days), r.Total)
	}
	if r := w.report(t, "--month="+first.AddDate(0, 2, 0).Format("2006-01")); len(r.Days) != 0 || r.Total != (db.ReportDaysRow{}) {
		t.Errorf("a month to come: %d days, %+v", len(r.Days), r.Total)
	}
}

// The text fits a terminal, CSV has one header for all its records, and both say
// what JSON says.
func TestReportFormats(t *testing.T) {
	t.Parallel()
	w := reportHistory(t)
	// As large as it gets: an hourly run over ten million users.
	w.Exec(`UPDATE orphan_cleaner.runs SET users_checked = 310000000, batch_calls = 3100000, members_deleted = 1234567, members_held = 12345 WHERE run_id = 2`)
	e := program(t, w.env, "report", "--month=2025-03").expect(t, exitDone)
	for line := range strings.Lines(e.stdout) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, pattern := range []string{
		`2025-03-01 +3 +1 +0 +1 +310001000 +3100010 +1234567 +0 +7 +2 +4ms +30ms +30ms`,
		`2025-03-02 .* 60\.0s`, `total +6 .* 1234576 +2`, `11-100 +2 +3 +2`, `the audit holds 12 of the 1234576 members deleted`,
	} {
		if !regexp.MustCompile(pattern).MatchString(e.stdout) {
			t.Errorf("no line is like %s:\n%s", pattern, e.stdout)
		}
	}

	r := w.report(t, "--month=2025-03")
	e = program(t, w.env, "report", "--month=2025-03", "--csv").expect(t, exitDone)
	records, err := csv.NewReader(strings.NewReader(e.stdout)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	header, records := records[0], records[1:]
	if len(records) != len(r.Days)+1+len(r.Sizes)+len(r.Targets) {
		t.Errorf("%d records", len(records))
	}
	// Every field of JSON is a column of that name, and has that value.
	compare := func(record []string, scope string, object any) {
		t.Helper()
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		fields["scope"] = scope
		for i, column := range header {
			value, there := fields[column]
			want := ""
			switch v := value.(type) {
			case string:
				want = v
			case float64:
				want = fmt.Sprintf("%.0f", v)
				if strings.HasSuffix(column, "_ms") {
					want = fmt.Sprintf("%.3f", v)
				}
			}
			if record[i] != want {
				t.Errorf("%s %s is %q, not %q", scope, column, record[i], want)
			}
			if there {
				delete(fields, column)
			}
		}
		if len(fields) > 0 {
			t.Errorf("%s: CSV has no %v", scope, fields)
		}
	}
	for i, d := range r.Days {
		compare(records[i], "day", d)
	}
	compare(records[len(r.Days)], "total", r.Total)
	for i, c := range r.Sizes {
		compare(records[len(r.Days)+1+i], "size", c)
	}
	for i, row := range r.Targets {
		compare(records[len(r.Days)+1+len(r.Sizes)+i], "target", row)
	}
}

func TestReportArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 0)
	for _, args := range [][]string{
		{"--month=2025-13"},
		{"--month=march"},
		{"--month=2025-03-01"},
		{"--month=2025-03", "--since=2025-03-01"},
		{"--until=2025-03-01"},
		{"--month=2025-03", "--until=2025-04-01"},
		{"--since=2025-03-01", "--until=2025-03-01"},
		{"--since=2025-03-02", "--until=2025-03-01"},
		{"--since=yesterday"},
		{"--since=2025-03-01", "--until=30d"},
		{"--since=2020-01-01"},
		{"--since=2020-01-01", "--until=2022-01-01"},
		{"--json", "--csv"},
	} {
		if e := program(t, w.env, append([]string{"report"}, args...)...).expect(t, exitUsage); e.stdout != "" || e.stderr == "" {
			t.Errorf("%q: %s", args, e)
		}
	}
}

// What a run measured is in the report: each of its batches, once.
func TestReportOfARun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1234, 15)
	today := testdb.One[string](w.DB, "SELECT (now() AT TIME ZONE 'UTC')::date::text")
	result := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
	if n := testdb.One[int64](w.DB, "SELECT sum(n)::bigint FROM orphan_cleaner.runs, unnest(call_ms_buckets) AS n"); float64(n) != result["batch_calls"] || n < 14 {
		t.Errorf("%d batches have a time, of %v", n, result["batch_calls"])
	}
	r := w.report(t, "--since="+today)
	if r.Total.Runs != 1 || r.Total.MembersDeleted != 15 || r.Total.UsersChecked != 1234 {
		t.Errorf("%+v", r.Total)
	}
	if r.Total.P50Ms <= 0 || r.Total.P50Ms > r.Total.P99Ms || r.Total.P99Ms > r.Total.SlowestMs {
		t.Errorf("P50 %f, P99 %f, slowest %f", r.Total.P50Ms, r.Total.P99Ms, r.Total.SlowestMs)
	}
	var conversations, deleted int64
	for _, c := range r.Sizes {
		conversations, deleted = conversations+c.Conversations, deleted+c.MembersDeleted
	}
	if deleted != 15 || float64(conversations) != result["conversations"] {
		t.Errorf("%+v", r.Sizes)
	}
}

// report --html writes one file, which loads nothing, whose style is the one that its
// policy lets in, and which has the figures of the report.
func TestReportHTML(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	program(t, w.env, "run").expect(t, exitDone)
	path := filepath.Join(t.TempDir(), "report.html")
	today := time.Now().UTC().Format(time.DateOnly)
	e := program(t, w.env, "report", "--since="+today, "--html="+path).expect(t, exitDone)
	if e.stdout != "" {
		t.Errorf("it prints, too: %q", e.stdout)
	}
	text := readFile(t, path)
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(text)
	if style == nil {
		t.Fatal("it has no style")
	}
	hash := sha256.Sum256([]byte(style[1]))
	policy := "default-src &#39;none&#39;; style-src &#39;sha256-" + html.EscapeString(base64.StdEncoding.EncodeToString(hash[:])) + "&#39;"
	for _, want := range []string{html.UnescapeString(policy), "<dt>Members deleted</dt><dd>15</dd>", "<svg", today + "</th>"} {
		if !strings.Contains(html.UnescapeString(text), want) {
			t.Errorf("the report has no %s", want)
		}
	}
	if found := regexp.MustCompile(`<script|<link|<img| src=|href=|https?:`).FindString(text); found != "" {
		t.Errorf("the report has %s", found)
	}
	if again := program(t, w.env, "report", "--since="+today, "--html=-", "--lang=zh").expect(t, exitDone).stdout; !strings.Contains(again, "删除的成员") {
		t.Errorf("in Chinese it is\n%s", again)
	}
	for _, args := range [][]string{{"--html=/nowhere/report.html"}, {"--html=-", "--json"}, {"--html=-", "--lang=fr"}} {
		if e := program(t, w.env, append([]string{"report"}, args...)...); e.status != exitUsage {
			t.Errorf("%q: %s", args, e)
		}
	}
}
