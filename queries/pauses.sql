-- name: PauseBegin :one
-- Pauses all runs. Fails on pauses_one_in_force when they are paused already.
-- Locks: ROW EXCLUSIVE on pauses; waits for the chunks in flight, 5 s at most. Index: none. Rows: one.
SELECT orphan_cleaner.pause(@reason::text)::bigint AS pause_id;

-- name: PauseEnd :one
-- Lets runs continue; 0: they were not paused.
-- Locks: ROW EXCLUSIVE on pauses. Index: pauses_one_in_force. Rows: at most one.
SELECT coalesce(orphan_cleaner.resume(), 0)::bigint AS pause_id;

-- name: PauseInForce :many
-- The pause in force, if there is one.
-- Locks: ACCESS SHARE on pauses. Index: pauses_one_in_force. Rows: at most one.
SELECT p.reason, p.paused_at, p.paused_by
FROM orphan_cleaner.pauses AS p
WHERE p.resumed_at IS NULL;
