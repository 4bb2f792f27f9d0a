package run_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// refused asserts that a run ended so, by this breaker.
func (w *world) refused(breaker string, r outcome, err error) {
	w.t.Helper()
	if !errors.Is(err, run.ErrRefused) || r.State != "refused" || r.Breaker == nil || *r.Breaker != breaker {
		w.t.Fatalf("not refused by %s: %v, %+v", breaker, err, r)
	}
}

func TestBreakersRefuse(t *testing.T) {
	for breaker, c := range map[string]struct {
		dead  int
		limit float64
	}{
		"new-missing-share": {dead: 60, limit: 0.10},
		"new-missing-rate":  {dead: 20, limit: 0.01},
		"candidate-share":   {dead: 60, limit: 0.15},
		"delete-share":      {dead: 60, limit: 0.05},
		"delete-share-7d":   {dead: 60, limit: 0.10},
		"delete-share-30d":  {dead: 70, limit: 0.20},
		"delete-rows":       {dead: 10, limit: 199},
		"history":           {dead: 60, limit: 10},
	} {
		t.Run(breaker, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 20)
			w.die(40, users[:c.dead]...)
			w.lenient()
			w.cfg.Limits[breaker] = c.limit
			w.ranBefore()
			before := w.db.Fingerprint(`conversation_members`)
			for _, dry := range []bool{true, false} {
				w.cfg.DryRun = dry
				r, err := w.run()
				w.refused(breaker, r, err)
			}
			if w.db.Fingerprint(`conversation_members`) != before || w.db.Count(`orphan_cleaner.candidates`) != 0 {
				t.Error("a refused run changed members or ledger")
			}
			if n := w.db.Count(`orphan_cleaner.runs WHERE state = 'refused' AND breaker = $1`, breaker); n != 1 {
				t.Errorf("%d refused runs on record", n)
			}
			if n := w.db.Count(`orphan_cleaner.refusals`); n != int64(c.dead) {
				t.Errorf("%d users kept for an approval, want %d", n, c.dead)
			}
			w.invariant(0)
			// Nothing but this limit was in the way.
			w.lenient()
			w.cfg.Limits["delete-rows"] = 100_000
			w.must(w.run())
			w.invariant(int64(c.dead) * 20)
		})
	}
}

// ranBefore has the breakers know a run of two days ago, which found nobody.
func (w *world) ranBefore() {
	w.t.Helper()
	w.db.Exec(`INSERT INTO orphan_cleaner.hours (hour, target, users, rows_total)
		SELECT date_trunc('hour', now()) - interval '2 days', t.target, 300, 6000 FROM unnest(ARRAY['', 'conversation_members']) AS t (target)`)
}

// A floor is no licence: in a very small table everybody who goes missing is refused, and so are the rows of everybody. Of a
// larger one see the fault matrix.
func TestSmallTables(t *testing.T) {
	for _, c := range []struct{ users, perUser int }{{4, 5}, {2, 2}} {
		for breaker, sinceDays := range map[string]int{"new-missing-share": 0, "delete-share": 40} {
			t.Run(fmt.Sprintf("%s of %d users", breaker, c.users), func(t *testing.T) {
				w := newWorld(t)
				users := w.people(c.users, c.perUser)
				w.lenient()
				w.cfg.Limits[breaker] = settings.DefaultLimits()[breaker]
				w.die(sinceDays, users...)
				r, err := w.run()
				w.refused(breaker, r, err)
				w.invariant(0)
			})
		}
	}
}

// What the first run finds has gathered over years: it is no rate. What comes to it
// within a week is one, by several runs too: more than 2 * 7 * 0.3 % of the users and five, while two weeks are not known.
func TestFirstRunIsNoRate(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(0, users[:10]...)
	if r := w.must(w.run()); r.UsersNew != 10 {
		t.Errorf("%+v", r)
	}
	w.die(0, users[10:27]...)
	w.must(w.run())
	w.die(0, users[27])
	r, err := w.run()
	w.refused("new-missing-rate", r, err)
}

