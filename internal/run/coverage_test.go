package run_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// timeline is a world in which time passes, with a note of who was checked when.
type timeline struct {
	*world
	now     time.Duration
	checked map[uuid.UUID][]time.Duration
	last    []uuid.UUID // by the last run, in order, the second check too
	calls   int
	// respond, where it is set, is called before each call; its error is the response.
	respond func(call int, ids []uuid.UUID) error
	// stop interrupts the run under way.
	stop context.CancelFunc
}

// newTimeline has 650 users in batches of 10, each to be checked every 24 hours. 3
// of them are kept for runs that come late or not at all: 31 users an hour, and so 4
// batches.
func newTimeline(t *testing.T) (*timeline, []uuid.UUID) {
	t.Helper()
	s := &timeline{world: newWorld(t), checked: map[uuid.UUID][]time.Duration{}}
	s.lenient()
	s.cfg.CheckEvery, s.cfg.BatchSize, s.cfg.Concurrency, s.cfg.PageUsers = 24*time.Hour, 10, 1, 7
	users := s.people(650, 1)
	slices.SortFunc(users, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	return s, users
}

// pass lets time pass: whatever has been written down lies further back.
func (s *timeline) pass(d time.Duration) {
	s.t.Helper()
	s.now += d
	s.db.Exec(`UPDATE orphan_cleaner.coverage SET checked_at = checked_at - $1::interval`, d)
	s.db.Exec(`UPDATE orphan_cleaner.unknowns SET unknown_since = unknown_since - $1::interval`, d)
	s.db.Exec(`UPDATE orphan_cleaner.runs SET started_at = started_at - $1::interval, heartbeat_at = heartbeat_at - $1::interval, finished_at = finished_at - $1::interval`, d)
	s.db.Exec(`UPDATE orphan_cleaner.candidates SET first_missing_at = first_missing_at - $1::interval, last_missing_at = last_missing_at - $1::interval`, d)
}

// part makes a run, which checks a part of the users.
func (s *timeline) part() (outcome, error) {
	s.t.Helper()
	client := s.client()
	var mu sync.Mutex
	s.last, s.calls = nil, 0
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	s.stop = cancel
	return s.runWith(ctx, checkerFunc(func(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
		mu.Lock()
		defer mu.Unlock()
		s.calls++
		s.last = append(s.last, ids...)
		if s.respond != nil {
			if err := s.respond(s.calls, ids); err != nil {
				return nil, err
			}
		}
		missing, err := client.Missing(ctx, ids)
		if err == nil {
			for _, id := range ids {
				s.checked[id] = append(s.checked[id], s.now)
			}
		}
		return missing, err
	}))
}

// inTime asserts that nobody waited for longer than CheckEvery since the moment,
// be it for the first or for the next time.
func (s *timeline) inTime(since time.Duration, users []uuid.UUID) {
	s.t.Helper()
	s.within(s.cfg.CheckEvery, since, users)
}

func (s *timeline) within(limit, since time.Duration, users []uuid.UUID) {
	s.t.Helper()
	late, most := 0, time.Duration(0)
	for _, user := range users {
		last, longest := since, time.Duration(0)
		for _, at := range append(slices.Clone(s.checked[user]), s.now) {
			if at >= since {
				longest, last = max(longest, at-last), at
			}
		}
		most = max(most, longest)
		if longest > limit {
			late++
		}
	}
	if late > 0 {
		s.t.Errorf("%d of %d users waited for longer than %s, up to %s", late, len(users), limit, most)
	}
}

// oldest is how long ago the database says that everybody was checked.
func (s *timeline) oldest() time.Duration {
	s.t.Helper()
	return time.Duration(testdb.One[float64](s.db, `SELECT extract(EPOCH FROM now() - least(
		(SELECT min(r.started_at) FROM orphan_cleaner.runs AS r, orphan_cleaner.coverage AS v
			WHERE r.run_id >= v.previous_run_id AND r.judged_at IS NOT NULL
				AND (v.cursor_id IS NULL OR r.checked_through IS NULL OR r.checked_through > v.cursor_id)), now()))::float8`) * float64(time.Second))
}

// Whether runs come every hour, every second one is missed, or they come when they
// like: everybody is checked within CheckEvery, by few calls in each run.
func TestEverybodyIsCheckedInTime(t *testing.T) {
	for name, c := range map[string]struct {
		step func(run int) time.Duration
		most int // calls of one run
	}{
		"every hour":          {func(int) time.Duration { return time.Hour }, 4},
		"every second missed": {func(int) time.Duration { return 2 * time.Hour }, 8},
		"some missed":         {func(run int) time.Duration { return time.Duration(1+run%2) * time.Hour }, 8},
		"late by a quarter":   {func(run int) time.Duration { return time.Hour + time.Duration(run%2)*15*time.Minute }, 5},
		"one in six hours":    {func(int) time.Duration { return 6 * time.Hour }, 65},
		"every half hour":     {func(int) time.Duration { return 30 * time.Minute }, 2},
		"three missed at once": {func(run int) time.Duration {
			return []time.Duration{time.Hour, time.Hour, time.Hour, 4 * time.Hour}[run%4]
		}, 22},
	} {
		t.Run(name, func(t *testing.T) {
			s, users := newTimeline(t)
			if r := s.must(s.part()); r.UsersChecked != 650 || s.calls != 65 {
				t.Fatalf("the first run checked %d users by %d calls, want all", r.UsersChecked, s.calls)
			}
			for run := 0; s.now < 60*time.Hour; run++ {
				step := c.step(run)
				s.pass(step)
				r := s.must(s.part())
				if s.calls > c.most || r.BatchCalls != int64(s.calls) || r.UsersChecked != int64(len(s.last)) || r.MembersTotal != r.UsersChecked {
					t.Fatalf("run %d: %d calls, %+v", run, s.calls, r)
				}
				// It says no less, and a step more where a part ended with the last user.
				if waited, says := s.longestWait(users), s.oldest(); says < waited || says > waited+step+time.Minute {
					t.Errorf("run %d: the database says %s, the longest wait is %s", run, says, waited)
				}
			}
			s.inTime(0, users)
		})
	}
}

// longestWait is how long ago the user was checked who waits longest.
func (s *timeline) longestWait(users []uuid.UUID) time.Duration {
	longest := time.Duration(0)
	for _, user := range users {
		at := s.checked[user]
		longest = max(longest, s.now-at[len(at)-1])
	}
	return longest
}

// New users are met when the cursor comes to their ids; a table that grows by a
// tenth within a cycle is still checked in time, and so are the new users.
func TestGrowingTable(t *testing.T) {
	s, users := newTimeline(t)
	s.must(s.part())
	added := map[time.Duration][]uuid.UUID{}
	for hour := 1; hour <= 72; hour++ {
		s.pass(time.Hour)
		s.must(s.part())
		if hour%4 == 0 && hour <= 40 {
			added[s.now] = s.people(12, 1)
		}
	}
	s.inTime(0, users)
	for since, some := range added {
		s.inTime(since, some)
	}
}

// A day without a run, a setting of less than four intervals, a table that was
// emptied, no setting at all: everybody.
func TestPartsOfEverybody(t *testing.T) {
	s, _ := newTimeline(t)
	s.must(s.part())
	everybody := func(why string, want bool) {
		t.Helper()
		if r := s.must(s.part()); (r.UsersChecked == 650) != want {
			t.Errorf("%s: %d users checked", why, r.UsersChecked)
		}
	}
	s.pass(time.Hour)
	everybody("an hour after the first run", false)
	s.pass(24 * time.Hour)
	everybody("a day later", true)
	s.cfg.CheckEvery = 4*time.Hour - time.Minute
	s.pass(time.Hour)
	everybody("a setting too short to be shared out", true)
	s.cfg.CheckEvery = 24 * time.Hour
	s.pass(time.Hour)
	everybody("as before", false)
	s.db.Exec(`DELETE FROM orphan_cleaner.coverage`)
	everybody("nothing is known", true)
	s.pass(time.Hour)
	everybody("as before", false)
	s.cfg.CheckEvery = 0
	everybody("no setting", true)
	if n := s.db.Count(`orphan_cleaner.coverage WHERE users = 650 AND cursor_id IS NULL`); n != 1 {
		t.Errorf("a whole run did not write down all users as one cycle")
	}
	s.cfg.CheckEvery = 24 * time.Hour
	s.pass(time.Hour)
	everybody("switched on after a whole run", false)
}

// Whatever a run comes to nothing by: the next one checks the same part.
func TestPartThatCameToNothing(t *testing.T) {
	boom := errors.New("boom")
	cases := map[string]struct {
		want error
		set  func(s *timeline)
	}{
		"refused": {run.ErrRefused, func(s *timeline) { s.cfg.CanaryAlive = []uuid.UUID{uuid.New()} }},
		"interrupted": {run.ErrInterrupted, func(s *timeline) {
			s.respond = func(call int, _ []uuid.UUID) error {
				if call == 2 {
					s.stop()
				}
				return nil
			}
		}},
		"too little is known": {run.ErrIncomplete, func(s *timeline) {
			s.respond = func(call int, _ []uuid.UUID) error {
				if call == 2 {
					return boom
				}
				return nil
			}
		}},
		"dry": {nil, func(s *timeline) { s.cfg.DryRun = true }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, _ := newTimeline(t)
			s.must(s.part())
			s.pass(time.Hour)
			s.must(s.part())
			s.pass(time.Hour)
			before := s.db.Fingerprint(`orphan_cleaner.coverage`)
			c.set(s)
			if _, err := s.part(); !errors.Is(err, c.want) {
				t.Fatalf("the run ended with %v", err)
			}
			if s.db.Fingerprint(`orphan_cleaner.coverage`) != before {
				t.Error("the run moved on")
			}
			checked := s.last
			s.cfg.CanaryAlive, s.cfg.DryRun, s.respond = nil, false, nil
			s.must(s.part())
			// An hour was lost: the part of two hours begins where that one did.
			if len(checked) < 20 || len(s.last) < 40 || !slices.Equal(checked[:20], s.last[:20]) {
				t.Errorf("it checked %d users, and then %d, others", len(checked), len(s.last))
			}
			s.pass(time.Hour)
			again := s.last
			s.must(s.part())
			if slices.ContainsFunc(s.last, func(id uuid.UUID) bool { return slices.Contains(again, id) }) {
				t.Error("users are checked again an hour later")
			}
		})
	}
}

