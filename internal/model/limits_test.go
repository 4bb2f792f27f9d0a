package model_test

import (
	"maps"
	"math"
	"slices"
)

// breaker is the one that refuses a run, or empty: guarantee 8, and docs/breakers.md.
// later is how much later the real clock says it is.
func (m *model) breaker(f findings, v *view, r rules, later moment) string {
	const week, month = 7 * 24 * hour, 30 * 24 * hour
	limit := func(name string) float64 { return r.limits[name] }
	over := func(figure int64, share float64, of int64, floor float64) bool {
		return share < 1 && float64(figure) > share*float64(max(of, 1)) && float64(figure) > floor
	}
	is := func(want verdict) func(person) bool {
		return func(p person) bool { return v.scan(p) == want }
	}
	rows := m.rows()
	// A floor lets small tables live, but never lets more than a quarter of one be deleted.
	all := max(f.checked, m.users)
	fewUsers := min(5, float64(all)/4, float64(rows.sum())/4)
	// Nobody without a row is a user.
	all = min(all, rows.sum())
	fresh := m.freshWithin(week, later) + f.freshJudged
	// Each table is judged by itself.
	inAny := func(is func(t table, due, few float64) bool) bool {
		return slices.ContainsFunc(tables, func(t table) bool { return is(t, float64(f.rowsJudged[t]), min(50, float64(rows[t])/4)) })
	}
	deletes := func(window moment, name string) bool {
		return inAny(func(t table, due, few float64) bool {
			return due > 0 && over(m.deletedWithin(t, window, later)+int64(due), limit(name), max(rows[t], m.rowsAtStart(t, window, later)), few)
		})
	}
	switch {
	case f.nothingSwept:
		return ""
	case m.lastEnd > m.now:
		return "clock"
	case slices.ContainsFunc(r.alive, is(missing)) || f.chosenMissing:
		return "canary-alive"
	case slices.ContainsFunc(r.dead, is(present)):
		return "canary-dead"
	case float64(f.active) > limit("recently-active") && float64(f.active) > 0.001*float64(max(all, 1)):
		return "recently-active"
	case over(f.freshJudged, limit("new-missing-share"), f.checked, fewUsers):
		return "new-missing-share"
	case m.hasRate() && over(fresh, limit("new-missing-rate"), all, fewUsers+2*m.usualFresh(all, later)):
		return "new-missing-rate"
	case over(f.candidatesJudged, limit("candidate-share"), all, fewUsers):
		return "candidate-share"
	case inAny(func(t table, due, few float64) bool { return over(int64(due), limit("delete-share"), rows[t], few) }):
		return "delete-share"
	case deletes(week, "delete-share-7d"):
		return "delete-share-7d"
	case deletes(month, "delete-share-30d"):
		return "delete-share-30d"
	case inAny(func(_ table, due, _ float64) bool { return due > limit("delete-rows") }):
		return "delete-rows"
	}
	return ""
}

// age is how many whole hours ago something was, as moments.
func (m *model) age(then, later moment) moment { return (m.now/hour-then/hour)*hour + later }

// deletedWithin is how many rows of a table runs deleted within a window that no approval covered.
func (m *model) deletedWithin(t table, window, later moment) (n int64) {
	for _, d := range m.gone {
		if d.table == t && d.run != 0 && !d.approved && m.age(d.at, later) < window {
			n++
		}
	}
	return n
}

func (m *model) freshWithin(window, later moment) (n int64) {
	for _, run := range m.passed {
		if m.age(run.at, later) < window {
			n += run.fresh
		}
	}
	return n
}

// rowsAtStart is how many rows the table had when the first run in a window was judged
// that found any.
func (m *model) rowsAtStart(t table, window, later moment) int64 {
	for _, run := range m.passed {
		if run.rows[t] > 0 && m.age(run.at, later) < window {
			return run.rows[t]
		}
	}
	return 0
}

// hasRate says whether there is a run to compare with: what the first one finds is no rate.
func (m *model) hasRate() bool { return len(m.passed) > 0 }

// usualFresh is how many users are newly missing in a week, or in up to two if no run
// was judged for longer before it, and none refused: by the 28 days before the last 7 of those on which a
// run was judged or deleted something, by the calendar. 0.3 % of the users a day, while
// these days do not span two weeks.
func (m *model) usualFresh(users int64, later moment) float64 {
	const day, skipped, most, least = 24 * hour, 7, 28, 14
	fresh := map[moment]int64{}
	for _, run := range m.passed {
		fresh[m.age(run.at, later)/day] += run.fresh
	}
	for _, d := range m.gone {
		if d.run != 0 {
			fresh[m.age(d.at, later)/day] += 0
		}
	}
	days := slices.Sorted(maps.Keys(fresh))
	length := 7.0
	if before := slices.IndexFunc(days, func(ago moment) bool { return ago >= 7 }); before >= 0 {
		length = float64(min(days[before], m.refusedBefore(7*day, later)/day, 14))
	}
	days = days[min(skipped, len(days)):]
	days = days[:min(most, len(days))]
	if len(days) == 0 || days[len(days)-1]-days[0]+1 < least {
		return length * 0.003 * float64(users)
	}
	sum := int64(0)
	for _, ago := range days {
		sum += fresh[ago]
	}
	return length * float64(sum) / float64(days[len(days)-1]-days[0]+1)
}

// refusedBefore is how long ago the newest run of before a window was refused.
func (m *model) refusedBefore(window, later moment) moment {
	newest := moment(math.MaxInt64)
	for run := range m.refusals {
		if age := m.age(m.started[run], later); age >= window {
			newest = min(newest, age)
		}
	}
	return newest
}

// withinLimits holds what runs have deleted, as the model has recorded it, against
// the limits of the run that deleted last.
func (u *underWay) withinLimits() {
	for _, t := range tables {
		u.tableWithinLimits(t, max(u.pre.rows()[t], u.rows()[t]))
	}
}

func (u *underWay) tableWithinLimits(t table, rows int64) {
	for _, window := range []struct {
		name string
		last moment
	}{{"delete-share-7d", 7 * 24 * hour}, {"delete-share-30d", 30 * 24 * hour}} {
		limit := u.rules.limits[window.name]
		deleted, most := u.deletedWithin(t, window.last, hour), float64(max(rows, u.rowsAtStart(t, window.last, 0), 1))
		if limit < 1 && float64(deleted) > max(limit*most, min(50, float64(rows)/4)) {
			u.t.Fatalf("run %d: %d rows of %s were deleted within %d h of at most %.0f, and %s is %g", u.view.id, deleted, t, hours(window.last), most, window.name, limit)
		}
	}
}