// After ten days without a run one finds what gathers in ten, and may. After ten days on which runs were refused it may
// not: else a loss that is refused for long enough passes.
func TestRefusedDaysAreNoOutage(t *testing.T) {
	for name, refused := range map[string]bool{"no run": false, "refused runs": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(1000, 1)
			w.db.Exec(`INSERT INTO orphan_cleaner.hours (hour, users, users_new, rows_total)
				SELECT date_trunc('hour', now()) - make_interval(days => n), 1000, 1, 1000 FROM generate_series(10, 50) AS n`)
			if refused {
				w.db.Exec(`INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings, breaker)
					SELECT 'clean', 'refused', 'judge', now() - make_interval(days => n), now() - interval '1 hour', now(), '1 minute', 'test', 'test', '{}', 'new-missing-rate'
					FROM generate_series(1, 9) AS n`)
			}
			// More than twice what is usual in seven days, and five; less than in ten.
			w.die(0, users[:22]...)
			r, err := w.run()
			if refused {
				w.refused("new-missing-rate", r, err)
				return
			}
			w.must(r, err)
		})
	}
}

// Where no canary is configured a run chooses its own, once ten runs have succeeded. More
// than a quarter of them missing is refused whatever the limits are; those missing
// before are none of them.
func TestChosenCanaries(t *testing.T) {
	for name, c := range map[string]struct {
		users, runs, known, dead int
		configured, refused      bool
	}{
		"too many":           {users: 200, runs: 10, dead: 100, refused: true},
		"a tenth":            {users: 200, runs: 10, dead: 20},
		"too few runs":       {users: 200, runs: 9, dead: 100},
		"too few users":      {users: 19, runs: 10, dead: 10},
		"missing before":     {users: 200, runs: 10, known: 100, dead: 100},
		"another configured": {users: 200, runs: 10, dead: 100, configured: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(c.users, 2)
			w.missingFor(2, users[:c.known]...)
			w.die(0, users[:c.dead]...)
			if c.configured {
				w.cfg.CanaryAlive = users[c.users-1:]
			}
			w.db.Exec(`INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings)
				SELECT 'clean', 'succeeded', 'finish', now() - make_interval(days => n), now(), now(), '1 minute', 'test', 'test', '{}'
				FROM generate_series(1, $1::int) AS n`, c.runs)
			before := w.auth.Calls()
			r, err := w.run()
			if c.refused {
				w.refused("canary-alive", r, err)
			} else {
				w.must(r, err)
			}
			if calls := w.auth.Calls() - before; int64(calls) != int64((c.users+99)/100) {
				t.Errorf("%d calls for %d users", calls, c.users)
			}
		})
	}
}

// Canaries are of all kinds, however few of a kind there are: those who read messages and those who do not, old and new
// members. Where nobody records who reads, they are spread over the rest.
func TestCanariesAreSpread(t *testing.T) {
	w := newWorld(t)
	w.people(3000, 1)
	w.db.Exec(`UPDATE conversation_members SET last_read_at = now() - interval '3 days' WHERE hashtext(user_id::text) % 6 = 0`)
	w.db.Exec(`UPDATE conversation_members SET joined_at = now() - interval '3 years' WHERE hashtext(user_id::text || 'age') % 6 = 0`)
	choose := func() []uuid.UUID {
		chosen, err := db.New(w.db.Pool).UserCanaries(t.Context(), 100)
		if err != nil || len(chosen) < 80 {
			t.Fatalf("%d canaries, %v", len(chosen), err)
		}
		return chosen
	}
	share := func(chosen []uuid.UUID, kind string) int64 {
		return 100 * testdb.One[int64](w.db, `SELECT count(*) FROM conversation_members WHERE user_id = ANY ($1) AND `+kind, chosen) / int64(len(chosen))
	}
	chosen := choose()
	ranges := int64(0)
	for _, kind := range []string{"last_read_at IS NOT NULL", "last_read_at IS NULL", "joined_at < now() - interval '2 years'", "joined_at > now() - interval '2 years'"} {
		if percent := share(chosen, kind); percent < 28 { // by chance 17
			t.Errorf("%d %% of the canaries have %s", percent, kind)
		}
	}
	for _, first := range "0123456789abcdef" {
		ranges += min(share(chosen, fmt.Sprintf("user_id::text LIKE '%c%%'", first)), 1)
	}
	if ranges != 16 {
		t.Errorf("the canaries lie in %d of 16 ranges of ids", ranges)
	}
	w.db.Exec(`ALTER TABLE conversation_members DROP COLUMN last_read_at`)
	if percent := share(choose(), "joined_at < now() - interval '2 years'"); percent < 35 || percent > 65 {
		t.Errorf("%d %% of the canaries are old members where nobody records who reads", percent)
	}
}

