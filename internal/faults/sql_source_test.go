package faults

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// sqlRows are lies of a database that is asked for the users. Most are told about users
// who exist only, so that the query passes the check at the start of a run.
func sqlRows() []row {
	refused := want{exit: 3, state: "refused", shows: "breaker new-missing-share", gone: nothing}
	invalid := func(reason string) want { return want{exit: 1, state: "incomplete", shows: reason, gone: nothing} }
	failed := func(shows string) want { return want{exit: 1, state: "failed", shows: shows, gone: nothing} }
	view := func(id, from string) string {
		return `CREATE OR REPLACE VIEW living AS SELECT ` + id + ` AS id, u.id AS asked FROM ` + from
	}
	return []row{
		{"the table is truncated", lies(`TRUNCATE users`, refused)},
		{"a view with a wrong filter", lies(view("u.id", "users AS u WHERE get_byte(uuid_send(u.id), 15) % 2 = 0"), refused)},
		{"flapping between two truths, SQL", lies(view("u.id", "users AS u WHERE extract(MICROSECONDS FROM now())::bigint % 2 = 0"), refused)},
		{"users nobody asked for", lies(view("md5(u.id::text)::uuid", "users AS u"), invalid("(foreign_id)"))},
		{"NULL in place of an id", lies(view("NULL::uuid", "users AS u"), invalid("(unparsable_id)"))},
		{"a join that doubles the users", lies(view("u.id", "users AS u, generate_series(1, 2)"), invalid("(too_many_users)"))},
		{"another column of uuid", lies(`DROP VIEW living; CREATE VIEW living AS SELECT u.other AS id, u.id AS asked FROM users AS u`, invalid("(foreign_id)"))},
		{"an error in mid-result", lies(view("fails(u.id)", "users AS u"), invalid("(status_internal)"))},
		{"cut in mid-result", lies(view("cut(u.id)", "users AS u"), invalid("(transport)"), "--concurrency=32")},
		{"the query never ends", lies(view("slow(u.id)", "users AS u"), invalid("(deadline)"), "--auth-service-timeout=3s", "--concurrency=32")},
		{"a right was revoked", lies(`REVOKE SELECT ON living FROM PUBLIC`, failed("(status_permission_denied)"))},
		{"a policy hides users", lies(`ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER VIEW living SET (security_invoker = true)`, failed("row-level security policy"))},
		{"the table is locked", tableLocked},
		{"no server", elsewhere("127.0.0.1:1", "(transport)")},
		{"no such host", elsewhere("auth-db.invalid:5432", "(transport)")},
		{"an expired certificate, SQL", strangeServer("127.0.0.1", -time.Minute, "certificate has expired")},
		{"a wrong certificate, SQL", strangeServer("elsewhere.example", time.Hour, "certificate")},
		{"another environment's database", otherDatabase},
		{"a standby that is behind", standbyBehind},
		{"behind PgBouncer, SQL", usersBehindPgBouncer},
	}
}

// usersDB is the database in which the users of a world live.
type usersDB struct {
	w    *world
	pool *pgxpool.Pool
}

func (d usersDB) exec(statement string, args ...any) {
	d.w.t.Helper()
	if _, err := d.pool.Exec(context.Background(), statement, args...); err != nil {
		d.w.t.Fatalf("%s: %v", statement, err)
	}
}

// honest makes the database tell the truth, whatever it did before.
func (d usersDB) honest() {
	d.w.t.Helper()
	for statement := range strings.SplitSeq(`DROP VIEW IF EXISTS living;
		DROP TABLE IF EXISTS users;
		CREATE TABLE users (id uuid PRIMARY KEY, other uuid NOT NULL DEFAULT gen_random_uuid());
		CREATE VIEW living AS SELECT u.id, u.id AS asked FROM users AS u;
		GRANT SELECT ON users, living TO PUBLIC`, ";") {
		d.exec(statement)
	}
	d.exec(`INSERT INTO users SELECT unnest($1::uuid[])`, d.w.living)
	// Lies that take time, or an end, to tell. That they are stable is the first of them.
	for name, body := range map[string]string{
		"slow": "PERFORM pg_sleep(3600)", "cut": "PERFORM pg_terminate_backend(pg_backend_pid())", "fails": "RAISE EXCEPTION 'injected'",
	} {
		d.exec(`CREATE OR REPLACE FUNCTION ` + name + `(u uuid) RETURNS uuid LANGUAGE plpgsql STABLE AS 'BEGIN IF get_byte(uuid_send(u), 15) % 4 = 0 THEN ` +
			strings.ReplaceAll(body, "'", "''") + `; END IF; RETURN u; END'`)
	}
}

