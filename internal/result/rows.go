package result

import (
	"slices"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// Rows are counts by target, in the order of the sweep; a place that is not there
// counts as 0.
type Rows []int64

// Sum is over all targets.
func (r Rows) Sum() (sum int64) {
	for _, n := range r {
		sum += n
	}
	return sum
}

func (r Rows) at(target int) int64 {
	if target < 0 || target >= len(r) {
		return 0
	}
	return r[target]
}

// Plus returns the sums by target, in an array of its own.
func (r Rows) Plus(more Rows) Rows { return r.with(more, 1) }

// Minus returns the differences by target, in an array of its own.
func (r Rows) Minus(less Rows) Rows { return r.with(less, -1) }

func (r Rows) with(other Rows, factor int64) Rows {
	sums := make(Rows, max(len(r), len(other)))
	for i := range sums {
		sums[i] = r.at(i) + factor*other.at(i)
	}
	return sums
}

// members is the target that the fields Members… of a result are about, the runbook's.
const members = "conversation_members"

// Target is what a run did with one table.
type Target struct {
	Name          string `json:"name"`
	RowsTotal     int64  `json:"rows_total"` // of those checked
	RowsDue       int64  `json:"rows_due"`
	RowsDeleted   int64  `json:"rows_deleted"`
	RowsKeptYoung int64  `json:"rows_kept_young"`
	RowsHeld      int64  `json:"rows_held"`
	RowsChanged   int64  `json:"rows_changed"`
	RowsBlocked   int64  `json:"rows_blocked"`
	RowsWaiting   int64  `json:"rows_waiting"`
}

// Tally is what a run counts by target.
type Tally struct {
	Targets                                         []string
	Due, Deleted, KeptYoung, Held, Changed, Blocked Rows
	Settled, Waiting                                Rows // judged due: of the chunks that are done, and of those that wait for the window
	Waits                                           bool // the rest waits for the window
	Seen                                            map[string]int64
}

// Members is the count about conversation_members.
func (t *Tally) Members(rows Rows) int64 { return rows.at(slices.Index(t.Targets, members)) }

// Take takes what the database has counted instead.
func (t *Tally) Take(rows []db.RunTargetsRow) {
	if len(rows) == 0 { // it was not judged
		return
	}
	settled, waits := t.Settled, t.Waits
	*t = Tally{Seen: t.Seen}
	for i, row := range rows {
		t.Targets = append(t.Targets, row.Target)
		t.Due, t.Deleted = append(t.Due, row.RowsDue), append(t.Deleted, row.RowsDeleted)
		t.KeptYoung, t.Held = append(t.KeptYoung, row.RowsKeptYoung), append(t.Held, row.RowsHeld)
		t.Changed, t.Blocked = append(t.Changed, row.RowsChanged), append(t.Blocked, row.RowsBlocked)
		if waits {
			t.Waiting = append(t.Waiting, row.RowsDue-settled.at(i)-row.RowsBlocked)
		}
	}
}

// Facts are the figures of each target that the breakers of a dry run go by.
func (t *Tally) Facts(due Rows) map[string]any {
	facts := map[string]any{}
	for i, name := range t.Targets {
		facts[name] = map[string]int64{"rows_due": due.at(i)}
	}
	return facts
}

// See counts the rows of a page of one target, and returns those of members so far.
func (t *Tally) See(target string, rows int64) int64 {
	if t.Seen == nil {
		t.Seen = map[string]int64{}
	}
	t.Seen[target] += rows
	return t.Seen[members]
}

// Counted fills in what is counted by target.
func (r Run) Counted(t *Tally) Run {
	r.Targets = make([]Target, len(t.Targets))
	for i, name := range t.Targets {
		r.Targets[i] = Target{
			Name: name, RowsTotal: t.Seen[name], RowsDue: t.Due.at(i), RowsDeleted: t.Deleted.at(i), RowsKeptYoung: t.KeptYoung.at(i),
			RowsHeld: t.Held.at(i), RowsChanged: t.Changed.at(i), RowsBlocked: t.Blocked.at(i), RowsWaiting: t.Waiting.at(i),
		}
	}
	r.MembersDue, r.MembersDeleted, r.MembersKeptYoung = t.Members(t.Due), t.Members(t.Deleted), t.Members(t.KeptYoung)
	r.MembersHeld, r.MembersChanged, r.MembersBlocked = t.Members(t.Held), t.Members(t.Changed), t.Members(t.Blocked)
	r.MembersWaiting = t.Members(t.Waiting)
	return r
}