// A share of 1 is off also where there is more than all: a revert judges rows of which some
// are gone by themselves.
func TestShareOfOneIsOff(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	encoded, err := w.cfg.JSON()
	if err != nil {
		t.Fatal(err)
	}
	breakers, err := db.New(w.db.Pool).RunBreakers(t.Context(), db.RunBreakersParams{Settings: encoded, Facts: []byte(`{"users_checked": 100,
		"users_new": 200, "candidates": 200, "targets": {"conversation_members": {"rows_due": 200, "rows_total": 100}}, "users_active": 0, "alive_missing": 0, "dead_present": 0}`)})
	if err != nil || len(breakers) == 0 {
		t.Fatalf("%v, %v", breakers, err)
	}
	for _, b := range breakers {
		if b.IsTripped {
			t.Errorf("refused by %s: %s", b.Breaker, b.Message)
		}
	}
}

// Each limit that a run has is a breaker, and is in the table above.
func TestBreakerNames(t *testing.T) {
	t.Parallel()
	names := settings.BreakerNames()
	for limit := range maps.Keys(settings.DefaultLimits()) {
		if !slices.Contains(names, limit) {
			t.Errorf("there is no breaker %s", limit)
		}
	}
}

// Who reads a message after a run found nobody of that id is alive: a canary without any setup.
func TestRecentlyActiveBreaker(t *testing.T) {
	for _, active := range []int{5, 6} {
		t.Run(fmt.Sprint(active), func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(400, 2)
			w.die(0, users[:10]...)
			w.db.Exec(`UPDATE conversation_members SET last_read_at = now() - interval '2 hours'`)
			w.must(w.run())
			const missing = `orphan_cleaner.candidates WHERE evidence = 'sightings' AND first_missing_at < now() - interval '23 hours'`
			w.db.Exec(`UPDATE orphan_cleaner.candidates SET first_missing_at = now() - interval '1 day'`)
			w.db.Exec(`UPDATE conversation_members SET last_read_at = now() - interval '2 days' WHERE NOT user_id = ANY ($1)`, users[:active])
			r, err := w.run()
			if active <= 5 {
				w.must(r, err)
				return
			}
			w.refused("recently-active", r, err)
			if n := w.db.Count(missing); n != 10 {
				t.Errorf("%d of 10 candidates are as they were", n)
			}
			w.cfg.Limits["recently-active"] = 6
			w.must(w.run())
		})
	}
}

func TestCanaries(t *testing.T) {
	cases := map[string]struct{ alive, dead bool }{"canary-alive": {alive: false}, "canary-dead": {alive: true, dead: true}, "": {alive: true}}
	for breaker, c := range cases {
		for _, isMember := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s member=%v", breaker, isMember), func(t *testing.T) {
				w := newWorld(t)
				w.lenient()
				users := w.people(299, 1)
				w.die(40, users[:5]...)
				alive, dead := uuid.New(), uuid.New()
				if isMember {
					alive, dead = users[100], users[101]
					w.auth.Delete(alive, dead)
				}
				if c.alive {
					w.auth.Add(alive)
				}
				if c.dead {
					w.auth.Add(dead)
				}
				w.cfg.CanaryAlive, w.cfg.CanaryDead = []uuid.UUID{alive}, []uuid.UUID{dead}
				r, err := w.run()
				if breaker == "" {
					w.must(r, err)
					w.invariant(5)
					if want := int64(3 + 1); isMember && r.BatchCalls != want {
						t.Errorf("%d calls, want %d", r.BatchCalls, want)
					}
					if r.UsersChecked != 299 || w.db.Count(`orphan_cleaner.candidates WHERE user_id = $1`, dead) != map[bool]int64{true: 1}[isMember] {
						t.Errorf("result %+v", r)
					}
					return
				}
				w.refused(breaker, r, err)
				w.invariant(0)
			})
		}
	}
}