// Nobody knows about a user of an invalid response, so the next run checks again,
// whatever its part; a user who spoils each batch keeps only those beside waiting.
func TestPartWithUnknownUsers(t *testing.T) {
	s, users := newTimeline(t)
	s.cfg.BatchSize = 2
	s.must(s.part())
	s.pass(3 * time.Hour)
	var unknown []uuid.UUID
	s.respond = func(call int, ids []uuid.UUID) error {
		if call == 1 || call == 2 || call == 20 || call == 55 {
			unknown = append(unknown, ids...)
			return errors.New("once")
		}
		return nil
	}
	if r, err := s.part(); !errors.Is(err, run.ErrIncomplete) || s.calls < 65 || s.calls > 66 || r.UsersUnknown != 8 {
		t.Fatalf("%d calls, %v, %+v", s.calls, err, r)
	}
	if n := s.db.Count(`orphan_cleaner.unknowns WHERE user_id = ANY ($1)`, unknown); n != 8 || s.db.Count(`orphan_cleaner.unknowns`) != 8 {
		t.Errorf("%d users are written down as unknown", n)
	}
	s.respond = nil
	s.pass(time.Minute)
	r := s.must(s.part())
	for _, id := range unknown {
		if !slices.Contains(s.last, id) {
			t.Errorf("the next run did not check %s", id)
		}
	}
	if r.UsersChecked > 10 || s.db.Count(`orphan_cleaner.unknowns`) != 0 {
		t.Errorf("the next run: %+v", r)
	}
	s.pass(time.Minute)
	s.must(s.part())
	for _, id := range unknown {
		if slices.Contains(s.last, id) {
			t.Errorf("the run after that checked %s once more", id)
		}
	}

	spoiler := users[100]
	beside := map[uuid.UUID]bool{}
	s.respond = func(_ int, ids []uuid.UUID) error {
		if !slices.Contains(ids, spoiler) {
			return nil
		}
		for _, id := range ids {
			beside[id] = true
		}
		return errors.New("always")
	}
	for range 72 {
		s.pass(time.Hour)
		if _, err := s.part(); err != nil && !errors.Is(err, run.ErrIncomplete) {
			t.Fatal(err)
		}
	}
	// A short part in which that batch is more than a tenth is not judged; the runs
	// after it check more, and everybody after a quarter of the time.
	s.within(s.cfg.CheckEvery*5/4, 0, slices.DeleteFunc(slices.Clone(users), func(id uuid.UUID) bool { return beside[id] }))
	if len(beside) > 6 {
		t.Errorf("%d users wait with the one", len(beside))
	}
	if n := s.db.Count(`orphan_cleaner.unknowns WHERE user_id = $1 AND unknown_since < now() - interval '40 hours'`, spoiler); n != 1 {
		t.Error("it is not written down since when the one is unknown")
	}
}

