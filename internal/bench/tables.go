package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// Table is one for people.
type Table struct {
	Title  string
	Header []string
	Rows   [][]string
	Notes  []string
}

// Fill writes header and rows.
func (t Table) Fill(w table.Writer) {
	w.AppendHeader(row(t.Header))
	for _, cells := range t.Rows {
		w.AppendRow(row(cells))
	}
}

// Tables are a report for people, the runbook's two first.
func (r Report) Tables() []Table {
	var tables []Table
	for _, t := range []Table{r.callTable(), r.runTable()} {
		if len(t.Rows) > 0 {
			tables = append(tables, t)
		}
	}
	for _, c := range r.Cases {
		tables = append(tables, c.table())
	}
	if t := r.neighbourTable(); len(t.Rows) > 0 {
		tables = append(tables, t)
	}
	return tables
}

func (r Report) callTable() Table {
	t := Table{
		Title:  "Runbook 5.1, asking auth-service about users (ms)",
		Header: []string{"users", "calls", "runbook P50", "P99", "ours P50", "P99", "answers at once P50", "P99"},
	}
	for _, c := range r.Calls {
		t.Rows = append(t.Rows, []string{
			thousands(c.Users), thousands(c.Calls), millis(c.RunbookP50), millis(c.RunbookP99),
			millis(c.P50), millis(c.P99), millis(c.InstantP50), millis(c.InstantP99),
		})
		t.Notes = []string{fmt.Sprintf("Ours: %d in flight at once, each answer as slow as the runbook says of its call; %d times each.", r.Concurrent, c.Samples)}
	}
	return t
}

// runbookRuns is the runbook's table 5.2, by members.
func runbookRuns() map[int]struct {
	seconds float64
	deleted int
} {
	return map[int]struct {
		seconds float64
		deleted int
	}{150: {0.5, 5}, 1_500: {4.2, 50}, 15_000: {38, 500}}
}

func (r Report) runTable() Table {
	t := Table{
		Title:  "Runbook 5.2, a run (s)",
		Header: []string{"conversations", "members", "answers", "deleted", "runbook s", "ours s", "ratio"},
	}
	for _, c := range r.Cases {
		runbook, known := runbookRuns()[c.Members]
		ours, measured := c.of("ours")
		if !known || !measured || int(c.Doomed) != runbook.deleted {
			continue
		}
		t.Rows = append(t.Rows, []string{
			thousands(c.Conversations), thousands(c.Members), c.answers(), thousands(int(ours.Deleted)),
			seconds(runbook.seconds), seconds(ours.Seconds), strconv.FormatFloat(runbook.seconds/ours.Seconds, 'f', 0, 64),
		})
	}
	return t
}

func (c CaseResult) answers() string {
	if c.P50 == 0 {
		return "0 ms"
	}
	return fmt.Sprintf("%g ms", c.P50*1000)
}

// name says which case it is.
func (c CaseResult) name() string {
	return fmt.Sprintf("%s members of %s users in %s conversations, %.3g %% of users dead, answers after %s",
		thousands(c.Members), thousands(c.Users), thousands(c.Conversations), 100*c.Share, c.answers())
}

func (c CaseResult) table() Table {
	t := Table{
		Title:  c.name(),
		Header: []string{"method", "seconds", "min to max", "computed", "x floor", "calls", "deleted", "longest tx"},
	}
	for _, m := range c.Methods {
		row := []string{m.Method, seconds(m.Seconds), seconds(m.Min) + " to " + seconds(m.Max), "", "", thousands(m.Calls), thousands(int(m.Deleted)), ""}
		if m.Computed > 0 {
			row[3] = seconds(m.Computed)
		}
		if m.ToFloor > 0 {
			row[4] = fmt.Sprintf("%.1f", m.ToFloor)
		}
		if m.Held != nil {
			row[7] = fmt.Sprintf("%.0f ms", 1000*m.Held.LongestTransaction)
		}
		t.Rows = append(t.Rows, row)
		if note := m.note(); note != "" {
			t.Notes = append(t.Notes, note)
		}
	}
	if len(c.Loosened) > 0 {
		t.Notes = append(t.Notes, "Loosened for ours, which would have refused: "+strings.Join(c.Loosened, ", ")+".")
	}
	return t
}

