-- name: CandidateBacklog :many
-- The members of candidates by the day on which a run may delete them: when the retention of both, user and member, has
-- ended. The first row is what MetricsDue counts, due already. Who is on hold is in no row, nor is a member without joined_at.
-- Locks: ACCESS SHARE on candidates, holds and conversation_members.
-- Index: conversation_members_user_id. Rows: the whole ledger and its members.
SELECT
    greatest(m.due_at AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')::date::text AS due_on,
    (m.due_at <= now())::boolean AS is_due,
    count(DISTINCT c.user_id) AS users,
    sum(m.members)::bigint AS members
FROM orphan_cleaner.candidates AS c
    -- User by user, by the index: a join may well be planned as a scan of the table.
CROSS JOIN LATERAL (
    SELECT greatest(c.first_missing_at, m.joined_at) + @retention::interval AS due_at, count(*) AS members
    FROM public.conversation_members AS m
    WHERE m.user_id = c.user_id
        AND m.joined_at IS NOT NULL
        -- NOT IN is hashed once, NOT EXISTS would be looked up for each row. It is never null here.
        AND m.conversation_id NOT IN (
            SELECT h.conversation_id
            FROM orphan_cleaner.holds_in_force AS h
            WHERE h.conversation_id IS NOT NULL
        )
    GROUP BY 1
) AS m
WHERE c.user_id NOT IN (
    SELECT h.user_id
    FROM orphan_cleaner.holds_in_force AS h
    WHERE h.user_id IS NOT NULL
)
GROUP BY 1, 2
ORDER BY 1, 2 DESC
LIMIT @max_rows;

-- name: CandidateBlocked :many
-- Users whose rows something in the database refuses to delete, longest first: since when, and what the server says.
-- Locks: ACCESS SHARE on candidates. Index: candidates_blocked. Rows: all who are blocked.
SELECT
    c.user_id,
    c.blocked_since::timestamptz AS blocked_since,
    c.blocked_by::jsonb AS blocked_by
FROM orphan_cleaner.candidates AS c
WHERE c.blocked_since IS NOT NULL
ORDER BY c.blocked_since, c.user_id
LIMIT @max_rows;

-- name: CandidateTargets :many
-- The rows of candidates in each target, due or not, in the order of the sweep.
-- Locks: ACCESS SHARE on candidates and the targets. Index: none here; inside, those of the targets on the user. Rows: the ledger and its rows.
SELECT r.target::text AS target, r.row_count::bigint AS row_count
FROM orphan_cleaner.target_rows(ARRAY(SELECT c.user_id FROM orphan_cleaner.candidates AS c)) AS r;