// The ledger is whole after each run: every candidate is checked, wherever the
// part is, and whoever is due is deleted.
func TestCandidatesBesideThePart(t *testing.T) {
	s, users := newTimeline(t)
	back, gone, stay, due := users[600], users[601], users[602], users[603]
	near := users[0] // in the part
	s.auth.Delete(back, gone, stay, due, near)
	s.must(s.part())
	if n := s.db.Count(`orphan_cleaner.candidates`); n != 5 {
		t.Fatalf("%d candidates", n)
	}
	s.pass(time.Hour)
	s.auth.Revive(back)
	s.db.Exec(`DELETE FROM conversation_members WHERE user_id = $1`, gone)
	s.db.Exec(`UPDATE orphan_cleaner.candidates SET first_missing_at = now() - interval '31 days' WHERE user_id = $1`, due)
	newly := users[610]
	s.auth.Delete(newly)
	r := s.must(s.part())
	// The part of 40, three of four candidates beside it, and the due one again.
	if r.UsersChecked != 43 || r.UsersMissing != 3 || r.UsersNew != 0 || r.UsersReturned != 1 || r.MembersDeleted != 1 || r.BatchCalls != 5+1 || s.calls != 6 {
		t.Errorf("%d calls, %+v", s.calls, r)
	}
	if n := s.db.Count(`orphan_cleaner.candidates WHERE user_id IN ($1, $2)`, back, gone); n != 0 {
		t.Errorf("%d who are alive again, or have no members, are candidates", n)
	}
	if n := s.db.Count(`orphan_cleaner.candidates WHERE user_id IN ($1, $2) AND sightings = 2 AND last_missing_run = $3 AND first_missing_at < now() - interval '59 minutes'`, stay, near, r.RunID); n != 2 {
		t.Errorf("the clock of %d candidates goes on, want both", n)
	}
	if n := s.membersOf(due); n != 0 {
		t.Error("who was due is there")
	}
	for hour := 2; s.db.Count(`orphan_cleaner.candidates WHERE user_id = $1`, newly) == 0; hour++ {
		if hour > 24 {
			t.Fatal("a user who went missing is not found within a day")
		}
		s.pass(time.Hour)
		s.must(s.part())
	}
	s.invariant(1)

	// Pages of one, each at the end of a range or beside it.
	s.cfg.PageUsers = 1
	s.pass(time.Hour)
	if r := s.must(s.part()); r.UsersMissing < 2 || s.db.Count(`orphan_cleaner.candidates WHERE last_missing_run = $1`, r.RunID) != 3 {
		t.Errorf("%+v", r)
	}
}

