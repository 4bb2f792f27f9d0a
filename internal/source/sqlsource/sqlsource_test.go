package sqlsource_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/source/sqlsource"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// people are n new ids.
func people(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
	}
	return ids
}

// auth is the database of auth-service, in which these users live.
func auth(t *testing.T, living ...uuid.UUID) *testdb.DB {
	t.Helper()
	db := testdb.NewEmpty(t)
	db.Exec(`CREATE TABLE users (id uuid PRIMARY KEY, name text, deleted_at timestamptz)`)
	db.Exec(`INSERT INTO users (id) SELECT unnest($1::uuid[])`, living)
	return db
}

func dial(t *testing.T, cfg source.Config) *sqlsource.Source {
	t.Helper()
	cfg.MaxAttempts = 1
	client, err := sqlsource.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestMissing(t *testing.T) {
	t.Parallel()
	ids := people(source.MaxBatch)
	db := auth(t, ids...)
	db.Exec(`UPDATE users SET deleted_at = now() WHERE id = ANY ($1)`, ids[3:4])
	db.Exec(`DELETE FROM users WHERE id = $1`, ids[50])
	client := dial(t, source.Config{URL: db.URL})
	for range 3 { // described anew, and from what is known of the statement
		missing, err := client.Missing(t.Context(), ids)
		if err != nil || !slices.Equal(missing, []uuid.UUID{ids[3], ids[50]}) {
			t.Errorf("missing %v, error %v", missing, err)
		}
	}
	if status, err := client.Health(t.Context()); err != nil || status != source.HealthServing {
		t.Errorf("health %v, %v", status, err)
	}
	if writes := testdb.One[int64](db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL`); writes != 0 {
		t.Errorf("%d transactions of the source write", writes)
	}
}

// An answer that does not add up, each made by the database itself.
func TestInvalidAnswers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		query  string // default: of the view living
		lie    string // after the program has started
		reason string
	}{
		"nobody asked for": {lie: `CREATE OR REPLACE VIEW living AS SELECT gen_random_uuid() AS id, users.id AS by FROM users`, reason: "foreign_id"},
		"NULL":             {lie: `CREATE OR REPLACE VIEW living AS SELECT NULL::uuid AS id, users.id AS by FROM users`, reason: "unparsable_id"},
		"rows of a join":   {lie: `CREATE OR REPLACE VIEW living AS SELECT users.id, users.id AS by FROM users, generate_series(1, 2)`, reason: "too_many_users"},
		"rows without end": {lie: `CREATE OR REPLACE VIEW living AS SELECT users.id, users.id AS by FROM users, (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) TABLE n) AS endless`, reason: "too_many_users"},
		"dropped":          {lie: `DROP VIEW living`, reason: "status_failed_precondition"},
		"another type": {
			lie:    `DROP VIEW living; CREATE VIEW living AS SELECT users.id::text AS id, users.id AS by FROM users`,
			reason: "malformed",
		},
		"a function that writes": {
			lie: `CREATE FUNCTION note(u uuid) RETURNS uuid LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO users (id) VALUES (gen_random_uuid()) RETURNING u'; ` +
				`CREATE OR REPLACE VIEW living AS SELECT note(users.id) AS id, users.id AS by FROM users`,
			reason: "status_permission_denied",
		},
		"rights lost": {lie: `REVOKE SELECT ON living FROM asker`, reason: "status_permission_denied"},
		"a policy hides users": {
			query: `SELECT id FROM users WHERE id = ANY($1)`,
			lie:   `ALTER TABLE users ENABLE ROW LEVEL SECURITY`, reason: "status_permission_denied",
		},
		"an error in mid-answer": {lie: `CREATE OR REPLACE VIEW living AS SELECT users.id, users.id AS by FROM users WHERE 1 / (length(users.name) - 1) = 1 OR users.name = 'b'`, reason: "status_internal"},
		"no row and no end":      {lie: `CREATE OR REPLACE VIEW living AS SELECT users.id, users.id AS by FROM users, (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT FROM n WHERE i = 2) AS endless`, reason: "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ids := people(3)
			db := auth(t, ids...)
			db.Exec(`UPDATE users SET name = 'a' WHERE id = $1`, ids[2])
			db.Exec(`CREATE VIEW living AS SELECT id, id AS by FROM users`)
			role := testdb.One[string](db, `SELECT 'asker_' || oid FROM pg_database WHERE datname = current_database()`)
			db.Exec(`CREATE ROLE ` + role)
			login := db.Login(role)
			db.Exec(`GRANT SELECT ON users, living TO ` + role)
			if test.query == "" {
				test.query = `SELECT id FROM living WHERE by = ANY($1)`
			}
			cfg := source.Config{URL: login, Query: test.query, Timeout: 30 * time.Second}
			client := dial(t, cfg)
			if missing, err := client.Missing(t.Context(), ids); err != nil || len(missing) != 0 {
				t.Fatalf("before the lie: missing %v, error %v", missing, err)
			}
			for statement := range strings.SplitSeq(strings.ReplaceAll(test.lie, "asker", role), ";") {
				db.Exec(statement)
			}
			if strings.HasPrefix(test.lie, "DROP VIEW living;") {
				db.Exec(`GRANT SELECT ON living TO ` + role)
			}
			if test.reason == "deadline" {
				cfg.Timeout = 300 * time.Millisecond
				client = dial(t, cfg)
			}
			missing, err := client.Missing(t.Context(), ids)
			failed, ok := errors.AsType[*source.BatchError](err)
			if !ok || failed.Reason != test.reason || missing != nil {
				t.Errorf("missing %v, error %v, want the reason %s", missing, err, test.reason)
			}
			if n := testdb.One[int](db, `SELECT count(*) FROM users`); n != len(ids) {
				t.Errorf("the query wrote %d users", n-len(ids))
			}
		})
	}
}

