package faults

import (
	"context"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// applicationRows are what messaging-service does with its own table, and how
// little it notices of us.
func applicationRows() []row {
	return []row{
		{"a malformed setting of ours", malformedSetting},
		{"500 deletes in one transaction", manyDeletes},
		{"a delete that finds nothing", deletesNothing},
		{"the audit is locked", auditLocked},
	}
}

// unnoticed notes I10 and asserts that a run does its work as ever.
func (w *world) unnoticed(shows string) {
	w.t.Helper()
	w.holds("I10")
	w.expect(w.run(), want{exit: 0, state: "succeeded", gone: all})
	w.note.shows = shows
	w.converges()
}

// session is a connection of the application, and what the server warns it of.
func (w *world) session() (conn *pgx.Conn, warned func() string) {
	w.t.Helper()
	cfg, err := pgx.ParseConfig(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	var notices []string
	cfg.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
		notices = append(notices, notice.Severity+": "+notice.Message)
	}
	if conn, err = pgx.ConnectConfig(context.Background(), cfg); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) }) // a second time it does nothing
	return conn, func() string { return strings.Join(notices, "\n") }
}

// does executes a statement of the application, which must not fail.
func (w *world) does(conn *pgx.Conn, statement string, args ...any) {
	w.t.Helper()
	if _, err := conn.Exec(context.Background(), statement, args...); err != nil {
		w.t.Fatalf("the application's %q: %v", statement, err)
	}
}

// left takes members off the list of the witness whom the application deleted.
func (w *world) left(users ...uuid.UUID) {
	w.t.Helper()
	w.exec(`DELETE FROM witness.members WHERE user_id = ANY ($1)`, users)
	w.spare(`user_id = ANY ($1)`, users)
}

// malformedSetting: a session that sets what our functions set for themselves
// deletes like any other.
func malformedSetting(w *world) {
	for i, setting := range []string{"run_token", "run_id", "audited", "backed_up", "target", "conversation_members_audits", "conversation_members_audit_failed"} {
		user := w.living[20+i]
		conn, warned := w.session()
		w.does(conn, `SET orphan_cleaner.`+setting+` = 'x'`)
		w.does(conn, `DELETE FROM conversation_members WHERE user_id = $1`, user)
		w.left(user)
		if said := warned(); said != "" {
			w.t.Errorf("%s: %s", setting, said)
		}
		if audited := w.count(`conversation_members_audit WHERE user_id = $1 AND run_id IS NULL`, user); audited != perUser {
			w.t.Errorf("%s: %d of %d members are audited as the application's", setting, audited, perUser)
		}
	}
	w.unnoticed("deleted and audited as the application's")
}

// manyDeletes: more than 64 subtransactions in one transaction would slow every
// session of the server.
func manyDeletes(w *world) {
	const deletes = 500
	users := w.living[50 : 50+deletes/perUser]
	conn, warned := w.session()
	tx, err := conn.Begin(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, user := range users {
		for range perUser {
			w.does(conn, `DELETE FROM conversation_members WHERE ctid = (SELECT ctid FROM conversation_members WHERE user_id = $1 LIMIT 1)`, user)
		}
	}
	var txid int64
	if err := tx.QueryRow(context.Background(), `SELECT pg_current_xact_id()::text::bigint`).Scan(&txid); err != nil {
		w.t.Fatal(err)
	}
	if err := tx.Commit(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.left(users...)
	if audited := w.count(`conversation_members_audit WHERE txid = $1`, txid); audited != deletes || warned() != "" {
		w.t.Errorf("%d of %d members are audited; warned: %s", audited, deletes, warned())
	}
	// What a subtransaction writes carries its own number.
	if n := one[int64](w, `SELECT count(DISTINCT xmin::text) FROM conversation_members_audit WHERE txid = $1 AND xmin::text <> ($1 % 4294967296)::text`, txid); n > 1 {
		w.t.Errorf("%d subtransactions in one transaction, want one at most", n)
	}
	w.unnoticed("one subtransaction")
}

// deletesNothing: no transaction id is spent, and thereby no subtransaction's.
func deletesNothing(w *world) {
	conn, _ := w.session()
	tx, err := conn.Begin(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	w.does(conn, `DELETE FROM conversation_members WHERE user_id = $1`, uuid.New())
	w.does(conn, `DELETE FROM conversation_members WHERE false`)
	var assigned bool
	if err := tx.QueryRow(context.Background(), `SELECT pg_current_xact_id_if_assigned() IS NOT NULL`).Scan(&assigned); err != nil {
		w.t.Fatal(err)
	}
	if err := tx.Commit(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	if assigned {
		w.t.Error("a delete of nothing took a transaction id")
	}
	w.unnoticed("no transaction id spent")
}

// auditLocked: the delete waits for half a second, once a transaction, and goes
// through without its audit, which is said each time that it has waited.
func auditLocked(w *world) {
	locker, _ := w.session()
	w.does(locker, `BEGIN`)
	w.does(locker, `LOCK TABLE conversation_members_audit IN ACCESS EXCLUSIVE MODE`)
	conn, warned := w.session()
	w.does(conn, `BEGIN`)
	for _, user := range w.living[20:22] {
		w.does(conn, `DELETE FROM conversation_members WHERE user_id = $1`, user)
	}
	w.does(conn, `COMMIT`)
	w.left(w.living[20:22]...)
	if said := warned(); strings.Count(said, "are not audited: canceling statement due to lock timeout") != 1 {
		w.t.Errorf("it is to be told once that the audit is not complete: %s", said)
	}
	w.does(locker, `ROLLBACK`)
	w.unnoticed("WARNING: not audited")
}
