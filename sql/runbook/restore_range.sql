-- What:    runbook 6.2: restores the members that runs deleted in a span of time, whole rows, as they
--          were. A dry look unless -v execute=1. Not restored: who is a member again, left by himself
--          since, or was deleted once more by a later run; whose conversation is gone; who was erased.
--          Place holds first (orphan-cleaner hold add) on users that auth-service still leaves out: the
--          next run would take their members again.
-- Locks:   ROW EXCLUSIVE on conversation_members and orphan_cleaner.runs, KEY SHARE on the conversations; 3 s at most
--          to get them. A temporary table, gone at the end.
-- Time:    one transaction: about 1 s per 50,000 members.
-- As:      orphan_cleaner_migrator; a member of orphan_cleaner_restorer runs: orphan-cleaner restore --since FROM --until TO.
-- Example: psql "$DATABASE_URL" -v from='2026-01-31 10:00Z' -v to='2026-01-31 11:00Z' -v run=42 -v execute=1 -f sql/runbook/restore_range.sql
--          from is within the span, to is not; run, where given, leaves out what other runs deleted.

\set ON_ERROR_STOP on
\if :{?from}
    \if :{?to}
    \else
        DO $$ BEGIN RAISE EXCEPTION 'say until when: -v to=''2026-01-31 11:00Z'''; END $$;
    \endif
\else
    DO $$ BEGIN RAISE EXCEPTION 'say from when: -v from=''2026-01-31 10:00Z'' -v to=''2026-01-31 11:00Z'''; END $$;
\endif
\if :{?run}
\else
    \set run 0
\endif
\if :{?execute}
\else
    \set execute 0
\endif
-- The list and the insert see the same moment; who joins in between is left as he is.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL lock_timeout = '3s';
SET LOCAL statement_timeout = '5min';
-- Before the snapshot: an erasure (user_erase.sql) that is under way ends first, a later one sees what comes back.
LOCK TABLE orphan_cleaner.runs IN ROW EXCLUSIVE MODE;

CREATE TEMPORARY TABLE restore_range ON COMMIT DROP AS
WITH deleted AS (
    -- Of a member that was deleted, restored and deleted again: the last.
    SELECT DISTINCT ON (a.conversation_id, a.user_id) a.conversation_id, a.user_id, a.deleted_at, a.run_id
    FROM public.conversation_members_audit AS a
    WHERE a.deleted_at >= :'from'::timestamptz
        AND a.deleted_at < :'to'::timestamptz
        AND a.run_id IS NOT NULL
        AND (:run::bigint = 0 OR a.run_id = :run::bigint)
    ORDER BY a.conversation_id, a.user_id, a.deleted_at DESC
),
later AS (
    SELECT a.conversation_id, a.user_id, max(a.deleted_at) AS deleted_at, bool_or(a.run_id IS NULL) AS left_by_itself
    FROM public.conversation_members_audit AS a
    JOIN deleted AS d
        ON d.conversation_id = a.conversation_id
        AND d.user_id = a.user_id
        AND a.deleted_at > d.deleted_at
    GROUP BY a.conversation_id, a.user_id
)
SELECT
    d.conversation_id, d.user_id, d.deleted_at, d.run_id,
    CASE
        WHEN d.user_id = '00000000-0000-0000-0000-000000000000' THEN 'erased'
        WHEN m.user_id IS NOT NULL THEN 'is a member again'
        WHEN c.id IS NULL THEN 'the conversation is gone'
        WHEN l.left_by_itself THEN 'left by itself since'
        WHEN l.user_id IS NOT NULL THEN 'deleted again by a later run'
        WHEN b.run_id IS NULL THEN 'there is no backup'
        ELSE 'comes back'
    END AS verdict,
    EXISTS (SELECT FROM orphan_cleaner.holds_in_force AS h WHERE h.user_id = d.user_id OR h.conversation_id = d.conversation_id) AS is_held
FROM deleted AS d
LEFT JOIN public.conversation_members AS m ON m.conversation_id = d.conversation_id AND m.user_id = d.user_id
LEFT JOIN public.conversations AS c ON c.id = d.conversation_id
LEFT JOIN later AS l ON l.conversation_id = d.conversation_id AND l.user_id = d.user_id
LEFT JOIN public.conversation_members_backup AS b
    ON b.conversation_id = d.conversation_id
    AND b.user_id = d.user_id
    AND b.run_id = d.run_id
    AND b.backed_up_at = d.deleted_at
    -- For the planner: only the days of the span.
    AND b.backed_up_at >= :'from'::timestamptz
    AND b.backed_up_at < :'to'::timestamptz;

SELECT
    verdict, run_id, count(*) AS members, count(DISTINCT user_id) AS users, count(DISTINCT conversation_id) AS conversations,
    min(deleted_at)::timestamptz(0) AS first_deleted_at, max(deleted_at)::timestamptz(0) AS last_deleted_at,
    count(DISTINCT user_id) FILTER (WHERE verdict = 'comes back' AND NOT is_held) AS users_without_a_hold
FROM restore_range
GROUP BY verdict, run_id
ORDER BY verdict <> 'comes back', verdict, run_id;

\if :execute
    -- Every column that both have, by name: also one that messaging-service added.
    SELECT string_agg(quote_ident(m.attname), ', ' ORDER BY m.attnum) AS columns,
        string_agg('b.' || quote_ident(m.attname), ', ' ORDER BY m.attnum) AS backup_columns
    FROM pg_attribute AS m
    JOIN pg_attribute AS b ON b.attrelid = 'public.conversation_members_backup'::regclass AND b.attname = m.attname AND NOT b.attisdropped
    WHERE m.attrelid = 'public.conversation_members'::regclass
        AND m.attnum > 0
        AND NOT m.attisdropped
        AND m.attgenerated = ''
    \gset
    WITH back AS (
        INSERT INTO public.conversation_members (:columns) OVERRIDING SYSTEM VALUE
        SELECT :backup_columns
        FROM restore_range AS r
        JOIN public.conversation_members_backup AS b
            ON b.conversation_id = r.conversation_id
            AND b.user_id = r.user_id
            AND b.run_id = r.run_id
            AND b.backed_up_at = r.deleted_at
            AND b.backed_up_at >= :'from'::timestamptz
            AND b.backed_up_at < :'to'::timestamptz
        WHERE r.verdict = 'comes back'
        -- Never over a newer row.
        ON CONFLICT DO NOTHING
        RETURNING user_id
    )
    SELECT count(*) AS members_restored, count(DISTINCT user_id) AS users FROM back;
    COMMIT;
\else
    ROLLBACK;
    \echo 'Nothing was changed. With -v execute=1 those that "comes back" are restored.'
\endif
