package fleet_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// refused fails the test unless the fleet was refused by this breaker.
func refused(t *testing.T, r fleet.Result, err error, breaker string) {
	t.Helper()
	refusal, is := errors.AsType[*result.Refusal](err)
	if !is || !refusal.OfFleet || refusal.Breaker != breaker || r.State != "refused" || r.Breaker == nil || !errors.Is(err, result.ErrRefused) {
		t.Fatalf("want a refusal by %s, got %s: %v", breaker, r.State, err)
	}
}

// Each of eight small shards is below its floors, and all of them together are not.
func TestEightSmallShards(t *testing.T) {
	w := newWorld(t, 8, 20, 1)
	for _, users := range w.users {
		w.auth.Delete(users[:4]...)
	}
	before := w.contents()
	r, err := w.fleet.Run(t.Context())
	refused(t, r, err, "new-missing-share")
	if r.Sums.UsersChecked != 160 || r.Sums.UsersNew != 32 || r.Waves != 0 {
		t.Errorf("%+v, %d waves", r.Sums, r.Waves)
	}
	for _, p := range r.Shards {
		if p.Verified.Verdict != fleet.Done || p.Swept != nil {
			t.Errorf("shard %s alone is %s: this test shows nothing", p.Name, p.Verified.Verdict)
		}
	}
	w.unchanged(before)
}

