-- name: ApprovalGive :one
-- Approves the stored set of a refused run.
-- Fails on orphan_approvals_one_open while the run has an approval that is open.
-- Locks: ROW EXCLUSIVE on orphan_approvals. Index: orphan_runs_pkey. Rows: one.
INSERT INTO orphan_approvals (run_id, approved_by, expires_at)
SELECT r.run_id, @approved_by::text || ' (' || session_user || ')', now() + @lasting::interval
FROM orphan_runs AS r
WHERE r.run_id = @run_id
    AND r.state = 'refused'
RETURNING approval_id, expires_at;

-- name: ApprovalRevoke :execrows
-- Takes the open approvals of a run back, expired ones too.
-- Locks: ROW EXCLUSIVE on orphan_approvals. Index: orphan_approvals_one_open. Rows: one.
UPDATE orphan_approvals
SET revoked_at = now(),
    revoked_by = @revoked_by::text || ' (' || session_user || ')'
WHERE run_id = @run_id
    AND used_at IS NULL
    AND revoked_at IS NULL;

-- name: ApprovalOpen :many
-- The approvals that a run may use, oldest first.
-- Locks: ACCESS SHARE on orphan_approvals. Index: orphan_approvals_one_open. Rows: a few.
SELECT approval_id, run_id, approved_by, approved_at, expires_at
FROM orphan_approvals
WHERE used_at IS NULL
    AND revoked_at IS NULL
    AND expires_at > now()
ORDER BY approval_id;

-- name: ApprovalUse :execrows
-- Uses an approval up, in the transaction that writes the ledger.
-- Locks: ROW EXCLUSIVE on orphan_approvals. Index: orphan_approvals_pkey. Rows: one.
UPDATE orphan_approvals
SET used_at = now(),
    used_by_run = @run_id::bigint
WHERE approval_id = @approval_id
    -- Again by the same run: its COMMIT went through and the answer was lost.
    AND (used_at IS NULL OR used_by_run = @run_id::bigint)
    AND revoked_at IS NULL
    AND expires_at > now();
