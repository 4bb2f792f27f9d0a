-- What:    who is due when: users and members of the ledger by the (UTC) day on which the retention of both
--          has ended, and what a hold keeps. A member without joined_at is never due, and in no line.
-- Locks:   ACCESS SHARE on the ledger, the holds and conversation_members.
-- Time:    some 10 microseconds a candidate: the ledger is read whole, members by the index on user_id.
-- As:      orphan_cleaner_reader.
-- Example: psql "$DATABASE_URL" -v retention='30 days' -f sql/runbook/backlog.sql
--          retention is that of the runs (30 days).

\set ON_ERROR_STOP on
\if :{?retention}
\else
    \set retention '30 days'
\endif
BEGIN READ ONLY;
SET LOCAL statement_timeout = '5min';

SELECT
    CASE WHEN m.ends_at <= now() THEN 'due now' ELSE (m.ends_at AT TIME ZONE 'UTC')::date::text END AS retention_ends,
    count(DISTINCT c.user_id) AS users,
    coalesce(sum(m.members), 0) AS members,
    count(DISTINCT c.user_id) FILTER (WHERE held.is_held) AS users_on_hold,
    coalesce(sum(m.members) FILTER (WHERE held.is_held), 0) AS members_on_hold,
    count(DISTINCT c.user_id) FILTER (WHERE c.evidence = 'shadow') AS users_known_from_shadow
FROM orphan_cleaner.candidates AS c
CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM orphan_cleaner.holds_in_force AS h WHERE h.user_id = c.user_id) AS is_held) AS held
CROSS JOIN LATERAL (
    SELECT greatest(c.first_missing_at, cm.joined_at) + :'retention'::interval AS ends_at, count(*) AS members
    FROM public.conversation_members AS cm
    WHERE cm.user_id = c.user_id
        AND cm.joined_at IS NOT NULL
    GROUP BY 1
) AS m
GROUP BY 1
ORDER BY min(m.ends_at);
COMMIT;
