// Package status reads what a person wants to know first: whether all is well, what
// the last runs did, what waits and why.
package status

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/window"
)

// Status is that; its JSON form is a contract. Lists are never null.
type Status struct {
	Verdict   Verdict                  `json:"verdict"`
	Refused   []db.RefusalUnsettledRow `json:"refused"`
	Approvals []db.ApprovalOpenRow     `json:"approvals"`
	Paused    []db.PauseInForceRow     `json:"paused"`
	Holds     int                      `json:"holds"`
	HoldList  []db.HoldListRow         `json:"-"` // as hold list has it
	Alive     []db.RecheckAliveRow     `json:"resurrected"`
	Coverage  []db.CoverageStateRow    `json:"coverage"`
	Runs      []db.RunRecentRow        `json:"runs"`
	Targets   []db.MetricsTargetsRow   `json:"targets"` // of all runs, and of the last one that was judged
	Backlog   []db.CandidateBacklogRow `json:"backlog"`
	Rows      []db.CandidateTargetsRow `json:"candidate_rows"` // of candidates, due or not, in each target
	Blocked   []BlockedUser            `json:"blocked"`
	Window    *WindowState             `json:"window"`
	Events    []db.EventBacklogRow     `json:"events"` // what each sink lacks
}

// Ask is what to read, and what it is reckoned by.
type Ask struct {
	Retention time.Duration // decides what is due
	Interval  time.Duration // between runs
	Runs      int32         // how many of the last ones
	Days      int32         // how many of the backlog
	Window    window.Weekly
}

// Read reads it, in the caller's transaction.
func Read(ctx context.Context, q *db.Queries, ask Ask) (st Status, err error) {
	if st.Runs, err = q.RunRecent(ctx, ask.Runs); err != nil {
		return st, fmt.Errorf("reading the runs: %w; see: orphan-cleaner check", err)
	}
	if st.Targets, err = q.MetricsTargets(ctx); err != nil {
		return st, fmt.Errorf("reading the targets: %w; see: orphan-cleaner check", err)
	}
	if st.Backlog, err = q.CandidateBacklog(ctx, db.CandidateBacklogParams{Retention: ask.Retention, MaxRows: ask.Days}); err != nil {
		return st, fmt.Errorf("reading the backlog: %w; see: orphan-cleaner check", err)
	}
	if st.Rows, err = q.CandidateTargets(ctx); err != nil {
		return st, fmt.Errorf("reading the rows of candidates: %w; see: orphan-cleaner check", err)
	}
	if st.Blocked, err = ReadBlocked(ctx, q); err != nil {
		return st, fmt.Errorf("reading who is blocked: %w; see: orphan-cleaner check", err)
	}
	if st.Refused, err = q.RefusalUnsettled(ctx); err != nil {
		return st, fmt.Errorf("reading refusals: %w; see: orphan-cleaner check", err)
	}
	if st.Approvals, err = q.ApprovalOpen(ctx); err != nil {
		return st, fmt.Errorf("reading approvals: %w; see: orphan-cleaner check", err)
	}
	if st.Paused, err = q.PauseInForce(ctx); err != nil {
		return st, fmt.Errorf("reading the pause: %w; see: orphan-cleaner check", err)
	}
	if st.Events, err = q.EventBacklog(ctx); err != nil {
		return st, fmt.Errorf("reading the backlog of events: %w; see: orphan-cleaner check", err)
	}
	if st.HoldList, err = q.HoldList(ctx); err != nil {
		return st, fmt.Errorf("reading the holds: %w; see: orphan-cleaner check", err)
	}
	st.Holds = len(st.HoldList)
	if st.Alive, err = q.RecheckAlive(ctx); err != nil {
		return st, fmt.Errorf("reading who is alive again: %w; see: orphan-cleaner check", err)
	}
	st.Coverage = []db.CoverageStateRow{}
	switch coverage, err := q.CoverageState(ctx); {
	case err == nil:
		st.Coverage = append(st.Coverage, coverage)
	case !errors.Is(err, pgx.ErrNoRows):
		return st, fmt.Errorf("reading when users were checked: %w; see: orphan-cleaner check", err)
	}
	schedule, err := q.RunSchedule(ctx, ask.Interval)
	if err != nil {
		return st, fmt.Errorf("reading the schedule: %w; see: orphan-cleaner check", err)
	}
	if ask.Window.String() != "" {
		st.Window = &WindowState{ask.Window.String(), ask.Window.Open(time.Now()), ask.Window.Next(time.Now()).UTC()}
	}
	st.Verdict = st.Judge(time.Now(), schedule)
	return st, nil
}

// approvalLasts is how long an approval waits for a run unless it says more.
const approvalLasts = 24 * time.Hour

// ApproveCommand approves what a refused run found. A run outside the window uses no
// approval: where the window opens too late for the usual one, it says how long.
func (st Status) ApproveCommand(now time.Time, run int64) string {
	command := fmt.Sprintf("orphan-cleaner approve %d", run)
	if st.Window != nil && !st.Window.Open {
		if wait := st.Window.OpensAt.Sub(now); wait > approvalLasts-time.Hour {
			command += fmt.Sprintf(" --expires %dd", int(wait/(24*time.Hour))+2)
		}
	}
	return command
}

// WindowState is the setting and what it means now.
type WindowState struct {
	Window  string    `json:"setting"`
	Open    bool      `json:"is_open"`
	OpensAt time.Time `json:"opens_at"` // now where it is open
}
