package database

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

// Said is what the server says of a statement that failed, cut and stripped of what
// a terminal acts upon. Its JSON form is a contract. Names are empty where the server
// names none; DETAIL may hold the values of a key.
type Said struct {
	SQLState   string `json:"sqlstate"`
	Query      string `json:"query,omitempty"` // the statement's name in queries/; BEGIN or COMMIT
	Where      string `json:"where,omitempty"` // the function of the application's in which it failed, and its line
	Constraint string `json:"constraint,omitempty"`
	Table      string `json:"table,omitempty"` // with its schema
	Column     string `json:"column,omitempty"`
	Message    string `json:"message"`
	Detail     string `json:"detail,omitempty"`
	Hint       string `json:"hint,omitempty"`
}

// What is kept of a text and of a name, in bytes. A name has 63, with its schema twice that.
const (
	maxText = 600
	maxName = 130
)

// SaidIn is what the server says in an error, or nil: it has not said anything.
func SaidIn(err error) *Said {
	from, is := errors.AsType[*pgconn.PgError](err)
	if !is {
		return nil
	}
	said := &Said{
		SQLState: safetext.Line(from.Code, maxName), Constraint: safetext.Line(from.ConstraintName, maxName),
		Table: safetext.Line(from.TableName, maxName), Column: safetext.Line(from.ColumnName, maxName),
		Message: safetext.Line(from.Message, maxText), Detail: safetext.Line(from.Detail, maxText), Hint: safetext.Line(from.Hint, maxText),
	}
	if from.TableName != "" && from.SchemaName != "" {
		said.Table = safetext.Line(from.SchemaName+"."+from.TableName, maxName)
	}
	if from.Code == NoPrivilege && from.Hint == "" {
		said.Hint = safetext.Line(ownerGrant(from), maxText)
	}
	said.Where = safetext.Line(elsewhere(from.Where), maxText)
	if of, is := errors.AsType[*statementError](err); is {
		said.Query = of.query
	}
	if from.Code == StatementTimeout && said.Query == "SettingsApply" {
		said.Hint = shortTimeout
	}
	return said
}

// Attrs are the fields for a log, but for the message.
func (s *Said) Attrs() []slog.Attr {
	var attrs []slog.Attr
	for _, field := range s.fields() {
		if field.text != "" {
			attrs = append(attrs, slog.String(field.name, field.text))
		}
	}
	return attrs
}

type field struct{ name, text string }

func (s *Said) fields() []field {
	return []field{
		{"sqlstate", s.SQLState},
		{"detail", s.Detail},
		{"constraint", s.Constraint},
		{"table", s.Table},
		{"column", s.Column},
		{"query", s.Query},
		{"where", s.Where},
		{"hint", s.Hint},
	}
}

// statementError is the error of one statement.
type statementError struct {
	query string
	error
}

// Error is one line: the message, and each field that has a text.
func (e *statementError) Error() string {
	said := SaidIn(e)
	if said == nil {
		return e.error.Error() + "; query: " + e.query
	}
	line := "ERROR: " + said.Message + " (SQLSTATE " + said.SQLState + ")"
	for _, field := range said.fields()[1:] {
		if field.text != "" {
			line += "; " + field.name + ": " + field.text
		}
	}
	return line
}

func (e *statementError) Unwrap() error { return e.error }

// ofStatement names the statement in its error, once. No row is an answer.
func ofStatement(query string, err error) error {
	if _, named := errors.AsType[*statementError](err); err == nil || named || errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return &statementError{query, addressed(err)}
}

// addressed is err with the address that was not reached, where looking its host up
// failed: that error names no port.
func addressed(err error) error {
	failed, is := errors.AsType[*pgconn.ConnectError](err)
	if _, unknown := errors.AsType[*net.DNSError](err); !is || !unknown {
		return err
	}
	return fmt.Errorf("%w, looking for %s", err, net.JoinHostPort(failed.Config.Host, strconv.Itoa(int(failed.Config.Port))))
}

// Queries are those of queries/ on a pool, a connection or a transaction. An error
// of one names it, and says all that the server does.
func Queries(on db.DBTX) *db.Queries { return db.New(naming{on}) }

// Naming does the same for queries of another database than a shard's.
func Naming(on db.DBTX) db.DBTX { return naming{on} }

type naming struct{ db.DBTX }

func (n naming) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	tag, err := n.DBTX.Exec(ctx, sql, args...)
	return tag, ofStatement(nameIn(sql), err)
}

func (n naming) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := n.DBTX.Query(ctx, sql, args...)
	return namedRows{rows, nameIn(sql)}, ofStatement(nameIn(sql), err)
}

func (n naming) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return namedRow{n.DBTX.QueryRow(ctx, sql, args...), nameIn(sql)}
}

type namedRows struct {
	pgx.Rows
	query string
}

