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
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Shape is what the catalog says of a target's table: all that a migration may name.
type Shape struct {
	Table, Base string   // quoted where they must be: schema and table, and the table alone
	Columns     []Column // in the order of the table; no generated ones
	IsIndexed   bool     // a valid btree of all rows begins with the user's column
	Counter     CounterShape
}

// Column is a column of a table.
type Column struct {
	Name  string `json:"name"`
	Ident string `json:"ident"` // the name, quoted where it must be
	Type  string `json:"type"`  // with its schema where that is not pg_catalog
}

// What a migration may hold of names that no file chose: nothing that ends a literal, a
// comment, a line or the body of a function. A name is no longer than PostgreSQL lets it be.
var (
	printableName = regexp.MustCompile(`^[\p{L}_][\p{L}\p{N}_]*$`)
	printableType = regexp.MustCompile(`^(?:[\p{L}\p{N}_ .,()\[\]]|"[\p{L}\p{N}_ .]+")+$`)
)

// The columns of ours beside those of the target.
var (
	ofBackup = []string{"run_id", "backed_up_at", "set_to"}
	ofAudit  = []string{"deleted_at", "deleted_by", "application", "run_id", "txid"}
)

// Shapes are the shapes of the targets, in their order. The file must be valid, see
// [File.Validate]; the error is an *[Error] where a table cannot be printed.
func (f File) Shapes(ctx context.Context, pool *pgxpool.Pool) ([]Shape, error) {
	shapes := make([]Shape, len(f.Targets))
	for i, t := range f.Targets {
		if err := bounded(ctx, pool, pgx.ReadOnly, func(tx pgx.Tx) error {
			var err error
			if shapes[i], err = readShape(ctx, database.Queries(tx), t.Table, t.User); errors.Is(err, pgx.ErrNoRows) {
				return t.Errorf("table", "there is no table %s: remove the target, or create the table", t.Table)
			} else if err != nil {
				return fmt.Errorf("reading the columns of %s: %w", t.Table, err)
			}
			if shapes[i].Counter, err = t.counterShape(ctx, database.Queries(tx), shapes[i]); err != nil {
				return err
			}
			return t.Printable(shapes[i])
		}); err != nil {
			return nil, err
		}
	}
	return shapes, nil
}

// readShape reads the shape of a table; without one the error is [pgx.ErrNoRows].
func readShape(ctx context.Context, q *db.Queries, table Table, user string) (Shape, error) {
	row, err := q.TargetShape(ctx, db.TargetShapeParams{TableSchema: table.Schema, TableName: table.Name, UserColumn: user})
	s := Shape{Table: row.QuotedTable, Base: row.QuotedBase, IsIndexed: row.IsIndexed}
	for at, name := range row.ColumnNames {
		s.Columns = append(s.Columns, Column{name, row.QuotedColumns[at], strings.ReplaceAll(row.ColumnTypes[at], "timestamp with time zone", "timestamptz")})
	}
	return s, err
}

// Printable is an error where a column's name or type cannot be printed, or is one of ours.
func (t Target) Printable(s Shape) error {
	stored := t.Stored(s)
	for _, c := range stored {
		switch {
		case !printableName.MatchString(c.Name):
			return t.Errorf("table", "%s has the column %q: a migration names columns of letters, digits and _ only; rename it, or use action update", t.Table, c.Name)
		case !printableType.MatchString(c.Type):
			return t.Errorf("table", "%s.%s is %q: a migration names types of letters, digits and _ only; rename the type, or use action update", t.Table, c.Name, c.Type)
		case slices.Contains(ofBackup, c.Name):
			return t.Errorf("table", "%s.%s has the name of a column that the backup has itself: rename it", t.Table, c.Name)
		}
	}
	for _, c := range t.Audited(s) {
		if slices.Contains(ofAudit, c.Name) {
			return t.Errorf("table", "%s.%s has the name of a column that the audit has itself: rename it, or name another column", t.Table, c.Name)
		}
	}
	return nil
}

// Audited are the columns that the audit has of a row: its key, the user and the age.
func (t Target) Audited(s Shape) []Column { return s.only(append([]string{t.User, t.Age}, t.Key...)) }

// Stored are the columns that the backup has of a row: all of them, or what an update
// overwrites, with the key and the user.
func (t Target) Stored(s Shape) []Column {
	if t.Action == Delete {
		return s.Columns
	}
	names := append([]string{t.User}, t.Key...)
	for _, a := range t.Set {
		names = append(names, a.Column)
	}
	return s.only(append(names, t.Backup.Columns...))
}

// only are those of the columns that have the names, in the order of the table.
func (s Shape) only(names []string) (columns []Column) {
	for _, c := range s.Columns {
		if slices.Contains(names, c.Name) {
			columns = append(columns, c)
		}
	}
	return columns
}

// Interval is a duration as PostgreSQL reads it, in days where it is whole days.
func Interval(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}
