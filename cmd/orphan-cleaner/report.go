package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	pages "github.com/nova-social/orphan-cleaner/internal/page"
	"github.com/nova-social/orphan-cleaner/internal/status"
)

// ReportCmd is `report`.
type ReportCmd struct {
	DatabaseFlags `group:"Database"`
	LogFlags      `group:"Log"`
	Month         string `help:"The month, UTC; without any of these the last one." placeholder:"YYYY-MM" xor:"month"`
	Since         string `help:"From this day (2026-01-31, UTC) or time (RFC 3339) on." placeholder:"WHEN" xor:"month"`
	Until         string `help:"Up to this day or time, which is not in it; without it up to now." placeholder:"WHEN"`
	JSON          bool   `name:"json" help:"Print one JSON object." xor:"format"`
	CSV           bool   `name:"csv" help:"Print CSV: a record per day, the total, and a record per size and per target." xor:"format"`
	HTML          string `name:"html" help:"Write one HTML file, with charts; - is stdout." placeholder:"FILE" xor:"format"`
	Lang          string `help:"The language of that file: en or zh." enum:"en,zh" default:"en"`
}

// reportLimit is the longest span: the audit is not kept for longer.
const reportLimit = 400 * day

// report is what `report --json` prints.
type report struct {
	Since time.Time           `json:"since"`
	Until time.Time           `json:"until"`
	Days  []db.ReportDaysRow  `json:"days"`
	Total db.ReportDaysRow    `json:"total"`
	Sizes []db.ReportSizesRow `json:"sizes"`
	// Targets are in the order of the sweep.
	Targets []db.ReportTargetsRow `json:"targets"`
	// Blocked are those of now, whenever the span was.
	Blocked []status.BlockedUser `json:"blocked"`
}

// span reads the arguments; both times are zero where the last month is meant,
// and until is where it is now.
func (cmd *ReportCmd) span() (since, until time.Time, err error) {
	wrong := func(format string, args ...any) (time.Time, time.Time, error) {
		return since, until, fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
	}
	if cmd.Until != "" && cmd.Since == "" {
		return wrong("--until needs --since")
	}
	if cmd.Month != "" {
		since, err = time.Parse("2006-01", cmd.Month)
		if err != nil {
			return wrong("--month %q is not a month such as 2026-01", cmd.Month)
		}
		return since, since.AddDate(0, 1, 0), nil
	}
	for _, bound := range []struct {
		flag, text string
		at         *time.Time
	}{{"--since", cmd.Since, &since}, {"--until", cmd.Until, &until}} {
		if bound.text == "" {
			continue
		}
		if *bound.at, err = time.Parse(time.DateOnly, bound.text); err != nil {
			if *bound.at, err = time.Parse(time.RFC3339, bound.text); err != nil {
				return wrong("%s %q is neither a day such as 2026-01-31 nor an RFC 3339 time", bound.flag, bound.text)
			}
		}
	}
	if cmd.Until != "" && !since.Before(until) {
		return wrong("--until %s is not after --since %s", cmd.Until, cmd.Since)
	}
	return since, until, nil
}