// Functions of others named like those of PostgreSQL, and found first, change nothing.
func TestFunctionsNamedLikeBuiltIns(t *testing.T) {
	t.Parallel()
	ids := people(2)
	db := auth(t, ids...)
	role := testdb.One[string](db, `SELECT 'shadowed_' || oid FROM pg_database WHERE datname = current_database()`)
	db.Exec(`CREATE ROLE ` + role)
	login := db.Login(role)
	db.Exec(`GRANT SELECT ON users TO ` + role)
	db.Exec(`ALTER TABLE users ENABLE ROW LEVEL SECURITY`)
	db.Exec(`CREATE POLICY none ON users USING (false)`)
	db.Exec(`CREATE FUNCTION public.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT text 'lies' $$`)
	db.Exec(`CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS $$ SELECT false $$`)
	db.Exec(`ALTER DATABASE "` + db.Name + `" SET search_path = public, pg_catalog`)
	client := dial(t, source.Config{URL: login})
	missing, err := client.Missing(t.Context(), ids)
	if failed, ok := errors.AsType[*source.BatchError](err); !ok || failed.Reason != "status_permission_denied" {
		t.Errorf("missing %v, error %v", missing, err)
	}
}

// What a query must be is seen before it is asked anything.
func TestRefusesQueries(t *testing.T) {
	t.Parallel()
	db := auth(t, people(20)...)
	db.Exec(`CREATE FUNCTION note(u uuid) RETURNS uuid LANGUAGE plpgsql AS 'BEGIN INSERT INTO users VALUES (gen_random_uuid()); RETURN u; END'`)
	db.Exec(`CREATE FUNCTION hidden(u uuid) RETURNS uuid LANGUAGE plpgsql STABLE AS 'BEGIN PERFORM public.note(u); RETURN u; END'`)
	db.Exec(`CREATE TABLE guests (id uuid, email text, number bigint)`)
	db.Exec(`CREATE VIEW recent AS SELECT id FROM users ORDER BY name LIMIT 50`)
	before := db.Snapshot("users")
	for query, says := range map[string]string{
		`SELECT id FROM users`:                                                                 "one parameter",
		`SELECT id FROM users WHERE id = $1`:                                                   "one parameter",
		`SELECT id FROM users WHERE id = ANY($1) AND name = $2`:                                "one parameter",
		`SELECT number FROM guests WHERE number = ANY($1)`:                                     "one parameter",
		`SELECT name FROM users WHERE id = ANY($1)`:                                            "one column of type uuid",
		`SELECT id, name FROM users WHERE id = ANY($1)`:                                        "one column of type uuid",
		`SELECT id::text FROM users WHERE id = ANY($1)`:                                        "one column of type uuid",
		`SELECT WHERE '{}'::uuid[] = $1`:                                                       "one column of type uuid",
		`SELECT id FROM user WHERE id = ANY($1)`:                                               `column "id" does not exist`,
		`SELECT id FROM nowhere WHERE id = ANY($1)`:                                            `relation "nowhere" does not exist`,
		`SELEKT id FROM users WHERE id = ANY($1)`:                                              "syntax error",
		`SELECT id FROM users WHERE id = ANY($1); SELECT 1`:                                    "multiple commands",
		`DELETE FROM users WHERE id = ANY($1) RETURNING id`:                                    "it writes",
		`INSERT INTO users SELECT unnest($1::uuid[]) RETURNING id`:                             "it writes",
		`WITH gone AS (DELETE FROM users WHERE id = ANY($1) RETURNING id) SELECT id FROM gone`: "it writes",
		`SELECT id FROM users WHERE id = ANY($1) FOR UPDATE`:                                   "it writes, or locks rows",
		`SELECT note(u) FROM unnest($1::uuid[]) AS u`:                                          "volatile",
		`SELECT id FROM users WHERE id = ANY($1) AND random() < 0.5`:                           "random, which is volatile",
		`SELECT id FROM users WHERE id = ANY($1) LIMIT 99`:                                     "it leaves users out, by LIMIT",
		`SELECT id FROM users WHERE id = ANY($1) ORDER BY id FETCH FIRST ROW WITH TIES`:        "it leaves users out, by LIMIT",
		`SELECT id FROM users WHERE id = ANY($1) OFFSET 1`:                                     "it leaves users out, by LIMIT",
		`SELECT id FROM recent WHERE id = ANY($1)`:                                             "it leaves users out, by LIMIT",
		`SELECT DISTINCT id FROM (SELECT id FROM users WHERE id = ANY($1) LIMIT 50) AS found`:  "it leaves users out, by LIMIT",
		`SELECT id FROM (SELECT id FROM users WHERE id = ANY($1) LIMIT 5) AS found ORDER BY 1`: "it leaves users out, by LIMIT",
		`WITH f AS (SELECT id FROM users LIMIT 5) SELECT id FROM f WHERE id = ANY($1)`:         "it leaves users out, by LIMIT",
		`SELECT id FROM users WHERE id = ANY($1) INTERSECT (SELECT id FROM users LIMIT 5)`:     "it leaves users out, by LIMIT",
		`SELECT id FROM users TABLESAMPLE BERNOULLI (99) WHERE id = ANY($1)`:                   "it leaves users out, by LIMIT",
		`SELECT hidden(u) FROM unnest($1::uuid[]) AS u`:                                        "cannot execute INSERT in a read-only transaction",
		`SELECT id FROM users WHERE $1::uuid[] IS NOT NULL`:                                    "a user who does not exist",
		`SELECT unnest($1::uuid[])`:                                                            "a user who does not exist",
	} {
		client, err := sqlsource.Dial(t.Context(), source.Config{URL: db.URL, Query: query})
		if err == nil {
			_ = client.Close()
		}
		if !errors.Is(err, sqlsource.ErrQuery) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want it to say %q", query, err, says)
		}
	}
	if diff := before.Diff(db.Snapshot("users")); diff != "" {
		t.Errorf("a query that was to be refused wrote:\n%s", diff)
	}
	for _, query := range []string{
		source.DefaultQuery,
		`SELECT id FROM users WHERE id = ANY($1) AND coalesce(name, 'random()') <> 'note(u)' AND (deleted_at IS NULL OR deleted_at > now())`,
		`SELECT u.id FROM unnest($1::uuid[]) AS asked(id) JOIN users AS u USING (id)`,
		`SELECT asked.id FROM unnest($1::uuid[]) AS asked(id), LATERAL (SELECT FROM users AS u WHERE u.id = asked.id LIMIT 1) AS found OFFSET 0`,
		`SELECT id FROM users WHERE id = ANY($1) AND (name IS NULL OR name <> (SELECT email FROM guests ORDER BY number LIMIT 1))`,
		`SELECT id FROM users AS u WHERE id = ANY($1) AND (SELECT count(*) FROM (SELECT FROM guests AS g WHERE g.id = u.id LIMIT 1) AS one) = 0`,
		`WITH asked AS MATERIALIZED (SELECT unnest($1::uuid[]) AS id) SELECT u.id FROM users AS u JOIN asked USING (id)`,
	} {
		dial(t, source.Config{URL: db.URL, Query: query})
	}
}

