-- name: LimitList :many
-- The pinned settings: a run's own can only be stricter.
-- Locks: ACCESS SHARE on limits. Index: none. Rows: a dozen at most.
SELECT l.name, l.value, l.set_at, l.set_by
FROM orphan_cleaner.limits AS l
ORDER BY l.name;

-- name: LimitPin :exec
-- Pins a setting. For the owner of the schema.
-- Locks: ROW EXCLUSIVE on limits. Index: none needed: a dozen rows. Rows: one.
INSERT INTO orphan_cleaner.limits AS l (name, value)
VALUES (@name, @value)
ON CONFLICT (name) DO UPDATE
SET value = excluded.value,
    set_at = now(),
    set_by = session_user;

-- name: LimitUnpin :execrows
-- Unpins a setting. For the owner of the schema.
-- Locks: ROW EXCLUSIVE on limits. Index: none needed: a dozen rows. Rows: one.
DELETE FROM orphan_cleaner.limits AS l
WHERE l.name = @name;

-- name: ClockSettle :one
-- After the server's clock was ahead: moves what runs recorded in the future to now. For the owner of the schema.
-- Locks: ROW EXCLUSIVE on runs, hours and candidates. Index: runs_heartbeat_at, hours_pkey. Rows: what is in the future.
SELECT orphan_cleaner.settle_clock()::bigint AS runs;

-- name: ClockNow :one
-- The server's time.
-- Locks: none.
SELECT now()::timestamptz AS database_time;
