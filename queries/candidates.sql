-- name: CandidateBacklog :many
-- Candidates by the day their retention ends; the first row holds what is due already.
-- Locks: ACCESS SHARE on candidates and conversation_members.
-- Index: conversation_members_user_id. Rows: the whole ledger and its members.
SELECT
    greatest((c.first_missing_at + @retention::interval) AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')::date::text AS due_on,
    (c.first_missing_at + @retention::interval <= now())::boolean AS is_due,
    count(*) AS users,
    sum(m.members)::bigint AS members
FROM orphan_cleaner.candidates AS c
    -- User by user, by the index: a join may well be planned as a scan of the table.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM public.conversation_members AS m
    WHERE m.user_id = c.user_id
) AS m
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
