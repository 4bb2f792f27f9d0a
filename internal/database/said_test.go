package database_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// hold places a hold in a transaction of its own: the statement whose errors these
// tests are about.
func hold(t *testing.T, pool *pgxpool.Pool, reason string) error {
	t.Helper()
	patience := database.Patience{Log: slog.New(slog.DiscardHandler), Attempts: 3, LockTimeout: time.Second}
	_, err := database.Do(t.Context(), pool, patience, pgx.ReadWrite, 10*time.Second, "placing a hold", func(ctx context.Context, q *db.Queries) (int64, error) {
		return q.HoldAdd(ctx, db.HoldAddParams{UserID: new(uuid.New()), Reason: reason})
	})
	return err
}

// An error says all that the server does, and which statement of ours it is about.
func TestErrorsNameTheirCause(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	err := hold(t, d.Pool, " ")
	if said := database.SaidIn(err); said == nil || said.SQLState != "23514" || said.Constraint != "holds_reason_check" ||
		said.Table != "orphan_cleaner.holds" || said.Query != "HoldAdd" || !strings.HasPrefix(said.Detail, "Failing row contains (") {
		t.Errorf("%+v of %v", said, err)
	}
	if from, is := errors.AsType[*pgconn.PgError](err); !is || from.ConstraintName != "holds_reason_check" || database.Code(err) != "23514" {
		t.Errorf("%v is not the server's", err)
	}
	for _, want := range []string{
		"placing a hold: ERROR: ", "(SQLSTATE 23514)", "; detail: Failing row contains (", "; constraint: holds_reason_check", "; table: orphan_cleaner.holds", "; query: HoldAdd",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}

	// A query outside of Bounded, too; and one that returns rows.
	d.Exec(`DROP TABLE orphan_cleaner.approvals, orphan_cleaner.runs CASCADE`)
	_, err = database.Queries(d.Pool).RunRecent(t.Context(), 1)
	if !strings.Contains(err.Error(), `relation "orphan_cleaner.runs" does not exist (SQLSTATE 42P01); query: RunRecent`) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := database.Queries(d.Pool).HoldList(ctx); !errors.Is(err, context.Canceled) || !strings.HasSuffix(err.Error(), "; query: HoldList") {
		t.Error(err)
	}
}

type timingOut struct{ db.DBTX }

func (timingOut) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, &pgconn.PgError{Code: "57014"}
}

// Whose limit a statement ran into: the first of a transaction sets our own.
func TestErrorsOfTheRolesTimeout(t *testing.T) {
	t.Parallel()
	const hint = "hint: the server ends statements too soon: ALTER ROLE … RESET statement_timeout"
	q := database.Queries(timingOut{})
	if err := q.SettingsApply(t.Context(), db.SettingsApplyParams{}); !strings.Contains(err.Error(), hint) {
		t.Error(err)
	}
	if err := q.PreflightQualify(t.Context()); strings.Contains(err.Error(), hint) {
		t.Error(err)
	}
}

// What fails at COMMIT is told of COMMIT.
func TestErrorsAtCommit(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Exec(`CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION 'too late' USING ERRCODE = '23503', DETAIL = 'Key (a)=(1).', HINT = 'be early', CONSTRAINT = 'c', SCHEMA = 's', TABLE = 't', COLUMN = 'k'; END $$`)
	d.Exec(`CREATE CONSTRAINT TRIGGER late AFTER INSERT ON orphan_cleaner.holds DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.late()`)
	err := hold(t, d.Pool, "x")
	if want := `placing a hold: ERROR: too late (SQLSTATE 23503); detail: Key (a)=(1).; constraint: c; table: s.t; column: k; query: COMMIT; where: PL/pgSQL function public.late() line 2 at RAISE; hint: be early`; err == nil || err.Error() != want {
		t.Errorf("%v, not\n%s", err, want)
	}
}

// A server with lc_messages of another language names the function all the same.
func TestErrorsInOtherLanguages(t *testing.T) {
	t.Parallel()
	for _, where := range []string{
		"PL/pgSQL-Funktion public.keep() Zeile 3 bei RAISE", "fonction PL/pgSQL public.keep(), ligne 3 à RAISE", "在RAISE的第3行的PL/pgSQL函数public.keep()",
	} {
		err := &pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: "ERROR", Code: "P0001", Routine: "exec_stmt_raise", Where: where + "\nPL/pgSQL-Funktion orphan_cleaner.sweep_rows(orphan_cleaner.runs) Zeile 7"}
		if said := database.SaidIn(err); said.Where != where || !database.OfRows(err) {
			t.Errorf("%q of %q", said.Where, where)
		}
		err.Where, err.Code = strings.ReplaceAll(where, "public.keep", "orphan_cleaner.run_open"), database.RunNotOpen
		if said := database.SaidIn(err); said.Where != "" || database.OfRows(err) || database.Code(err) != database.RunNotOpen {
			t.Errorf("ours is taken for theirs: %q", said.Where)
		}
	}
}

// What row-level security refuses is helped by neither a GRANT nor sql/roles.sql.
func TestErrorsOfRowSecurity(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Exec("ALTER TABLE conversation_members ENABLE ROW LEVEL SECURITY; GRANT USAGE ON SCHEMA public TO pg_read_all_data")
	_, err := d.Pool.Exec(t.Context(), "SET LOCAL ROLE pg_read_all_data; SET LOCAL row_security = off; SELECT FROM public.conversation_members")
	said := database.SaidIn(err)
	if said == nil || said.SQLState != database.NoPrivilege || !strings.Contains(said.Hint, "ALTER ROLE of this login BYPASSRLS") {
		t.Fatalf("%+v of %v", said, err)
	}
	from, _ := errors.AsType[*pgconn.PgError](err)
	from.Where = `SQL statement "SELECT FROM public.users"` + "\nPL/pgSQL function orphan_cleaner.shadow_evidence(uuid[]) line 22 at RETURN QUERY"
	if hint := database.SaidIn(err).Hint; !strings.Contains(hint, "ALTER ROLE orphan_cleaner_owner BYPASSRLS") || strings.Contains(hint, "roles.sql") {
		t.Error(hint)
	}
}

