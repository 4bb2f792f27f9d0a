package fleet_test

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Six shards with the same users, and some of their own: each user is checked once, and
// once more who is due, by each shard that deletes rows.
func TestEachUserIsCheckedOnce(t *testing.T) {
	const shards, shared, own, due = 6, 250, 10, 3
	w := newWorld(t, shards, own, 1)
	all := make([]uuid.UUID, shared)
	for i := range all {
		all[i] = uuid.New()
	}
	w.auth.Add(all...)
	for i := range w.shards {
		w.shards[i].Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
			SELECT c.id, u, now() - interval '90 days' FROM unnest($1::uuid[]) AS u, conversations AS c`, all)
		w.missingFor(i, 40, all[:due]...)
	}
	w.fleet.Settings.PageUsers = 70 // several pages of each shard
	w.settle()
	calls := func(once bool, want int) {
		t.Helper()
		w.fleet.Once = once
		w.auth.ResetCalls()
		r, err := w.fleet.Run(t.Context())
		if err != nil {
			t.Fatalf("%s: %v\n%s", r.State, err, w.log.String())
		}
		if n := w.auth.Calls(); n != want {
			t.Errorf("once: %v: %d calls, want %d", once, n, want)
		}
	}
	// 310 distinct users are 4 batches, and each shard checks the three who are due again.
	calls(true, 4+shards)
	for i, db := range w.shards {
		w.cleaned(i, due)
		if n := db.Count("conversation_members"); n != shared+own-due {
			t.Errorf("shard %d has %d members", i, n)
		}
	}
	asked := w.auth.AskedIDs()
	slices.Sort(asked)
	if n := len(slices.Compact(asked)); n != shared+shards*own {
		t.Errorf("%d users were asked about, want %d", n, shared+shards*own)
	}
	// Without it each shard checks its 257 in 3 batches, by both passes; and once more the three
	// whose rows it deleted, who are rechecked in what room the last batch of the run has.
	calls(false, 2*3*shards)
}

// Who is alive again after the one check is not deleted: the second check is auth-service's
// own word, whatever it said before.
func TestSecondCheckIsLive(t *testing.T) {
	w := newWorld(t, 3, 20, 1)
	for i := range w.shards {
		w.missingFor(i, 40, w.users[i][:2]...)
	}
	for name := range w.fleet.Settings.Limits {
		if name != "delete-rows" && name != "recently-active" {
			w.fleet.Settings.Limits[name], w.fleet.Limits[name] = 1, 1
		}
	}
	w.fleet.Settings.Limits["history"], w.fleet.Limits["history"] = 0, 0
	w.fleet.Once = true
	w.settle()
	w.auth.SetFaultFunc(func(_ context.Context, call int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if call == 2 { // the first one was the check of all 60
			w.auth.Revive(w.users[0][0])
		}
		return honest()
	})
	if r, err := w.fleet.Run(t.Context()); err != nil {
		t.Fatalf("%s: %v\n%s", r.State, err, w.log.String())
	}
	w.cleaned(0, 1)
	w.cleaned(1, 2)
	if n := w.shards[0].Count("conversation_members WHERE user_id = $1", w.users[0][0]); n != 1 {
		t.Error("a member of a living user was deleted")
	}
}

// Users whose rows are gone are in no stream: they are rechecked by auth-service, and
// nobody takes them for alive.
func TestRechecksAreLive(t *testing.T) {
	w := newWorld(t, 3, 400, 1)
	for i := range w.shards {
		w.missingFor(i, 40, w.users[i][0])
	}
	w.fleet.Once = true
	w.settle()
	for run := range 2 {
		if r, err := w.fleet.Run(t.Context()); err != nil {
			t.Fatalf("run %d: %s: %v", run, r.State, err)
		}
	}
	for i, db := range w.shards {
		state := testdb.One[string](db, "SELECT string_agg(format('%s %s', checked_at IS NOT NULL, alive_at IS NOT NULL), ',') FROM orphan_cleaner.rechecks")
		if state != "t f" {
			t.Errorf("shard %d: rechecked, alive: %s", i, state)
		}
	}
	if asked := w.auth.AskedIDs(); !slices.Contains(asked, w.users[0][0].String()) {
		t.Error(fmt.Sprint(len(asked)), "users were asked about, the deleted one was not")
	}
}

// Who had no valid response in the one check, who is new since and whoever is left when the
// time for it is over is checked by the shards that have the user, in both passes.
func TestGapsAreChecked(t *testing.T) {
	for name, of := range map[string]struct {
		fault   func(w *world, call int) bool // whether the response is invalid
		timeout time.Duration
		calls   int // of 3 shards with 20 users, and 3 of the second check
		missing int64
	}{
		"invalid responses": {fault: func(_ *world, call int) bool { return call <= 2 }, calls: 2 + 2*3 + 3},
		"a new user": {fault: func(w *world, call int) bool {
			if call == 1 {
				w.shards[0].Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at) SELECT id, gen_random_uuid(), now() FROM conversations`)
			}
			return false
		}, calls: 1 + 2 + 3, missing: 1},
		"no time": {timeout: 1, calls: 2*3 + 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3, 20, 1)
			for i := range w.shards {
				w.missingFor(i, 40, w.users[i][0])
			}
			w.fleet.Once = true
			if of.timeout > 0 {
				w.fleet.JobTimeout = of.timeout
			}
			w.settle()
			if of.fault != nil {
				w.auth.SetFaultFunc(func(_ context.Context, call int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
					if of.fault(w, call) {
						return nil, status.Error(codes.Unavailable, "not now")
					}
					return honest()
				})
			}
			if r, err := w.fleet.Run(t.Context()); err != nil {
				t.Fatalf("%s: %v\n%s", r.State, err, w.log.String())
			}
			for i := range w.shards {
				w.cleaned(i, 1)
			}
			if n := w.auth.Calls(); n != of.calls {
				t.Errorf("%d calls, want %d", n, of.calls)
			}
			if n := w.shards[0].Count("orphan_cleaner.candidates WHERE last_missing_at > first_missing_at - interval '1 day' AND first_missing_at > now() - interval '1 hour'"); n != of.missing {
				t.Errorf("%d users are newly missing, want %d", n, of.missing)
			}
		})
	}
}

// Ranges that are cut are together what was cut.
func TestCut(t *testing.T) {
	t.Parallel()
	one, two := uuid.UUID{15: 1}, uuid.UUID{15: 2}
	for _, of := range []struct {
		within      fleet.Range
		parts, want int
	}{{fleet.AllIDs(), 1, 1}, {fleet.AllIDs(), 7, 7}, {fleet.Range{First: one, Last: one}, 3, 1}, {fleet.Range{First: one, Last: two}, 3, 2}, {fleet.Range{First: two, Last: uuid.Max}, 500, 500}} {
		all := of.within.Cut(of.parts)
		if len(all) != of.want || all[0].First != of.within.First || all[len(all)-1].Last != of.within.Last {
			t.Errorf("%v in %d: %v", of.within, of.parts, all)
		}
		for i, next := range all[1:] {
			if end, begin := new(big.Int).SetBytes(all[i].Last[:]), new(big.Int).SetBytes(next.First[:]); begin.Sub(begin, end).Cmp(big.NewInt(1)) != 0 {
				t.Errorf("%v in %d: %v follows %v", of.within, of.parts, next, all[i])
			}
		}
	}
}
