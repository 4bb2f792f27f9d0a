package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/status"
)

const day = 24 * time.Hour

// span is the length of one bar of a chart, and how many there are.
type span struct {
	Name   string
	length time.Duration
	count  int32
}

// ranges are what the charts show: a day by hours, a month by days, a year by weeks.
func ranges() []span {
	return []span{{"day", time.Hour, 24}, {"month", day, 30}, {"year", 7 * day, 52}}
}

// rangeNamed is the month where there is no such range.
func rangeNamed(name string) string {
	if slices.ContainsFunc(ranges(), func(s span) bool { return s.Name == name }) {
		return name
	}
	return "month"
}

// overview is what the page at / is made of.
type overview struct {
	status.Status
	Now      time.Time // of the database
	Spans    map[string][]db.RunSpansRow
	Breakers []db.MetricsBreakersRow
	Refusal  *refusal // not settled yet
}

// refusal is what a refused run found: what its approval would admit.
type refusal struct {
	RunID int64
	db.RefusalSummaryRow
	Largest    []db.RefusalLargestRow
	Error      string
	CanApprove bool
	Approve    string              // the command
	Approval   *db.ApprovalOpenRow // given, and not used yet
}

func readOverview(ctx context.Context, q *db.Queries, ask status.Ask) (o overview, err error) {
	if o.Status, err = status.Read(ctx, q, ask); err != nil {
		return o, err
	}
	if o.Now, err = q.ClockNow(ctx); err != nil {
		return o, fmt.Errorf("reading the time: %w", err)
	}
	o.Spans = map[string][]db.RunSpansRow{}
	for _, s := range ranges() {
		if o.Spans[s.Name], err = q.RunSpans(ctx, db.RunSpansParams{Span: s.length, Spans: s.count}); err != nil {
			return o, fmt.Errorf("reading the runs of a %s: %w; see: orphan-cleaner check", s.Name, err)
		}
	}
	due, err := q.MetricsDue(ctx, ask.Retention)
	if err != nil {
		return o, fmt.Errorf("reading what is due: %w; see: orphan-cleaner check", err)
	}
	if o.Breakers, err = q.MetricsBreakers(ctx, due.DueMembersJudged); err != nil {
		return o, fmt.Errorf("reading the breakers: %w; see: orphan-cleaner check", err)
	}
	if len(o.Refused) > 0 {
		o.Refusal, err = readRefusal(ctx, q, o.Refused[0].RunID, o.Refused[0].Error)
	}
	if o.Refusal != nil {
		o.Refusal.Approve = o.ApproveCommand(o.Now, o.Refusal.RunID)
		for i, a := range o.Approvals {
			if a.RunID == o.Refusal.RunID {
				o.Refusal.Approval = &o.Approvals[i]
			}
		}
	}
	return o, err
}

func readRefusal(ctx context.Context, q *db.Queries, id int64, because *string) (*refusal, error) {
	r := &refusal{RunID: id, Error: status.TextOf(because)}
	var err error
	if r.RefusalSummaryRow, err = q.RefusalSummary(ctx, id); err != nil {
		return nil, fmt.Errorf("reading the refusal: %w; see: orphan-cleaner check", err)
	}
	r.CanApprove = r.Breaker != nil && settings.Approvable(*r.Breaker)
	if r.Largest, err = q.RefusalLargest(ctx, id); err != nil {
		return nil, fmt.Errorf("reading the refusal: %w; see: orphan-cleaner check", err)
	}
	return r, nil
}

// run is what the page of a run is made of.
type run struct {
	db.RunOneRow
	Settings      []setting
	Conversations []db.RunConversationsRow
	Restores      []db.RunRestoresRow
	Restore       *db.RestoreSummaryRow // of a run that is a restore
	Refusal       *refusal
}

// setting is one that the run went by, as JSON has it.
type setting struct{ Name, Value string }

// maxListed bounds the lists of a run's page.
const maxListed = 20

