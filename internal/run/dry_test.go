package run_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

func TestDryRunChangesNothing(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	tables := []string{
		"conversation_members", "orphan_cleaner.runs", "orphan_cleaner.candidates", "orphan_cleaner.sightings", "orphan_cleaner.coverage",
		"orphan_cleaner.hours", "conversation_members_audit", "conversation_members_backup",
	}
	var before []string
	for _, table := range tables {
		before = append(before, w.db.Fingerprint(table))
	}
	w.cfg.DryRun = true
	r := w.must(w.run())
	if r.MembersDue != 6 || r.UsersDue != 3 || r.MembersDeleted != 0 || r.RunID != 0 {
		t.Errorf("result %+v", r)
	}
	for i, table := range tables {
		if w.db.Fingerprint(table) != before[i] {
			t.Errorf("%s changed", table)
		}
	}
}

// What a dry run says is what the run after it does and says, where it passes and
// where a breaker refuses it.
func TestDryRunSaysWhatTheRunDoes(t *testing.T) {
	for name, set := range map[string]func(w *world){
		"it passes":                   func(*world) {},
		"it is refused by a share":    func(w *world) { w.cfg.Limits["delete-share"] = 0.005 },
		"it is refused by the ledger": func(w *world) { w.cfg.Limits["candidate-share"] = 0.02 },
		"it is refused by a number":   func(w *world) { w.cfg.Limits["delete-rows"] = 3 },
		"it is refused by a pin": func(w *world) {
			w.db.Exec(`INSERT INTO orphan_cleaner.limits (name, value) VALUES ('delete-rows', 3)`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(600, 20)
			// Due, due and young, due and on hold, new, restarted, active.
			w.missingFor(40, users[:12]...)
			w.die(0, users[12:20]...)
			w.db.Exec(`UPDATE conversation_members SET joined_at = now() - interval '1 day' WHERE user_id = $1 AND conversation_id IN (SELECT id FROM conversations LIMIT 3)`, users[0])
			w.db.Exec(`INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES ($1, 'test')`, users[1])
			w.db.Exec(`INSERT INTO orphan_cleaner.holds (conversation_id, reason) SELECT min(id::text)::uuid, 'test' FROM conversations`)
			w.db.Exec(`UPDATE orphan_cleaner.candidates SET last_missing_at = now() - interval '9 days' WHERE user_id = $1`, users[2])
			w.db.Exec(`UPDATE conversation_members SET last_read_at = now() - interval '2 hours' WHERE user_id = $1`, users[3])
			set(w)
			w.cfg.DryRun = true
			dry, dryErr := w.run()
			w.cfg.DryRun = false
			wet, realErr := w.run()
			figures := func(r outcome) map[string]int64 {
				return map[string]int64{
					"users checked": r.UsersChecked, "users missing": r.UsersMissing, "users unknown": r.UsersUnknown, "users new": r.UsersNew,
					"users restarted": r.UsersRestarted, "users due": r.UsersDue, "candidates": r.Candidates, "members total": r.MembersTotal,
					"members due": r.MembersDue, "members kept young": r.MembersKeptYoung, "members held": r.MembersHeld,
				}
			}
			promised, done := figures(dry), figures(wet)
			for figure, n := range done {
				if promised[figure] != n || n == 0 && figure != "users unknown" {
					t.Errorf("%s: the dry run says %d, the run %d", figure, promised[figure], n)
				}
			}
			// But for what it is approved by: a dry run has no number.
			promise := strings.Replace(wet.Error, fmt.Sprintf("orphan-cleaner approve %d", wet.RunID), "orphan-cleaner run, then orphan-cleaner approve with the number of that run", 1)
			if dry.State != wet.State || dry.Error != promise || errors.Is(dryErr, run.ErrRefused) != errors.Is(realErr, run.ErrRefused) {
				t.Errorf("the dry run ended with %v, the run with %v", dryErr, realErr)
			}
			if (realErr == nil) != (name == "it passes") || realErr == nil && wet.MembersDeleted != dry.MembersDue {
				t.Errorf("%v, %+v", realErr, wet)
			}
		})
	}
}

func TestDryRunWithUnknownUsersIsIncomplete(t *testing.T) {
	w := newWorld(t)
	w.people(2000, 1)
	w.cfg.DryRun = true
	w.auth.SetFaultFunc(authfake.Until(1, authfake.Status(codes.Internal, "boom")))
	if r, err := w.run(); !errors.Is(err, run.ErrIncomplete) || r.State != "incomplete" || r.UsersUnknown != 100 {
		t.Errorf("%v, %+v", err, r)
	}
}
