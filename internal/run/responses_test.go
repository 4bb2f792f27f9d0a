package run_test

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

func TestTooManyInvalidResponsesSweepNothing(t *testing.T) {
	w := newWorld(t)
	users := w.people(1000, 1)
	w.die(40, users[:5]...)
	w.auth.SetFaultFunc(authfake.Until(2, authfake.Status(codes.Internal, "boom")))
	r, err := w.run()
	if !errors.Is(err, run.ErrIncomplete) || r.MembersDeleted != 0 || r.UsersUnknown != 200 {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`orphan_cleaner.candidates`); n != 0 {
		t.Errorf("%d candidates written", n)
	}
	w.invariant(0)
}

func TestLyingOrFailingAuthServiceDeletesNothing(t *testing.T) {
	for _, fault := range authfake.Faults() {
		// Truth is no fault; what never answers is tried with a short timeout elsewhere.
		if fault.Expect == authfake.Truth || fault.Hangs {
			continue
		}
		t.Run(fault.Name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(1000, 2)
			w.die(40, users[:5]...)
			// A candidate long due, so that a wrong sweep would show.
			w.must(w.runHeld(users))
			before, ledger := w.db.Fingerprint(`conversation_members`), w.db.Fingerprint(`orphan_cleaner.candidates`)
			w.auth.SetFault(fault)
			r, err := w.run()
			if err == nil || r.State == "succeeded" {
				t.Errorf("the run ended %s", r.State)
			}
			if w.db.Fingerprint(`conversation_members`) != before {
				t.Error("members changed")
			}
			if w.db.Fingerprint(`orphan_cleaner.candidates`) != ledger {
				t.Error("the ledger changed")
			}
			w.invariant(0)
		})
	}
}

func TestAuthServiceFailsForAFewBatches(t *testing.T) {
	w := newWorld(t)
	users := w.people(2500, 1)
	w.missingFor(40, users[:5]...)
	w.auth.SetFaultFunc(authfake.Until(2, authfake.Status(codes.Internal, "boom")))
	r, err := w.run()
	// 2 of 25 batches: within 10 %, so the rest is swept, but the run is not a success.
	if !errors.Is(err, run.ErrIncomplete) || r.State != "incomplete" || r.UsersUnknown != 200 {
		t.Fatalf("%v, %+v", err, r)
	}
	if r.MembersDeleted+w.membersOf(users[:5]...) != 5 {
		t.Error("members of the dead are neither gone nor there")
	}
	if n := w.db.Count(`orphan_cleaner.unknowns`); n != 200 {
		t.Errorf("%d users written down as unknown", n)
	}
	w.invariant(r.MembersDeleted)
	w.auth.SetFault(authfake.Fault{})
	w.must(w.run())
	w.invariant(5)
	if n := w.db.Count(`orphan_cleaner.unknowns`); n != 0 {
		t.Errorf("%d users are unknown after a whole run", n)
	}
}

// A batch without a valid response right before the delete leaves its users alone.
func TestSecondCheckFails(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	r, err := w.runWith(t.Context(), w.before(4, func() { w.auth.SetFaultFunc(authfake.InBandError) }))
	if !errors.Is(err, run.ErrIncomplete) || r.State != "incomplete" || r.UsersUnknown != 3 || r.MembersDeleted != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`orphan_cleaner.candidates`); n != 3 {
		t.Errorf("%d candidates, not 3", n)
	}
	w.invariant(0)
	w.auth.SetFault(authfake.Fault{})
	w.must(w.run())
	w.invariant(6)
}