func readRun(ctx context.Context, q *db.Queries, id int64) (r run, err error) {
	if r.RunOneRow, err = q.RunOne(ctx, id); errors.Is(err, pgx.ErrNoRows) {
		return r, errNoRun
	} else if err != nil {
		return r, fmt.Errorf("reading the run: %w; see: orphan-cleaner check", err)
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(r.RunOneRow.Settings, &values); err != nil {
		return r, fmt.Errorf("reading the run's settings: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		r.Settings = append(r.Settings, setting{name, string(values[name])})
	}
	if r.MembersDeleted > 0 {
		if r.Conversations, err = q.RunConversations(ctx, db.RunConversationsParams{RunID: id, Since: r.StartedAt, Until: r.ended(), MaxRows: maxListed}); err != nil {
			return r, fmt.Errorf("reading the run's conversations: %w; see: orphan-cleaner check", err)
		}
		if r.Restores, err = q.RunRestores(ctx, db.RunRestoresParams{RunID: id, MaxRows: maxListed}); err != nil {
			return r, fmt.Errorf("reading the run's restores: %w; see: orphan-cleaner check", err)
		}
	}
	switch {
	case r.Kind == "restore":
		summary, err := q.RestoreSummary(ctx, id)
		if err != nil {
			return r, fmt.Errorf("reading the restore: %w; see: orphan-cleaner check", err)
		}
		r.Restore = &summary
	case r.State == "refused":
		r.Refusal, err = readRefusal(ctx, q, id, r.Error)
	}
	return r, err
}

// ended is when it ended, or now.
func (r run) ended() time.Time {
	if r.FinishedAt != nil {
		return *r.FinishedAt
	}
	return r.DatabaseTime
}

// phase is a stretch of a run that is on record.
type phase struct {
	Name     string
	From, To time.Time
}

// Phases are at most two: until the run was judged, and what came after.
func (r run) Phases() []phase {
	if r.Kind == "restore" {
		return []phase{{"restore", r.StartedAt, r.ended()}}
	}
	if r.JudgedAt == nil {
		return []phase{{"verify and judge", r.StartedAt, r.ended()}}
	}
	return []phase{{"verify and judge", r.StartedAt, *r.JudgedAt}, {"sweep and finish", *r.JudgedAt, r.ended()}}
}

// Figure is a number of the run that is worth a line.
type Figure struct {
	Name  string
	Value int64
}

// Figures leaves out what a run need not have and has not.
func (r run) Figures() (list []Figure) {
	for _, f := range []struct {
		Figure
		always bool
	}{
		{Figure{"Users checked", r.UsersChecked}, true},
		{Figure{"Users missing", r.UsersMissing}, true},
		{Figure{"Users unknown", r.UsersUnknown}, false},
		{Figure{"Users newly missing", r.UsersNew}, true},
		{Figure{"Users returned", r.UsersReturned}, false},
		{Figure{"Clocks restarted", r.UsersRestarted}, false},
		{Figure{"Candidates", r.Candidates}, true},
		{Figure{"Users due", r.UsersDue}, true},
		{Figure{"Users blocked", r.UsersBlocked}, false},
		{Figure{"Members due", r.MembersDue}, true},
		{Figure{"Members deleted", r.MembersDeleted}, true},
		{Figure{"Members restored", r.MembersRestored}, false},
		{Figure{"Members kept: on hold", r.MembersHeld}, false},
		{Figure{"Members kept: young", r.MembersKeptYoung}, false},
		{Figure{"Members kept: changed since", r.MembersChanged}, false},
		{Figure{"Members kept: blocked", r.MembersBlocked}, false},
		{Figure{"Conversations", r.RunOneRow.Conversations}, true},
		{Figure{"Batches", r.BatchCalls}, true},
	} {
		if f.always || f.Value != 0 {
			list = append(list, f.Figure)
		}
	}
	return list
}