// A canary is checked in each run: one who is no candidate rides along, one who is
// a candidate or in the part is checked once.
func TestCanariesBesideThePart(t *testing.T) {
	s, users := newTimeline(t)
	alive, dead, near := users[600], users[601], users[1]
	s.auth.Delete(dead)
	s.must(s.part())
	s.cfg.CanaryAlive, s.cfg.CanaryDead = []uuid.UUID{alive, near}, []uuid.UUID{dead}
	s.pass(time.Hour)
	if r := s.must(s.part()); r.UsersChecked != 41 || len(s.last) != 42 || s.calls != 5 {
		t.Errorf("%d users were checked, by %d calls: %+v", len(s.last), s.calls, r)
	}
	for _, canary := range []uuid.UUID{alive, dead, near} {
		if !slices.Contains(s.last, canary) {
			t.Error("a canary was not checked")
		}
	}
	s.auth.Delete(alive)
	s.pass(time.Hour)
	r, err := s.part()
	s.refused("canary-alive", r, err)
}

// Breakers judge what was checked, and an approved run checks everybody: its
// users need not be in the part of the day.
func TestPartIsJudgedAndApproved(t *testing.T) {
	s, users := newTimeline(t)
	s.cfg.BatchSize = 100
	s.must(s.part())
	s.pass(time.Hour)
	s.cfg.Limits["new-missing-share"] = 0.1
	// 60 of 650 would be under 10 %; of the 100 of the part they are not.
	s.auth.Delete(users[:60]...)
	refused, err := s.part()
	s.refused("new-missing-share", refused, err)
	if refused.UsersChecked != 100 {
		t.Errorf("%+v", refused)
	}
	s.approve(refused.RunID)
	if r := s.must(s.part()); r.UsersChecked != 650 || r.UsersNew != 60 {
		t.Errorf("the approved run: %+v", r)
	}
	s.pass(time.Hour)
	if r := s.must(s.part()); r.UsersChecked > 200 {
		t.Errorf("the run after: %+v", r)
	}
}
