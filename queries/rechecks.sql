-- name: RecheckPage :many
-- The users to be rechecked in this run: in the order of ids, after those of the last run that rechecked; behind the last
-- id it begins again with the first.
-- Locks: ACCESS SHARE on rechecks and runs. Index: rechecks_pkey, in order; runs_rechecked, backwards. Rows: twice max_users.
WITH last_one AS (
    SELECT coalesce(
        (
            SELECT r.rechecked_through
            FROM orphan_cleaner.runs AS r
            WHERE r.rechecked_through IS NOT NULL
            ORDER BY r.run_id DESC
            LIMIT 1
        ), '00000000-0000-0000-0000-000000000000'
    ) AS user_id
)
SELECT t.user_id
FROM (
    (
        SELECT d.user_id, 1 AS lap
        FROM orphan_cleaner.rechecks AS d
        WHERE d.user_id > (SELECT l.user_id FROM last_one AS l)
        ORDER BY d.user_id
        LIMIT @max_users::bigint
    )
    UNION ALL
    (
        SELECT d.user_id, 2 AS lap
        FROM orphan_cleaner.rechecks AS d
        WHERE d.user_id <= (SELECT l.user_id FROM last_one AS l)
        ORDER BY d.user_id
        LIMIT @max_users::bigint
    )
) AS t
ORDER BY t.lap, t.user_id
LIMIT @max_users::bigint;

-- name: RecheckWrite :many
-- Records what rechecks found, and after whom the next run continues; returns who is alive again while deleted rows
-- can be restored.
-- Locks: ROW EXCLUSIVE on rechecks and runs; ACCESS SHARE on backup and audit, where somebody is alive.
-- Index: rechecks_pkey, runs_pkey. Rows: as many as given; all backups, read once, and the audit is read, where somebody
-- is alive.
SELECT w.user_id::uuid AS user_id, w.members::bigint AS members
FROM orphan_cleaner.recheck_write(@run_id::bigint, @token::uuid, @alive::uuid [], @missing::uuid [], @reached::uuid) AS w
ORDER BY w.user_id;

-- name: RecheckAlive :many
-- The users who are alive again and whose rows can be restored, as last seen.
-- Locks: ACCESS SHARE on rechecks. Index: rechecks_alive. Rows: almost none.
SELECT d.user_id, d.alive_at::timestamptz AS alive_at
FROM orphan_cleaner.rechecks AS d
WHERE d.alive_at IS NOT NULL
ORDER BY d.user_id;

-- name: RecheckSettle :exec
-- Takes users whose rows a restore brought back off the list: every run checks them again.
-- Locks: ROW EXCLUSIVE on rechecks; ACCESS SHARE on backup and audit, where somebody is alive.
-- Index: restores_pkey, rechecks_pkey. Rows: the users of the restore; all backups, read once, and the audit is read,
-- where somebody is alive.
SELECT orphan_cleaner.recheck_settle(@run_id::bigint, @token::uuid);
