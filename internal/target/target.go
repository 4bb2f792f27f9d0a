// Package target reads targets.yaml: the tables whose rows belong to users, and what is
// done with the rows of users who are deleted. It says whether a database has those
// tables, and which columns of it look like user ids and are in no file.
package target

import (
	"fmt"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// The actions of a target.
const (
	Delete = "delete"
	Update = "update"
)

// File is a targets.yaml that is valid in itself; [File.Validate] compares it with a
// database.
type File struct {
	Path    string
	Targets []Target // in the order of the sweep: as in the file, but each behind those in its After
	Ignored []Ignored
}

// Target is one table. Names of tables and columns are those of the catalog, not folded,
// and of ASCII letters, digits and underscores only: quoted, they are safe in any statement.
type Target struct {
	Name      string // [a-z][a-z0-9_]{0,39}: part of the names of its functions
	Table     Table
	User      string // uuid
	Key       []string
	Age       string // timestamptz; empty: none, the user's clock alone counts
	Action    string // Delete or Update
	Set       []Assignment
	Where     Expression // rows that are not done yet; empty: all. Of an Update it is false after Set
	After     []string   // targets that are swept earlier
	Retention time.Duration
	Limits    settings.Limits // the stricter of these and of the run's count
	Activity  string          // timestamptz, for recently-active; empty: none
	Backup    Backup
	Counter   *Counter // nil: nothing counts its rows

	place
}

// Counter is a column of another table that counts rows of a target, those that are not
// done yet: a delete or an update takes one, a restore adds one.
type Counter struct {
	Table  Table
	Key    []Pair // unique in that table
	Column string
}

// Pair is a column of the counter's key, and the column of the target that has its value.
type Pair struct{ Counter, Target string }

// Table is the name of a table.
type Table struct{ Schema, Name string }

func (t Table) String() string { return t.Schema + "." + t.Name }

// Assignment is one column that an update sets.
type Assignment struct {
	Column     string
	Expression Expression
}

// Backup is what is kept of a row. A delete keeps all of it.
type Backup struct {
	Columns []string      // of an update, beside the key and what it sets
	Window  time.Duration // how long they are kept, where that is longer than prune keeps others; 0: as long
}

// Ignored is a column that looks like a user id and is none that is cleaned.
type Ignored struct {
	Table  Table
	Column string
	Reason string

	place
}

// Members is the target that is built in.
func Members() Target {
	return Target{
		Name: "conversation_members", Table: Table{"public", "conversation_members"}, User: "user_id",
		Key: []string{"conversation_id", "user_id"}, Age: "joined_at", Action: Delete, Activity: "last_read_at",
	}
}

// Error is something in a file that has to be changed, in one line.
type Error struct {
	Path         string
	Line, Column int
	Message      string // what is wrong, and the fix
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.Path, e.Line, e.Column, e.Message)
}

// place is where the fields of an entry stand in its file: "user", "set.deleted_at".
type place struct {
	path string
	at   map[string]position
}

type position struct{ line, column int }

// Errorf is an error at a field, or at the entry where the field is not there.
func (p place) Errorf(field, format string, args ...any) error {
	at, is := p.at[field]
	if !is {
		at = p.at[""]
	}
	return &Error{p.path, at.line, at.column, fmt.Sprintf(format, args...)}
}
