package runbook_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// plan is a node of EXPLAIN (FORMAT json).
type plan struct {
	NodeType string   `json:"Node Type"`
	Relation string   `json:"Relation Name"`
	Index    string   `json:"Index Name"`
	Arbiters []string `json:"Conflict Arbiter Indexes"`
	Plans    []plan   `json:"Plans"`
}

// walk calls visit for a node and all below it.
func (p plan) walk(visit func(plan)) {
	visit(p)
	for _, child := range p.Plans {
		child.walk(visit)
	}
}

// headers are those of the queries, by name.
func headers(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../queries/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^-- name: (\w+) .*\n((?:-- .*\n)+)`).FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = strings.Join(strings.Fields(strings.ReplaceAll(m[2], "-- ", " ")), " ")
		}
	}
	if len(found) < 50 {
		t.Fatalf("only %d queries are found", len(found))
	}
	return found
}

// wanted are the indexes that a header names after "Index:", as far as there are
// indexes of these names: of each list, joined by "or", one is used.
func wanted(header string, indexes map[string]string) [][]string {
	_, after, _ := strings.Cut(header, "Index: ")
	after, _, _ = strings.Cut(after, " Rows: ")
	after, _, _ = strings.Cut(after, " Locks: ")
	var list [][]string
	for _, words := range regexp.MustCompile(`\w+(?: or \w+)*`).FindAllString(after, -1) {
		either := slices.DeleteFunc(strings.Split(words, " or "), func(word string) bool { return indexes[word] == "" })
		if len(either) > 0 {
			list = append(list, either)
		}
	}
	return list
}

// parents maps the names of all indexes, or of all tables, to themselves, or for
// those of partitions to what they are a partition of.
func parents(d *testdb.DB, kinds string) map[string]string {
	found := map[string]string{}
	for _, row := range d.Snapshot(`(SELECT c.relname, coalesce(p.relname, c.relname)
		FROM pg_class AS c LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid LEFT JOIN pg_class AS p ON p.oid = i.inhparent
		WHERE c.relnamespace IN ('public'::regnamespace, 'orphan_cleaner'::regnamespace) AND c.relkind::text = ANY (string_to_array($1, ',')) ORDER BY 1) AS c`, kinds) {
		name, parent, _ := strings.Cut(strings.Trim(row, "()"), ",")
		found[name] = parent
	}
	return found
}

// large are the tables that no query may read from end to end unless its header
// says so, in such words.
func large() map[string]*regexp.Regexp {
	return map[string]*regexp.Regexp{
		"conversation_members":        regexp.MustCompile("all members"),
		"conversations":               regexp.MustCompile("all conversations"),
		"conversation_members_audit":  regexp.MustCompile("the audit is read"),
		"conversation_members_backup": regexp.MustCompile(`the backup is read|backups\b.*, read once`),
	}
}

// fewPages, or a tenth of a table, are read from end to end sooner than by an index, and
// cost little: an empty partition, today's, that of a month that has just begun.
const fewPages = 12

// Each query is planned as its header says, for values of a database with a
// million members as for any: by every index that the header names, and without
// reading a large table from end to end.
func TestPlans(t *testing.T) {
	t.Parallel()
	p := &place{DB: testdb.New(t), t: t}
	// Statistics that change in the middle of it change the plans.
	p.Psql("-c", "ALTER SYSTEM SET autovacuum = off", "-c", "SELECT pg_reload_conf()", "-f", "testdata/history.sql")
	if n := p.Count("conversation_members"); n != 1_000_000 {
		t.Fatalf("%d members", n)
	}
	want := headers(t)
	indexes, tables := parents(p.DB, "i,I"), parents(p.DB, "r,p")

	pages, whole := map[string]int64{}, map[string]int64{}
	for relation, table := range tables {
		pages[relation] = testdb.One[int64](p.DB, "SELECT sum(relpages)::bigint FROM pg_class WHERE relname = $1", relation)
		whole[table] += pages[relation]
	}

	// First, while the statistics are those of the history: what the functions did is taken back, and leaves dead rows.
	out := p.script("", "explain.sql", "options=FORMAT json")
	inFunctions := p.plansInFunctions()
	seen := map[string]int{}
	for _, section := range strings.Split(out, "== ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		query, _, _ := strings.Cut(title, ",")
		header, known := want[query]
		if !known {
			t.Errorf("explain.sql has a query %s that is in no file of queries/", query)
			continue
		}
		seen[query]++
		text = strings.TrimPrefix(text, "QUERY PLAN\n")
		var explained []struct{ Plan plan }
		if err := json.Unmarshal([]byte(text), &explained); err != nil || len(explained) != 1 {
			t.Fatalf("%s: %v\n%s", title, err, text)
		}
		used, read, counted := map[string]bool{}, map[string]int64{}, map[string]bool{}
		for _, root := range append(inFunctions[query], explained[0].Plan) {
			root.walk(func(node plan) {
				for _, index := range append(node.Arbiters, node.Index) {
					used[indexes[index]] = true
				}
				if node.NodeType == "Seq Scan" && !counted[node.Relation] {
					counted[node.Relation] = true
					read[tables[node.Relation]] += pages[node.Relation]
				}
			})
		}
		for table, says := range large() {
			if read[table] > max(fewPages, whole[table]/10) && !says.MatchString(header) {
				t.Errorf("%s reads %d of %d pages of %s from end to end, and its header does not say so", title, read[table], whole[table], table)
			}
		}
		for _, either := range wanted(header, indexes) {
			if !slices.ContainsFunc(either, func(index string) bool { return used[index] }) {
				t.Log(text)
				t.Errorf("%s is planned without %v, which its header names; it uses %v", title, either, slices.Sorted(maps.Keys(used)))
			}
		}
	}
	for query := range want {
		if seen[query] != 2 {
			t.Errorf("explain.sql shows %s %d times, not for values and for any: make generate", query, seen[query])
		}
	}
}

// patient lets a transaction take longer than a run's may: all of a run is in one here.
const patient = `DO $$ BEGIN EXECUTE replace(pg_get_functiondef('orphan_cleaner.run_open'::regproc), '30 seconds', '1 hour'); END $$`

// plansInFunctions runs the queries that call a function of ours, and takes all of
// it back; it returns the plans of the statements in those functions.
func (p *place) plansInFunctions() map[string][]plan {
	p.t.Helper()
	ctx := p.t.Context()
	cfg, err := pgx.ParseConfig(p.URL)
	if err != nil {
		p.t.Fatal(err)
	}
	var logged []string
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if _, text, found := strings.Cut(n.Message, "plan:\n"); found {
			logged = append(logged, text)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, statement := range []string{
		"LOAD 'auto_explain'", "SET auto_explain.log_nested_statements = on", "SET auto_explain.log_format = json",
		"SET auto_explain.log_min_duration = 0", "SET jit = off", "BEGIN",
		patient,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			p.t.Fatal(err)
		}
	}
	found := map[string][]plan{}
	// take runs one query and keeps the plans within it; its own is logged only
	// when the next statement begins.
	take := func(query string, run func() error) {
		p.t.Helper()
		if _, err := conn.Exec(ctx, "SET client_min_messages = log"); err != nil {
			p.t.Fatal(err)
		}
		logged = nil
		if err := run(); err != nil {
			p.t.Fatalf("%s: %v", query, err)
		}
		for _, text := range logged {
			var explained struct{ Plan plan }
			if err := json.Unmarshal([]byte(text), &explained); err != nil {
				p.t.Fatalf("%s: %v\n%s", query, err, text)
			}
			found[query] = append(found[query], explained.Plan)
		}
		if len(found[query]) == 0 {
			p.t.Fatalf("%s: no plan within a function was logged", query)
		}
		if _, err := conn.Exec(ctx, "SET client_min_messages = warning"); err != nil {
			p.t.Fatal(err)
		}
	}

	p.calls(conn, db.New(conn), take)
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		p.t.Fatal(err)
	}
	return found
}

// calls runs each query that calls a function of ours, in the order of a run, a restore
// and its revert, within the transaction of conn. q sends to conn.
func (p *place) calls(conn db.DBTX, q *db.Queries, take func(query string, run func() error)) {
	p.t.Helper()
	ctx := p.t.Context()
	last := testdb.One[int64](p.DB, "SELECT max(run_id) FROM orphan_cleaner.runs")
	due := testdb.One[[]uuid.UUID](p.DB, `SELECT array_agg(user_id) FROM (
		SELECT user_id FROM orphan_cleaner.candidates WHERE first_missing_at < now() - interval '31 days' ORDER BY user_id LIMIT 1000) AS c`)
	token := uuid.New()
	begin := func(kind string) (run int64) {
		p.t.Helper()
		take("RunBegin", func() error {
			begun, err := q.RunBegin(ctx, db.RunBeginParams{
				Token: token, Kind: kind, Phase: "preflight", Lease: time.Minute, Host: "test:1", Version: "test", Settings: settingsOfARun(p.t),
			})
			run = begun.RunID
			return err
		})
		return run
	}
	// inThePast has a run begin, and be judged, before now(), which stands still here.
	inThePast := func(run int64) {
		p.t.Helper()
		if _, err := conn.Exec(ctx, "UPDATE orphan_cleaner.runs SET started_at = now(), judged_at = now() WHERE run_id = $1", run); err != nil {
			p.t.Fatal(err)
		}
	}
	// snapshot is where a row that this transaction wrote counts as unchanged.
	snapshot := func() (xid string) {
		p.t.Helper()
		// A later transaction that ended: xmax is behind this one then.
		testdb.One[int64](p.DB, "SELECT pg_current_xact_id()::text::bigint")
		if err := conn.QueryRow(ctx, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text").Scan(&xid); err != nil {
			p.t.Fatal(err)
		}
		return xid
	}
	take("RestorePreview", func() error {
		_, err := q.RestorePreview(ctx, db.RestorePreviewParams{OfRun: &last})
		return err
	})
	take("MetricsRuns", func() error {
		_, err := q.MetricsRuns(ctx)
		return err
	})
	take("MetricsTargets", func() error {
		_, err := q.MetricsTargets(ctx)
		return err
	})
	take("UserPage", func() error {
		_, err := q.UserPage(ctx, db.UserPageParams{Target: "conversation_members", MaxUsers: 5000})
		return err
	})
	take("CoverageHolders", func() error {
		_, err := q.CoverageHolders(ctx, due)
		return err
	})

	refused := testdb.One[int64](p.DB, "SELECT max(run_id) FROM orphan_cleaner.runs WHERE state = 'refused'")
	take("ApprovalRevoke", func() error {
		_, err := q.ApprovalRevoke(ctx, db.ApprovalRevokeParams{RunID: refused, RevokedBy: "a DBA"})
		return err
	})
	take("ApprovalGive", func() error {
		_, err := q.ApprovalGive(ctx, db.ApprovalGiveParams{RunID: refused, ApprovedBy: "a DBA", Lasting: time.Hour})
		return err
	})
	take("PauseEnd", func() error {
		_, err := q.PauseEnd(ctx)
		return err
	})
	take("PartitionRows", func() error {
		_, err := q.PartitionRows(ctx, db.PartitionRowsParams{RefusalWindow: 24 * time.Hour, AuditWindow: 48 * time.Hour, MaxRows: 1000})
		return err
	})

	take("RunCanaries", func() error {
		_, err := q.RunCanaries(ctx, 100)
		return err
	})
	take("UserCanaries", func() error {
		canaries, err := q.UserCanaries(ctx, 100)
		if len(canaries) < 90 {
			p.t.Errorf("%d canaries", len(canaries))
		}
		return err
	})

	take("EffectCounterSample", func() error {
		_, err := q.EffectCounterSample(ctx, 1000)
		return err
	})
	take("EventSink", func() error {
		return errors.Join(
			q.EventSink(ctx, db.EventSinkParams{Sink: "redis", FromRun: new(last - 100)}),
			q.EventSink(ctx, db.EventSinkParams{Sink: "stdout"}))
	})
	ticket := uuid.New()
	var page []db.EventPageRow
	take("EventPage", func() (err error) {
		page, err = q.EventPage(ctx, db.EventPageParams{Sink: "redis", Ticket: ticket, MaxRows: 2000, Lease: time.Minute})
		if len(page) == 0 {
			p.t.Error("no event")
		}
		return err
	})
	take("EventAdvance", func() error {
		at := page[len(page)/2]
		moved, err := q.EventAdvance(ctx, db.EventAdvanceParams{
			Sink: "redis", Ticket: ticket, LastKind: &at.Kind, LastConversation: &at.ConversationID, LastUser: &at.UserID, Delivered: 1,
		})
		if !moved {
			p.t.Error("the cursor did not move")
		}
		return err
	})

	run := begin("clean")
	take("RunHeartbeat", func() error {
		_, err := q.RunHeartbeat(ctx, db.RunHeartbeatParams{RunID: run, Token: token, Kind: "clean", Phase: "verify"})
		return err
	})
	take("RunAssess", func() error {
		_, err := q.RunAssess(ctx, db.RunAssessParams{UserIds: due, Retention: 30 * 24 * time.Hour, MaxGap: 7 * 24 * time.Hour})
		return err
	})
	take("RunStage", func() error {
		_, err := q.RunStage(ctx, db.RunStageParams{RunID: run, Token: token, Missing: due, Unknown: []uuid.UUID{uuid.New()}})
		return err
	})
	take("RunBreakers", func() error {
		_, err := q.RunBreakers(ctx, db.RunBreakersParams{Settings: settingsOfARun(p.t), Facts: []byte("{}")})
		return err
	})
	take("RunJudge", func() error {
		judged, err := q.RunJudge(ctx, db.RunJudgeParams{RunID: run, Token: token, Report: []byte(`{"users_checked": 200000, "users_covered": 200000,
			"users_missing": 1000, "users_unknown": 1, "members_total": 1000000, "batch_calls": 2000, "alive_missing": 0, "dead_present": 0}`)})
		if judged.Breaker != "" {
			p.t.Errorf("refused: %s", judged.Message)
		}
		return err
	})
	take("RunSweepChunk", func() error {
		swept, err := q.RunSweepChunk(ctx, db.RunSweepChunkParams{RunID: run, Token: token, UserIds: due[:900], CheckedFrom: snapshot(), MaxRows: 10_000})
		// By the approval of a refused run that knew half of them.
		if swept.RowsDeleted[0] < 2000 {
			p.t.Errorf("swept: %+v", swept)
		}
		return err
	})
	take("RunSweepReturned", func() error {
		return q.RunSweepReturned(ctx, db.RunSweepReturnedParams{RunID: run, Token: token, UserIds: due[900:]})
	})
	take("RecheckWrite", func() error {
		_, err := q.RecheckWrite(ctx, db.RecheckWriteParams{RunID: run, Token: token, Reached: due[0], Alive: due[:1], Missing: due[1:3]})
		return err
	})
	inThePast(run)
	take("RunFinish", func() error {
		finished, err := q.RunFinish(ctx, db.RunFinishParams{RunID: run, Token: token, State: "incomplete", Counts: []byte("{}")})
		if finished.State != "incomplete" {
			p.t.Errorf("finished: %+v", finished)
		}
		return err
	})

	// The run ended by the clock, behind now().
	take("ClockSettle", func() error {
		settled, err := q.ClockSettle(ctx)
		if settled != 1 {
			p.t.Errorf("%d runs settled", settled)
		}
		return err
	})

	token = uuid.New()
	run = begin("restore")
	take("RestoreStore", func() error {
		planned, err := q.RestoreStore(ctx, db.RestoreStoreParams{RunID: run, Token: token, OfRun: &last})
		if len(planned) != 1 || planned[0].Members != 44 {
			p.t.Errorf("planned: %+v", planned)
		}
		return err
	})
	var chunks []db.RestoreChunksRow
	take("RestoreChunks", func() (err error) {
		chunks, err = q.RestoreChunks(ctx, db.RestoreChunksParams{RunID: run, State: "planned", Pages: 64})
		return err
	})
	// A chunk is a small part of a large restore.
	large := func(statement string) {
		if _, err := conn.Exec(ctx, statement, run); err != nil {
			p.t.Fatal(err)
		}
	}
	large(`INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at)
		SELECT $1, gen_random_uuid(), gen_random_uuid(), $1, now() FROM generate_series(1, 10000)`)
	// A run's rows may lie in two chunks.
	chunk := slices.MaxFunc(chunks, func(a, b db.RestoreChunksRow) int { return cmp.Compare(a.Members, b.Members) })
	take("RestoreChunk", func() error {
		restored, err := q.RestoreChunk(ctx, db.RestoreChunkParams{
			RunID: run, Token: token, Day: chunk.Day, FirstPage: chunk.FirstPage, Pages: 64, UserIds: chunk.UserIds, Hold: time.Hour, Target: chunk.Target,
		})
		if restored != chunk.Members {
			p.t.Errorf("%d members restored, of %+v", restored, chunk)
		}
		return err
	})
	take("RecheckSettle", func() error { return q.RecheckSettle(ctx, db.RecheckSettleParams{RunID: run, Token: token}) })
	take("HoldLift", func() error {
		_, err := q.HoldLift(ctx, db.HoldLiftParams{RestoreRun: &run})
		return err
	})
	take("RevertJudge", func() error {
		judged, err := q.RevertJudge(ctx, db.RevertJudgeParams{
			RunID: run, Token: token, RevertedRun: run, Missing: chunk.UserIds,
			Report: []byte(`{"users_checked": 200000, "alive_missing": 0, "dead_present": 0}`),
		})
		if judged.Breaker != "" {
			p.t.Errorf("refused: %s", judged.Message)
		}
		return err
	})
	inThePast(run)
	large("UPDATE orphan_cleaner.restores SET state = 'restored' WHERE run_id = $1")
	take("RevertChunk", func() error {
		gone, err := q.RevertChunk(ctx, db.RevertChunkParams{
			RunID: run, Token: token, RevertedRun: run, Day: chunk.Day, FirstPage: chunk.FirstPage, Pages: 64, UserIds: chunk.UserIds,
			CheckedFrom: snapshot(), Target: "conversation_members",
		})
		if gone == 0 {
			p.t.Error("nothing was deleted once more")
		}
		return err
	})
}

// settingsOfARun are those of a run with the documented defaults.
func settingsOfARun(t *testing.T) []byte {
	t.Helper()
	text, err := settings.DefaultRun().JSON()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A header names an index or says that there is none, unless the query reads no
// table of ours.
func TestHeadersNameIndexes(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	indexes := parents(d, "i,I")
	for query, header := range headers(t) {
		switch {
		case !strings.Contains(header, "Locks: "):
			t.Errorf("the header of %s does not say what it locks", query)
		case strings.Contains(header, "Locks: none"), strings.Contains(header, "Index: none"), len(wanted(header, indexes)) > 0:
		default:
			t.Errorf("the header of %s names no index that there is: %s", query, header)
		}
	}
}