// bySQL has the users of the world asked for in a database of their own, by a login that
// may only read.
func (w *world) bySQL() usersDB {
	w.t.Helper()
	db := testdb.NewEmpty(w.t)
	d := usersDB{w, db.Pool}
	d.honest()
	asks := testdb.One[string](db, `SELECT 'asks_' || oid FROM pg_database WHERE datname = current_database()`)
	db.Exec(`CREATE ROLE ` + asks)
	w.t.Cleanup(func() { db.Exec(`DROP ROLE ` + asks) })
	w.ask(db.Login(asks))
	return d
}

func (w *world) ask(connection string) {
	w.env = append(w.env, "AUTH_SERVICE_URL="+connection, "AUTH_SERVICE_QUERY=SELECT id FROM living WHERE asked = ANY($1)")
}

// lies has the database lie throughout, then tell the truth.
func lies(statements string, want want, flags ...string) func(w *world) {
	return func(w *world) {
		d := w.bySQL()
		for statement := range strings.SplitSeq(statements, ";") {
			d.exec(statement)
		}
		if strings.HasPrefix(statements, "DROP VIEW") {
			d.exec(`GRANT SELECT ON living TO PUBLIC`)
		}
		e := w.run(flags...)
		w.expect(e, want)
		w.bounded()
		d.honest()
		w.converges()
		if calls := w.auth.Calls(); calls != 0 {
			w.t.Errorf("%d calls by gRPC", calls)
		}
	}
}

func tableLocked(w *world) {
	d := w.bySQL()
	tx, err := d.pool.Begin(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := tx.Exec(context.Background(), `LOCK TABLE users`); err != nil {
		w.t.Fatal(err)
	}
	e := w.run("--auth-service-timeout=2s")
	w.expect(e, want{exit: 1, state: "failed", shows: "checking the database of auth-service", gone: nothing})
	w.bounded()
	if err := tx.Rollback(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.converges()
}

// elsewhere leads to where no database is.
func elsewhere(address, shows string) func(w *world) {
	return func(w *world) {
		w.bySQL()
		w.ask("postgresql://asker:hunter2@" + address + "/auth")
		e := w.run()
		w.expect(e, want{exit: 1, state: "failed", shows: shows, gone: nothing})
		w.bounded()
		if strings.Contains(e.String(), "hunter2") {
			w.t.Errorf("the password is shown: %s", e)
		}
		w.env = w.env[:len(w.env)-2]
		w.converges()
	}
}

// strangeServer leads to a server that is known by its certificate not to be the right one.
func strangeServer(name string, lasts time.Duration, shows string) func(w *world) {
	return func(w *world) {
		w.bySQL()
		ca, err := authfake.NewCA()
		if err != nil {
			w.t.Fatal(err)
		}
		issued, err := ca.Issue(name, time.Now().Add(lasts))
		if err != nil {
			w.t.Fatal(err)
		}
		pair, err := issued.TLS()
		if err != nil {
			w.t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		ended := make(chan struct{})
		w.t.Cleanup(func() { _ = listener.Close(); <-ended })
		go func() {
			defer close(ended)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				request := make([]byte, 8) // for TLS
				if _, err := io.ReadFull(conn, request); err == nil {
					_, _ = conn.Write([]byte("S"))
					if err := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}).Handshake(); err == nil {
						w.t.Error("the program took the certificate for the right one")
					}
				}
				_ = conn.Close()
			}
		}()
		at := url.URL{
			Scheme: "postgresql", User: url.User("asker"), Host: listener.Addr().String(), Path: "/auth",
			RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {w.file("ca.pem", ca.PEM)}}.Encode(),
		}
		w.ask(at.String())
		e := w.run()
		w.expect(e, want{exit: 1, state: "failed", shows: shows, gone: nothing})
		w.bounded()
		w.env = w.env[:len(w.env)-2]
		w.converges()
	}
}

// usersBehindPgBouncer: a transaction on each of three sessions, for 32 calls in flight.
func usersBehindPgBouncer(w *world) {
	b := w.bounced()
	d := w.bySQL()
	w.ask(fmt.Sprintf("postgresql://asker@127.0.0.1:%d/%s", b.port, d.pool.Config().ConnConfig.Database))
	w.expect(w.run("--concurrency=32"), want{exit: 0, state: "succeeded", gone: all})
	w.converges()
}

