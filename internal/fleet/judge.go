package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// Approved is what approvals cover: it is judged no more, and what is found beyond it is.
type Approved struct {
	Open map[string]Facts // by shard, of the approval that this run may use
	Used []Used
}

// Used is what an approval let one shard do so many days ago.
type Used struct {
	DaysAgo int32
	Facts   Facts
}

// less is what an approval leaves to be judged.
func (f Facts) less(a Facts) Facts {
	f.UsersNew, f.Candidates = max(0, f.UsersNew-a.UsersNew), max(0, f.Candidates-a.UsersNew)
	f.Targets = maps.Clone(f.Targets)
	for name, rows := range f.Targets {
		f.Targets[name] = Rows{Due: max(0, rows.Due-a.Targets[name].Due), Total: rows.Total}
	}
	return f
}

// judged are the facts of a shard as they are by now: what its sweep found beyond the
// first pass is added.
func (p *Progress) judged(approved Approved) Facts {
	facts := *p.Verified.Facts
	if p.Swept != nil {
		before, after := p.Verified.Run, p.Swept.Run
		facts.UsersNew += max(0, after.UsersNew-before.UsersNew)
		facts.Targets = maps.Clone(facts.Targets)
		for i, target := range after.Targets {
			if i < len(before.Targets) {
				rows := facts.Targets[target.Name]
				facts.Targets[target.Name] = Rows{Due: rows.Due + max(0, target.RowsDue-before.Targets[i].RowsDue), Total: rows.Total}
			}
		}
		facts.Candidates += max(0, after.UsersMissing-before.UsersMissing)
	}
	return facts.less(approved.Open[p.Name])
}

// sum is what one database would have found that had all rows.
func sum(verified []*Progress, approved Approved) (total Facts, history []db.HourDaysRow) {
	type key struct {
		target  string
		daysAgo int32
	}
	days := map[key]db.HourDaysRow{}
	total.Targets = map[string]Rows{}
	for _, p := range verified {
		facts := p.judged(approved)
		total.UsersChecked += facts.UsersChecked
		total.UsersAll += facts.UsersAll
		total.UsersNew += facts.UsersNew
		total.UsersActive += facts.UsersActive
		total.Candidates += facts.Candidates
		for name, rows := range facts.Targets {
			so := total.Targets[name]
			total.Targets[name] = Rows{Due: so.Due + rows.Due, Total: so.Total + rows.Total}
		}
		for _, day := range p.Verified.Days {
			at := key{day.Target, day.DaysAgo}
			so := days[at]
			days[at] = db.HourDaysRow{
				Target: day.Target, DaysAgo: day.DaysAgo, UsersNew: so.UsersNew + day.UsersNew, RowsTotal: so.RowsTotal + day.RowsTotal, RowsDeleted: so.RowsDeleted + day.RowsDeleted,
			}
		}
	}
	for _, used := range approved.Used {
		total.Candidates = max(0, total.Candidates-used.Facts.UsersNew)
		for at, so := range days {
			switch {
			case at.daysAgo != used.DaysAgo:
			case at.target == "":
				so.UsersNew = max(0, so.UsersNew-used.Facts.UsersNew)
				days[at] = so
			default:
				so.RowsDeleted = max(0, so.RowsDeleted-used.Facts.Targets[at.target].Due)
				days[at] = so
			}
		}
	}
	history = []db.HourDaysRow{} // [] is a fleet without a past, null none
	for _, day := range days {
		history = append(history, day)
	}
	slices.SortFunc(history, func(a, b db.HourDaysRow) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.DaysAgo, b.DaysAgo))
	})
	return total, history
}

func limitNames() []string {
	return slices.DeleteFunc(settings.BoundNames(), settings.IsTime)
}

// judge asks the breakers of one database about the sums of all. Any shard can answer:
// facts and history are given, and it adds nothing of its own.
func (f *Fleet) judge(ctx context.Context, verified []*Progress, approved Approved) (Facts, error) {
	total, history := sum(verified, approved)
	if refusal := f.outlier(verified, approved); refusal != nil {
		return total, refusal
	}
	limits := f.Settings
	limits.Limits = f.Limits
	bound, err := limits.JSON()
	facts, factsErr := json.Marshal(struct {
		Facts
		// A shard that found a canary wrong is not among those verified.
		AliveMissing int `json:"alive_missing"`
		DeadPresent  int `json:"dead_present"`
	}{Facts: total})
	past, pastErr := json.Marshal(history)
	if err := errors.Join(err, factsErr, pastErr); err != nil {
		return total, fmt.Errorf("writing the sums: %w", err)
	}
	var breakers []db.RunBreakersRow
	for _, p := range verified[:min(len(verified), judges)] {
		breakers, err = f.ask(ctx, p.Name, db.RunBreakersParams{Settings: bound, Facts: facts, History: past})
		if err == nil {
			break
		}
	}
	if err != nil {
		return total, fmt.Errorf("judging the sums: %w", err)
	}
	if i := slices.IndexFunc(breakers, func(b db.RunBreakersRow) bool { return b.IsTripped }); i >= 0 {
		return total, &result.Refusal{Breaker: breakers[i].Breaker, Message: fmt.Sprintf("over %d shards, %s", len(verified), breakers[i].Message), OfFleet: true}
	}
	return total, nil
}

// judges is how many shards are asked at most, one after another.
const judges = 3

func (f *Fleet) ask(ctx context.Context, name string, question db.RunBreakersParams) ([]db.RunBreakersRow, error) {
	shard, err := f.Shard(name)
	if err != nil {
		return nil, err
	}
	pool, err := f.Open(ctx, shard)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]db.RunBreakersRow, error) {
		return q.RunBreakers(ctx, question)
	})
}

// Floors of the outlier: less is chance, and the floors of single databases.
const (
	outlierUsers = 5
	outlierRows  = 50
	outlierShare = 0.01
	outlierOf    = 3 // shards at least: of two, nobody knows which is the odd one
)

// outlier is a refusal where one shard found many times what the others did: the users of
// one shard are lost together by a mistake sooner than by chance. A shard that its own
// breaker refuses changes nothing anyway.
func (f *Fleet) outlier(verified []*Progress, approved Approved) *result.Refusal {
	if f.Outlier == 0 || len(verified) < outlierOf {
		return nil
	}
	total, _ := sum(verified, approved)
	for _, p := range verified {
		if p.Verified.Verdict == Refused {
			continue
		}
		own := p.judged(approved)
		rows, allRows := own.Rows(), total.Rows()
		for _, one := range []struct {
			what                 string
			found, of            int64
			allFound, all, floor int64
		}{
			{"users newly missing", own.UsersNew, own.UsersChecked, total.UsersNew, total.UsersChecked, outlierUsers},
			{"rows due", rows.Due, rows.Total, allRows.Due, allRows.Total, outlierRows},
		} {
			share := float64(one.found) / float64(max(one.of, 1))
			others := float64(one.allFound-one.found) / float64(max(one.all-one.of, 1))
			if one.found > one.floor && share > outlierShare && share > f.Outlier*others {
				return &result.Refusal{Breaker: OutlierLimit, OfFleet: true, Message: fmt.Sprintf("shard %s has %d %s of %d, %.2f %%; the others have %.2f %%, limit %g times that",
					p.Name, one.found, one.what, one.of, 100*share, 100*others, f.Outlier)}
			}
		}
	}
	return nil
}
