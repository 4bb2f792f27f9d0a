package main

import (
	"strings"
	"testing"
)

// A refused run is approved, used once, and settled; a pause stops the next one.
func TestApproveAndPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	w.Exec(`INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, state, phase, finished_at, lease, host, version, settings, breaker)
		VALUES (now(), now(), 'clean', 'refused', 'judge', now(), '1m', 'x', 'x', '{}', 'delete-rows'),
			(now(), now(), 'clean', 'refused', 'judge', now(), '1m', 'x', 'x', '{}', 'canary-alive'),
			(now(), now(), 'clean', 'failed', 'judge', now(), '1m', 'x', 'x', '{}', NULL)`)
	w.Exec(`INSERT INTO orphan_cleaner.refusals (run_id, user_id, is_due) SELECT DISTINCT 1, user_id, true FROM conversation_members`)
	for _, step := range []struct {
		args   string
		status int
		says   string
	}{
		{"approve 1", exitUsage, "--yes"},
		{"approve 9 --yes", exitUsage, "no run 9"},
		{"approve 2 --yes", exitUsage, "canary-alive"},
		{"approve 3 --yes", exitUsage, "not refused"},
		{"approve 1 --yes", exitDone, "approved until"},
		{"approve 1 --yes", exitUsage, "--revoke"},
		{"status", exitDone, "APPROVED run 1"},
		{"approve 1 --revoke", exitDone, "is revoked"},
		{"approve 1 --revoke", exitUsage, "no approval"},
		{"pause --reason maintenance", exitDone, "paused"},
		{"pause --reason again", exitUsage, "maintenance"},
		{"status", exitDone, "PAUSED by"},
		{"run", exitDone, "maintenance"},
		{"resume", exitDone, "may go on"},
		{"resume", exitDone, "not paused"},
		{"run --dry-run", exitDone, "Dry run"},
	} {
		got := program(t, w.env, strings.Fields(step.args)...)
		if got.status != step.status || !strings.Contains(got.stdout+got.stderr, step.says) {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", step.args, got.status, step.status, step.says, got.stdout, got.stderr)
		}
	}
}