// A drip of a user a day in each of four shards is stopped on the day on which one database
// with all their users stops it; each shard alone lets it go on.
func TestDripOverShards(t *testing.T) {
	const users, past = 400, 34
	w := newWorld(t, 4, users, 1)
	all := testdb.New(t)
	all.Exec(`INSERT INTO conversations (name) VALUES ('c')`)
	all.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT c.id, u, now() - interval '90 days' FROM unnest($1::uuid[]) AS u, conversations AS c`, slices.Concat(w.users...))
	dbs := append(slices.Clone(w.shards), all)
	for i, db := range dbs {
		db.Exec(`INSERT INTO orphan_cleaner.hours (hour, users, users_new, rows_total)
			SELECT date_trunc('hour', now()) - make_interval(days => d), $1, 0, $1 FROM generate_series(1, $2::int) AS d`, db.Count("conversation_members"), past)
		if i < len(w.users) {
			w.auth.Delete(w.users[i][0])
		}
	}
	var verdicts []string
	for days := range 5 { // before today
		var shards []fleet.Progress
		for i, db := range dbs {
			db.Exec(`UPDATE orphan_cleaner.hours SET users_new = $1 WHERE hour > now() - make_interval(days => $2::int, hours => 12)`, db.Count("conversation_members")/users, days)
			if i == len(w.shards) {
				break
			}
			report := w.fleet.Verify(t.Context(), w.fleet.Shards[i], nil)
			if report.Verdict != fleet.Done {
				t.Errorf("shard %d alone is %s: this test shows nothing", i, report.Verdict)
			}
			shards = append(shards, fleet.Progress{Name: w.fleet.Shards[i].Name, Verified: &report})
		}
		_, _, err := w.fleet.Next(t.Context(), shards, fleet.Approved{})
		one := w.fleet.Verify(t.Context(), fleet.Shard{Name: "all", URL: all.URL}, nil)
		verdicts = append(verdicts, one.Verdict)
		if (err == nil) != (one.Verdict == fleet.Done) {
			t.Errorf("after %d days one database is %s, the fleet: %v", days, one.Verdict, err)
		}
	}
	if want := []string{fleet.Done, fleet.Done, fleet.Done, fleet.Done, fleet.Refused}; !slices.Equal(verdicts, want) {
		t.Errorf("one database is %q: this test shows nothing", verdicts)
	}
	before := w.contents()
	r, err := w.fleet.Run(t.Context())
	refused(t, r, err, "new-missing-rate")
	if !strings.Contains(err.Error(), "20 users are newly missing within 7 days") {
		t.Errorf("the week is not the sum of the shards': %v", err)
	}
	w.unchanged(before)
}

// One shard that finds many times what the others do is doubted, though no limit is reached.
func TestOutlier(t *testing.T) {
	w := newWorld(t, 4, 400, 1)
	w.auth.Delete(w.users[2][:8]...)
	w.fleet.Limits["new-missing-rate"] = 1
	w.fleet.Settings.Limits["new-missing-rate"] = 1
	before := w.contents()
	r, err := w.fleet.Run(t.Context())
	refused(t, r, err, "shard-outlier")
	if !strings.Contains(err.Error(), "shard s2 has 8 users newly missing of 400") {
		t.Error(err)
	}
	w.unchanged(before)
	// Where the others have as many, it is how things are.
	for _, users := range w.users {
		w.auth.Delete(users[:8]...)
	}
	if r, err = w.fleet.Run(t.Context()); err != nil {
		t.Errorf("%s: %v", r.State, err)
	}
}

// What doubts auth-service in one shard is about all: they have the same one.
func TestCanaryIsEverybodys(t *testing.T) {
	w := newWorld(t, 3, 20, 1)
	w.fleet.Settings.CanaryAlive = w.users[0][:1]
	w.auth.Delete(w.users[0][0])
	before := w.contents()
	r, err := w.fleet.Run(t.Context())
	refused(t, r, err, "canary-alive")
	if strings.Contains(err.Error(), "fleet approve") {
		t.Errorf("nobody can approve it: %v", err)
	}
	w.unchanged(before)
}

// A wave of one, of two, and of the rest; each shard is swept once.
func TestWaves(t *testing.T) {
	w := newWorld(t, 5, 400, 3)
	for i, users := range w.users {
		w.missingFor(i, 40, users[:2]...)
	}
	w.settle()
	r, err := w.fleet.Run(t.Context())
	if err != nil || r.State != "succeeded" || r.Waves != 3 {
		t.Fatalf("%s, %d waves: %v\n%s", r.State, r.Waves, err, w.log.String())
	}
	var waves []int
	for i, p := range r.Shards {
		waves = append(waves, p.Wave)
		w.cleaned(i, 6)
	}
	if want := []int{1, 2, 2, 3, 3}; !slices.Equal(waves, want) {
		t.Errorf("waves %v, want %v", waves, want)
	}
	if r.Sums.Rows().Due != 30 || r.Sums.UsersNew != 0 {
		t.Errorf("%+v", r.Sums)
	}
}

// Nothing follows a wave that is not healthy.
func TestWaveThatFails(t *testing.T) {
	w := newWorld(t, 4, 400, 1)
	for i, users := range w.users {
		w.missingFor(i, 40, users[0])
	}
	// The first pass only reads, and sees nothing of this.
	w.shards[0].Exec(`CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no run here' USING ERRCODE = 'XX001'; END $$;
		CREATE TRIGGER no AFTER INSERT ON orphan_cleaner.runs FOR EACH ROW EXECUTE FUNCTION no()`)
	w.settle()
	before := w.contents()
	r, err := w.fleet.Run(t.Context())
	if !errors.Is(err, run.ErrIncomplete) || r.Waves != 1 || !strings.Contains(r.Error, "shard s0 of wave 1") {
		t.Fatalf("%s, %d waves: %v", r.State, r.Waves, err)
	}
	w.unchanged(before)
}

// A shard that its own breaker refuses changes nothing; the others are cleaned.
func TestShardRefusesItself(t *testing.T) {
	w := newWorld(t, 6, 400, 1)
	for i, users := range w.users {
		w.missingFor(i, 40, users[0])
	}
	w.auth.Delete(w.users[0][:60]...)
	w.fleet.Limits["new-missing-rate"], w.fleet.Settings.Limits["new-missing-rate"] = 1, 1
	w.settle()
	r, err := w.fleet.Run(t.Context())
	if !errors.Is(err, result.ErrRefused) || r.Breaker != nil || !strings.Contains(err.Error(), "shards s0;") {
		t.Fatalf("%s: %v", r.State, err)
	}
	if r.Shards[0].Wave != 3 || r.Shards[0].Swept.Verdict != fleet.Refused {
		t.Errorf("%+v", r.Shards[0])
	}
	if n := w.shards[0].Count("conversation_members"); n != 400 {
		t.Errorf("%d members left of shard 0", n)
	}
	// It can be approved there: the run is a row, with whom it found.
	if n := w.shards[0].Count("orphan_cleaner.refusals"); n != 60 {
		t.Errorf("%d refusals", n)
	}
	for i := 1; i < 6; i++ {
		w.cleaned(i, 1)
	}
}

// One shard may be away; of more the sums say too little.
func TestShardsAway(t *testing.T) {
	w := newWorld(t, 3, 400, 1)
	for i, users := range w.users {
		w.missingFor(i, 40, users[0])
	}
	w.settle()
	away := w.fleet.Shards[0]
	w.fleet.Shards[0].URL = strings.Replace(away.URL, "/t", "/nobody_t", 1)
	url1 := w.fleet.Shards[1].URL
	w.fleet.Shards[1].URL = strings.Replace(url1, "/t", "/nobody_t", 1)
	before := w.contents()
	r, err := w.fleet.Run(t.Context())
	if !errors.Is(err, run.ErrIncomplete) || !strings.Contains(err.Error(), "2 of 3 shards could not be verified") || r.Waves != 0 {
		t.Fatalf("%s: %v", r.State, err)
	}
	w.unchanged(before)
	w.fleet.Shards[1].URL = url1
	r, err = w.fleet.Run(t.Context())
	if !errors.Is(err, run.ErrIncomplete) || !strings.Contains(err.Error(), "shards s0 are left") {
		t.Fatalf("%s: %v", r.State, err)
	}
	w.unchanged(before, 0)
	w.cleaned(1, 1)
	w.cleaned(2, 1)
}

// A database that has taken the name of the one that was verified is not swept.
func TestNameTaken(t *testing.T) {
	w := newWorld(t, 2, 20, 1)
	verified := w.fleet.Verify(t.Context(), w.fleet.Shards[0], nil)
	w.shards[1].Exec("DROP DATABASE " + w.shards[0].Name + " WITH (FORCE)")
	w.shards[1].Exec("CREATE DATABASE " + w.shards[0].Name)
	swept := w.fleet.Sweep(t.Context(), w.fleet.Shards[0], nil, &verified)
	if verified.Verdict != fleet.Done || swept.Verdict != fleet.Failed || !strings.Contains(swept.Run.Error, "s0 is another database here than the one that was verified") {
		t.Errorf("%s, then %s: %s", verified.Verdict, swept.Verdict, swept.Run.Error)
	}
}
