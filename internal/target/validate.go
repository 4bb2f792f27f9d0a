package target

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

const (
	lockTimeout      = time.Second
	statementTimeout = 10 * time.Second
)

// errRollback ends a transaction that was never meant to commit.
var errRollback = errors.New("rolled back")

// bounded runs statements in one transaction whose waiting is bounded, and takes it back.
func bounded(ctx context.Context, pool *pgxpool.Pool, mode pgx.TxAccessMode, do func(tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{AccessMode: mode}, func(tx pgx.Tx) error {
		if err := database.Queries(tx).SettingsApply(ctx, db.SettingsApplyParams{
			LockTimeout: database.Milliseconds(lockTimeout), StatementTimeout: database.Milliseconds(statementTimeout), IdleTimeout: database.Milliseconds(statementTimeout), IsLocal: true,
		}); err != nil {
			return err
		}
		if err := do(tx); err != nil {
			return err
		}
		return errRollback
	})
	if errors.Is(err, errRollback) {
		return nil
	}
	return err
}

// Validate compares the file with a database and with the retention of a run. The error joins
// an *[Error] for each entry that has to be changed, at its first place. It reads only, but for one row of each
// update, which is set in a transaction that is rolled back; the notes say where the role
// or the rows did not allow to prove that.
func (f File) Validate(ctx context.Context, pool *pgxpool.Pool, retention time.Duration) (notes []string, err error) {
	var errs []error
	// What is no error of the file, as a lock, ends it.
	isWrong := func(err error) bool {
		_, is := errors.AsType[*Error](err)
		if is {
			errs = append(errs, err)
		}
		return is
	}
	for _, t := range f.Targets {
		if t.Retention != 0 && t.Retention < retention {
			errs = append(errs, t.Errorf("retention", "%s is shorter than the run's, %s: a target's may only be longer", settings.Duration(t.Retention), settings.Duration(retention)))
			continue
		}
		var statements db.TargetStatementsRow
		err := bounded(ctx, pool, pgx.ReadOnly, func(tx pgx.Tx) error {
			table, err := t.validTable(ctx, database.Queries(tx))
			if err != nil {
				return err
			}
			if err := f.validCascades(ctx, database.Queries(tx), t); err != nil {
				return err
			}
			if err := f.validCounter(ctx, database.Queries(tx), t, table); err != nil {
				return err
			}
			statements, err = t.validExpressions(ctx, tx)
			return err
		})
		if err == nil && t.Action == Update {
			var note string
			if note, err = t.prove(ctx, pool, statements.Proving); note != "" {
				notes = append(notes, fmt.Sprintf("%s: not shown that where is false after set: %s", t.Name, note))
			}
		}
		if err != nil && !isWrong(err) {
			return nil, err
		}
	}
	for _, i := range f.Ignored {
		err := bounded(ctx, pool, pgx.ReadOnly, func(tx pgx.Tx) error {
			table, err := database.Queries(tx).TargetTable(ctx, db.TargetTableParams{TableSchema: i.Table.Schema, TableName: i.Table.Name})
			if err == nil && !slices.Contains(table.ColumnNames, i.Column) {
				err = i.Errorf("column", "there is no column %s.%s: remove the entry", i.Table, i.Column)
			}
			return err
		})
		if err != nil && !isWrong(err) {
			return nil, err
		}
	}
	if errs != nil {
		return nil, inOrder(errs)
	}
	return notes, nil
}

// validTable checks the table, its columns and its key, and returns what the catalog says of it.
func (t Target) validTable(ctx context.Context, q *db.Queries) (db.TargetTableRow, error) {
	table, err := q.TargetTable(ctx, db.TargetTableParams{TableSchema: t.Table.Schema, TableName: t.Table.Name})
	if err != nil {
		return table, fmt.Errorf("reading the catalog: %w", err)
	}
	if table.Unfit != "" {
		return table, t.Errorf("table", "%s cannot be a target, %s: name an ordinary table", t.Table, table.Unfit)
	}
	const timestamptz = "timestamp with time zone"
	type column struct{ field, name, wants string }
	columns := []column{{"user", t.User, "uuid"}, {"age", t.Age, timestamptz}, {"activity", t.Activity, timestamptz}}
	for _, name := range t.Key {
		columns = append(columns, column{"key." + name, name, ""})
	}
	for _, a := range t.Set {
		columns = append(columns, column{"set." + a.Column, a.Column, ""})
	}
	for _, name := range t.Backup.Columns {
		columns = append(columns, column{"columns." + name, name, ""})
	}
	for _, c := range columns {
		at := slices.Index(table.ColumnNames, c.name)
		switch {
		case c.name == "":
		case at < 0:
			return table, t.Errorf(c.field, "%s has no column %s: name one of its columns", t.Table, c.name)
		case c.wants != "" && table.ColumnTypes[at] != c.wants:
			return table, t.Errorf(c.field, "%s.%s is %s: it must be %s", t.Table, c.name, table.ColumnTypes[at], c.wants)
		}
	}
	for _, name := range t.Key {
		if slices.Contains(table.Nullable, name) {
			return table, t.Errorf("key."+name, "%s.%s can be null: a key has columns that are NOT NULL", t.Table, name)
		}
	}
	isUnique, err := q.TargetKey(ctx, db.TargetKeyParams{TableSchema: t.Table.Schema, TableName: t.Table.Name, KeyColumns: t.Key})
	if err == nil && !isUnique {
		err = t.Errorf("key", "%s has no primary key and no valid, whole unique index of exactly %v: name the columns of one, or create it", t.Table, t.Key)
	}
	return table, err
}

