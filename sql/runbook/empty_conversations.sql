-- What:    conversations without any member, without an owner, or whose member_count is not the number
--          of their members; and whether a run of ours took the last member, the last owner. The
--          cleaner leaves conversations alone: what is to become of these is messaging-service's say.
-- Locks:   ACCESS SHARE on conversations, conversation_members and the audit.
-- Time:    reads the first two whole, once: some 3 s for 10 million members; the audit by -v since.
-- As:      whoever may read conversations: the owner of messaging-service's tables.
-- Example: psql "$DATABASE_URL" -v since='400 days' -v top=50 -f sql/runbook/empty_conversations.sql
--          since is how far back the audit is read (400 days), top how many are listed (50).

\set ON_ERROR_STOP on
\if :{?since}
\else
    \set since '400 days'
\endif
\if :{?top}
\else
    \set top 50
\endif
BEGIN READ ONLY;
SET LOCAL statement_timeout = '10min';
SET LOCAL jit = off;

WITH counted AS (
    SELECT m.conversation_id, count(*) AS members, count(*) FILTER (WHERE m.role = 'owner') AS owners
    -- Where there is no column role, the name is that of the outer query: nobody is an owner.
    FROM (SELECT NULL AS role) AS absent
    CROSS JOIN LATERAL (SELECT i.conversation_id, role::text AS role FROM public.conversation_members AS i) AS m
    GROUP BY m.conversation_id
),
odd AS (
    SELECT
        c.id, c.kind, c.created_at, c.member_count,
        coalesce(n.members, 0) AS members,
        coalesce(n.owners, 0) AS owners
    FROM public.conversations AS c
    LEFT JOIN counted AS n ON n.conversation_id = c.id
    WHERE n.conversation_id IS NULL
        OR n.owners = 0
        OR c.member_count <> n.members
),
ours AS (
    SELECT
        a.conversation_id,
        count(*) AS lost,
        count(*) FILTER (WHERE a.role = 'owner') AS owners_lost,
        max(a.run_id) AS last_run
    FROM public.conversation_members_audit AS a
    WHERE a.run_id IS NOT NULL
        AND a.deleted_at > now() - :'since'::interval
    GROUP BY a.conversation_id
)
SELECT
    o.id AS conversation_id,
    CASE
        WHEN o.members = 0 THEN 'no member'
        WHEN o.owners = 0 THEN 'no owner'
        ELSE 'member_count is off'
    END AS what,
    o.kind, o.members, o.member_count, o.created_at::date AS created,
    coalesce(u.lost, 0) AS members_lost_to_runs,
    coalesce(u.owners_lost, 0) AS owners_lost_to_runs,
    u.last_run,
    count(*) OVER (PARTITION BY o.members = 0, o.members > 0 AND o.owners = 0) AS conversations_like_this
FROM odd AS o
LEFT JOIN ours AS u ON u.conversation_id = o.id
ORDER BY o.members > 0, o.owners > 0, members_lost_to_runs DESC, o.id
LIMIT :top;
COMMIT;