// Run prints deletion statistics; it only reads.
func (cmd *ReportCmd) Run(ctx context.Context, s *streams) error {
	since, until, err := cmd.span()
	if err != nil {
		return err
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	patience := database.Patience{Log: cmd.logger(s), Attempts: 3, LockTimeout: 2 * time.Second}
	var known db.ReportRangeRow
	r, err := database.Bounded(ctx, pool, patience, pgx.ReadOnly, database.ReadLimit, func(ctx context.Context, q *db.Queries) (r report, err error) {
		if known, err = q.ReportRange(ctx); err != nil {
			return r, err
		}
		return readReport(ctx, q, known, since, until)
	})
	if errors.Is(err, errUsage) {
		return err
	}
	if err != nil {
		return fmt.Errorf("reading the report: %w; see: orphan-cleaner check", err)
	}
	switch {
	case cmd.JSON:
		return printJSON(s.out, r)
	case cmd.CSV:
		return r.writeCSV(s.out)
	case cmd.HTML != "":
		return cmd.writeHTML(s, r)
	case since.IsZero() && !known.HasRuns:
		none := &sheet{to: s.out}
		none.line("No run began before %s: there is nothing to report of the last month. This month: orphan-cleaner report --month %s",
			r.Until.Format(time.DateOnly), r.Until.Format("2006-01"))
		none.blocked(r.Blocked)
		return none.print()
	default:
		return r.print(s.out)
	}
}

// writeHTML writes the file once all of it is there.
func (cmd *ReportCmd) writeHTML(s *streams, r report) error {
	var page bytes.Buffer
	if err := pages.Report(r).Write(&page, cmd.Lang, version); err != nil {
		return err
	}
	if cmd.HTML == "-" {
		_, err := page.WriteTo(s.out)
		return err
	}
	if err := os.WriteFile(cmd.HTML, page.Bytes(), 0o600); err != nil {
		return fmt.Errorf("%w: writing the report: %w; name another file: --html FILE", errUsage, err)
	}
	return nil
}

func readReport(ctx context.Context, q *db.Queries, known db.ReportRangeRow, since, until time.Time) (r report, err error) {
	switch {
	case since.IsZero():
		since, until = known.Since, known.Until
	case until.IsZero():
		until = known.DatabaseTime
	}
	r.Since, r.Until = since.UTC(), until.UTC()
	if r.Until.Before(r.Since) {
		return r, fmt.Errorf("%w: %s is in the future: no run has begun since; see: orphan-cleaner status", errUsage, r.Since.Format(time.DateOnly))
	}
	if r.Until.Sub(r.Since) > reportLimit {
		return r, fmt.Errorf("%w: a report covers %s at most", errUsage, Duration(reportLimit))
	}
	days, err := q.ReportDays(ctx, db.ReportDaysParams{Since: r.Since, Until: r.Until})
	if err != nil {
		return r, err
	}
	r.Days, r.Total = days[:len(days)-1], days[len(days)-1]
	if r.Sizes, err = q.ReportSizes(ctx, db.ReportSizesParams{Since: r.Since, Until: r.Until}); err != nil {
		return r, err
	}
	if r.Targets, err = q.ReportTargets(ctx, db.ReportTargetsParams{Since: r.Since, Until: r.Until}); err != nil {
		return r, err
	}
	r.Blocked, err = status.ReadBlocked(ctx, q)
	return r, err
}

// millis is a time of some milliseconds in at most five characters; nothing
// where nothing was asked.
func millis(ms float64) string {
	switch {
	case ms == 0:
		return ""
	case ms < 1000:
		return fmt.Sprintf("%.0fms", ms)
	default:
		return fmt.Sprintf("%.1fs", ms/1000)
	}
}

func (r report) print(w io.Writer) error {
	s := &sheet{to: w}
	layout := time.DateOnly
	if r.Since.Truncate(day) != r.Since || r.Until.Truncate(day) != r.Until {
		layout = "2006-01-02 15:04:05"
	}
	days := newTable(fmt.Sprintf("Runs that began from %s until %s, UTC", r.Since.Format(layout), r.Until.Format(layout)),
		"day", "runs", "re-\nfused", "incom-\nplete", "failed", "users\nchecked", "calls", "members\ndeleted", "re-\nstored",
		"kept\nheld", "kept\nyoung", "calls\np50", "calls\np99", "slow-\nest")
	days.Style().Box.PaddingLeft = ""
	row := func(name string, d db.ReportDaysRow) table.Row {
		return table.Row{
			name, d.Runs, d.Refused, d.Incomplete, d.Failed, d.UsersChecked, d.BatchCalls, d.MembersDeleted, d.MembersRestored,
			d.MembersHeld, d.MembersKeptYoung, millis(d.P50Ms), millis(d.P99Ms), millis(d.SlowestMs),
		}
	}
	for _, d := range r.Days {
		days.AppendRow(row(d.Day, d))
	}
	days.AppendFooter(row("total", r.Total))
	s.table(days)
	sizes := newTable("Conversations by their size before that", "members", "conversations", "members deleted", "members restored")
	var deleted int64
	for _, c := range r.Sizes {
		sizes.AppendRow(table.Row{c.Size, c.Conversations, c.MembersDeleted, c.MembersRestored})
		deleted += c.MembersDeleted
	}
	s.table(sizes)
	if text := ownersText(r.Total.OwnersLost, 0, r.Total.ConversationsEmptied); text != "" {
		s.line("%s", text)
	}
	if deleted != r.Total.MembersDeleted {
		s.line("the audit holds %d of the %d members deleted: older months are pruned", deleted, r.Total.MembersDeleted)
	}
	if len(r.Targets) > 1 {
		targets := newTable("Targets", "target", "rows deleted", "rows restored")
		for _, row := range r.Targets {
			targets.AppendRow(table.Row{row.Target, row.RowsDeleted, row.RowsRestored})
		}
		s.table(targets)
	}
	s.blocked(r.Blocked)
	s.line("%s", "Held and young: of the last run, since each finds them again. P50 and P99: at most 19 % too high.")
	return s.print()
}

// writeCSV writes records of scope day, total, size and target; a field that does not
// belong to its scope is empty.
func (r report) writeCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	decimal := func(f float64) string { return strconv.FormatFloat(f, 'f', 3, 64) }
	records := [][]string{{
		"scope", "day", "size", "conversations", "runs", "refused", "incomplete", "failed", "users_checked", "batch_calls",
		"members_deleted", "members_restored", "members_held", "members_kept_young", "p50_ms", "p99_ms", "slowest_ms", "users_blocked",
		"owners_lost", "conversations_emptied", "target", "rows_deleted", "rows_restored",
	}}
	add := func(scope string, d db.ReportDaysRow) {
		records = append(records, []string{
			scope, d.Day, "", "", number(d.Runs), number(d.Refused), number(d.Incomplete), number(d.Failed),
			number(d.UsersChecked), number(d.BatchCalls), number(d.MembersDeleted), number(d.MembersRestored),
			number(d.MembersHeld), number(d.MembersKeptYoung), decimal(d.P50Ms), decimal(d.P99Ms), decimal(d.SlowestMs), number(d.UsersBlocked),
			number(d.OwnersLost), number(d.ConversationsEmptied), "", "", "",
		})
	}
	for _, d := range r.Days {
		add("day", d)
	}
	add("total", r.Total)
	for _, c := range r.Sizes {
		record := make([]string, len(records[0]))
		record[0], record[2], record[3] = "size", c.Size, number(c.Conversations)
		record[10], record[11] = number(c.MembersDeleted), number(c.MembersRestored)
		records = append(records, record)
	}
	for _, row := range r.Targets {
		record := make([]string, len(records[0])-3)
		record[0] = "target"
		records = append(records, append(record, row.Target, number(row.RowsDeleted), number(row.RowsRestored)))
	}
	if err := out.WriteAll(records); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
