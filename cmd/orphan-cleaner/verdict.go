package main

import (
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// verdict is what status says first: whether somebody has to do something.
type verdict struct {
	State string `json:"state"` // healthy, running, paused, new, late, refused, failing or alive-again
	Text  string `json:"text"`
}

// lateBy is how long after its time a run counts as late.
const lateBy = 15 * time.Minute

// judge takes the time from the caller, so that what it says of one state is the same.
func (st status) judge(now time.Time, schedule db.RunScheduleRow) verdict {
	clean := lastClean(st.Runs)
	due := backlogText(st.Backlog)
	if st.Window != nil && !st.Window.Open && len(st.Backlog) > 0 && st.Backlog[0].IsDue {
		due += fmt.Sprintf("; sweeps wait until %s", clock(now, st.Window.OpensAt))
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	switch next := now.Add(seconds(schedule.DueIn)); {
	case len(st.Alive) > 0:
		return verdict{"alive-again", fmt.Sprintf("%d users whose members were deleted are alive again; see below", len(st.Alive))}
	case len(st.Refused) > 0:
		return verdict{"refused", fmt.Sprintf("run %d was refused by %s; see below", st.Refused[0].RunID, textOf(st.Refused[0].Breaker))}
	case len(st.Paused) > 0:
		return verdict{"paused", fmt.Sprintf("no run begins since %s; see below; %s", clock(now, st.Paused[0].PausedAt), due)}
	case clean == nil:
		return verdict{"new", "no run was made yet; first: orphan-cleaner check, then orphan-cleaner run --dry-run"}
	case clean.State == "running":
		return verdict{"running", fmt.Sprintf("run %d since %s, in %s", clean.RunID, clock(now, clean.StartedAt), clean.Phase)}
	case clean.State != "succeeded":
		return verdict{"failing", fmt.Sprintf("the last run, %s, is %s; see below; %s", clock(now, clean.StartedAt), clean.State, due)}
	case now.Sub(next) > lateBy:
		return verdict{"late", fmt.Sprintf("the last run was %s, the next one was due %s; does cron or serve run? %s", clock(now, clean.StartedAt), clock(now, next), due)}
	default:
		return verdict{"healthy", fmt.Sprintf("last run %s deleted %d; next %s; %s", clock(now, clean.StartedAt), clean.MembersDeleted, clock(now, next), due)}
	}
}

func (v verdict) color() text.Color {
	switch v.State {
	case "healthy", "running":
		return text.FgGreen
	case "new", "paused", "late":
		return text.FgYellow
	default:
		return text.FgRed
	}
}

// lastClean is the newest run that is no restore, or nil.
func lastClean(runs []db.RunRecentRow) *db.RunRecentRow {
	for i := range runs {
		if runs[i].Kind == "clean" {
			return &runs[i]
		}
	}
	return nil
}

// backlogText says how many users wait, and until when the last of them shown is due.
func backlogText(backlog []db.CandidateBacklogRow) string {
	var users int64
	for _, b := range backlog {
		users += b.Users
	}
	if users == 0 {
		return "nobody is due"
	}
	last := backlog[len(backlog)-1]
	if last.IsDue {
		return fmt.Sprintf("%d users due now", users)
	}
	by := last.DueOn
	if day, err := time.Parse(time.DateOnly, by); err == nil {
		by = day.Format("2 Jan")
	}
	return fmt.Sprintf("%d users due by %s", users, by)
}

// clock is a time of day, UTC, with the day where it is another.
func clock(now, at time.Time) string {
	if now, at = now.UTC(), at.UTC(); now.Format(time.DateOnly) != at.Format(time.DateOnly) {
		return at.Format("2 Jan 15:04")
	}
	return at.Format("15:04")
}

func textOf(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
