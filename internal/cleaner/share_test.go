package cleaner_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// sharing is a world in which time passes, with a note of who was asked when.
type sharing struct {
	*world
	now   time.Duration
	asked map[uuid.UUID][]time.Duration
	last  []uuid.UUID // by the last run, in order, the second asking too
	calls int
	// check, where it is set, is called before each call; its error is the answer.
	check func(call int, ids []uuid.UUID) error
	// stop interrupts the run under way.
	stop context.CancelFunc
}

// newSharing has 650 users in batches of 10, each to be asked every 24 hours: 29.5
// of them, and so 3 batches, an hour.
func newSharing(t *testing.T) (*sharing, []uuid.UUID) {
	t.Helper()
	s := &sharing{world: newWorld(t), asked: map[uuid.UUID][]time.Duration{}}
	s.cfg.CheckEvery, s.cfg.BatchSize, s.cfg.Concurrency, s.cfg.PageUsers = 24*time.Hour, 10, 1, 7
	users := s.people(650, 1)
	return s, users
}

// pass lets time pass: whatever has been written down lies further back.
func (s *sharing) pass(d time.Duration) {
	s.t.Helper()
	s.now += d
	s.db.Exec(`UPDATE orphan_coverage SET checked_at = checked_at - $1::interval`, d)
	s.db.Exec(`UPDATE orphan_runs SET started_at = started_at - $1::interval, heartbeat_at = heartbeat_at - $1::interval, finished_at = finished_at - $1::interval`, d)
	s.db.Exec(`UPDATE orphan_candidates SET first_missing_at = first_missing_at - $1::interval, last_missing_at = last_missing_at - $1::interval`, d)
}

// share makes a run.
func (s *sharing) share() (cleaner.Result, error) {
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
		if s.check != nil {
			if err := s.check(s.calls, ids); err != nil {
				return nil, err
			}
		}
		missing, err := client.Missing(ctx, ids)
		if err == nil {
			for _, id := range ids {
				s.asked[id] = append(s.asked[id], s.now)
			}
		}
		return missing, err
	}))
}

// inTime asserts that nobody waited for longer than 24 hours since the moment,
// be it for the first or for the next time.
func (s *sharing) inTime(since time.Duration, users []uuid.UUID) {
	s.t.Helper()
	late := 0
	for _, user := range users {
		last, longest := since, time.Duration(0)
		for _, at := range append(slices.Clone(s.asked[user]), s.now) {
			if at >= since {
				longest, last = max(longest, at-last), at
			}
		}
		if longest > s.cfg.CheckEvery {
			late++
		}
	}
	if late > 0 {
		s.t.Errorf("%d of %d users waited for longer than %s", late, len(users), s.cfg.CheckEvery)
	}
}

func TestSharesCoverEverybodyInTime(t *testing.T) {
	s, users := newSharing(t)
	if r := s.must(s.share()); r.UsersChecked != 650 || s.calls != 65 {
		t.Fatalf("the first run checked %d users by %d calls, want all", r.UsersChecked, s.calls)
	}
	for hour := 1; hour <= 60; hour++ {
		s.pass(time.Hour)
		r := s.must(s.share())
		if s.calls > 3 || r.BatchCalls != int64(s.calls) || r.UsersChecked != int64(len(s.last)) || r.MembersTotal != r.UsersChecked {
			t.Fatalf("hour %d: %d calls, %+v", hour, s.calls, r)
		}
		if rounds := len(s.asked[s.last[0]]); hour <= 21 && rounds != 2 {
			t.Errorf("hour %d: a user was asked %d times", hour, rounds)
		}
	}
	s.inTime(0, users)
	if n := s.db.Count(`orphan_coverage AS c JOIN orphan_runs AS r USING (run_id) WHERE c.checked_at <> r.started_at`); n != 0 {
		t.Errorf("of %d ranges it is said that they were checked later than their run may have asked", n)
	}
	if n := s.db.Count(`orphan_coverage`); n > 30 {
		t.Errorf("%d ranges are kept", n)
	}
	if n := testdb.One[int64](s.db, `SELECT sum(users)::bigint FROM orphan_coverage`); n != 650 {
		t.Errorf("%d users are counted", n)
	}
}