// No GRANT helps a trigger that changes its role within our functions.
func TestTriggerThatSetsARole(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Exec(`CREATE FUNCTION public.as_reader() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET LOCAL ROLE pg_read_all_data; RETURN NEW; END $$`)
	d.Exec(`CREATE TRIGGER as_reader BEFORE INSERT ON orphan_cleaner.holds FOR EACH ROW EXECUTE FUNCTION public.as_reader()`)
	said := database.SaidIn(hold(t, d.Pool, "x"))
	if said == nil || !strings.Contains(said.Where, "as_reader()") || !strings.Contains(said.Hint, "make its function SECURITY DEFINER") || strings.Contains(said.Hint, "roles.sql") {
		t.Errorf("%+v", said)
	}
}

// A text of the application's is one line of bounded length, whatever it holds.
func TestErrorsAreFitToBeShown(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Exec(`CREATE FUNCTION public.shout() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION E'a\x1b]0;m\a\nERROR %', repeat('x', 100000)
			USING DETAIL = E'\u202e' || repeat('d', 100000), HINT = E'\r' || repeat('h', 100000), CONSTRAINT = E'c\x1b[2J' || repeat('c', 100000); END $$`)
	d.Exec(`CREATE TRIGGER shout BEFORE INSERT ON orphan_cleaner.holds FOR EACH ROW EXECUTE FUNCTION public.shout()`)
	text := hold(t, d.Pool, "x").Error()
	if at := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }); at >= 0 || len(text) > 3000 || !strings.Contains(text, "; hint: ") {
		t.Errorf("%d bytes, at %d: %.300q", len(text), at, text)
	}
}

// The application's triggers may raise any SQLSTATE, ours and that of a lost
// connection too: it is shown, and not believed.
func TestRaisedElsewhere(t *testing.T) {
	t.Parallel()
	d := testdb.New(t)
	d.Exec(`CREATE TABLE public.raised (code text)`)
	d.Exec(`CREATE SEQUENCE public.attempts`)
	d.Exec(`CREATE FUNCTION public.shout() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN PERFORM nextval('public.attempts'); RAISE EXCEPTION 'no' USING ERRCODE = (SELECT code FROM public.raised); END $$`)
	d.Exec(`CREATE TRIGGER shout BEFORE INSERT ON orphan_cleaner.holds FOR EACH ROW EXECUTE FUNCTION public.shout()`)
	for _, code := range []string{
		database.RunNotOpen, database.RunsPaused, database.ProofFailed, database.RowsKept, "40001", "40P01", "57014", "55P03", "25P02", "25006", "08006",
		"57P01", "53100", "53300", "XX000", "ABCDE",
	} {
		d.Exec(`DELETE FROM public.raised`)
		d.Exec(`INSERT INTO public.raised VALUES ($1)`, code)
		d.Exec(`ALTER SEQUENCE public.attempts RESTART`)
		err := hold(t, d.Pool, "x")
		if database.Code(err) != "P0001" || !database.OfRows(err) || database.Transient(err) || database.Contended(err) || database.SaidIn(err).SQLState != code {
			t.Errorf("%s: believed: %v", code, err)
		}
		if n := testdb.One[int64](d, `SELECT last_value FROM public.attempts`); n != 1 {
			t.Errorf("%s: tried %d times", code, n)
		}
	}
	// Our own are.
	if _, err := database.Queries(d.Pool).RunHeartbeat(t.Context(), db.RunHeartbeatParams{RunID: 1, Kind: "clean", Phase: "sweep"}); database.Code(err) != database.RunNotOpen || database.OfRows(err) {
		t.Error(err)
	}
}

// Whoever cannot connect reads where to, and why; never the password.
func TestConnectErrors(t *testing.T) {
	t.Parallel()
	d := testdb.NewEmpty(t)
	mute, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	const password = "hunter2%40Retrieved%2Ftail"
	for url, says := range map[string][]string{
		"postgres://who:" + password + "@" + closed.Addr().String() + "/messaging":                 {closed.Addr().String(), "connection refused", "user=who", "database=messaging"},
		"postgres://who:" + password + "@nowhere.invalid:5433/messaging":                           {"nowhere.invalid:5433", "lookup nowhere.invalid"},
		"postgres://who:" + password + "@" + mute.Addr().String() + "/messaging?connect_timeout=1": {mute.Addr().String(), "timeout"},
		"postgres://who:" + password + "@" + closed.Addr().String() + "/messaging?sslmode=require": {closed.Addr().String(), "connection refused"},
	} {
		_, err := database.Open(t.Context(), url, 0, 2)
		if err == nil {
			t.Fatalf("%s answers", url)
		}
		for _, want := range says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
		for _, part := range []string{"hunter2", "Retrieved", "tail"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("a part of the password is in: %v", err)
			}
		}
	}
	for url, says := range map[string]string{
		strings.Replace(d.URL, d.Name, "nothing", 1): `database "nothing" does not exist`,
		d.URLAs("nobody"): `role "nobody" does not exist`,
	} {
		if _, err := database.Open(t.Context(), url, 0, 2); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is not in: %v", says, err)
		}
	}
}
