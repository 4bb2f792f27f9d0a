-- name: RefusalUnsettled :many
-- The last refused run, unless a later run succeeded.
-- Locks: ACCESS SHARE on runs. Index: runs_refused, runs_succeeded, backwards. Rows: two.
SELECT r.run_id, r.breaker, r.error, r.finished_at
FROM orphan_cleaner.runs AS r
WHERE r.state = 'refused'
    AND r.run_id > coalesce((SELECT max(later.run_id) FROM orphan_cleaner.runs AS later WHERE later.state = 'succeeded'), 0)
ORDER BY r.run_id DESC
LIMIT 1;

-- name: RefusalSummary :one
-- What approving a refused run would delete.
-- Locks: ACCESS SHARE on conversation_members. Index: refusals_pkey, conversation_members_user_id.
-- Rows: the members of the due users.
SELECT
    r.state,
    r.breaker,
    (SELECT count(*) FROM orphan_cleaner.refusals AS f WHERE f.run_id = r.run_id AND f.is_due)::bigint AS users_due,
    (SELECT count(*) FROM orphan_cleaner.refusals AS f WHERE f.run_id = r.run_id AND NOT f.is_due)::bigint AS users_new,
    m.members::bigint AS members,
    m.conversations::bigint AS conversations
FROM orphan_cleaner.runs AS r
CROSS JOIN LATERAL (
    SELECT count(*) AS members, count(DISTINCT m.conversation_id) AS conversations
    FROM orphan_cleaner.refusals AS f
        -- User by user, by the index: a join may well be planned as a scan of the table.
    CROSS JOIN LATERAL (
        SELECT i.conversation_id
        FROM public.conversation_members AS i
        WHERE i.user_id = f.user_id
        OFFSET 0
    ) AS m
    WHERE f.run_id = r.run_id AND f.is_due
) AS m
WHERE r.run_id = @run_id;

-- name: RefusalLargest :many
-- The users of a refused run with the most members.
-- Locks: ACCESS SHARE on conversation_members. Index: refusals_pkey, conversation_members_user_id. Rows: the members of the due users.
SELECT f.user_id, m.members
FROM orphan_cleaner.refusals AS f
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM public.conversation_members AS i
    WHERE i.user_id = f.user_id
) AS m
WHERE f.run_id = @run_id
    AND f.is_due
    AND m.members > 0
ORDER BY m.members DESC, f.user_id
LIMIT 10;
