package bench

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/lab/document"
)

// titled is a table with a line above it.
type titled struct {
	table.Writer
	title string
}

func (r Report) tables() []titled {
	tables := []titled{r.runTable()}
	if t := r.applicationTable(); t.Length() > 0 {
		tables = append(tables, t)
	}
	return tables
}

func newTable(title string, header ...any) titled {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options.DrawBorder = false
	t.Style().Options.SeparateColumns = false
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(header)
	var right []table.ColumnConfig
	for i := range header {
		right = append(right, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	return titled{t, title}
}

func (r Report) runTable() titled {
	t := newTable("A run beside the floor, from start to exit (s)",
		"members", "dead", "deleted", "run", "floor", "run/floor", fmt.Sprintf("run %d", r.RunsBefore+1), "later/fresh", "calls", "expected", "MiB")
	for _, c := range r.Cases {
		worn, ratio := "", ""
		if c.Worn != nil {
			worn, ratio = seconds(c.Worn.Seconds), fmt.Sprintf("%.2f", c.WornToFresh)
		}
		t.AppendRow(table.Row{
			document.Thousands(c.Members), percent(c.Share), document.Thousands(c.Doomed), seconds(c.Run.Seconds), seconds(c.Floor.Seconds),
			fmt.Sprintf("%.2f", c.ToFloor), worn, ratio, document.Thousands(c.Calls), document.Thousands(c.CallsExpected), c.PeakMemory >> 20,
		})
	}
	return t
}

func (r Report) applicationTable() titled {
	t := newTable("The application beside the run (ms)",
		"members", "dead", "tx/s", "alone P50", "alone P99", "beside P50", "beside P99", "P99 ratio", "tx beside", "run (s)")
	for _, c := range r.Cases {
		if a := c.Application; a != nil {
			t.AppendRow(table.Row{
				document.Thousands(c.Members), percent(c.Share), a.Rate, millis(a.Alone.P50), millis(a.Alone.P99), millis(a.Beside.P50), millis(a.Beside.P99),
				fmt.Sprintf("%.2f", a.P99Ratio), document.Thousands(a.Beside.Transactions), seconds(a.Run),
			})
		}
	}
	return t
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'g', 3, 64) + " %" }

// seconds has three digits that count.
func seconds(s float64) string {
	switch {
	case s < 0.0995:
		return strconv.FormatFloat(s, 'f', 3, 64)
	case s < 9.95:
		return strconv.FormatFloat(s, 'f', 2, 64)
	case s < 99.5:
		return strconv.FormatFloat(s, 'f', 1, 64)
	default:
		return strconv.FormatFloat(s, 'f', 0, 64)
	}
}

func millis(ms float64) string {
	if ms < 9.95 {
		return strconv.FormatFloat(ms, 'f', 1, 64)
	}
	return strconv.FormatFloat(ms, 'f', 0, 64)
}

// Setup says in a line what all of it ran on.
func (r Report) Setup() string {
	answers := "answers at once"
	switch {
	case r.Source == "sql":
		answers = "auth-service is a table of the same server"
	case r.P50 > 0:
		answers = fmt.Sprintf("answers after %g ms, P99 %g ms", 1000*r.P50, 1000*max(r.P50, r.P99))
	}
	return fmt.Sprintf("orphan-cleaner %s, %s: %d CPUs (%s/%s) for everything, PostgreSQL %s, %s; %s; medians of %d repetitions.",
		r.Version, r.Date[:len(time.DateOnly)], r.Machine.CPUs, r.Machine.OS, r.Machine.Arch, r.Machine.PostgreSQL, r.Machine.Go, answers, r.Repeat)
}

// notes say what was done against the breakers.
func (r Report) notes() []string {
	return []string{"Runs were made with " + strings.Join(loosen(), " ") + ", so that no breaker refuses them."}
}

// Text is the report for a terminal.
func (r Report) Text() string {
	var b strings.Builder
	fmt.Fprintln(&b, r.Setup())
	for _, t := range r.tables() {
		fmt.Fprintf(&b, "\n %s\n%s\n", t.title, t.Render())
	}
	fmt.Fprintln(&b)
	for _, note := range r.notes() {
		fmt.Fprintln(&b, note)
	}
	return b.String()
}

// Markdown is the report for a document.
func (r Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintln(&b, r.Setup())
	for _, t := range r.tables() {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", t.title, t.RenderMarkdown())
	}
	for _, note := range r.notes() {
		fmt.Fprintf(&b, "\n%s\n", note)
	}
	return b.String()
}

// The lines of a document between which the figures stand.
const (
	markBegin = "<!-- bench: from here to the end mark `make bench` writes -->"
	markEnd   = "<!-- bench: end -->"
)

// WriteMarkdown puts the report between the marks of a document, in place of what
// is there, and the chart before it, where there is one.
func (r Report) WriteMarkdown(path, chart string) error {
	figures := r.Markdown()
	if chart != "" {
		chart, err := filepath.Rel(filepath.Dir(path), chart)
		if err != nil {
			return err
		}
		figures = "![Seconds of a run and of the floor, on a logarithmic scale](" + filepath.ToSlash(chart) + ")\n\n" + figures
	}
	return document.Replace(path, markBegin, markEnd, figures)
}