// What is due is compared with the median day of the last 28, whatever a day had.
func TestHistoryBreaker(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.cfg.Limits["history"] = 10
	users := w.people(300, 101)
	w.die(40, users[:10]...) // 1,010 members
	day := func(daysAgo, deleted int) {
		w.db.Exec(`INSERT INTO orphan_cleaner.hours (hour, target, users, rows_total, rows_deleted)
			SELECT date_trunc('hour', now()) - make_interval(days => $1::int, hours => 1), t.target, 300, 30300, $2::bigint
			FROM unnest(ARRAY['', 'conversation_members']) AS t (target)`, daysAgo, deleted)
	}
	w.cfg.DryRun = true
	for ago := 1; ago <= 5; ago++ {
		day(ago, 100)
	}
	r, err := w.run()
	w.refused("history", r, err) // 10 times the median of 100 is 1,000
	if !strings.Contains(err.Error(), "median day of 100") {
		t.Error(err)
	}
	for ago := 6; ago <= 20; ago++ {
		day(ago, 102)
	}
	w.must(w.run()) // the median is 102 now
	w.db.Exec(`INSERT INTO orphan_cleaner.hours (hour, target, users, rows_total, rows_deleted)
		SELECT date_trunc('hour', now()), t.target, 300, 30300, 11 FROM unnest(ARRAY['', 'conversation_members']) AS t (target)`)
	r, err = w.run()
	w.refused("history", r, err) // with what today has deleted already it is 1,021
	w.cfg.Limits["history"] = 0
	w.must(w.run()) // 0 switches it off
	w.db.Exec(`INSERT INTO orphan_cleaner.limits (name, value) VALUES ('history', 10)`)
	r, err = w.run()
	w.refused("history", r, err) // but not where it is pinned
	w.invariant(0)
}

func TestDatabaseClockBehind(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	w.must(w.runHeld(users))
	w.db.Exec(`UPDATE orphan_cleaner.runs SET heartbeat_at = now() + interval '2 days', finished_at = now() + interval '2 days'`)
	r, err := w.run()
	w.refused("clock", r, err)
	w.invariant(0)
}

// A pinned limit can only make a run stricter, a dry one too.
func TestPinnedLimits(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		pins      map[string]float64
		set       func(cfg *settings.Run)
		breaker   string // that refuses the run; empty: none
		membersOf int    // the dead users who lose their members
	}{
		"a retention that is longer":    {pins: map[string]float64{"retention": (60 * day).Seconds()}},
		"a retention that is shorter":   {pins: map[string]float64{"retention": day.Seconds()}, set: func(cfg *settings.Run) { cfg.Retention = 41 * day }},
		"a shorter one, and who is due": {pins: map[string]float64{"retention": day.Seconds()}, membersOf: 3},
		"a lower limit":                 {pins: map[string]float64{"delete-rows": 5}, breaker: "delete-rows"},
		"a higher limit":                {pins: map[string]float64{"delete-rows": 1000}, set: func(cfg *settings.Run) { cfg.Limits["delete-rows"] = 5 }, breaker: "delete-rows"},
		"a limit that is not reached":   {pins: map[string]float64{"delete-rows": 6}, membersOf: 3},
		"a gap that is shorter":         {pins: map[string]float64{"max-gap": 1}},
		"a gap that is longer":          {pins: map[string]float64{"max-gap": (90 * day).Seconds()}, set: func(cfg *settings.Run) { cfg.MaxGap = time.Second }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 2)
			w.missingFor(40, users[:3]...)
			for limit, value := range c.pins {
				w.db.Exec(`INSERT INTO orphan_cleaner.limits (name, value) VALUES ($1, $2)`, limit, value)
			}
			if c.set != nil {
				c.set(&w.cfg)
			}
			for _, dry := range []bool{true, false} {
				w.cfg.DryRun = dry
				r, err := w.run()
				if c.breaker != "" {
					w.refused(c.breaker, r, err)
					continue
				}
				w.must(r, err)
				if r.MembersDue != 2*int64(c.membersOf) {
					t.Errorf("dry %v: %+v", dry, r)
				}
			}
			w.invariant(2 * int64(c.membersOf))
		})
	}
}

