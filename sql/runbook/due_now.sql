-- What:    which users the next run would clean if auth-service still leaves them out, those with the
--          most members first; and why members of theirs would stay. Nobody is asked and nothing is
--          changed: `orphan-cleaner run --dry-run` asks.
-- Locks:   ACCESS SHARE on the ledger, the holds and conversation_members.
-- Time:    some 10 microseconds a member of a due user.
-- As:      orphan_cleaner_runner: the age of a member is not for readers.
-- Example: psql "$DATABASE_URL" -v retention='30 days' -v top=20 -f sql/runbook/due_now.sql
--          retention is that of the runs (30 days), top is how many users are listed (20).

\set ON_ERROR_STOP on
\if :{?retention}
\else
    \set retention '30 days'
\endif
\if :{?top}
\else
    \set top 20
\endif
BEGIN READ ONLY;
SET LOCAL statement_timeout = '5min';

WITH due AS (
    SELECT
        c.user_id, c.first_missing_at, c.evidence, c.sightings,
        EXISTS (SELECT FROM orphan_cleaner.holds_in_force AS h WHERE h.user_id = c.user_id) AS is_held
    FROM orphan_cleaner.candidates AS c
    WHERE c.first_missing_at <= now() - :'retention'::interval
),
members AS (
    SELECT
        d.user_id, d.first_missing_at, d.evidence, d.sightings,
        -- Without joined_at nobody knows how old it is: it stays.
        coalesce(m.joined_at >= now() - :'retention'::interval, true) AS is_young,
        d.is_held OR EXISTS (
            SELECT FROM orphan_cleaner.holds_in_force AS h WHERE h.conversation_id = m.conversation_id
        ) AS is_held
    FROM due AS d
    JOIN public.conversation_members AS m ON m.user_id = d.user_id
)
SELECT
    CASE WHEN grouping(user_id) = 1 THEN 'all' ELSE user_id::text END AS user_id,
    CASE WHEN grouping(user_id) = 0 THEN min(first_missing_at)::timestamptz(0) END AS missing_since,
    CASE WHEN grouping(user_id) = 0 THEN min(evidence) END AS evidence,
    CASE WHEN grouping(user_id) = 0 THEN min(sightings) END AS sightings,
    count(*) FILTER (WHERE NOT is_young AND NOT is_held) AS would_go,
    count(*) FILTER (WHERE is_held) AS kept_by_hold,
    count(*) FILTER (WHERE is_young AND NOT is_held) AS kept_young
FROM members
GROUP BY GROUPING SETS ((), (user_id))
ORDER BY grouping(user_id) DESC, would_go DESC, user_id
LIMIT :top + 1;
COMMIT;
