package simulate

import (
	"context"
	"math"
)

// honestGroup is the group of all honest histories.
const honestGroup = "honest"

// Honest are histories in which auth-service is right: a refused day counts against
// the breakers.
func Honest() []History {
	year := func(name string, deaths float64, change func(h *History)) History {
		h := History{Group: honestGroup, Name: name, Rows: ordinaryRows, Every: 24, Deaths: deaths, Readers: true, Days: 365, Honest: true}
		if change != nil {
			change(&h)
		}
		return h
	}
	return []History{
		year("0.05 % of the users deleted a day", 0.0005, nil),
		year("0.1 % a day", 0.001, nil),
		year("0.3 % a day", 0.003, nil),
		year("0.3 % a day, hourly runs", 0.003, func(h *History) { h.Rows, h.Every = 2000, 1 }),
		year("a season: 0.05 % a day in winter, 0.3 % in summer", 0.0005, func(h *History) {
			h.Day = func(_ context.Context, p *play, day int) error {
				p.Deaths = 0.00175 - 0.00125*math.Cos(2*math.Pi*float64(day)/365)
				p.Joins = p.Deaths
				return nil
			}
		}),
		year("0.1 % a day while the table grows by 1 % a day", 0.001, func(h *History) { h.Rows, h.Joins, h.Days = 5000, 0.011, 200 }),
		year("0.1 % a day, handed over once a week", 0, func(h *History) {
			h.Joins = 0.001
			h.Day = func(ctx context.Context, p *play, day int) error {
				if day%7 != 0 {
					return nil
				}
				return p.die(ctx, p.some(p.poisson(0.007*float64(len(p.users))), anybody), 24)
			}
		}),
		year("a purge of 3 % within an hour, runs every 6 hours", 0.001, func(h *History) {
			h.Every, h.Days, h.Warm = 6, 60, 65
			h.Day = func(ctx context.Context, p *play, day int) error {
				if day != 5 {
					return nil
				}
				return p.die(ctx, p.some(3*len(p.users)/100, anybody), 1)
			}
		}),
		year("first installation, 10 % old orphans", 0.001, func(h *History) { h.Days, h.Begin = 120, oldOrphans(false) }),
		year("the same, with users.deleted_at", 0.001, func(h *History) { h.Days, h.Begin = 120, oldOrphans(true) }),
		year("the runner is down for 6 days", 0.001, func(h *History) { h.Warm, h.Days, h.Day = 65, 90, down(6) }),
		year("the runner is down for 10 days", 0.001, func(h *History) { h.Warm, h.Days, h.Day = 65, 90, down(10) }),
		year("a table of 20 rows, one user deleted every two months", 0, func(h *History) { h.Rows, h.Day = 20, oneEvery(60) }),
		year("200 rows, one user deleted every week", 0, func(h *History) { h.Rows, h.Day = 200, oneEvery(7) }),
		year("200 rows, 0.1 % a day", 0.001, func(h *History) { h.Rows = 200 }),
		year("2,000 rows, 0.3 % a day", 0.003, func(h *History) { h.Rows = 2000 }),
		year("1,000,000 rows, 0.1 % a day", 0.001, func(h *History) { h.Rows, h.Readers, h.Large = 1_000_000, false, true }),
		year("2,000,000 rows, 0.1 % a day", 0.001, func(h *History) { h.Rows, h.Days, h.Readers, h.Large = 2_000_000, 90, false, true }),
	}
}

// oldOrphans are there before the first run; the shadow table may know of them.
func oldOrphans(inShadow bool) func(ctx context.Context, p *play) error {
	return func(ctx context.Context, p *play) error {
		// With those of other days it is more than a tenth.
		dead := p.some(len(p.users)/10, anybody)
		if err := p.die(ctx, dead, 24); err != nil {
			return err
		}
		// Long ago: nobody of them has read anything for a year.
		if err := p.pass(ctx, 90*24, 0, 0); err != nil || !inShadow {
			return err
		}
		_, err := p.pool.Exec(ctx, shadowSQL, dead, 60)
		return err
	}
}

// down has no run for some days.
func down(days int) func(ctx context.Context, p *play, day int) error {
	return func(_ context.Context, p *play, day int) error {
		p.skip = day >= 5 && day < 5+days
		return nil
	}
}

// oneEvery deletes one user every so many days; another one joins.
func oneEvery(days int) func(ctx context.Context, p *play, day int) error {
	return func(ctx context.Context, p *play, day int) error {
		if day%days != 0 {
			return nil
		}
		if err := p.die(ctx, p.some(1, anybody), 24); err != nil {
			return err
		}
		return p.join(ctx, 1, 0)
	}
}
