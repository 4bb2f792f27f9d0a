package status

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// Verdict is what a status says first: whether somebody has to do something.
type Verdict struct {
	State string `json:"state"` // healthy, running, paused, new, late, refused, failing or alive-again
	Text  string `json:"text"`
	// Phrases are what the text is made of, for those who say it in another language.
	Phrases []Phrase `json:"-"`
}

// Phrase is an English format and what it is about. Numbers of runs are strings in it:
// they are names, not amounts.
type Phrase struct {
	Format string
	Args   []any
}

// Clock is a time of day, UTC, with the day where it is another than now.
type Clock struct{ Now, At time.Time }

func (c Clock) String() string { return c.Format("15:04", "2 Jan 15:04") }

// Format takes the layouts for today and for any other day.
func (c Clock) Format(today, otherDay string) string {
	if now, at := c.Now.UTC(), c.At.UTC(); now.Format(time.DateOnly) == at.Format(time.DateOnly) {
		return at.Format(today)
	}
	return c.At.UTC().Format(otherDay)
}

// Day is one, UTC.
type Day struct{ time.Time }

func (d Day) String() string { return d.Format("2 Jan") }

func say(state string, phrases ...Phrase) Verdict {
	var text strings.Builder
	for i, p := range phrases {
		switch {
		case i == 0:
		case strings.HasSuffix(text.String(), "?"):
			text.WriteString(" ")
		default:
			text.WriteString("; ")
		}
		fmt.Fprintf(&text, p.Format, p.Args...)
	}
	return Verdict{state, text.String(), phrases}
}

func phrase(format string, args ...any) Phrase { return Phrase{format, args} }

// lateBy is how long after its time a run counts as late.
const lateBy = 15 * time.Minute

// ahead is how far the clocks of this machine and of the database may be apart.
const ahead = time.Minute

// Judge takes the time from the caller, so that what it says of one state is the same.
func (st Status) Judge(now time.Time, schedule db.RunScheduleRow) Verdict {
	clock := func(at time.Time) Clock { return Clock{now, at} }
	clean := st.LastClean()
	due := []Phrase{backlogPhrase(st.Backlog)}
	if st.Window != nil && !st.Window.Open && len(st.Backlog) > 0 && st.Backlog[0].IsDue {
		due = append(due, phrase("sweeps wait until %s", clock(st.Window.OpensAt)))
	}
	with := func(state string, phrases ...Phrase) Verdict { return say(state, append(phrases, due...)...) }
	below := phrase("see below")
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	switch next := now.Add(seconds(schedule.DueIn)); {
	case len(st.Alive) > 0:
		return say("alive-again", phrase("%d users whose members were deleted are alive again", len(st.Alive)), below)
	case len(st.Refused) > 0:
		return say("refused", phrase("run %s was refused by %s", number(st.Refused[0].RunID), TextOf(st.Refused[0].Breaker)), below)
	case len(st.Paused) > 0:
		return with("paused", phrase("no run begins since %s", clock(st.Paused[0].PausedAt)), below)
	case clean == nil:
		return say("new", phrase("no run was made yet"), phrase("first: orphan-cleaner check, then orphan-cleaner run --dry-run"))
	case clean.State == "running":
		return say("running", phrase("run %s since %s, in %s", number(clean.RunID), clock(clean.StartedAt), clean.Phase))
	case clean.State != "succeeded":
		return with("failing", phrase("the last run, %s, is %s", clock(clean.StartedAt), clean.State), below)
	case clean.StartedAt.Sub(now) > ahead:
		return with("failing", phrase("the last run, %s, is in the future", clock(clean.StartedAt)), phrase("first: orphan-cleaner check; if the clocks are right: orphan-cleaner migrate settle-clock"))
	case now.Sub(next) > lateBy:
		return with("late", phrase("the last run was %s, the next one was due %s", clock(clean.StartedAt), clock(next)), phrase("does cron or serve run?"))
	default:
		return with("healthy", phrase("last run %s deleted %d", clock(clean.StartedAt), clean.MembersDeleted), phrase("next %s", clock(next)))
	}
}

// LastClean is the newest run that is no restore, or nil.
func (st Status) LastClean() *db.RunRecentRow {
	for i := range st.Runs {
		if st.Runs[i].Kind == "clean" {
			return &st.Runs[i]
		}
	}
	return nil
}

// backlogPhrase says how many users wait, and until when the last of them shown is due.
func backlogPhrase(backlog []db.CandidateBacklogRow) Phrase {
	var users int64
	for _, b := range backlog {
		users += b.Users
	}
	if users == 0 {
		return phrase("nobody is due")
	}
	last := backlog[len(backlog)-1]
	if last.IsDue {
		return phrase("%d users due now", users)
	}
	if day, err := time.Parse(time.DateOnly, last.DueOn); err == nil {
		return phrase("%d users due by %s", users, Day{day})
	}
	return phrase("%d users due by %s", users, last.DueOn)
}

func number(id int64) string { return strconv.FormatInt(id, 10) }

// TextOf is the text, or empty.
func TextOf(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
