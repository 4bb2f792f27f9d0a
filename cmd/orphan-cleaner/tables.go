package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/cleaner"
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

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func printTable(w io.Writer, t titled) error {
	if t.title != "" {
		if _, err := fmt.Fprintln(w, " "+t.title); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, t.Render())
	return err
}

func printDryRun(w io.Writer, r cleaner.Result) error {
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