// validCascades refuses a delete that would delete rows of a table that is not swept before.
func (f File) validCascades(ctx context.Context, q *db.Queries, t Target) error {
	if t.Action != Delete {
		return nil
	}
	cascades, err := q.TargetCascades(ctx, db.TargetCascadesParams{TableSchema: t.Table.Schema, TableName: t.Table.Name})
	if err != nil {
		return fmt.Errorf("reading the foreign keys: %w", err)
	}
	for _, c := range cascades {
		child := Table{c.TableSchema, c.TableName}
		if !slices.ContainsFunc(append([]Target{Members()}, f.Targets...), func(other Target) bool {
			return other.Table == child && other.Action == Delete && slices.Contains(t.After, other.Name)
		}) {
			return t.Errorf("after", "a delete from %s deletes rows of %s, too, by the foreign key %s ON DELETE CASCADE: make that a target with action delete and name it in after, or use action update", t.Table, child, c.ConstraintName)
		}
	}
	return nil
}

// validExpressions has the server parse each expression, in the statement and with the
// search_path of the functions: nothing is executed, and no right on the table is needed.
func (t Target) validExpressions(ctx context.Context, tx pgx.Tx) (db.TargetStatementsRow, error) {
	params := db.TargetStatementsParams{TableSchema: t.Table.Schema, TableName: t.Table.Name, Condition: string(t.Where)}
	for _, a := range t.Set {
		params.SetColumns, params.SetExpressions = append(params.SetColumns, a.Column), append(params.SetExpressions, string(a.Expression))
	}
	statements, err := database.Queries(tx).TargetStatements(ctx, params)
	if err != nil {
		return statements, fmt.Errorf("writing the statements: %w", err)
	}
	parse := func(field, statement, text string) error {
		_, err := tx.Prepare(ctx, "", statement)
		switch {
		case database.Code(err) == database.NoPrivilege:
			return fmt.Errorf("parsing the expressions of %s: %s: GRANT USAGE ON SCHEMA %s TO %s", t.Name, message(err),
				pgx.Identifier{t.Table.Schema}.Sanitize(), pgx.Identifier{tx.Conn().Config().User}.Sanitize())
		case ofStatement(err) && bare.MatchString(text):
			return t.Errorf(field, "PostgreSQL refuses the expression: %s: a text is quoted twice, for YAML and for SQL: \"'%s'\"", message(err), text)
		case database.Code(err) == undefinedColumn:
			return t.Errorf(field, "PostgreSQL refuses the expression: %s: correct it; a name with capitals is in double quotes, '\"userId\" …'", message(err))
		case ofStatement(err):
			return t.Errorf(field, "PostgreSQL refuses the expression: %s: correct it", message(err))
		case err != nil:
			return fmt.Errorf("parsing the expressions of %s: %w", t.Name, err)
		}
		return nil
	}
	for i, statement := range statements.Setting {
		if err := parse("set."+t.Set[i].Column, statement, string(t.Set[i].Expression)); err != nil {
			return statements, err
		}
	}
	if t.Where == "" {
		return statements, nil
	}
	if err := parse("where", statements.Selecting, ""); err != nil {
		return statements, err
	}
	table, err := database.Queries(tx).TargetTable(ctx, db.TargetTableParams{TableSchema: t.Table.Schema, TableName: t.Table.Name})
	if err == nil && !slices.ContainsFunc(table.ColumnNames, func(name string) bool {
		return strings.Contains(strings.ToLower(string(t.Where)), strings.ToLower(name))
	}) {
		err = t.Errorf("where", "where names no column: it finds every row or none; name the column that says whether a row is done")
	}
	return statements, err
}

const undefinedColumn = "42703"

// bare is what looks like a text without quotes.
var bare = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_ -]*$`)

// ofStatement says that the server refuses the statement as it is written, or its values.
func ofStatement(err error) bool {
	code := database.Code(err)
	return slices.ContainsFunc([]string{"0A", "22", "23", "42"}, func(class string) bool { return strings.HasPrefix(code, class) })
}

// prove sets one row and looks whether where still finds it; or says why that cannot be shown.
func (t Target) prove(ctx context.Context, pool *pgxpool.Pool, proving string) (note string, err error) {
	var stays bool
	err = bounded(ctx, pool, pgx.ReadWrite, func(tx pgx.Tx) error { return tx.QueryRow(ctx, proving).Scan(&stays) })
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "no row of the table is to be updated", nil
	case database.Contended(err), database.Code(err) == database.ReadOnly, database.Code(err) == database.NoPrivilege:
		return message(err), nil
	case database.OfRows(err), ofStatement(err):
		return "", t.Errorf("set", "a row cannot be set so: %s: change set, or the table", message(err))
	case err == nil && stays:
		err = t.Errorf("where", "where is still true after set: each run would update the same rows again; change where or set")
	}
	return "", err
}

// message is what the server says, without the code.
func message(err error) string {
	if said, is := errors.AsType[*pgconn.PgError](err); is {
		return said.Message
	}
	return err.Error()
}
