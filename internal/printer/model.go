// Package printer writes the goose migrations that make tables targets: literal SQL for
// each table, from templates. What is printed is all that a later print knows: it reads
// the folder, and prints what differs.
package printer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/target"
)

// Model is what the templates have of a target. What a later print has to know of it
// stands in the migration's header as JSON: no text in it can end a comment.
type Model struct {
	Name      string   `json:"name"`
	Table     string   `json:"table"` // quoted where it must be
	User      string   `json:"user"`  // as in the catalog
	Action    string   `json:"action"`
	Retention string   `json:"retention"` // an SQL expression
	Limits    string   `json:"limits"`    // JSON
	Digest    string   `json:"digest"`    // of its functions, see [digest]
	Audit     []Column `json:"audit"`     // the columns of its audit, and
	Backup    []Column `json:"backup"`    // of its backup, former ones too

	// Not in the header: they are in the functions.
	Base                 string            `json:"-"` // the table without its schema
	Owner, Aged, Active  string            `json:"-"` // columns, quoted where they must be; empty: none
	Condition            target.Expression `json:"-"`
	Key, Audited, Stored []Column          `json:"-"`
	Kept                 []Column          `json:"-"` // what the backup or the audit has
	Sets                 []Set             `json:"-"`
}

// Column is a column of a table.
type Column = target.Column

// Set is a column that an update sets.
type Set struct {
	Column
	Expression target.Expression
}

// AuditTable is its audit.
func (m Model) AuditTable() string { return "orphan_cleaner." + m.Name + "_audit" }

// BackupTable is its backup.
func (m Model) BackupTable() string { return "orphan_cleaner." + m.Name + "_backup" }

// Index is the index by which the table is scanned, in the schema of the table.
func (m Model) Index() string {
	return m.Table[:len(m.Table)-len(m.Base)] + m.IndexName()
}

// IndexName is its name without the schema.
func (m Model) IndexName() string { return "orphan_cleaner_" + m.Name + "_user" }

// IsUpdate says that rows are updated and not deleted.
func (m Model) IsUpdate() bool { return m.Action == target.Update }

// Did is what becomes of a row.
func (m Model) Did() string { return m.Action + "d" }

// OwnerAs is the user's column of m by the name of user_id.
func (m Model) OwnerAs() string {
	if m.Owner == "user_id" {
		return "m.user_id"
	}
	return "m." + m.Owner + " AS user_id"
}

// From is the rows that are not done yet, as m. A condition sees the columns of the table
// alone: no other name is in its scope.
func (m Model) From() string {
	if m.Condition == "" {
		return m.Table + " AS m"
	}
	names := []string{"ctid", "xmin"}
	for _, name := range []string{m.Owner, m.Aged, m.Active} {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return "(SELECT " + m.Base + "." + strings.Join(names, ", "+m.Base+".") + " FROM " + m.Table + " WHERE (" + string(m.Condition) + ")) AS m"
}

// newModel is a target and its table.
func newModel(t target.Target, s target.Shape) (Model, error) {
	limits, err := json.Marshal(t.Limits)
	if err != nil {
		return Model{}, fmt.Errorf("writing the limits of %s: %w", t.Name, err)
	}
	if t.Limits == nil {
		limits = []byte("{}")
	}
	column := func(name string) Column {
		i := slices.IndexFunc(s.Columns, func(c Column) bool { return c.Name == name })
		if i < 0 {
			return Column{}
		}
		return s.Columns[i]
	}
	m := Model{
		Name: t.Name, Table: s.Table, User: t.User, Action: t.Action, Retention: "NULL", Limits: string(limits),
		Base: s.Base, Owner: column(t.User).Ident, Aged: column(t.Age).Ident, Active: column(t.Activity).Ident,
		Condition: t.Where, Audited: t.Audited(s), Stored: t.Stored(s),
	}
	if t.Retention != 0 {
		m.Retention = "interval " + literal(target.Interval(t.Retention))
	}
	for _, name := range t.Key {
		m.Key = append(m.Key, column(name))
	}
	for _, a := range t.Set {
		m.Sets = append(m.Sets, Set{column(a.Column), a.Expression})
	}
	m.Audit, m.Backup, m.Kept = m.Audited, m.Stored, merged(m.Stored, m.Audited)
	return m, nil
}

// merged are columns, and behind them those others that are not among them by name.
func merged(columns, others []Column) []Column {
	columns = slices.Clone(columns)
	for _, other := range others {
		if !slices.ContainsFunc(columns, func(c Column) bool { return c.Name == other.Name }) {
			columns = append(columns, other)
		}
	}
	return columns
}

// digest is that of the functions of a target, as the database can work it out: names,
// settings and bodies.
func digest(functions []Function) string {
	h := sha256.New()
	for i, f := range slices.SortedFunc(slices.Values(functions), func(a, b Function) int { return strings.Compare(a.Name, b.Name) }) {
		if i > 0 {
			h.Write([]byte("\n"))
		}
		fmt.Fprintf(h, "%s\n%s\n%s", f.Name, f.settings(), f.body())
	}
	return hex.EncodeToString(h.Sum(nil))
}
