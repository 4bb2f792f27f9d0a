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
	"time"

	"github.com/nova-social/orphan-cleaner/internal/target"
)

// Model is what the templates have of a target. What a later print has to know of it
// stands in the migration's header as JSON: no text in it can end a comment.
type Model struct {
	Name      string   `json:"name"`
	Table     string   `json:"table"` // quoted where it must be
	User      string   `json:"user"`  // as in the catalog
	Action    string   `json:"action"`
	Retention string   `json:"retention"`         // an SQL expression
	Limits    string   `json:"limits"`            // JSON
	Window    string   `json:"window"`            // of its backups, an SQL expression
	Counts    string   `json:"counter,omitempty"` // as the registry has it, JSON; empty: nothing counts its rows
	Digest    string   `json:"digest"`            // of its functions, see [digest]
	Audit     []Column `json:"audit"`             // the columns of its audit, and
	Backup    []Column `json:"backup"`            // of its backup, former ones too

	// Not in the header: they are in the functions.
	Base                 string              `json:"-"` // the table without its schema
	Owner, Aged, Active  string              `json:"-"` // columns, quoted where they must be; empty: none
	Condition            target.Expression   `json:"-"`
	Key, Audited, Stored []Column            `json:"-"`
	Kept                 []Column            `json:"-"` // what the backup or the audit has
	Sets                 []Set               `json:"-"`
	Counter              target.CounterShape `json:"-"`

	// Shipped says that it is conversation_members, whose functions stand in the migrations of
	// this program. Its rows belong to conversations, which are put on hold, have owners and are
	// what restores and events name; and it may lack a role or a last_read_at, and gets columns
	// without a migration, so that what reads whole rows looks them up.
	Shipped bool `json:"-"`
}

// Column is a column of a table.
type Column = target.Column

// Set is a column that an update sets.
type Set struct {
	Column
	Expression target.Expression
}

// AuditTable is its audit.
func (m Model) AuditTable() string { return m.evidence() + "_audit" }

// BackupTable is its backup.
func (m Model) BackupTable() string { return m.evidence() + "_backup" }

func (m Model) evidence() string {
	if m.Shipped {
		return m.Table
	}
	return "orphan_cleaner." + m.Name
}

// Index is the index by which the table is scanned, in the schema of the table.
func (m Model) Index() string {
	return m.Table[:len(m.Table)-len(m.Base)] + m.IndexName()
}

// IndexName is its name without the schema.
func (m Model) IndexName() string {
	if m.Shipped {
		return m.Base + "_" + m.Owner
	}
	return "orphan_cleaner_" + m.Name + "_user"
}

// IsUpdate says that rows are updated and not deleted.
func (m Model) IsUpdate() bool { return m.Action == target.Update }

// HasCounter says that a column counts its rows.
func (m Model) HasCounter() bool { return m.Counts != "" }

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

// Rows is the same, on indented lines, for what reads columns that may not be there.
func (m Model) Rows(indent string) string {
	if !m.Shipped {
		return m.From()
	}
	return strings.Join([]string{
		"(SELECT NULL::timestamptz AS last_read_at, NULL AS role) AS absent",
		"-- A name that the inner query has no column of is found in the outer one.",
		"CROSS JOIN LATERAL (",
		"    SELECT o.ctid, o.xmin, o.conversation_id, o.user_id, o.joined_at, last_read_at, role::text AS role",
		"    FROM " + m.Table + " AS o",
		") AS m",
	}, "\n"+indent)
}

// Gone is the deleted rows, as g.
func (m Model) Gone() string {
	if !m.Shipped {
		return "gone AS g"
	}
	return "(SELECT NULL AS role, NULL::timestamptz AS joined_at) AS absent" +
		" CROSS JOIN LATERAL (SELECT o.conversation_id, o.user_id, role::text AS role, joined_at FROM gone AS o) AS g"
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
	counts, err := t.Counter.JSON(s.Counter.Table)
	if err != nil {
		return Model{}, fmt.Errorf("writing the counter of %s: %w", t.Name, err)
	}
	column := func(name string) Column {
		i := slices.IndexFunc(s.Columns, func(c Column) bool { return c.Name == name })
		if i < 0 {
			return Column{}
		}
		return s.Columns[i]
	}
	m := Model{
		Name: t.Name, Table: s.Table, User: t.User, Action: t.Action, Retention: orNull(t.Retention), Limits: string(limits), Window: orNull(t.Backup.Window),
		Base: s.Base, Owner: column(t.User).Ident, Aged: column(t.Age).Ident, Active: column(t.Activity).Ident,
		Condition: t.Where, Counts: counts, Counter: s.Counter, Audited: t.Audited(s), Stored: t.Stored(s),
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

// orNull is an SQL expression; null for 0.
func orNull(d time.Duration) string {
	if d == 0 {
		return "NULL"
	}
	return "interval " + literal(target.Interval(d))
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
