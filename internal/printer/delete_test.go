package printer_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// deleting calls the delete of a target as a run does, for one user, and returns how many
// rows went, were audited and were backed up.
func deleting(t *testing.T, d *testdb.DB, of, user string) (deleted, audited, backedUp int64) {
	t.Helper()
	if err := pgx.BeginFunc(t.Context(), d.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SELECT set_config('orphan_cleaner.run_token', r.token::text, true), set_config('orphan_cleaner.audited', '0', true), set_config('orphan_cleaner.backed_up', '0', true) FROM orphan_cleaner.runs AS r WHERE r.state = 'running'"); err != nil {
			return err
		}
		if err := tx.QueryRow(t.Context(), "SELECT rows_deleted FROM orphan_cleaner."+of+"_delete(ARRAY[md5($1)::uuid], now() - interval '30 days', pg_snapshot_xmin(pg_current_snapshot()), 100)", user).Scan(&deleted); err != nil {
			return err
		}
		return tx.QueryRow(t.Context(), "SELECT current_setting('orphan_cleaner.audited')::bigint, current_setting('orphan_cleaner.backed_up')::bigint").Scan(&audited, &backedUp)
	}); err != nil {
		t.Fatalf("%s: %v", of, err)
	}
	return deleted, audited, backedUp
}

// Two columns of a table can be targets: a row goes by either, and is backed up once.
func TestTwoTargetsOfOneTable(t *testing.T) {
	t.Parallel()
	d, dir := testdb.New(t), t.TempDir()
	d.Exec(`CREATE TABLE public.calls (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), caller uuid, callee uuid, at timestamptz)`)
	printed(t, d, dir, `targets:
  - {name: calls_made, table: public.calls, user: caller, key: [id], age: at, action: delete}
  - {name: calls_taken, table: public.calls, user: callee, key: [id], age: at, action: delete}
`)
	up(t, d, dir)
	d.Exec(`INSERT INTO public.calls (caller, callee, at) SELECT md5(a)::uuid, md5(b)::uuid, now() - interval '90 days'
		FROM (VALUES ('dead', 'alive'), ('alive', 'dead'), ('dead', 'dead'), ('alive', 'other')) AS v (a, b)`)
	d.Exec(`INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, lease, host, version, settings) VALUES ('clean', 'running', 'sweep', now(), now(), '1m', 'h', 'v', '{}')`)
	d.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence) SELECT md5('dead')::uuid, now() - interval '90 days', now(), run_id, 'sightings' FROM orphan_cleaner.runs`)
	d.Settle()
	for _, c := range []struct {
		of   string
		rows int64
	}{{"calls_made", 2}, {"calls_taken", 1}} {
		if deleted, audited, backedUp := deleting(t, d, c.of, "dead"); deleted != c.rows || audited != c.rows || backedUp != c.rows {
			t.Errorf("%s: %d deleted, %d audited, %d backed up", c.of, deleted, audited, backedUp)
		}
	}
	if made, taken := d.Count("orphan_cleaner.calls_made_audit WHERE run_id IS NULL"), d.Count("orphan_cleaner.calls_taken_audit WHERE run_id IS NULL"); made != 1 || taken != 2 {
		t.Errorf("audited as somebody else's: %d and %d", made, taken)
	}
	if n := d.Count("public.calls"); n != 1 {
		t.Errorf("%d calls are left", n)
	}
}
