package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// world is a messaging-service with its auth-service, and what a run may do in it.
//
// Of its 600 users with two members each, 10 went 40 days ago: their 20 members
// are due. The ledger knows them, and three more: one on hold, one of whose
// members one is young, and one who is alive again.
type world struct {
	t       *testing.T
	program string // the path of the built program
	url     string // of the database, as the superuser
	cluster *pgtemp.Cluster
	pool    *pgxpool.Pool
	auth    *authfake.Server
	env     []string // settings that each run has

	living, dead []uuid.UUID
	held, young  uuid.UUID // dead too
	before       int64     // due rows that went before the fault
	contents     []content // targets beside the members

	note note
}

// note is what a row of the matrix shows, written down as it was seen.
type note struct {
	held            map[string]bool // invariants that were asserted and held
	exit            string
	state           string
	shows           string
	failed, skipped bool
}

const (
	users   = 600
	perUser = 2
	due     = 10 * perUser // members, plus one of the user with a young one

	chunkRows = 5
)

// flags are those of every run: 30 batches to verify, the 21 due members in five chunks.
func flags() []string {
	return []string{"run", "--json", "--batch-size=20", fmt.Sprintf("--chunk-rows=%d", chunkRows), "--lease=1m"}
}

// newWorld is a world in a database of the cluster that all rows share.
func newWorld(t *testing.T, program string) *world {
	t.Helper()
	db := testdb.New(t)
	w := emptyWorld(t, program, db.URL, db.Pool)
	w.cluster = db.Cluster()
	w.populate()
	return w
}

// emptyWorld has nobody in it yet.
func emptyWorld(t *testing.T, program, url string, pool *pgxpool.Pool) *world {
	t.Helper()
	w := &world{t: t, program: program, url: url, pool: pool, note: note{held: map[string]bool{}}}
	w.serve(authfake.Options{})
	w.env = []string{"DATABASE_URL=" + url}
	return w
}

// serve starts an auth-service where the living are known, in place of the last.
func (w *world) serve(options authfake.Options) {
	w.t.Helper()
	auth, err := authfake.Start(options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(auth.Stop)
	auth.Add(w.living...)
	w.auth = auth
}

func (w *world) populate() {
	w.t.Helper()
	w.exec(`INSERT INTO conversations (id) SELECT md5('conversation ' || n)::uuid FROM generate_series(0, 49) AS n`)
	w.exec(`INSERT INTO conversation_members (conversation_id, user_id, role, joined_at, user_public_key)
		SELECT md5('conversation ' || (u * 7 + c) % 50)::uuid, md5('user ' || u)::uuid,
			(ARRAY['member', 'admin', 'owner'])[1 + u % 3], now() - interval '60 days' - u * interval '1 s', 'key ' || u
		FROM generate_series(1, $1::int) AS u, generate_series(1, $2::int) AS c`, users, perUser)
	ids := collect[uuid.UUID](w, `SELECT md5('user ' || u)::uuid FROM generate_series(1, $1::int) AS u`, users)
	w.dead, w.living = ids[:12], ids[12:]
	w.held, w.young = w.dead[10], w.dead[11]
	w.auth.Add(w.living...)
	w.exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES ($1, 'court order')`, w.held)
	w.exec(`UPDATE conversation_members SET joined_at = now() - interval '5 days'
		WHERE (conversation_id, user_id) = (SELECT conversation_id, user_id FROM conversation_members WHERE user_id = $1 LIMIT 1)`, w.young)
	w.exec(`WITH earlier AS (
			INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings)
			SELECT 'clean', 'incomplete', 'finish', at, at, at, '1m', 'earlier:1', 'test', '{}' FROM (SELECT now() - interval '1 hour' AS at) AS x
			RETURNING run_id)
		INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence)
		SELECT u, now() - interval '40 days', now() - interval '1 hour', run_id, 900, 'sightings'
		FROM earlier, unnest($1::uuid[]) AS u`, append(slices.Clone(w.dead), w.living[0]))
	w.witness()
	w.settle()
}

// settle waits until whatever other tests were writing when it was called has
// ended: a run leaves every row that is younger than the oldest transaction of the
// server when its user was checked.
func (w *world) settle() {
	w.t.Helper()
	next := one[string](w, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text`)
	eventually(w.t, "the transactions of others have ended", func() bool {
		return w.count(`pg_stat_activity WHERE datname <> current_database() AND backend_xid IS NOT NULL AND age(backend_xid) > age(($1::text)::xid8::xid)`, next) == 0
	})
}

