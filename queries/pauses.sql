-- name: PauseBegin :one
-- Pauses all runs. Fails on orphan_pauses_one_in_force when they are paused already.
-- Locks: ROW EXCLUSIVE on orphan_pauses. Index: none. Rows: one.
INSERT INTO orphan_pauses (reason)
VALUES (@reason)
RETURNING pause_id;

-- name: PauseEnd :execrows
-- Lets runs go on.
-- Locks: ROW EXCLUSIVE on orphan_pauses. Index: orphan_pauses_one_in_force. Rows: at most one.
UPDATE orphan_pauses
SET resumed_at = now(),
    resumed_by = session_user
WHERE resumed_at IS NULL;

-- name: PauseInForce :many
-- The pause in force, if there is one.
-- Locks: ACCESS SHARE on orphan_pauses. Index: orphan_pauses_one_in_force. Rows: at most one.
SELECT reason, paused_at, paused_by
FROM orphan_pauses
WHERE resumed_at IS NULL;
