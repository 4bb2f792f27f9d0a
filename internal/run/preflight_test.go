package run_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/run"
)

func TestPreflightStopsTheRun(t *testing.T) {
	cases := map[string]struct{ break_, word string }{
		"trigger dropped":    {`DROP TRIGGER conversation_members_audit_delete ON conversation_members`, "conversation_members_audit_delete"},
		"trigger disabled":   {`ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete`, "disabled"},
		"trigger not always": {`ALTER TABLE conversation_members ENABLE TRIGGER conversation_members_audit_delete`, "ALWAYS"},
		"column added":       {`ALTER TABLE conversation_members ADD nickname text`, "nickname"},
		"column retyped":     {`ALTER TABLE conversation_members ALTER user_public_key TYPE varchar(400)`, "user_public_key"},
		"index dropped":      {`DROP INDEX conversation_members_user_id`, "index"},
		"partition detached": {`DO $$ BEGIN EXECUTE 'ALTER TABLE conversation_members_backup DETACH PARTITION conversation_members_backup_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'); END $$`, "somebody detached"},
		"migration unknown":  {`INSERT INTO orphan_cleaner_goose (version_id, is_applied) VALUES (99999, true)`, "99999"},
		"replica":            {`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica', current_database()); END $$`, "session_replication_role"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 2)
			w.die(40, users[:3]...)
			w.db.Exec(c.break_)
			w.db.Pool.Reset() // database settings reach new sessions only
			r, err := w.run()
			if !errors.Is(err, run.ErrPreflight) || !strings.Contains(err.Error(), c.word) || !strings.Contains(err.Error(), "hint:") {
				t.Errorf("error %v", err)
			}
			if r.State != "failed" || w.auth.Calls() != 0 || w.db.Count(`conversation_members`) != 600 {
				t.Errorf("result %+v, %d calls", r, w.auth.Calls())
			}
			if n := w.db.Count(`orphan_cleaner.runs WHERE state = 'failed' AND error LIKE '%' || $1 || '%'`, c.word); n != 1 {
				t.Errorf("%d failed runs on record", n)
			}
		})
	}
}

func TestTriggerDroppedAfterPreflight(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	r, err := w.runWith(t.Context(), w.before(4, func() {
		w.db.Exec(`ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete`)
	}))
	if !errors.Is(err, run.ErrProof) || r.State != "failed" {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`conversation_members`); n != 600 {
		t.Errorf("%d members left, want all 600", n)
	}
	w.invariant(0)
}
