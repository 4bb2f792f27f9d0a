package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Users and conversations are few, so that statements meet the same rows again and again.
const (
	workloadSteps         = 1500
	workloadUsers         = 25
	workloadConversations = 20
)

// workload is messaging-service at work: by the same seed it says the same to each database, and notes each answer.
type workload struct {
	t        *testing.T
	random   *rand.Rand
	sessions []*pgx.Conn
	prepared []string // transactions that wait for their second phase
	answers  []string
}

// say is one message of a session, one statement or several. Noted are rows, command tags, notices and the error.
func (a *workload) say(session int, statements string) {
	results, err := a.sessions[session].PgConn().Exec(a.t.Context(), statements).ReadAll()
	note := fmt.Sprintf("%d> %s", session, strings.Join(strings.Fields(statements), " "))
	for _, result := range results {
		rows := make([]string, len(result.Rows))
		for i, row := range result.Rows {
			rows[i] = string(slices.Concat(row...))
		}
		slices.Sort(rows) // their order is the plan's
		note += fmt.Sprintf("\n   %s %v", result.CommandTag, rows)
	}
	a.answers = append(a.answers, note+failure(err))
}

func failure(err error) string {
	var said *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &said):
		return fmt.Sprintf("\n   %s %s %s", said.Code, said.ConstraintName, said.Message)
	default:
		return "\n   " + err.Error()
	}
}

func (a *workload) user() string         { return a.id("u", workloadUsers) }
func (a *workload) conversation() string { return a.id("c", workloadConversations) }
func (a *workload) id(kind string, of int) string {
	return fmt.Sprintf("md5('%s%d')::uuid", kind, a.random.IntN(of))
}

// joins are rows of VALUES, some of which no table would take.
func (a *workload) joins() string {
	var rows []string
	for range 1 + a.random.IntN(4) {
		role := []string{"member", "member", "member", "owner", "admin", "member", "nobody"}[a.random.IntN(7)]
		rows = append(rows, fmt.Sprintf("(%s, %s, '%s', timestamptz '2026-01-01' + interval '%d hours')", a.conversation(), a.user(), role, a.random.IntN(1000)))
	}
	return "VALUES " + strings.Join(rows, ", ")
}

const into = "INSERT INTO conversation_members (conversation_id, user_id, role, joined_at) "

// change is one statement that writes.
func (a *workload) change() string {
	switch a.random.IntN(16) {
	case 0, 1:
		return into + a.joins()
	case 2:
		return into + a.joins() + " ON CONFLICT DO NOTHING RETURNING role"
	case 3:
		return into + "SELECT DISTINCT ON (v.c, v.u) * FROM (" + a.joins() + ") AS v (c, u, r, j) ORDER BY v.c, v.u, v.j ON CONFLICT (conversation_id, user_id) DO UPDATE SET last_read_at = excluded.joined_at, is_muted = true RETURNING is_muted"
	case 4, 5:
		return fmt.Sprintf("DELETE FROM conversation_members WHERE (conversation_id, user_id) = (%s, %s) RETURNING *", a.conversation(), a.user())
	case 6:
		return "DELETE FROM conversation_members WHERE user_id = " + a.user()
	case 7:
		return "DELETE FROM ONLY conversation_members AS m USING conversations AS c WHERE c.id = m.conversation_id AND c.kind = 'direct' AND m.user_id > " + a.user() + " RETURNING m.user_id, c.name"
	case 8:
		return "WITH gone AS (DELETE FROM conversation_members WHERE role = 'owner' AND user_id < " + a.user() + " RETURNING *) INSERT INTO archive SELECT conversation_id, user_id FROM gone"
	case 9:
		return "DELETE FROM conversations WHERE id = " + a.conversation()
	case 10:
		return fmt.Sprintf("INSERT INTO conversations (id, kind, name, created_at, updated_at) VALUES (%s, '%s', 'again', '2026-01-01', '2026-01-01') ON CONFLICT DO NOTHING",
			a.conversation(), []string{"direct", "group"}[a.random.IntN(2)])
	case 11:
		return "MERGE INTO conversation_members AS m USING (SELECT DISTINCT ON (v.c, v.u) * FROM (" + a.joins() + ") AS v (c, u, r, j) ORDER BY v.c, v.u, v.j) AS v ON m.conversation_id = v.c AND m.user_id = v.u" +
			" WHEN MATCHED AND v.j < '2026-01-15' THEN DELETE WHEN MATCHED THEN UPDATE SET role = v.r WHEN NOT MATCHED THEN " +
			"INSERT (conversation_id, user_id, role, joined_at) VALUES (v.c, v.u, v.r, v.j)"
	case 12:
		return "UPDATE conversation_members SET last_read_at = '2026-02-02', user_id = " + a.user() + " WHERE conversation_id = " + a.conversation() + " AND user_id = " + a.user()
	case 13:
		return "EXECUTE leave (" + a.conversation() + ", " + a.user() + ")"
	case 14:
		return "UPDATE conversations AS c SET member_count = (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)"
	default:
		return "DELETE FROM conversation_members WHERE false; DELETE FROM no_such_table"
	}
}