// What it returns for users who exist is seen before it is asked anything, where one is known.
func TestRefusesQueriesByTheKnown(t *testing.T) {
	t.Parallel()
	ids := people(2)
	db := auth(t, ids...)
	db.Exec(`UPDATE users SET deleted_at = now() WHERE id = $1`, ids[1])
	for query, says := range map[string]string{
		`SELECT NULL::uuid FROM users WHERE id = ANY($1)`:                                       "NULL in place of a user's id",
		`SELECT u.id FROM users AS u, generate_series(1, 3) WHERE u.id = ANY($1)`:               "more than the 1 users asked for",
		`SELECT o.id FROM users AS u, users AS o WHERE u.id = ANY($1) AND o.id <> u.id`:         "who was not asked for",
		`SELECT id FROM users WHERE id = ANY($1) AND 1 / (length(coalesce(name, '1')) - 1) > 0`: "division by zero",
	} {
		client, err := sqlsource.Dial(t.Context(), source.Config{URL: db.URL, Query: query, Known: ids[:1]})
		if err == nil {
			_ = client.Close()
		}
		if !errors.Is(err, sqlsource.ErrQuery) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want it to say %q", query, err, says)
		}
	}
	// Whether they exist is for the canaries to say.
	dial(t, source.Config{URL: db.URL, Known: ids[1:]})
}

