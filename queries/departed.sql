-- name: DepartedPage :many
-- The users to be asked about again in this run: in the order of ids, behind those of the last run that asked; after
-- the last one from the first one on.
-- Locks: ACCESS SHARE on orphan_departed and orphan_runs. Index: orphan_departed_pkey, in order; runs are read back to the
-- last one that asked, or whole. Rows: twice max_users.
WITH last_one AS (
    SELECT coalesce(
        (
            SELECT r.asked_again_through
            FROM orphan_runs AS r
            WHERE r.asked_again_through IS NOT NULL
            ORDER BY r.run_id DESC
            LIMIT 1
        ), '00000000-0000-0000-0000-000000000000'
    ) AS user_id
)
SELECT t.user_id
FROM (
    (
        SELECT d.user_id, 1 AS turn
        FROM orphan_departed AS d
        WHERE d.user_id > (SELECT l.user_id FROM last_one AS l)
        ORDER BY d.user_id
        LIMIT @max_users::bigint
    )
    UNION ALL
    (
        SELECT d.user_id, 2 AS turn
        FROM orphan_departed AS d
        WHERE d.user_id <= (SELECT l.user_id FROM last_one AS l)
        ORDER BY d.user_id
        LIMIT @max_users::bigint
    )
) AS t
ORDER BY t.turn, t.user_id
LIMIT @max_users::bigint;

-- name: DepartedCheck :many
-- Writes down what the answers said about departed users, and with whom the next run goes on. Of those who are
-- alive again it returns who lost members that can be given back; the others need not be asked about any more.
-- Locks: ROW EXCLUSIVE on orphan_departed and orphan_runs; ACCESS SHARE on the backup, where somebody is alive.
-- Index: orphan_departed_pkey, orphan_runs_pkey. Rows: as many as given; all backups, read once, where somebody is alive.
WITH losses AS MATERIALIZED (
    SELECT p.user_id::uuid AS user_id, count(*) AS members
    FROM orphan_restore_plan(NULL, @alive::uuid [], NULL, NULL, NULL) AS p
    WHERE p.verdict = 'restore'
        AND cardinality(@alive::uuid []) > 0
    GROUP BY p.user_id
),
still_missing AS (
    UPDATE orphan_departed AS d
    SET checked_at = now(),
        alive_at = NULL
    WHERE d.user_id = ANY (@missing::uuid [])
),
resurrected AS (
    UPDATE orphan_departed AS d
    SET checked_at = now(),
        alive_at = coalesce(d.alive_at, now())
    FROM losses AS l
    WHERE d.user_id = l.user_id
    RETURNING d.user_id, l.members
),
settled AS (
    DELETE FROM orphan_departed AS d
    WHERE d.user_id = ANY (@alive::uuid [])
        AND NOT EXISTS (SELECT FROM losses AS l WHERE l.user_id = d.user_id)
),
place AS (
    UPDATE orphan_runs AS o
    SET asked_again_through = @asked_through::uuid
    WHERE o.run_id = @run_id
        AND o.state = 'running'
)
SELECT r.user_id, r.members::bigint AS members
FROM resurrected AS r
ORDER BY r.user_id;

-- name: DepartedAlive :many
-- The users who are alive again and whose members can be given back, as last seen.
-- Locks: ACCESS SHARE on orphan_departed. Index: orphan_departed_alive. Rows: as good as none.
SELECT user_id, alive_at::timestamptz AS alive_at
FROM orphan_departed
WHERE alive_at IS NOT NULL
ORDER BY user_id;

-- name: DepartedPrune :execrows
-- Forgets departed users who left before the oldest backup that is still there, max_rows at a time.
-- Locks: ROW EXCLUSIVE on orphan_departed. Index: none: the list is read whole, by a daily job. Rows: max_rows.
DELETE FROM orphan_departed AS d
USING (
    SELECT o.user_id
    FROM orphan_departed AS o
    WHERE o.departed_at < (
            SELECT min(coalesce(p.lower_bound, '-infinity'))
            FROM orphan_partitions() AS p
            WHERE p.parent = 'conversation_members_backup'
        )
        AND o.alive_at IS NULL
    LIMIT @max_rows::bigint
) AS old
WHERE d.user_id = old.user_id;

-- name: DepartedSettle :execrows
-- Takes users whose members a restore gave back off the list: every run asks about them again. One who is
-- alive stays on it while more of what was deleted could be given back.
-- Locks: ROW EXCLUSIVE on orphan_departed; ACCESS SHARE on the backup, where somebody is alive.
-- Index: orphan_restores_pkey, orphan_departed_pkey or orphan_departed_alive. Rows: the users of the restore; all backups,
-- read once, where somebody is alive.
WITH restored AS MATERIALIZED (
    SELECT DISTINCT r.user_id
    FROM orphan_restores AS r
    WHERE r.run_id = @run_id
        AND r.state = 'restored'
),
alive AS MATERIALIZED (
    SELECT array_agg(d.user_id) AS users
    FROM orphan_departed AS d
    WHERE d.alive_at IS NOT NULL
        AND d.user_id IN (SELECT x.user_id FROM restored AS x)
),
unfinished AS MATERIALIZED (
    SELECT DISTINCT p.user_id::uuid AS user_id
    FROM alive AS a
    CROSS JOIN LATERAL orphan_restore_plan(NULL, a.users, NULL, NULL, NULL) AS p
    WHERE a.users IS NOT NULL
        AND p.verdict = 'restore'
)
DELETE FROM orphan_departed AS d
WHERE d.user_id IN (SELECT x.user_id FROM restored AS x)
    AND NOT EXISTS (SELECT FROM unfinished AS u WHERE u.user_id = d.user_id);
