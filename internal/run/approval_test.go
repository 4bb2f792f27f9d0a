package run_test

import (
	"errors"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/run"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func (w *world) approve(runID int64) {
	w.t.Helper()
	w.db.Exec(`INSERT INTO orphan_cleaner.approvals (run_id, approved_by, expires_at) VALUES ($1, 'test', now() + interval '1 day')`, runID)
}

func TestApprovedRunDeletesExactlyTheApprovedSet(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(300, 20)
	w.die(40, users[:60]...)
	w.cfg.Limits["delete-rows"] = 100
	refused, err := w.run()
	w.refused("delete-rows", refused, err)
	w.approve(refused.RunID)
	w.die(40, users[60:63]...) // due meanwhile, and not approved
	w.auth.Revive(users[0])    // approved, and alive again

	r := w.must(w.run())
	if r.MembersDeleted != 59*20 || w.membersOf(users[60:63]...) != 60 || w.membersOf(users[0]) != 20 {
		t.Errorf("the approved run: %+v", r)
	}
	if n := w.db.Count(`orphan_cleaner.approvals WHERE used_by_run = $1`, r.RunID); n != 1 {
		t.Error("the approval is not used up")
	}
	w.invariant(59 * 20)
	// What the approval covered counts in no window.
	if got := testdb.One[string](w.db, `SELECT sum(rows_deleted) || ' and ' || sum(rows_approved) FROM orphan_cleaner.hours WHERE target = 'conversation_members'`); got != "0 and 1180" {
		t.Errorf("deleted and approved: %s, not counted apart", got)
	}
	// The second run does not profit: 60 more members are within the limit, 200 are not.
	w.must(w.run())
	w.invariant(59*20 + 60)
	w.missingFor(40, users[63:73]...)
	r, err = w.run()
	w.refused("delete-rows", r, err)
	w.invariant(59*20 + 60)
}

func TestApprovalOutOfForce(t *testing.T) {
	for name, end := range map[string]string{
		"expired": `UPDATE orphan_cleaner.approvals SET approved_at = now() - interval '2 days', expires_at = now() - interval '1 second'`,
		"revoked": `UPDATE orphan_cleaner.approvals SET revoked_at = now(), revoked_by = 'test'`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.lenient()
			users := w.people(300, 20)
			w.die(40, users[:10]...)
			w.cfg.Limits["delete-rows"] = 100
			refused, err := w.run()
			w.refused("delete-rows", refused, err)
			w.approve(refused.RunID)
			w.db.Exec(end)
			r, err := w.run()
			w.refused("delete-rows", r, err)
			w.invariant(0)
		})
	}
}

// An approval that is revoked while its run verifies admits nobody.
func TestApprovalRevokedMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(300, 20)
	w.die(40, users[:10]...)
	w.cfg.Limits["delete-rows"] = 100
	refused, err := w.run()
	w.refused("delete-rows", refused, err)
	w.approve(refused.RunID)
	r, err := w.runWith(t.Context(), w.before(2, func() {
		w.db.Exec(`UPDATE orphan_cleaner.approvals SET revoked_at = now(), revoked_by = 'test'`)
	}))
	if err == nil || errors.Is(err, run.ErrRefused) || r.State != "failed" || w.db.Count(`orphan_cleaner.candidates`) != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(0)
}