// A large table without an index is read for each batch: a warning, once.
func TestWarnsOfScan(t *testing.T) {
	t.Parallel()
	db := auth(t)
	db.Exec(`ALTER TABLE users DROP CONSTRAINT users_pkey`)
	db.Exec(`ALTER TABLE users SET (autovacuum_enabled = false)`)
	db.Exec(`INSERT INTO users (id) SELECT gen_random_uuid() FROM generate_series(1, 40000)`)
	if scanned, err := dial(t, source.Config{URL: db.URL}).CheckQuery(t.Context()); err != nil || !strings.HasPrefix(scanned, "users (") {
		t.Errorf("never analyzed: scanned %q, error %v", scanned, err)
	}
	db.Exec(`ANALYZE users`)
	var log bytes.Buffer
	cfg := source.Config{URL: db.URL, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	if scanned, err := dial(t, cfg).CheckQuery(t.Context()); err != nil || scanned != "users (40000 rows)" {
		t.Errorf("scanned %q, error %v", scanned, err)
	}
	if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "users (40000 rows)") || !strings.Contains(text, "CREATE UNIQUE INDEX") {
		t.Errorf("the log says %s", text)
	}
	db.Exec(`CREATE UNIQUE INDEX ON users (id)`)
	db.Exec(`ANALYZE users`)
	if scanned, err := dial(t, cfg).CheckQuery(t.Context()); err != nil || scanned != "" {
		t.Errorf("with an index: scanned %q, error %v", scanned, err)
	}
	// A few pages are read from end to end even so.
	db.Exec(`DELETE FROM users WHERE id > '50000000-0000-0000-0000-000000000000'`)
	db.Exec(`VACUUM FULL ANALYZE users`)
	if scanned, err := dial(t, cfg).CheckQuery(t.Context()); err != nil || scanned != "" {
		t.Errorf("with an index on 90 pages: scanned %q, error %v", scanned, err)
	}
	// An index is smaller than a wide table, and yet all of it is read.
	db.Exec(`UPDATE users SET name = repeat('a', 500)`)
	db.Exec(`VACUUM FULL users`)
	db.Exec(`VACUUM ANALYZE users`)
	cfg.Query = `SELECT id FROM users WHERE id::text = ANY($1::uuid[]::text[])`
	if scanned, err := dial(t, cfg).CheckQuery(t.Context()); err != nil || !strings.HasPrefix(scanned, "users (12") {
		t.Errorf("an index from end to end: scanned %q, error %v", scanned, err)
	}
}

