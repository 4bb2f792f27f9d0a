package main

import (
	"fmt"
	"io"
	"reflect"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/result"
)

// titled is a table with a line above it, as long as it needs to be: go-pretty
// would break it to the width of the table.
type titled struct {
	table.Writer
	title string
}

// newTable is a plain table of at most 100 columns.
func newTable(title string, header ...any) titled {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options.DrawBorder = false
	t.Style().Options.SeparateColumns = false
	t.Style().Format.Header = text.FormatDefault
	t.Style().Format.Footer = text.FormatDefault
	t.SetAllowedRowLength(100)
	if len(header) > 0 {
		t.AppendHeader(header)
	}
	return titled{t, title}
}

// AppendRow appends a row whose texts are fit for a terminal: what others wrote, such
// as the reason of a hold, stays in its cell.
func (t titled) AppendRow(row table.Row, config ...table.RowConfig) {
	t.Writer.AppendRow(shownRow(row), config...)
}

// AppendRows is AppendRow for each.
func (t titled) AppendRows(rows []table.Row, config ...table.RowConfig) {
	for _, row := range rows {
		t.AppendRow(row, config...)
	}
}

// AppendFooter is AppendRow for the last row.
func (t titled) AppendFooter(row table.Row, config ...table.RowConfig) {
	t.Writer.AppendFooter(shownRow(row), config...)
}

func shownRow(row table.Row) table.Row {
	safe := make(table.Row, len(row))
	for i, cell := range row {
		// A state may be of a type of its own.
		if value := reflect.ValueOf(cell); value.Kind() == reflect.String {
			cell = shown(value.String())
		}
		safe[i] = cell
	}
	return safe
}

func printTable(w io.Writer, t titled) error {
	if t.title != "" {
		if _, err := fmt.Fprintln(w, " "+shown(t.title)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, t.Render())
	return err
}

func printDryRun(w io.Writer, r result.Run) error {
	t := newTable("Dry run: nothing was changed", "", "users", "members")
	t.AppendRows([]table.Row{
		{"checked", r.UsersChecked, r.MembersTotal},
		{"missing", r.UsersMissing, ""},
		{"  for the first time", r.UsersNew, ""},
		{"due, a run would delete", r.UsersDue, r.MembersDue},
		{"kept: member younger than the retention", "", r.MembersKeptYoung},
		{"kept: on hold", "", r.MembersHeld},
		{"unknown, never touched", r.UsersUnknown, ""},
	})
	if r.Breaker != nil {
		t.AppendFooter(table.Row{"a run would be refused by", *r.Breaker, ""})
	}
	return printTable(w, t)
}
