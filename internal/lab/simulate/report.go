package simulate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/internal/lab/document"
)

// The lines of a document between which the tables stand.
const (
	markBegin = "<!-- simulate: from here to the end mark `make simulate` writes -->"
	markEnd   = "<!-- simulate: end -->"
)

// WriteMarkdown puts the tables between the marks of a document, in place of what
// is there.
func WriteMarkdown(path string, outcomes []Outcome) error {
	return document.Replace(path, markBegin, markEnd, Markdown(outcomes))
}

// Markdown has a table for honest histories and one for the others.
func Markdown(outcomes []Outcome) string {
	honest, dishonest := table.NewWriter(), table.NewWriter()
	honest.AppendHeader(table.Row{"honest history", "rows", "days", "days refused", "by", "orphans' rows deleted"})
	dishonest.AppendHeader(table.Row{"group", "loss", "rows", "refused on day", "by", "living users' rows deleted", "of the table"})
	for _, o := range outcomes {
		if o.Name == "" { // not played
			continue
		}
		if o.Group == honestGroup {
			honest.AppendRow(table.Row{o.Name, document.Thousands(o.Rows), o.Days, o.RefusedDays, o.breakers(), document.Thousands(o.OrphansDeleted)})
			continue
		}
		day := "never"
		if o.RefusedDay >= 0 {
			day = fmt.Sprint(o.RefusedDay + 1)
		}
		dishonest.AppendRow(table.Row{o.Group, o.Name, document.Thousands(o.Rows), day, o.Breaker, document.Thousands(o.LivingDeleted), fmt.Sprintf("%.2f %%", o.Cost())})
	}
	return "### Honest\n\n" + honest.RenderMarkdown() + "\n\n### Dishonest\n\n" + dishonest.RenderMarkdown() + "\n"
}

// breakers are those that refused, with how many runs each.
func (o Outcome) breakers() string {
	var names []string
	for name, runs := range o.Breakers {
		names = append(names, fmt.Sprintf("%s (%d)", name, runs))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
