package simulate

import (
	"context"
	"math"

	"github.com/google/uuid"
)

// attacks are drips made by somebody who knows the breakers and tries to beat them.
func attacks() (all []History) {
	own := func(name string, change func(h *History)) History {
		h := History{Group: "made to beat the breakers", Name: name, Rows: ordinaryRows, Every: 24, Deaths: 0.0005, Warm: 65, Days: 300}
		change(&h)
		return h
	}
	// Each as somebody meets it who records no activity, who does, and who has canaries.
	add := func(name string, change func(h *History)) {
		all = append(all,
			own(name, change),
			own(name+", users read", func(h *History) {
				change(h)
				h.Readers = true
			}),
			own(name+", 50 canaries", func(h *History) {
				change(h)
				h.Canaries = 50
			}))
	}
	add("grows by half every four weeks, from 0.05 % a day", func(h *History) { h.Step = growing(math.Inf(1)) })
	add("grows as fast to 0.35 % a day, and stays", func(h *History) { h.Step = growing(0.35) })
	add("missing in every other run makes it usual, then 0.35 % a day", func(h *History) { h.Step = alternating })
	add("from the first run on, 0.3 % a day", func(h *History) { h.Warm, h.Step = 0, drip(0.3, perDay) })
	all = append(all,
		own("0.6 % a week of those who never read, others do", func(h *History) { h.Readers, h.Step = true, dripSilent(0.6, perWeek) }),
		own("the same, and never one of 50 canaries", func(h *History) {
			h.Readers, h.Canaries = true, 50
			h.Step = func(p *play, _ float64) {
				p.drip(p.perStep(0.6, perWeek), func(id uuid.UUID) bool { return p.reads[id] == 0 && p.notCanary(id) })
			}
		}),
		own("a stolen runner login, and its thief is auth-service too", func(h *History) { h.Days, h.Readers, h.Stolen = 90, true, true }),
		own("2 % lost on the day of an approved purge of 2 %", func(h *History) {
			h.Days, h.Honest = 120, true // an operator approves what looks like the purge
			h.Day = func(ctx context.Context, p *play, day int) error {
				if day != 0 {
					return nil
				}
				p.lose(p.began/50, anybody)
				return p.die(ctx, p.some(p.began/50, p.notLost), 1)
			}
		}),
		own("5 users of 54 every eight days (200 rows)", func(h *History) {
			h.Rows = 200
			h.Day = func(_ context.Context, p *play, day int) error {
				if day%8 == 0 {
					p.lose(5, anybody)
				}
				return nil
			}
		}),
	)
	return all
}

// growing loses 0.05 % a day, half as much more every four weeks, up to a percentage.
func growing(most float64) func(p *play, days float64) {
	return func(p *play, days float64) { p.drip(p.perStep(min(grown(days), most), perDay), anybody) }
}

// grown is what the average of four weeks follows without a refusal.
func grown(days float64) float64 { return 0.05 * math.Pow(1.5, math.Floor(days/28)) }

// alternating has a few users missing in one run and back in the next, newly missing
// each time and never due, as many more as [growing] would lose. When that is usual,
// users are lost for good in their place.
func alternating(p *play, days float64) {
	const most = 0.35
	if grown(days) >= most {
		p.drip(p.perStep(most, perDay), anybody)
		return
	}
	clear(p.lost)
	if int(days)%2 == 0 {
		p.drip(2*p.perStep(grown(days), perDay), anybody)
	}
}