// step is what one of its processes does: a statement, a transaction, or two that meet.
func (a *workload) step() {
	session := a.random.IntN(2)
	switch a.random.IntN(14) {
	case 0, 1, 2, 3, 4:
		a.say(session, a.change())
	case 5: // a block, which the first error ends
		a.say(session, "BEGIN; "+a.change()+"; "+a.change()+"; "+a.change()+"; COMMIT")
		a.say(session, "ROLLBACK")
	case 6: // savepoints
		a.say(session, "BEGIN")
		for _, name := range []string{"a", "b", "c"} {
			a.say(session, "SAVEPOINT "+name)
			a.say(session, a.change())
			if a.random.IntN(2) == 0 {
				a.say(session, "ROLLBACK TO "+name)
			}
		}
		a.say(session, []string{"COMMIT", "ROLLBACK"}[a.random.IntN(2)])
	case 7: // two phases; what it holds is in the way of others meanwhile
		gid := fmt.Sprintf("'%s %d'", a.sessions[0].Config().Database, len(a.answers))
		a.say(session, "BEGIN; "+a.change()+"; DELETE FROM conversation_members WHERE user_id = "+a.user()+"; PREPARE TRANSACTION "+gid)
		a.say(session, "ROLLBACK")
		a.prepared = append(a.prepared, gid)
		a.say(session, a.change())
		a.second()
	case 8:
		a.copies(session)
	case 9: // write skew: whoever commits last must not
		conversation := a.conversation()
		read := "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM conversation_members WHERE conversation_id = " + conversation
		a.say(0, read)
		a.say(1, read)
		a.say(0, into+"VALUES ("+conversation+", "+a.user()+", 'owner', '2026-01-01') ON CONFLICT DO NOTHING; DELETE FROM conversation_members WHERE role = 'admin' AND conversation_id = "+conversation)
		a.say(1, into+"VALUES ("+conversation+", md5('late')::uuid, 'owner', '2026-01-01') ON CONFLICT DO NOTHING; DELETE FROM conversation_members WHERE role = 'member' AND conversation_id = "+conversation)
		a.say(0, "COMMIT")
		a.say(1, "COMMIT")
	case 10: // the row was changed since the snapshot
		a.say(0, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM conversation_members")
		a.say(1, "DELETE FROM conversation_members WHERE user_id = "+a.user())
		a.say(0, "DELETE FROM conversation_members WHERE conversation_id = "+a.conversation())
		a.say(0, "COMMIT")
	case 11: // a queue's way to wait for nobody
		conversation := a.conversation()
		a.say(0, "BEGIN; SELECT user_id FROM conversation_members WHERE conversation_id = "+conversation+" FOR UPDATE")
		a.say(1, "DELETE FROM conversation_members WHERE ctid IN (SELECT ctid FROM conversation_members WHERE user_id = "+a.user()+" FOR UPDATE SKIP LOCKED) RETURNING conversation_id")
		a.say(1, "SELECT user_id FROM conversation_members WHERE conversation_id = "+conversation+" FOR UPDATE NOWAIT")
		a.say(0, "COMMIT")
	case 12: // by a cursor
		a.say(session, "BEGIN; DECLARE c CURSOR FOR SELECT * FROM conversation_members WHERE user_id = "+a.user()+" ORDER BY conversation_id FOR UPDATE; MOVE c; DELETE FROM conversation_members WHERE CURRENT OF c; COMMIT")
		a.say(session, "ROLLBACK")
	default: // as roles that may do little, and in modes in which one may do nothing
		for _, as := range []string{
			"SET LOCAL ROLE workload_leaver", "SET LOCAL ROLE workload_nobody", "SET LOCAL session_replication_role = replica",
			"SET LOCAL search_path = pg_catalog", "SET TRANSACTION READ ONLY",
		} {
			a.say(session, "BEGIN; "+as+"; DELETE FROM public.conversation_members WHERE public.conversation_members.user_id = "+a.user()+"; COMMIT")
			a.say(session, "ROLLBACK")
		}
	}
}

// second ends a prepared transaction, one way or the other.
func (a *workload) second() {
	for _, gid := range a.prepared {
		a.say(0, []string{"COMMIT PREPARED ", "ROLLBACK PREPARED "}[a.random.IntN(2)]+gid)
	}
	a.prepared = nil
}

func (a *workload) copies(session int) {
	var rows strings.Builder
	for range 1 + a.random.IntN(5) {
		// The server's md5 is that of the ids elsewhere; a copy has ids of its own, and some of them twice.
		fmt.Fprintf(&rows, "00000000-0000-0000-0000-%012d\t00000000-0000-0000-0000-%012d\t2026-01-01\n", a.random.IntN(3), a.random.IntN(40))
	}
	tag, err := a.sessions[session].PgConn().CopyFrom(a.t.Context(), strings.NewReader(rows.String()), "COPY conversation_members (conversation_id, user_id, joined_at) FROM STDIN")
	a.answers = append(a.answers, fmt.Sprintf("%d> COPY %s\n   %s", session, rows.String(), tag)+failure(err))
	a.say(session, "DELETE FROM conversation_members WHERE conversation_id = '00000000-0000-0000-0000-000000000001' RETURNING user_id")
}

var (
	oid       = regexp.MustCompile(`workload_(plain|ours)`)
	ofThem    = regexp.MustCompile(`^(BEGIN|COMMIT|table public\.(conversations|conversation_members|archive): .*)`)
	aDeletion = regexp.MustCompile(`^table public\.conversation_members: DELETE`)
)

// decoded is what a subscriber to the application's tables gets, by transaction.
func decoded(t *testing.T, s *session) (changes []string) {
	t.Helper()
	rows, err := s.Query(t.Context(), "SELECT data FROM pg_logical_slot_get_changes(current_database(), NULL, NULL, 'include-xids', '0', 'skip-empty-xacts', '1')")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	from := 0
	for _, change := range all {
		if !ofThem.MatchString(change) {
			continue
		}
		if changes = append(changes, change); change == "COMMIT" {
			slices.Sort(changes[from:]) // their order is the plan's
			from = len(changes)
		}
	}
	return changes
}

// The application gets the same answer to each statement, rows, counts, notices and errors, with our schema and without it,
// writes the same rows, and sends the same changes to its subscribers. TRUNCATE alone is refused.
func TestWorkload(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	// No vacuum, whose locks come and go; and what is committed can be decoded at once.
	cluster, err := pgtemp.Start(ctx, pgtemp.Options{Settings: map[string]string{
		"wal_level": "logical", "max_prepared_transactions": "10", "autovacuum": "off", "synchronous_commit": "on",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	decodes := false
	// The folders of Debian and of npm's packages.
	for _, lib := range []string{"lib", "lib/postgresql"} {
		_, err := os.Stat(filepath.Join(cluster.BinDir(), "..", lib, "test_decoding.so"))
		decodes = decodes || err == nil
	}
	connect(t, cluster.URL("postgres"), "test", "CREATE ROLE workload_leaver", "CREATE ROLE workload_nobody")
	type outcome struct{ answers, rows, changes []string }
	play := func(database string, isOurs bool) (o outcome, s *session) {
		t.Helper()
		if err := dbsetup.CreateDatabase(ctx, cluster.URL("postgres"), database, ""); err != nil {
			t.Fatal(err)
		}
		if err := dbsetup.Schema(ctx, cluster.URL(database)); err != nil {
			t.Fatal(err)
		}
		if isOurs {
			if err := dbsetup.Migrate(ctx, cluster.URL(database)); err != nil {
				t.Fatal(err)
			}
		}
		s = connect(t, cluster.URL(database), "test",
			"CREATE TABLE archive (conversation_id uuid, user_id uuid)", "ALTER TABLE archive REPLICA IDENTITY FULL",
			"GRANT SELECT (user_id), DELETE ON conversation_members TO workload_leaver",
			"INSERT INTO conversations (id, kind, name, created_at, updated_at) SELECT md5('c' || n)::uuid, CASE n % 3 WHEN 0 THEN 'direct' ELSE 'group' END, 'c' || n, '2026-01-01', '2026-01-01' FROM generate_series(0, 19) AS n",
			"INSERT INTO conversations (id, created_at, updated_at) SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, '2026-01-01', '2026-01-01' FROM generate_series(0, 1) AS n",
			into+"SELECT md5('c' || c)::uuid, md5('u' || u)::uuid, CASE c % 3 WHEN 0 THEN 'owner' ELSE 'member' END, timestamptz '2026-01-01' + make_interval(hours => c * u) FROM generate_series(0, 19) AS c, generate_series(0, 24) AS u WHERE (c + u) % 2 = 0")
		a := &workload{t: t, random: rand.New(rand.NewPCG(1, 2))}
		for range 2 {
			cfg, err := pgx.ParseConfig(cluster.URL(database))
			if err != nil {
				t.Fatal(err)
			}
			cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
				a.answers = append(a.answers, n.Severity+" "+n.Message)
			}
			conn, err := pgx.ConnectConfig(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the cluster ends
			a.sessions = append(a.sessions, conn)
		}
		for session := range a.sessions {
			// Who meets a lock of the other session waits in vain: it goes on in this very goroutine.
			a.say(session, "SET lock_timeout = '200ms'; SET max_parallel_workers_per_gather = 0; PREPARE leave (uuid, uuid) AS DELETE FROM conversation_members WHERE (conversation_id, user_id) = ($1, $2) RETURNING user_id")
		}
		if decodes {
			s.exec(t, "SELECT pg_create_logical_replication_slot(current_database(), 'test_decoding')")
		}
		for range workloadSteps {
			a.step()
		}
		o.answers = a.answers
		for _, table := range []string{"conversations", "conversation_members", "archive"} {
			rows, err := s.Query(ctx, "SELECT '"+table+" ' || r::text COLLATE \"C\" FROM "+table+" AS r ORDER BY 1")
			if err != nil {
				t.Fatal(err)
			}
			all, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			o.rows = append(o.rows, all...)
		}
		if decodes {
			o.changes = decoded(t, s)
		}
		return o, s
	}
	plain, _ := play("workload_plain", false)
	ours, s := play("workload_ours", true)
	for i := range min(len(plain.answers), len(ours.answers)) {
		if want, got := oid.ReplaceAllString(plain.answers[i], ""), oid.ReplaceAllString(ours.answers[i], ""); got != want {
			t.Fatalf("answer %d of %d: without us\n%s\nwith us\n%s", i, len(plain.answers), want, got)
		}
	}
	if len(plain.answers) != len(ours.answers) {
		t.Errorf("%d answers without us, %d with us", len(plain.answers), len(ours.answers))
	}
	if diff := testdb.Snapshot(plain.rows).Diff(ours.rows); diff != "" {
		t.Errorf("other rows:\n%s", diff)
	}
	states := map[string]int{}
	for _, answer := range plain.answers {
		for _, state := range regexp.MustCompile(`(?m)^   ([0-9][0-9A-Z]{4}) `).FindAllStringSubmatch(answer, -1) {
			states[state[1]]++
		}
	}
	// 40001 twice over: of SERIALIZABLE and of REPEATABLE READ.
	for _, state := range []string{"23503", "23505", "23514", "25006", "25P02", "40001", "42501", "42P01", "55P03"} {
		if states[state] == 0 {
			t.Errorf("no statement failed with %s: %v", state, states)
		}
	}
	if !decodes {
		t.Log("without test_decoding: what is sent to subscribers is not compared")
		return
	}
	for i := range min(len(plain.changes), len(ours.changes)) {
		if plain.changes[i] != ours.changes[i] {
			t.Fatalf("change %d to subscribers: without us %s, with us %s", i, plain.changes[i], ours.changes[i])
		}
	}
	if len(plain.changes) != len(ours.changes) {
		t.Errorf("%d changes to subscribers without us, %d with us", len(plain.changes), len(ours.changes))
	}
	deletes := 0
	for _, change := range ours.changes {
		if aDeletion.MatchString(change) {
			deletes++
		}
	}
	if audited := s.number(t, "SELECT count(*) FROM conversation_members_audit"); audited != deletes {
		t.Errorf("%d members were deleted, %d are audited", deletes, audited)
	}
	t.Logf("%d answers, %d deletes, errors: %v", len(ours.answers), deletes, states)
}

// number asks a session for one.
func (s *session) number(t *testing.T, query string) (n int) {
	t.Helper()
	if err := s.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
