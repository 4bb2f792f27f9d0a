package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.yaml.in/yaml/v4"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

// References are the columns of a database that look like user ids.
type References struct {
	Targets   []string    `json:"targets"`   // the columns that are targets
	Ignored   []string    `json:"ignored"`   // the columns that are ignored
	Left      []Reference `json:"left"`      // neither: what is to be decided
	Unsampled []Unsampled `json:"unsampled"` // uuid columns that only their values could tell
	Disagree  []string    `json:"disagree"`  // where file, registry and functions do, and targets that were not applied; not looked for here
	Notes     []string    `json:"notes"`     // what could not be shown of the file
}

// Reference is a column that looks like a user id.
type Reference struct {
	Column       string   `json:"column"` // schema.table.column
	Type         string   `json:"type"`
	Reasons      []string `json:"reasons"`       // foreign-key, name, values
	RowsEstimate *int64   `json:"rows_estimate"` // null: never analyzed
	Sampled      *int64   `json:"sampled"`       // values of the sample; null: not sampled
	Known        *int64   `json:"known"`         // those of them that are ids of members or shadow users
	NotSampled   string   `json:"not_sampled,omitempty"`
	Stanza       string   `json:"stanza"` // for targets.yaml
}

// Unsampled is a column without a sample, and why.
type Unsampled struct {
	Column string `json:"column"`
	Reason string `json:"reason"`
}

// FindReferences looks for columns that look like user ids, by type, name, foreign keys
// onto the shadow table and a sample of the values, in READ ONLY transactions.
func (f File) FindReferences(ctx context.Context, pool *pgxpool.Pool) (References, error) {
	found := References{Targets: []string{}, Ignored: []string{}, Left: []Reference{}, Unsampled: []Unsampled{}, Disagree: []string{}, Notes: []string{}}
	for _, t := range append([]Target{Members()}, f.Targets...) {
		found.Targets = append(found.Targets, t.Table.String()+"."+t.User)
	}
	for _, i := range f.Ignored {
		found.Ignored = append(found.Ignored, i.Table.String()+"."+i.Column)
	}
	var columns []db.TargetReferencesRow
	if err := bounded(ctx, pool, pgx.ReadOnly, func(tx pgx.Tx) (err error) {
		columns, err = database.Queries(tx).TargetReferences(ctx)
		return err
	}); err != nil {
		return found, fmt.Errorf("looking for columns: %w", err)
	}
	for _, c := range columns {
		name := c.TableSchema + "." + c.TableName + "." + c.ColumnName
		if slices.Contains(found.Targets, name) || slices.Contains(found.Ignored, name) {
			continue
		}
		s, err := sampleOf(ctx, pool, c)
		if err != nil {
			return found, fmt.Errorf("taking a sample of %s: %w", name, err)
		}
		r := Reference{Column: name, Type: c.TypeName, NotSampled: s.missing, Stanza: stanza(c)}
		if c.RowsEstimate >= 0 {
			r.RowsEstimate = &c.RowsEstimate
		}
		if s.missing == "" {
			r.Sampled, r.Known = &s.values, &s.known
		}
		if c.IsForeignKey {
			r.Reasons = append(r.Reasons, "foreign-key")
		}
		// A text whose values are no ids, such as the name of an author, is none.
		if c.IsNamed && (!c.IsText || s.values == 0 || s.ids > 0) {
			r.Reasons = append(r.Reasons, "name")
		}
		if s.known > 0 {
			r.Reasons = append(r.Reasons, "values")
		}
		if len(r.Reasons) > 0 {
			found.Left = append(found.Left, r)
		} else if s.missing != "" {
			found.Unsampled = append(found.Unsampled, Unsampled{name, s.missing})
		}
	}
	return found, nil
}

// sample counts values, those that look like ids, and those that are known users'.
type sample struct {
	values, ids, known int64
	missing            string // why there is none
}

// sampleOf runs the statement that the server wrote; its names are quoted there.
func sampleOf(ctx context.Context, pool *pgxpool.Pool, c db.TargetReferencesRow) (s sample, err error) {
	if c.MissingGrants != "" {
		return sample{missing: c.MissingGrants}, nil
	}
	err = bounded(ctx, pool, pgx.ReadOnly, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, c.Sampling).Scan(&s.values, &s.ids, &s.known)
	})
	if database.Code(err) != "" {
		return sample{missing: message(err)}, nil
	}
	return s, err
}

// unprintable is why a column can be no target though its table has a key, or empty.
func unprintable(c db.TargetReferencesRow) string {
	t := Target{Table: Table{c.TableSchema, c.TableName}, User: c.ColumnName, Key: c.KeyColumns, Age: c.AgeColumn, Action: Delete}
	if c.IsNullable {
		t.Action = Update
	}
	switch isGenerated := !slices.Contains(c.ColumnNames, c.ColumnName); {
	case isGenerated && c.IsNullable:
		return "no target: it is generated, and cannot be set to null"
	case t.deletesOthers():
		return "no target: a delete by it would delete members whose own users may live"
	}
	for _, name := range append([]string{c.TableSchema, c.TableName, c.ColumnName, c.AgeColumn}, c.KeyColumns...) {
		if name != "" && (!plainNames.MatchString(name) || strings.Contains(name, ".")) {
			return fmt.Sprintf("no target: %q has other characters than letters, digits and _", name)
		}
	}
	var s Shape
	for _, name := range c.ColumnNames {
		s.Columns = append(s.Columns, Column{Name: name, Type: "uuid"})
	}
	if of, is := errors.AsType[*Error](t.Printable(s)); is {
		return "no target: " + of.Message
	}
	return ""
}

// stanza is what a file could say about a column: a target, or a reason to ignore it where
// it can be none. What can be null is set to null: a row may belong to more than its user.
func stanza(c db.TargetReferencesRow) string {
	table, reason := c.TableSchema+"."+c.TableName, unprintable(c)
	var entry any = []struct {
		Column string `yaml:"column"`
		Reason string `yaml:"reason"`
	}{{table + "." + c.ColumnName, safetext.Line(cmp.Or(reason, "why rows of deleted users stay"), 200)}}
	if len(c.KeyColumns) > 0 && c.TypeName == "uuid" && reason == "" {
		t := struct {
			Name   string            `yaml:"name"`
			Table  string            `yaml:"table"`
			User   string            `yaml:"user"`
			Key    []string          `yaml:"key,flow"`
			Age    string            `yaml:"age"`
			Action string            `yaml:"action"`
			Where  string            `yaml:"where,omitempty"`
			Set    map[string]string `yaml:"set,flow,omitempty"`
		}{cmp.Or(strings.TrimLeft(strings.ToLower(c.TableName), "_0123456789"), "t"), table, c.ColumnName, c.KeyColumns, cmp.Or(c.AgeColumn, none), Delete, "", nil}
		if c.ColumnName != Members().User {
			t.Name += "_" + strings.ToLower(c.ColumnName)
		}
		t.Name = t.Name[:min(len(t.Name), 40)]
		if c.IsNullable {
			t.Action, t.Where, t.Set = Update, `"`+c.ColumnName+`" IS NOT NULL`, map[string]string{c.ColumnName: "NULL"}
		}
		entry = []any{t}
	}
	text, err := yaml.Dump(entry)
	if err != nil {
		return "# " + err.Error()
	}
	return string(text)
}