// A run that was missed, and users who come in front of the position and behind it.
func TestSharesCatchUp(t *testing.T) {
	s, users := newSharing(t)
	s.must(s.share())
	for run := 1; run <= 40; run++ {
		step := time.Hour
		if run%5 == 0 {
			step = 2 * time.Hour
		}
		s.pass(step)
		s.must(s.share())
		if step > time.Hour && s.calls < 6 {
			t.Errorf("run %d after %s made %d calls", run, step, s.calls)
		}
		switch run {
		case 12:
			// Twice as many as there were: the counts of the ranges are far too low.
			added := s.people(650, 1)
			since := s.now
			t.Cleanup(func() { s.inTime(since, added) })
		case 30:
			// All in one place, as ids by time are.
			added := make([]uuid.UUID, 300)
			for i := range added {
				added[i] = uuid.MustParse(fmt.Sprintf("ffffffff-ffff-4fff-bfff-%012x", i))
			}
			s.db.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
				SELECT (SELECT id FROM conversations LIMIT 1), u, now() FROM unnest($1::uuid[]) AS u`, added)
			s.auth.Add(added...)
			since := s.now
			t.Cleanup(func() { s.inTime(since, added) })
		}
	}
	s.inTime(0, users)
}

// A day without a run, a setting of less than three intervals, a table that was
// emptied, no setting at all: everybody.
func TestSharesOfEverybody(t *testing.T) {
	s, _ := newSharing(t)
	s.must(s.share())
	everybody := func(why string, want bool) {
		t.Helper()
		if r := s.must(s.share()); (r.UsersChecked == 650) != want {
			t.Errorf("%s: %d users checked", why, r.UsersChecked)
		}
	}
	s.pass(time.Hour)
	everybody("an hour after the first run", false)
	s.pass(24 * time.Hour)
	everybody("a day later", true)
	s.cfg.CheckEvery = 3*time.Hour - time.Minute
	s.pass(time.Hour)
	everybody("a setting too short to be shared out", true)
	s.cfg.CheckEvery = 24 * time.Hour
	s.pass(time.Hour)
	everybody("as before", false)
	s.db.Exec(`DELETE FROM orphan_coverage`)
	everybody("nothing is known", true)
	s.pass(time.Hour)
	everybody("as before", false)
	s.db.Exec(`DELETE FROM orphan_coverage WHERE from_user = (SELECT from_user FROM orphan_coverage ORDER BY 1 LIMIT 1)`)
	s.must(s.share())
	s.pass(time.Hour)
	everybody("as before", false)
	s.cfg.CheckEvery = 0
	everybody("no setting", true)
	if n := s.db.Count(`orphan_coverage WHERE users = 650`); n != 1 || s.db.Count(`orphan_coverage`) != 1 {
		t.Errorf("a whole run did not write down all users as one range")
	}
	s.cfg.CheckEvery = 24 * time.Hour
	s.pass(time.Hour)
	everybody("switched on after a whole run", false)
}

// Whatever a run comes to nothing by: the next one checks the same share, and
// what has fallen due since.
func TestShareThatCameToNothing(t *testing.T) {
	boom := errors.New("boom")
	cases := map[string]struct {
		want error
		set  func(s *sharing)
	}{
		"refused": {cleaner.ErrRefused, func(s *sharing) { s.cfg.CanaryAlive = []uuid.UUID{uuid.New()} }},
		"interrupted": {cleaner.ErrInterrupted, func(s *sharing) {
			s.check = func(call int, _ []uuid.UUID) error {
				if call == 2 {
					s.stop()
				}
				return nil
			}
		}},
		"too little is known": {cleaner.ErrIncomplete, func(s *sharing) {
			s.check = func(call int, _ []uuid.UUID) error {
				if call == 2 {
					return boom
				}
				return nil
			}
		}},
		"dry": {nil, func(s *sharing) { s.cfg.DryRun = true }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, _ := newSharing(t)
			s.must(s.share())
			s.pass(time.Hour)
			before := s.db.Fingerprint(`orphan_coverage`)
			c.set(s)
			if _, err := s.share(); !errors.Is(err, c.want) {
				t.Fatalf("the run ended with %v", err)
			}
			if s.db.Fingerprint(`orphan_coverage`) != before {
				t.Error("the run moved on")
			}
			asked := s.last
			s.cfg.CanaryAlive, s.cfg.DryRun, s.check = nil, false, nil
			s.must(s.share())
			if len(asked) < 20 || len(s.last) != 30 || !slices.Equal(asked[:20], s.last[:20]) {
				t.Errorf("it asked about %d users, and then about %d, others", len(asked), len(s.last))
			}
			s.pass(time.Hour)
			again := s.last
			s.must(s.share())
			if slices.ContainsFunc(s.last, func(id uuid.UUID) bool { return slices.Contains(again, id) }) {
				t.Error("users are asked about again an hour later")
			}
		})
	}
}

// Nobody knows about a user of a void batch, so the next run asks, whatever its
// share; a user who voids each batch keeps nobody else waiting, and the ids are
// not left in ever more pieces.
func TestShareWithUnknownUsers(t *testing.T) {
	s, users := newSharing(t)
	s.cfg.BatchSize = 2
	slices.SortFunc(users, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	s.must(s.share())
	s.pass(3 * time.Hour)
	var unknown []uuid.UUID
	s.check = func(call int, ids []uuid.UUID) error {
		// The first two, one in the middle and the last.
		if call == 1 || call == 2 || call == 20 || call == 55 {
			unknown = append(unknown, ids...)
			return errors.New("once")
		}
		return nil
	}
	if r, err := s.share(); !errors.Is(err, cleaner.ErrIncomplete) || s.calls != 55 || r.UsersUnknown != 8 {
		t.Fatalf("%d calls, %v, %+v", s.calls, err, r)
	}
	if n := testdb.One[int64](s.db, `SELECT sum(users) FILTER (WHERE is_unknown)::bigint FROM orphan_coverage`); n != 8 {
		t.Errorf("%d users are written down as unknown", n)
	}
	s.check = nil
	s.pass(time.Minute)
	r := s.must(s.share())
	for _, id := range unknown {
		if !slices.Contains(s.last, id) {
			t.Errorf("the next run did not ask about %s", id)
		}
	}
	if r.UsersChecked > 10 || s.db.Count(`orphan_coverage WHERE is_unknown`) != 0 {
		t.Errorf("the next run: %+v", r)
	}
	s.pass(time.Minute)
	s.must(s.share())
	for _, id := range unknown {
		if slices.Contains(s.last, id) {
			t.Errorf("the run after that asked about %s once more", id)
		}
	}

	poison := users[100]
	beside := map[uuid.UUID]bool{}
	s.check = func(_ int, ids []uuid.UUID) error {
		if !slices.Contains(ids, poison) {
			return nil
		}
		for _, id := range ids {
			beside[id] = true
		}
		return errors.New("always")
	}
	for range 72 {
		s.pass(time.Hour)
		if _, err := s.share(); err != nil && !errors.Is(err, cleaner.ErrIncomplete) {
			t.Fatal(err)
		}
	}
	s.inTime(0, slices.DeleteFunc(slices.Clone(users), func(id uuid.UUID) bool { return beside[id] }))
	if len(beside) > 4 {
		t.Errorf("%d users wait with the one", len(beside))
	}
	if n := s.db.Count(`orphan_coverage`); n > 40 {
		t.Errorf("%d ranges are kept", n)
	}
	if n := testdb.One[int64](s.db, `SELECT sum(users)::bigint FROM orphan_coverage`); n != 650 {
		t.Errorf("%d users are counted", n)
	}
}

// The ledger is whole after each run: every candidate is asked about, wherever
// the share is, and whoever is due goes.
func TestCandidatesBesideTheShare(t *testing.T) {
	s, users := newSharing(t)
	slices.SortFunc(users, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	back, gone, stay, due := users[600], users[601], users[602], users[603]
	near := users[0] // in the share
	s.auth.Delete(back, gone, stay, due, near)
	s.must(s.share())
	if n := s.db.Count(`orphan_candidates`); n != 5 {
		t.Fatalf("%d candidates", n)
	}
	s.pass(time.Hour)
	s.auth.Revive(back)
	s.db.Exec(`DELETE FROM conversation_members WHERE user_id = $1`, gone)
	s.db.Exec(`UPDATE orphan_candidates SET first_missing_at = now() - interval '31 days' WHERE user_id = $1`, due)
	newly := users[610]
	s.auth.Delete(newly)
	r := s.must(s.share())
	// The share of 30, three of four candidates beside it, and the due one again.
	if r.UsersChecked != 33 || r.UsersMissing != 3 || r.UsersNew != 0 || r.UsersReturned != 1 || r.MembersDeleted != 1 || r.MembersTotal != 33 || r.BatchCalls != 4+1 || s.calls != 5 {
		t.Errorf("%d calls, %+v", s.calls, r)
	}
	if n := s.db.Count(`orphan_candidates WHERE user_id IN ($1, $2)`, back, gone); n != 0 {
		t.Errorf("%d who are alive again, or no members, are candidates", n)
	}
	if n := s.db.Count(`orphan_candidates WHERE user_id IN ($1, $2) AND sightings = 2 AND last_missing_run = $3 AND first_missing_at < now() - interval '59 minutes'`, stay, near, r.RunID); n != 2 {
		t.Errorf("the clock of %d candidates goes on, want both", n)
	}
	if n := s.db.Count(`conversation_members WHERE user_id = $1`, due); n != 0 {
		t.Error("who was due is there")
	}
	for hour := 2; s.db.Count(`orphan_candidates WHERE user_id = $1`, newly) == 0; hour++ {
		if hour > 24 {
			t.Fatal("a user who went missing is not found within a day")
		}
		s.pass(time.Hour)
		s.must(s.share())
	}
	s.invariant(1)

	// Pages of one, each at the end of a range or beside it.
	s.cfg.PageUsers = 1
	s.pass(time.Hour)
	if r := s.must(s.share()); r.UsersMissing < 2 || s.db.Count(`orphan_candidates WHERE last_missing_run = $1`, r.RunID) != 3 {
		t.Errorf("%+v", r)
	}
}

// A canary is asked about in each run: one who is no candidate rides along, one
// who is a candidate or in the share is asked about once.
func TestCanariesBesideTheShare(t *testing.T) {
	s, users := newSharing(t)
	slices.SortFunc(users, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	alive, dead, near := users[600], users[601], users[1]
	s.auth.Delete(dead)
	s.must(s.share())
	s.cfg.CanaryAlive, s.cfg.CanaryDead = []uuid.UUID{alive, near}, []uuid.UUID{dead}
	s.pass(time.Hour)
	if r := s.must(s.share()); r.UsersChecked != 31 || len(s.last) != 32 || s.calls != 4 {
		t.Errorf("%d users were asked about, by %d calls: %+v", len(s.last), s.calls, r)
	}
	for _, canary := range []uuid.UUID{alive, dead, near} {
		if !slices.Contains(s.last, canary) {
			t.Error("a canary was not asked about")
		}
	}
	s.auth.Delete(alive)
	s.pass(time.Hour)
	if r, err := s.share(); !errors.Is(err, cleaner.ErrRefused) || *r.Breaker != "canary-alive" {
		t.Errorf("%v, %+v", err, r)
	}
}

// Breakers judge what was checked, and an approved run checks everybody: its
// users need not be in the share of the day.
func TestShareIsJudgedAndApproved(t *testing.T) {
	s, users := newSharing(t)
	s.cfg.BatchSize = 100
	slices.SortFunc(users, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	s.must(s.share())
	s.pass(time.Hour)
	// 60 of 650 would be under 10 %; of the 100 of the share they are not.
	s.auth.Delete(users[:60]...)
	refused, err := s.share()
	if !errors.Is(err, cleaner.ErrRefused) || *refused.Breaker != "new-missing-share" || refused.UsersChecked != 100 {
		t.Fatalf("%v, %+v", err, refused)
	}
	s.db.Exec(`INSERT INTO orphan_approvals (run_id, approved_by, expires_at) VALUES ($1, 'test', now() + interval '1 day')`, refused.RunID)
	if r := s.must(s.share()); r.UsersChecked != 650 || r.UsersNew != 60 {
		t.Errorf("the approved run: %+v", r)
	}
	s.pass(time.Hour)
	if r := s.must(s.share()); r.UsersChecked > 200 {
		t.Errorf("the run after: %+v", r)
	}
}

// The totals of the table say nothing about a share of it.
func TestShareIsNotJudgedEarly(t *testing.T) {
	s := &sharing{world: newWorld(t), asked: map[uuid.UUID][]time.Duration{}}
	s.cfg.CheckEvery = 24 * time.Hour
	s.people(9_000, 1)
	s.must(s.share())
	s.pass(6 * time.Hour)
	s.auth.SetFaultFunc(authfake.Nothing)
	if r, err := s.share(); !errors.Is(err, cleaner.ErrRefused) || r.UsersMissing != 4_600 || r.BatchCalls != 46 {
		t.Errorf("%v, %+v", err, r)
	}
}