func (m MethodResult) note() string {
	var parts []string
	for _, phase := range []string{"preflight", "verify", "judge", "sweep", "finish"} {
		if took, ok := m.Phases[phase]; ok {
			parts = append(parts, phase+" "+seconds(took))
		}
	}
	if m.PeakMemory > 0 {
		parts = append(parts, fmt.Sprintf("peak memory %.0f MiB", float64(m.PeakMemory)/(1<<20)))
	}
	if len(parts) == 0 {
		return ""
	}
	return m.Method + ": " + strings.Join(parts, ", ") + "."
}

func (r Report) neighbourTable() Table {
	t := Table{
		Title:  "The application beside a sweep (ms)",
		Header: []string{"members", "answers", "method", "tx/s", "alone P50", "P99", "beside P50", "P99", "of", "lock wait"},
	}
	for _, c := range r.Cases {
		for _, m := range c.Methods {
			n := m.Neighbours
			if n == nil {
				continue
			}
			t.Rows = append(t.Rows, []string{
				thousands(c.Members), c.answers(), m.Method, strconv.Itoa(n.Rate), millis(n.Quiet.P50), millis(n.Quiet.P99),
				millis(n.Swept.P50), millis(n.Swept.P99), thousands(n.Swept.Transactions), millis(1000 * n.Held.LongestWait),
			})
		}
	}
	t.Notes = []string{"Of: how many transactions were under way beside the sweep; of few, P99 says little. Lock wait: the longest seen."}
	return t
}

// thousands writes 15,000.
func thousands(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

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
	durable := "fsync on"
	if !r.Machine.Durable {
		durable = "fsync off"
	}
	return fmt.Sprintf("orphan-cleaner %s, %s: %d CPUs (%s/%s) for everything, PostgreSQL %s with %s, %s; medians of %d repetitions, batches of %d, %d in flight.",
		r.Version, r.Date[:len(time.DateOnly)], r.Machine.CPUs, r.Machine.OS, r.Machine.Arch, r.Machine.PostgreSQL, durable, r.Machine.Go,
		r.Repeat, r.BatchSize, r.Concurrent)
}

// Markdown is the report for a document.
func (r Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Setup())
	for _, t := range r.Tables() {
		w := table.NewWriter()
		t.Fill(w)
		fmt.Fprintf(&b, "\n### %s\n\n%s\n", t.Title, w.RenderMarkdown())
		for _, note := range t.Notes {
			fmt.Fprintf(&b, "\n%s\n", note)
		}
	}
	return b.String()
}

func row(cells []string) table.Row {
	row := make(table.Row, len(cells))
	for i, cell := range cells {
		row[i] = cell
	}
	return row
}

// The lines of a document between which the figures stand.
const (
	markBegin = "<!-- bench: from here to the end mark `make bench` writes -->"
	markEnd   = "<!-- bench: end -->"
)

// WriteMarkdown puts the report between the marks of a document, in place of what
// is there, and the chart before it, where there is one.
func (r Report) WriteMarkdown(path, chart string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(text, []byte(markBegin))
	_, after, ended := bytes.Cut(rest, []byte(markEnd))
	if !found || !ended {
		return fmt.Errorf("%s has no lines %q and %q for the figures to stand between", path, markBegin, markEnd)
	}
	figures := r.Markdown()
	if chart != "" {
		if chart, err = filepath.Rel(filepath.Dir(path), chart); err != nil {
			return err
		}
		figures = "![Seconds of each method, on a logarithmic scale](" + filepath.ToSlash(chart) + ")\n\n" + figures
	}
	return os.WriteFile(path, slices.Concat(before, []byte(markBegin+"\n\n"+figures+"\n"+markEnd), after), 0o644) //nolint:gosec // a document, for everybody
}