// A server that takes a connection and says nothing more holds nobody up.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	enough, cancel := context.WithTimeout(t.Context(), 5*time.Second) // fewer than it takes to give up the connection
	defer cancel()
	client, err := sqlsource.Dial(enough, source.Config{
		URL: "postgresql://asker@" + listener.Addr().String() + "/auth?sslmode=disable", Timeout: 100 * time.Millisecond, MaxAttempts: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if enough.Err() != nil {
		t.Error("the program waited for the server")
	}
	_, err = client.Missing(t.Context(), people(1))
	if failed, ok := errors.AsType[*source.BatchError](err); !ok || failed.Reason != source.Deadline {
		t.Errorf("error %v", err)
	}
}

// The server may come later: the query is checked then.
func TestDialsLater(t *testing.T) {
	t.Parallel()
	client := dial(t, source.Config{URL: "postgres://nobody:hunter2@127.0.0.1:1/auth", Query: "SELECT 1"})
	_, err := client.Health(t.Context())
	if err == nil || !strings.Contains(err.Error(), "(transport)") || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
		t.Errorf("health: %v", err)
	}
	_, err = client.Missing(t.Context(), people(1))
	if failed, ok := errors.AsType[*source.BatchError](err); !ok || failed.Reason != source.Transport || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("missing: %v", err)
	}
}

func TestRefusesSettings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg  source.Config
		says string
	}{
		"port":  {source.Config{URL: "postgresql://auth:hunter2@db:99999999/auth"}, "AUTH_SERVICE_URL"},
		"CA":    {source.Config{URL: "postgresql://auth@db/auth", CAFile: "ca.pem"}, "sslrootcert=FILE"},
		"token": {source.Config{URL: "postgresql://auth@db/auth", TokenFile: "token"}, "token file is set"},
		"proxy": {source.Config{URL: "postgresql://auth@db/auth", Proxy: "http://proxy:3128"}, "AUTH_SERVICE_PROXY"},
	} {
		_, err := sqlsource.Dial(t.Context(), test.cfg)
		if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v, want it to say %q", name, err, test.says)
		}
	}
}

// A batch costs the network once, and leaves its session as it was.
func TestOneRoundTrip(t *testing.T) {
	t.Parallel()
	ids := people(source.MaxBatch)
	trips := &trips{}
	client := dial(t, source.Config{URL: trips.between(t, auth(t, ids[1:]...).URL), Concurrency: 1})
	var counts []int64 // the query is described once, and a session that was idle for a second is asked whether it lives
	for range 9 {
		trips.n.Store(0)
		if missing, err := client.Missing(t.Context(), ids); err != nil || !slices.Equal(missing, ids[:1]) {
			t.Fatalf("missing %v, error %v", missing, err)
		}
		counts = append(counts, trips.n.Load())
	}
	if slices.Min(counts) != 1 {
		t.Errorf("%v round trips for a batch", counts)
	}
	var left string
	if err := client.Pool().QueryRow(t.Context(), `SELECT concat_ws(' ', current_setting('row_security'), current_setting('statement_timeout'), current_setting('transaction_read_only'))`).Scan(&left); err != nil || left != "on 0 off" {
		t.Errorf("after it the session's row_security, statement_timeout and transaction_read_only are %s, error %v", left, err)
	}
}

// trips counts how often the server was waited for.
type trips struct{ n atomic.Int64 }

// between leads to a database through a proxy.
func (c *trips) between(t *testing.T, connection string) string {
	t.Helper()
	at, err := url.Parse(connection)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	server := at.Host
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				t.Error(err)
				return
			}
			var answered atomic.Bool
			go func() {
				_, _ = io.Copy(seen{far, func() {
					if answered.CompareAndSwap(true, false) {
						c.n.Add(1)
					}
				}}, near)
				_ = far.Close()
			}()
			go func() {
				_, _ = io.Copy(seen{near, func() { answered.Store(true) }}, far)
				_ = near.Close()
			}()
		}
	}()
	at.Host = listener.Addr().String()
	return at.String()
}

// seen is a connection whose bytes are announced before they are written.
type seen struct {
	io.Writer
	before func()
}

func (s seen) Write(bytes []byte) (int, error) {
	s.before()
	return s.Writer.Write(bytes)
}
