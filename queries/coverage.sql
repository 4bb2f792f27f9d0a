-- name: CoverageState :one
-- How far checking has come; no row before the first judged run. checked_since: when the run began since which every
-- user has been checked, where is_whole.
-- Locks: ACCESS SHARE on coverage, unknowns and runs. Index: runs_pkey. Rows: one; the runs of one cycle.
SELECT
    v.cursor_id,
    v.users,
    v.users_so_far,
    v.checked_at,
    (v.previous_run_id IS NOT NULL)::boolean AS is_whole,
    extract(EPOCH FROM now() - v.checked_at)::float8 AS seconds_since,
    coalesce(least(
        (
            SELECT r.started_at
            FROM orphan_cleaner.runs AS r
            WHERE r.run_id >= v.previous_run_id
                AND r.judged_at IS NOT NULL
                -- The users behind the cursor were last checked in the cycle before.
                AND (v.cursor_id IS NULL OR r.checked_through IS NULL OR r.checked_through > v.cursor_id)
            ORDER BY r.run_id
            LIMIT 1
        ),
        (SELECT min(u.unknown_since) FROM orphan_cleaner.unknowns AS u)
    ), now())::timestamptz AS checked_since,
    (SELECT count(*) FROM orphan_cleaner.unknowns)::bigint AS users_unknown
FROM orphan_cleaner.coverage AS v;

-- name: CoverageOthers :many
-- The next users outside of a range who are checked in every run: candidates, and those without a valid response.
-- Locks: ACCESS SHARE on candidates and unknowns. Index: candidates_pkey, unknowns_pkey, in order. Rows: max_users.
SELECT o.user_id
FROM (
    (
        SELECT c.user_id
        FROM orphan_cleaner.candidates AS c
        WHERE c.user_id >= @from_user
        ORDER BY c.user_id
        LIMIT @max_users::bigint
    )
    UNION
    (
        SELECT u.user_id
        FROM orphan_cleaner.unknowns AS u
        WHERE u.user_id >= @from_user
        ORDER BY u.user_id
        LIMIT @max_users::bigint
    )
) AS o
ORDER BY o.user_id
LIMIT @max_users::bigint;

-- name: CoverageHolders :many
-- Those of the users who have a row, in order.
-- Locks: ACCESS SHARE on the targets. Index: conversation_members_user_id. Rows: the users given.
SELECT h.user_id::uuid AS user_id
FROM orphan_cleaner.target_holders(@user_ids::uuid []) AS h (user_id)
ORDER BY 1;
