-- What:    what one run deleted: its record, the count proof anew (run's row, audit and backup must say
--          the same number), the conversations that lost most, and, with -v list=1, each member.
-- Locks:   ACCESS SHARE on the audit and the backup, from the day of the run on.
-- Time:    milliseconds by the BRIN index on deleted_at; the backup is read from the day of the run to its end.
-- As:      orphan_cleaner_restorer: it reads the backup.
-- Example: psql "$DATABASE_URL" -v run=42 -v list=1 -f sql/runbook/run_deleted.sql

\set ON_ERROR_STOP on
\if :{?run}
\else
    DO $$ BEGIN RAISE EXCEPTION 'say which run: -v run=42'; END $$;
\endif
\if :{?list}
\else
    \set list 0
\endif
BEGIN READ ONLY;
SET LOCAL statement_timeout = '5min';

SELECT EXISTS (SELECT FROM orphan_cleaner.runs WHERE run_id = :run) AS is_there
\gset
\if :is_there
\else
    DO $$ BEGIN RAISE EXCEPTION 'there is no such run' USING HINT = 'orphan-cleaner status'; END $$;
\endif

SELECT
    r.run_id, r.kind, r.state, r.started_at, r.finished_at, r.host, r.version, r.members_due, r.members_deleted,
    a.audited, b.backed_up,
    CASE
        WHEN r.members_deleted = a.audited AND a.audited = b.backed_up THEN 'holds'
        ELSE 'BROKEN: pause runs and look'
    END AS count_proof,
    a.users, a.conversations, a.first_at, a.last_at, a.erased, r.breaker, r.error
FROM orphan_cleaner.runs AS r
CROSS JOIN LATERAL (
    SELECT
        count(*) AS audited,
        -- The nil user stands for whoever was erased, see user_erase.sql.
        count(*) FILTER (WHERE a.user_id = '00000000-0000-0000-0000-000000000000') AS erased,
        count(DISTINCT a.user_id) FILTER (WHERE a.user_id <> '00000000-0000-0000-0000-000000000000') AS users,
        count(DISTINCT a.conversation_id) AS conversations,
        min(a.deleted_at) AS first_at,
        max(a.deleted_at) AS last_at
    FROM public.conversation_members_audit AS a
    WHERE a.run_id = r.run_id
        AND a.deleted_at BETWEEN r.started_at AND coalesce(r.finished_at, 'infinity')
) AS a
CROSS JOIN LATERAL (
    SELECT count(*) AS backed_up
    FROM public.conversation_members_backup AS b
    WHERE b.run_id = r.run_id
        AND b.backed_up_at >= r.started_at
) AS b
WHERE r.run_id = :run
\gx

SELECT a.conversation_id, count(*) AS members_lost, count(*) FILTER (WHERE a.role = 'owner') AS owners_lost
FROM public.conversation_members_audit AS a
JOIN orphan_cleaner.runs AS r ON r.run_id = a.run_id AND a.deleted_at BETWEEN r.started_at AND coalesce(r.finished_at, 'infinity')
WHERE a.run_id = :run
GROUP BY a.conversation_id
ORDER BY members_lost DESC, a.conversation_id
LIMIT 20;

\if :list
    SELECT a.deleted_at, a.conversation_id, a.user_id, a.role, a.joined_at, a.deleted_by, a.txid
    FROM public.conversation_members_audit AS a
    JOIN orphan_cleaner.runs AS r ON r.run_id = a.run_id AND a.deleted_at BETWEEN r.started_at AND coalesce(r.finished_at, 'infinity')
    WHERE a.run_id = :run
    ORDER BY a.deleted_at, a.user_id, a.conversation_id;
\endif
COMMIT;
