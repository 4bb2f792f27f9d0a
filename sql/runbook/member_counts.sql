-- What:    conversations whose member_count is not the number of their members, such as those that lost members before
--          `orphan-cleaner effects set counter=on`, and with -v execute=1 their repair. The application changes a member and
--          the count in two transactions: so it looks twice, -v settle seconds apart (10), and what differs by the same number
--          both times is put right by that number, whatever happens meanwhile. Again until nothing is left.
-- Locks:   ACCESS SHARE on both tables; with execute=1 each conversation that it puts right, in the order of their ids, for
--          as long as updating -v top of them takes: 10,000 in some 300 ms.
-- Time:    reads both tables whole, twice: some 6 s for 10 million members.
-- As:      the owner of messaging-service's tables.
-- Example: psql "$DATABASE_URL" -v execute=1 -v top=10000 -v settle=10 -f sql/runbook/member_counts.sql
--          top is how many are put right at once, the most wrong first (10000).

\set ON_ERROR_STOP on
\if :{?execute}
\else
    \set execute 0
\endif
\if :{?settle}
\else
    \set settle 10
\endif
\if :{?top}
\else
    \set top 10000
\endif
BEGIN;
SET LOCAL lock_timeout = '3s';
SET LOCAL statement_timeout = '10min';
SET LOCAL jit = off;

CREATE FUNCTION pg_temp.member_counts()
RETURNS TABLE (conversation_id uuid, member_count bigint, members bigint)
LANGUAGE sql
AS $$
    SELECT c.id, c.member_count::bigint, coalesce(n.members, 0)
    FROM public.conversations AS c
    LEFT JOIN (
        SELECT m.conversation_id, count(*) AS members FROM public.conversation_members AS m GROUP BY m.conversation_id
    ) AS n ON n.conversation_id = c.id
    WHERE c.member_count <> coalesce(n.members, 0)
$$;
CREATE TEMPORARY TABLE member_counts_first ON COMMIT DROP AS SELECT * FROM pg_temp.member_counts();
-- Nothing is locked meanwhile.
SELECT pg_sleep(:settle) WHERE EXISTS (SELECT FROM member_counts_first)
\g /dev/null
CREATE TEMPORARY TABLE member_counts_wrong ON COMMIT DROP AS
SELECT s.*, s.members - s.member_count AS difference
FROM member_counts_first AS f
JOIN pg_temp.member_counts() AS s ON s.conversation_id = f.conversation_id AND s.members - s.member_count = f.members - f.member_count;

\echo '== Conversations with a wrong member_count'
SELECT count(*) AS conversations, coalesce(sum(-difference) FILTER (WHERE difference < 0), 0) AS members_too_many,
    coalesce(sum(difference) FILTER (WHERE difference > 0), 0) AS members_too_few
FROM member_counts_wrong;
\echo '== The most wrong'
SELECT conversation_id, member_count, members, difference
FROM member_counts_wrong
ORDER BY abs(difference) DESC, conversation_id
LIMIT 20;

\if :execute
    WITH chosen AS (
        SELECT w.conversation_id, w.difference FROM member_counts_wrong AS w ORDER BY abs(w.difference) DESC, w.conversation_id LIMIT :top
    ),
    locked AS MATERIALIZED (
        SELECT c.id FROM public.conversations AS c WHERE c.id IN (SELECT o.conversation_id FROM chosen AS o) ORDER BY c.id FOR NO KEY UPDATE
    ),
    repaired AS (
        UPDATE public.conversations AS c
        SET member_count = c.member_count + o.difference
        FROM chosen AS o
        JOIN locked AS l ON l.id = o.conversation_id
        WHERE c.id = o.conversation_id
        RETURNING c.id
    )
    SELECT count(*) AS repaired FROM repaired;
    COMMIT;
\else
    ROLLBACK;
    \echo 'Nothing was changed. With -v execute=1 these counts are put right.'
\endif
