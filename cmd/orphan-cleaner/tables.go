package main

import (
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

// titled is a table with a line above it, as long as it needs to be: go-pretty
// would break it to the width of the table.
type titled struct {
	table.Writer
	title   string
	columns []tableColumn
}

// tableColumn is what the layout of a column depends on; widths in columns of the screen.
type tableColumn struct {
	header, word, content int  // of the header, of its longest word, of the widest cell
	isText                bool // some cell is not a number
}

// newTable is a plain table. Nothing of it is ever cut.
func newTable(title string, header ...any) *titled {
	t := &titled{Writer: table.NewWriter(), title: title, columns: make([]tableColumn, len(header))}
	t.SetStyle(table.StyleLight)
	t.Style().Options.DrawBorder = false
	t.Style().Options.SeparateColumns = false
	t.Style().Format.Header = text.FormatDefault
	t.Style().Format.Footer = text.FormatDefault
	if len(header) > 0 {
		t.AppendHeader(header)
	}
	for i, cell := range header {
		t.columns[i].header = text.LongestLineLen(fmt.Sprint(cell))
		for word := range strings.FieldsSeq(fmt.Sprint(cell)) {
			t.columns[i].word = max(t.columns[i].word, text.StringWidth(word))
		}
	}
	return t
}

// AppendRow appends a row whose texts are fit for a terminal: what others wrote, such
// as the reason of a hold, stays in its cell.
func (t *titled) AppendRow(row table.Row, config ...table.RowConfig) {
	t.Writer.AppendRow(t.measured(shownRow(row)), config...)
}

// AppendRows is AppendRow for each.
func (t *titled) AppendRows(rows []table.Row, config ...table.RowConfig) {
	for _, row := range rows {
		t.AppendRow(row, config...)
	}
}

// AppendFooter is AppendRow for the last row.
func (t *titled) AppendFooter(row table.Row, config ...table.RowConfig) {
	t.Writer.AppendFooter(t.measured(shownRow(row)), config...)
}

// numeric is a cell that belongs to the right of its column.
var numeric = regexp.MustCompile(`^[-\d.,]*( ?([kKMGT]?i?B|ms|s|%))?$`)

func (t *titled) measured(row table.Row) table.Row {
	for len(t.columns) < len(row) {
		t.columns = append(t.columns, tableColumn{})
	}
	for i, cell := range row {
		shown := fmt.Sprint(cell)
		t.columns[i].content = max(t.columns[i].content, text.StringWidth(shown))
		t.columns[i].isText = t.columns[i].isText || !numeric.MatchString(shown)
	}
	return row
}

// fit puts numbers to the right and, on a screen of that width, wraps headers first
// and then the widest text, and so on; 0 is no limit.
func (t *titled) fit(width int) {
	configs := make([]table.ColumnConfig, len(t.columns))
	total := 0
	padding := len(t.Style().Box.PaddingLeft) + len(t.Style().Box.PaddingRight)
	for i, c := range t.columns {
		configs[i].Number = i + 1
		if !c.isText && c.content > 0 {
			configs[i].Align, configs[i].AlignHeader, configs[i].AlignFooter = text.AlignRight, text.AlignRight, text.AlignRight
		}
		total += max(c.header, c.content) + padding
	}
	if width > 0 && total > width {
		total = 0
		for i, c := range t.columns {
			configs[i].WidthMax, configs[i].WidthMaxEnforcer = max(c.word, c.content), text.WrapSoft
			total += configs[i].WidthMax + padding
		}
		for total > width {
			widest := -1
			for i, c := range t.columns {
				if c.isText && configs[i].WidthMax > max(c.word, narrowest) && (widest < 0 || configs[i].WidthMax >= configs[widest].WidthMax) {
					widest = i
				}
			}
			if widest < 0 { // it does not fit: names stay whole
				for i, c := range t.columns {
					configs[i].WidthMax = max(c.word, c.content)
				}
				break
			}
			narrower := max(configs[widest].WidthMax-(total-width), t.columns[widest].word, narrowest)
			total -= configs[widest].WidthMax - narrower
			configs[widest].WidthMax = narrower
		}
	}
	t.SetColumnConfigs(configs)
}

// narrowest is the least width that a text is wrapped to.
const narrowest = 12

// bareURL is a cell: a URL that was made without its secrets, whose login is shown.
type bareURL string

func shownRow(row table.Row) table.Row {
	safe := make(table.Row, len(row))
	for i, cell := range row {
		if url, is := cell.(bareURL); is {
			safe[i] = safetext.URL(string(url), maxShown)
			continue
		}
		// A state may be of a type of its own.
		if value := reflect.ValueOf(cell); value.Kind() == reflect.String {
			cell = shown(value.String())
		}
		safe[i] = cell
	}
	return safe
}

// sheet gathers lines, and tables that are as wide as where it goes, and is written at once.
type sheet struct {
	strings.Builder
	to io.Writer
}

func (s *sheet) line(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

func (s *sheet) table(t *titled) {
	t.fit(columns(s.to))
	if t.title != "" {
		s.line(" %s", shown(t.title))
	}
	s.line("%s", t.Render())
}

func (s *sheet) print() error {
	_, err := io.WriteString(s.to, s.String())
	return err
}

func printTable(w io.Writer, t *titled) error {
	s := &sheet{to: w}
	s.table(t)
	return s.print()
}

func printDryRun(w io.Writer, r result.Run) error {
	s := &sheet{to: w}
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
	for _, row := range []struct {
		what          string
		conversations int64
	}{
		{"conversations that lose their last owner", r.OwnersLost},
		{"conversations whose last owner stays", r.OwnersKept},
		{"conversations that lose their last member", r.ConversationsEmptied},
	} {
		if row.conversations > 0 {
			t.AppendRow(table.Row{row.what, "", row.conversations})
		}
	}
	if r.Breaker != nil {
		t.AppendFooter(table.Row{"a run would be refused by", *r.Breaker, ""})
	}
	s.table(t)
	if len(r.Targets) > 1 {
		t = newTable("Rows of each target", "target", "rows", "due", "kept: younger", "kept: on hold")
		for _, of := range r.Targets {
			t.AppendRow(table.Row{of.Name, of.RowsTotal, of.RowsDue, of.RowsKeptYoung, of.RowsHeld})
		}
		s.table(t)
	}
	return s.print()
}
