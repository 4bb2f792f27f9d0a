package simulate

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// Periods in which a share of the living users is lost, in days.
const (
	perHour = 1.0 / 24
	perSix  = 0.25
	perDay  = 1.0
	perWeek = 7.0
)

func periodName(days float64) string {
	return map[float64]string{perHour: "an hour", perSix: "six hours", perDay: "a day", perWeek: "a week"}[days]
}

// Dishonest are histories in which auth-service loses living users after 65 good
// days. Every row of a living user counts.
func Dishonest() (all []History) {
	for _, period := range []float64{perHour, perSix, perDay, perWeek} {
		for _, percent := range []float64{1, 2, 4, 10, 25} {
			all = append(all, loss("a share of all, daily runs", percent, period, nil))
		}
	}
	add := func(group string, percent, period float64, change func(h *History)) {
		all = append(all, loss(group, percent, period, change))
	}
	for _, percent := range []float64{1, 4} {
		add("runs every six hours", percent, perSix, func(h *History) { h.Every = 6 })
		add("runs every six hours", percent, perWeek, func(h *History) { h.Every = 6 })
		add("runs every hour, 2,000 rows", percent, perHour, func(h *History) { h.Every, h.Rows = 1, 2000 })
		add("runs every hour, 2,000 rows", percent, perDay, func(h *History) { h.Every, h.Rows = 1, 2000 })
	}
	for _, percent := range []float64{1, 4} {
		for _, period := range []float64{perDay, perWeek} {
			add("nobody reads (no activity recorded)", percent, period, func(h *History) { h.Readers = false })
			add("only users without activity", percent, period, func(h *History) { h.Step = dripSilent(percent, period) })
			add("by id range", percent, period, func(h *History) { h.Step = nil; h.Day = byRange(percent / 100 / period) })
		}
		add("0.3 % deleted a day beside it", percent, perWeek, func(h *History) { h.Deaths = 0.003 })
		add("the same, nobody reads", percent, perWeek, func(h *History) { h.Deaths, h.Readers = 0.003, false })
		add("the same, 50 canaries", percent, perWeek, func(h *History) { h.Deaths, h.Readers, h.Canaries = 0.003, false, 50 })
	}
	for _, percent := range []float64{0.1, 0.05} {
		slow := func(name string, readers bool, canaries int) {
			add(fmt.Sprintf("%g %% a day at random", percent), percent, perDay, func(h *History) {
				h.Name, h.Readers, h.Canaries = name, readers, canaries
			})
		}
		slow("users read", true, 0)
		slow("nobody reads", false, 0)
		slow("nobody reads, 50 canaries", false, 50)
	}
	add("200 rows, 10 canaries", 1, perWeek, func(h *History) { h.Rows, h.Canaries = 200, 10 })
	for _, rows := range []int{20, 200} {
		for _, percent := range []float64{1, 4, 25} {
			for _, period := range []float64{perDay, perWeek} {
				add(fmt.Sprintf("%d rows", rows), percent, period, func(h *History) { h.Rows = rows })
			}
		}
	}
	all = append(append(all, oddities()...), attacks()...)
	add("2,000,000 rows, nobody reads", 1, perWeek, func(h *History) { h.Rows, h.Readers, h.Large = 2_000_000, false, true })
	return all
}

// loss loses a percentage of the living users per period, evenly.
func loss(group string, percent, period float64, change func(h *History)) History {
	h := History{
		Group: group, Name: fmt.Sprintf("%g %% %s", percent, periodName(period)), Rows: ordinaryRows, Every: 24, Deaths: 0.0005, Readers: true,
		Warm: 65, Days: 300, Step: drip(percent, period),
	}
	if change != nil {
		change(&h)
	}
	return h
}

// drip loses users of all, evenly.
func drip(percent, period float64) func(p *play, days float64) {
	return func(p *play, _ float64) { p.drip(p.perStep(percent, period), anybody) }
}

// dripSilent loses users who never read, as many.
func dripSilent(percent, period float64) func(p *play, days float64) {
	return func(p *play, _ float64) {
		p.drip(p.perStep(percent, period), func(id uuid.UUID) bool { return p.reads[id] == 0 })
	}
}

// perStep is how many users a step loses.
func (p *play) perStep(percent, period float64) float64 {
	return float64(p.began) * percent / 100 * float64(p.Every) / 24 / period
}

// byRange loses the users of a growing range of ids.
func byRange(aDay float64) func(ctx context.Context, p *play, day int) error {
	return func(_ context.Context, p *play, day int) error {
		users := p.inOrder()
		for _, id := range users[:min(len(users), int(float64(len(users))*aDay*float64(day+1)))] {
			p.lost[id] = true
		}
		return nil
	}
}

// oddities are histories of a shape of their own.
func oddities() []History {
	odd := func(name string, days int, change func(h *History)) History {
		h := History{Group: "other shapes", Name: name, Rows: ordinaryRows, Every: 24, Deaths: 0.0005, Warm: 65, Days: days}
		change(&h)
		return h
	}
	return []History{
		odd("everybody at once", 120, func(h *History) { h.Day = once(1, nil) }),
		odd("everybody at once, for 60 days, then back", 120, func(h *History) { h.Day = once(1, func(day int) bool { return day == 60 }) }),
		odd("one shard of 16 at once, for good", 120, func(h *History) {
			h.Day = func(ctx context.Context, p *play, day int) error {
				return byRange(1.0/16)(ctx, p, min(day, 0))
			}
		}),
		odd("0.9 % at once, for good", 120, func(h *History) { h.Day = once(0.009, nil) }),
		odd("4 % lost for 20 days, back for 2, and again", 120, func(h *History) { h.Day = flapping(0.04, 20, 22) }),
		odd("0.9 % lost for 29 days, back for a day, others then", 200, func(h *History) { h.Day = flapping(0.009, 29, 30) }),
		odd("a ledger filled by hand: 25 % due at once", 60, func(h *History) { h.Day = byHand(0.25, 1000) }),
		odd("a ledger filled by hand: 0.9 % due each day", 60, func(h *History) { h.Day = byHand(0.009, 1) }),
	}
}

// once loses a share at once, until they are back.
func once(share float64, back func(day int) bool) func(ctx context.Context, p *play, day int) error {
	return func(_ context.Context, p *play, day int) error {
		if day == 0 {
			p.lose(int(share*float64(p.began)), anybody)
		}
		if back != nil && back(day) {
			clear(p.lost)
		}
		return nil
	}
}

// flapping loses a share for some days of every so many.
func flapping(share float64, days, of int) func(ctx context.Context, p *play, day int) error {
	return func(_ context.Context, p *play, day int) error {
		switch day % of {
		case 0:
			p.lose(int(share*float64(p.began)), anybody)
		case days:
			clear(p.lost)
		}
		return nil
	}
}

// byHand writes living users into the ledger, of whom auth-service then says that
// they are missing.
func byHand(share float64, every int) func(ctx context.Context, p *play, day int) error {
	return func(ctx context.Context, p *play, day int) error {
		if day%every != 0 {
			return nil
		}
		users := p.some(int(share*float64(p.began)), p.notLost)
		for _, id := range users {
			p.lost[id] = true
		}
		_, err := p.pool.Exec(ctx, fillLedgerSQL, users)
		return err
	}
}