// otherDatabase is healthy and honest, about others; so few of ours are unknown to it that
// only the canary tells.
func otherDatabase(w *world) {
	d := w.bySQL()
	w.env = append(w.env, "ORPHAN_CLEANER_CANARY_ALIVE="+w.living[100].String())
	d.exec(`DELETE FROM users WHERE id = ANY ($1)`, w.living[100:140])
	w.expect(w.run(), want{exit: 3, state: "refused", shows: "breaker canary-alive", gone: nothing})
	d.honest()
	w.converges()
}

// standbyBehind: where replay is paused, and a user of a moment ago is not there yet, all
// are unknown. An idle primary is no lag, as long as the standby hears of it. One that
// hears of nothing cannot prove anything.
func standbyBehind(w *world) {
	primary := startCluster(w.t, pgtemp.Options{Settings: map[string]string{"autovacuum": "off"}}) // its ANALYZE commits
	d := usersDB{w, open(w.t, primary.URL("postgres"))}
	d.honest()
	d.exec(`CREATE ROLE unprivileged LOGIN`)
	replica := standby(w.t, primary)
	there := usersDB{w, open(w.t, replica.URL("postgres"))}
	w.ask(replica.URL("postgres"))
	lag := []string{"--max-auth-lag=2s", "--concurrency=32"}
	lagging := want{exit: 1, state: "failed", shows: "(lagging)", gone: nothing}
	old := func(what, age string, orNone bool) {
		eventually(w.t, what, func() bool {
			var is bool
			err := there.pool.QueryRow(context.Background(), `SELECT coalesce(clock_timestamp() - pg_last_xact_replay_timestamp() > $1::text::interval, $2)`, age, orNone).Scan(&is)
			return err == nil && is
		})
	}

	there.exec(`SELECT pg_wal_replay_pause()`)
	newcomer := uuid.New()
	d.exec(`INSERT INTO users VALUES ($1)`, newcomer)
	old("the standby is behind for longer than is allowed", "3 s", true)
	var replayed bool
	if err := there.pool.QueryRow(context.Background(), `SELECT EXISTS (SELECT FROM users WHERE id = $1)`, newcomer).Scan(&replayed); err != nil || replayed {
		w.t.Fatal(errors.Join(err, errors.New("the standby is not behind: the row tests nothing")))
	}
	w.expect(w.run(lag...), lagging)
	there.exec(`SELECT pg_wal_replay_resume()`)
	eventually(w.t, "the standby has replayed all", func() bool {
		err := there.pool.QueryRow(context.Background(), `SELECT EXISTS (SELECT FROM users WHERE id = $1)`, newcomer).Scan(&replayed)
		return err == nil && replayed
	})

	// Nothing is committed any more, and yet the primary is heard of: records that are no
	// commits, as an idle one writes them.
	ended, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-over:
				return
			case <-time.After(100 * time.Millisecond):
				if _, err := d.pool.Exec(context.Background(), `SELECT pg_logical_emit_message(false, 'test', 'heard')`); err != nil {
					w.t.Error(err)
				}
			}
		}
	}()
	quiet := sync.OnceFunc(func() { close(over); <-ended })
	w.t.Cleanup(quiet)
	old("the last commit is long ago", "20 s", false)
	idle := []string{"--max-auth-lag=15s", "--concurrency=32"}
	w.ask(strings.Replace(replica.URL("postgres"), "postgres@", "unprivileged@", 1))
	w.expect(w.run(idle...), want{exit: 1, state: "failed", shows: "GRANT pg_read_all_stats", gone: nothing})
	w.env = w.env[:len(w.env)-2]
	w.lastRun(idle...)
	quiet()

	there.exec(`ALTER SYSTEM SET primary_conninfo = ''`)
	there.exec(`SELECT pg_reload_conf()`)
	eventually(w.t, "nothing arrives at the standby any more", func() bool {
		var n int
		err := there.pool.QueryRow(context.Background(), `SELECT count(*) FROM pg_stat_wal_receiver`).Scan(&n)
		return err == nil && n == 0
	})
	e := w.run(lag...)
	if e.status != 1 || !strings.Contains(e.stderr, "(lagging)") {
		w.t.Errorf("a standby that hears of nothing: %s", e)
	}
	w.sound()
	w.holds("I4")
}
