-- name: ApprovalGive :one
-- Approves what a refused run found. Fails on approvals_one_open while the run has an approval that is open, and with
-- OC011 where nothing can be approved.
-- Locks: ROW EXCLUSIVE on approvals. Index: runs_pkey. Rows: one.
SELECT a.approval_id::bigint AS approval_id, a.expires_at::timestamptz AS expires_at
FROM orphan_cleaner.approve(@run_id::bigint, @approved_by::text, @lasting::interval) AS a;

-- name: ApprovalRevoke :one
-- Revokes the open approval of a run, expired or not; 0: there is none.
-- Locks: ROW EXCLUSIVE on approvals. Index: approvals_one_open. Rows: one.
SELECT coalesce(orphan_cleaner.revoke_approval(@run_id::bigint, @revoked_by::text), 0)::bigint AS approval_id;

-- name: ApprovalOpen :many
-- The approvals that a run may use, oldest first.
-- Locks: ACCESS SHARE on approvals. Index: approvals_one_open. Rows: a few.
SELECT a.approval_id, a.run_id, a.approved_by, a.approved_at, a.expires_at
FROM orphan_cleaner.approvals AS a
WHERE a.used_at IS NULL
    AND a.revoked_at IS NULL
    AND a.expires_at > now()
ORDER BY a.approval_id;