func (r namedRows) Scan(into ...any) error { return ofStatement(r.query, r.Rows.Scan(into...)) }
func (r namedRows) Err() error             { return ofStatement(r.query, r.Rows.Err()) }

type namedRow struct {
	pgx.Row
	query string
}

func (r namedRow) Scan(into ...any) error { return ofStatement(r.query, r.Row.Scan(into...)) }

// nameIn is the name that sqlc writes in front of a statement: "-- name: RunFinish :one".
func nameIn(sql string) string {
	_, rest, _ := strings.Cut(sql, "-- name: ")
	name, _, _ := strings.Cut(rest, " ")
	return name
}

// ourFunction is a function of our schemas in the context of an error, in whatever language the server speaks.
var ourFunction = regexp.MustCompile(`(^|[^\w.$"])orphan_cleaner(_fleet)?\.[a-z_]+\(`)

// raisedElsewhere: by a RAISE of the application's, in a trigger of its own, which may
// have chosen any SQLSTATE: one of ours, that of a deadlock, of a lost connection.
func raisedElsewhere(said *pgconn.PgError) bool {
	first, _, _ := strings.Cut(said.Where, "\n")
	return said.Routine == "exec_stmt_raise" && !ourFunction.MatchString(first)
}

// elsewhere is the innermost function of a context, unless it is one of ours.
func elsewhere(context string) string {
	innermost := anyFunction.FindString(context + "\n")
	if ourFunction.MatchString(innermost) || strings.Contains(innermost, "inline_code_block") { // a DO of our migrations
		return ""
	}
	return strings.TrimSpace(innermost)
}

var (
	// The server may speak another language: PL/pgSQL is PL/pgSQL in each.
	anyFunction = regexp.MustCompile(`(?m)^([^\n]*PL/pgSQL|SQL function )[^\n]*\n`)
	inPLpgSQL   = regexp.MustCompile(`(?m)^[^\n]*PL/pgSQL[^\n]*\n`)
	deniedFor   = regexp.MustCompile(`^permission denied for ([a-z ]+) (\S+)$`)
	builtIn     = regexp.MustCompile(`^(pg_\w+|has_\w+|to_reg\w+|set_config|current_setting|now|clock_timestamp|gen_random_uuid|row_security_active)$`)
	verb        = regexp.MustCompile(`(?i)^SQL statement "\s*(SELECT|INSERT|UPDATE|DELETE)\b`)
)

// ownerGrant is the GRANT that the owner of our functions lacks: what they do, the
// application's triggers within them included, is done as that role, whoever calls.
func ownerGrant(said *pgconn.PgError) string {
	const owner = "orphan_cleaner_owner"
	ours := ourFunction.FindStringIndex(said.Where)
	denied := deniedFor.FindStringSubmatch(said.Message)
	switch {
	case said.Routine == "check_enable_rls" && ours == nil:
		return "row-level security would hide rows: as a superuser, ALTER ROLE of this login BYPASSRLS"
	case said.Routine == "check_enable_rls":
		return "row-level security would hide rows: as a superuser, ALTER ROLE " + owner + " BYPASSRLS"
	case len(denied) == 3 && builtIn.MatchString(denied[2]):
		what := "SELECT ON "
		if denied[1] == "function" {
			what = "EXECUTE ON FUNCTION "
		}
		return "somebody took from PUBLIC what PostgreSQL gives it: GRANT " + what + "pg_catalog." + denied[2] + " TO orphan_cleaner_owner, orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader"
	case len(denied) == 3 && denied[1] == "type":
		return "GRANT USAGE ON TYPE " + denied[2] + " TO " + owner
	case strings.HasSuffix(said.Message, "within security-definer function"):
		return "a trigger of the application changes its role, which PostgreSQL forbids where a function runs as " + owner + ": make its function SECURITY DEFINER, owned by that role, in place of SET ROLE"
	case ours == nil:
		return "" // the login's own
	case denied == nil:
		return "this runs as role " + owner + ": psql -f sql/roles.sql, or grant it what a trigger of the application needs"
	// Of ours those in SQL are named without their schema; a trigger is none of these.
	case !inPLpgSQL.MatchString(said.Where[:ours[0]]):
		return "psql -f sql/roles.sql gives role " + owner + ", as which this runs, what it lacks"
	}
	kind, name := denied[1], denied[2]
	grant := map[string]string{"sequence": "USAGE ON SEQUENCE ", "function": "EXECUTE ON FUNCTION ", "schema": "USAGE ON SCHEMA "}[kind]
	if grant == "" {
		grant = "SELECT ON "
		if does := verb.FindStringSubmatch(said.Where); len(does) > 1 && !strings.EqualFold(does[1], "select") {
			grant = "SELECT, " + strings.ToUpper(does[1]) + " ON "
		}
	}
	return "a trigger of the application runs as role " + owner + ": GRANT " + grant + name + " TO " + owner
}