// witness writes down how the world is and which members may go. Ours is a
// schema of its own, which the program does not look at.
func (w *world) witness() {
	w.t.Helper()
	w.exec(`DROP SCHEMA IF EXISTS witness CASCADE`)
	w.exec(`CREATE SCHEMA witness`)
	w.exec(`CREATE TABLE witness.members AS TABLE conversation_members`)
	w.exec(`CREATE TABLE witness.ledger AS TABLE orphan_cleaner.candidates`)
	w.exec(`CREATE TABLE witness.due AS SELECT conversation_id, user_id FROM conversation_members WHERE false`)
	w.exec(`INSERT INTO witness.due SELECT conversation_id, user_id FROM conversation_members
		WHERE user_id = ANY ($1) AND user_id <> $2 AND joined_at < now() - interval '30 days'`, w.dead, w.held)
	w.witnessContents()
}

// app is something that messaging-service does: the witness sees it happen. The
// statement names the table as %s.
func (w *world) app(statement string, args ...any) {
	w.t.Helper()
	w.exec(fmt.Sprintf(statement, "conversation_members"), args...)
	w.exec(fmt.Sprintf(statement, "witness.members"), args...)
	w.exec(`DELETE FROM witness.due AS d WHERE NOT EXISTS (SELECT FROM witness.members AS m
		WHERE (m.conversation_id, m.user_id) = (d.conversation_id, d.user_id) AND m.joined_at < now() - interval '30 days')`)
}

// spare takes members off the list of those that may go: from is what follows
// WHERE in witness.due.
func (w *world) spare(where string, args ...any) {
	w.t.Helper()
	w.exec(`DELETE FROM witness.due WHERE `+where, args...)
}

func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.Exec(context.Background(), statement, args...); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}

func one[T any](w *world, query string, args ...any) T {
	w.t.Helper()
	var value T
	if err := w.pool.QueryRow(context.Background(), query, args...).Scan(&value); err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return value
}

func collect[T any](w *world, query string, args ...any) []T {
	w.t.Helper()
	rows, err := w.pool.Query(context.Background(), query, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		w.t.Fatalf("%s: %v", query, err)
	}
	return values
}

func (w *world) count(from string, args ...any) int64 {
	w.t.Helper()
	return one[int64](w, "SELECT count(*) FROM "+from, args...)
}

// begin starts a run with these flags beside those of every run.
func (w *world) begin(more ...string) *process {
	w.t.Helper()
	return spawn(w.t, w.settings(), w.program, append(flags(), more...)...)
}

// failing starts a run with a failpoint: name[:n]=action.
func (w *world) failing(point string, more ...string) *process {
	w.t.Helper()
	return spawn(w.t, append(w.settings(), "ORPHAN_CLEANER_TEST_FAILPOINT="+point), w.program, append(flags(), more...)...)
}

// settings have patience with an auth-service whose machine is busy with other tests.
func (w *world) settings() []string {
	return append([]string{"AUTH_SERVICE_URL=" + w.auth.URL(), "AUTH_SERVICE_TIMEOUT=30s"}, w.env...)
}

// run makes a run to its end.
func (w *world) run(more ...string) ended {
	w.t.Helper()
	return w.begin(more...).wait()
}

// leaseEnds lets the lease of the open run end, as time would.
func (w *world) leaseEnds() {
	w.t.Helper()
	w.exec(`UPDATE orphan_cleaner.runs SET heartbeat_at = now() - lease - interval '1 s' WHERE state = 'running'`)
}

// sessionsEnd waits until the server has given up the sessions of a program that
// is gone: only then is it known what it committed.
func (w *world) sessionsEnd() {
	w.t.Helper()
	eventually(w.t, "the server gives up the program's sessions", func() bool {
		return w.count(`pg_stat_activity WHERE datname = current_database() AND application_name = 'orphan-cleaner'`) == 0
	})
}

// file writes a file that lasts as long as the test.
func (w *world) file(name string, content []byte) (path string) {
	w.t.Helper()
	path = filepath.Join(w.t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}