// Where more than half of the users are gone from the table since it was last read
// whole, most likely it was not read whole: row-level security, another table of that
// name, a copy that is not full yet. Ledger and clocks stay as they are until somebody
// approves.
func TestUserCountFalls(t *testing.T) {
	for name, c := range map[string]struct {
		users, gone int
		isRefused   bool
	}{
		"more than half": {users: 300, gone: 160, isRefused: true},
		"all":            {users: 300, gone: 300, isRefused: true},
		"half":           {users: 300, gone: 150},
		"a small table":  {users: 12, gone: 10},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(c.users, 2)
			w.die(0, users[c.users-6:]...)
			w.must(w.run())
			w.db.Exec(`UPDATE orphan_cleaner.candidates SET first_missing_at = now() - interval '20 days'`)
			before := w.db.Snapshot(`orphan_cleaner.candidates`)
			w.db.Exec(`DELETE FROM conversation_members WHERE user_id = ANY ($1)`, users[c.users-c.gone:])
			if !c.isRefused {
				w.must(w.run())
				return
			}
			var last int64
			for _, dry := range []bool{true, false, false} {
				w.cfg.DryRun = dry
				r, err := w.run()
				w.refused("user-count", r, err)
				last = r.RunID
				if want := fmt.Sprintf("%d users have members, the last complete cycle found %d", c.users-c.gone, c.users); !strings.Contains(err.Error(), want) {
					t.Errorf("it does not say %q: %v", want, err)
				}
			}
			if diff := before.Diff(w.db.Snapshot(`orphan_cleaner.candidates`)); diff != "" {
				t.Errorf("the ledger changed:\n%s", diff)
			}
			// It is true: once approved it is what the next runs go by.
			w.approve(last)
			w.must(w.run())
			if n := w.db.Count(`orphan_cleaner.candidates`); n != 0 {
				t.Errorf("%d candidates without a row", n)
			}
			w.must(w.run())
		})
	}
}

// What runs deleted themselves is not gone from the table unexplained.
func TestUserCountAfterASweep(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(300, 2)
	w.missingFor(40, users[:200]...)
	if r := w.must(w.run()); r.MembersDeleted != 400 {
		t.Fatalf("%+v", r)
	}
	w.must(w.run())
	w.db.Exec(`DELETE FROM conversation_members WHERE user_id = ANY ($1)`, users[200:260])
	r, err := w.run()
	w.refused("user-count", r, err)
}

// With a part of the users in each run, the last part of a cycle tells.
func TestUserCountOfACycle(t *testing.T) {
	s, users := newTimeline(t)
	for range 4 {
		s.must(s.part())
		s.pass(time.Hour)
	}
	s.db.Exec(`DELETE FROM conversation_members WHERE user_id = ANY ($1)`, users[200:])
	for parts := 0; ; parts++ {
		s.pass(time.Hour)
		r, err := s.part()
		if err == nil && parts < 20 {
			continue
		}
		s.refused("user-count", r, err)
		break
	}
	if n := s.db.Count(`orphan_cleaner.coverage WHERE cursor_id IS NOT NULL`); n != 1 {
		t.Error("no part of the cycle was judged before: this test shows nothing")
	}
}
