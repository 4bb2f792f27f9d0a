-- What:    conversations whose last owner a run deleted and that have none since, with the member who would be owner: the
--          oldest admin, else the oldest member, whom no run has found missing. With -v execute=1 these become owners, recorded
--          in orphan_cleaner.promotions: a restore of the run takes it back. No event tells of it. For older cases than
--          `orphan-cleaner effects set owners=promote`; empty_conversations.sql lists those without an owner for other reasons.
-- Locks:   ACCESS SHARE on conversation_members and the audit; with execute=1 the conversations and new owners, in the order
--          of their ids, and no run or restore begins or goes on until it is done.
-- Time:    reads conversation_members whole, once: some 3 s for 10 million members; the audit by -v since.
-- As:      a superuser, or a member of orphan_cleaner_migrator who owns messaging-service's tables.
-- Example: psql "$DATABASE_URL" -v since='400 days' -v run=42 -v execute=1 -f sql/runbook/ownerless.sql
--          since is how far back the audit is read (400 days); run, where given, leaves out what other runs deleted.

\set ON_ERROR_STOP on
\if :{?since}
\else
    \set since '400 days'
\endif
\if :{?run}
\else
    \set run 0
\endif
\if :{?execute}
\else
    \set execute 0
\endif
BEGIN;
SET LOCAL lock_timeout = '3s';
SET LOCAL statement_timeout = '10min';
SET LOCAL jit = off;
\if :execute
    LOCK TABLE orphan_cleaner.runs IN SHARE ROW EXCLUSIVE MODE;
\endif

CREATE TEMPORARY TABLE ownerless ON COMMIT DROP AS
SELECT l.conversation_id, l.run_id, s.user_id, s.role, s.joined_at
FROM (
    -- The last owner that a run deleted.
    SELECT DISTINCT ON (a.conversation_id) a.conversation_id, a.run_id
    FROM public.conversation_members_audit AS a
    WHERE a.role = 'owner'
        AND a.run_id IS NOT NULL
        AND a.deleted_at > now() - :'since'::interval
        AND (:run::bigint = 0 OR a.run_id = :run::bigint)
    ORDER BY a.conversation_id, a.deleted_at DESC
) AS l
JOIN (
    SELECT m.conversation_id FROM public.conversation_members AS m GROUP BY m.conversation_id HAVING NOT bool_or(m.role = 'owner')
) AS n ON n.conversation_id = l.conversation_id
LEFT JOIN LATERAL (
    SELECT m.user_id, m.role, m.joined_at
    FROM public.conversation_members AS m
    WHERE m.conversation_id = l.conversation_id
        AND NOT EXISTS (SELECT FROM orphan_cleaner.candidates AS c WHERE c.user_id = m.user_id)
    ORDER BY m.role::text <> 'admin', m.joined_at, m.user_id
    LIMIT 1
) AS s ON true;

\echo '== Conversations without an owner since a run'
SELECT o.conversation_id, o.run_id, coalesce(o.user_id::text, 'nobody is left') AS new_owner, o.role, o.joined_at::date AS joined
FROM ownerless AS o
ORDER BY o.conversation_id;

\if :execute
    SELECT FROM public.conversations AS c
    WHERE c.id IN (SELECT o.conversation_id FROM ownerless AS o)
    ORDER BY c.id
    FOR NO KEY UPDATE
    \g /dev/null
    WITH promoted AS (
        UPDATE public.conversation_members AS m
        SET role = 'owner'
        FROM ownerless AS o
        WHERE m.conversation_id = o.conversation_id
            AND m.user_id = o.user_id
            -- Unless somebody has become owner meanwhile.
            AND NOT EXISTS (SELECT FROM public.conversation_members AS e WHERE e.conversation_id = o.conversation_id AND e.role = 'owner')
        RETURNING o.run_id, m.conversation_id, m.user_id, o.role::text AS role_before
    ),
    recorded AS (
        INSERT INTO orphan_cleaner.promotions (run_id, conversation_id, user_id, role_before)
        SELECT p.run_id, p.conversation_id, p.user_id, p.role_before
        FROM promoted AS p
        ON CONFLICT (run_id, conversation_id, user_id) DO UPDATE
        SET role_before = excluded.role_before, promoted_at = excluded.promoted_at, undone_by_run = NULL, undone_at = NULL
        RETURNING conversation_id
    )
    SELECT count(*) AS promoted FROM recorded;
    COMMIT;
\else
    ROLLBACK;
    \echo 'Nothing was changed. With -v execute=1 these members become owners.'
\endif
