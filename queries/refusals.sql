-- name: RefusalUnsettled :many
-- The last refused run, unless a later run succeeded, or used its approval and is incomplete: some of its users may be blocked.
-- A restore does not settle it. A refused revert is not listed: whoever makes it is told, and nobody can approve it.
-- Locks: ACCESS SHARE on runs and approvals. Index: runs_refused, runs_succeeded, backwards; none on the approvals. Rows: two, and a few approvals.
SELECT r.run_id, r.breaker, r.error, r.finished_at
FROM (
    SELECT o.run_id, o.breaker, o.error, o.finished_at
    FROM orphan_cleaner.runs AS o
    WHERE o.state = 'refused' AND o.kind = 'clean'
    ORDER BY o.run_id DESC
    LIMIT 1
) AS r
WHERE r.run_id > coalesce((
        SELECT later.run_id
        FROM orphan_cleaner.runs AS later
        WHERE later.state = 'succeeded' AND later.kind = 'clean'
        ORDER BY later.run_id DESC
        LIMIT 1
    ), 0)
    AND NOT EXISTS (
        SELECT
        FROM orphan_cleaner.approvals AS a
        JOIN orphan_cleaner.runs AS u ON u.run_id = a.used_by_run
        WHERE a.run_id = r.run_id AND u.state = 'incomplete'
    );

-- name: RefusalSummary :one
-- What approving a refused run would delete.
-- Locks: ACCESS SHARE on conversation_members. Index: refusals_pkey, conversation_members_user_id.
-- Rows: the members of the due users.
SELECT
    r.kind,
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

-- name: RefusalTargets :many
-- The rows, in each target, of the users whose rows an approval of a refused run would delete.
-- Locks: ACCESS SHARE on refusals and the targets. Index: refusals_pkey, inside those of the targets on the user.
-- Rows: those of the due users.
SELECT r.target::text AS target, r.row_count::bigint AS row_count
FROM orphan_cleaner.target_rows(ARRAY(
    SELECT f.user_id
    FROM orphan_cleaner.refusals AS f
    WHERE f.run_id = @run_id AND f.is_due
)) AS r;
