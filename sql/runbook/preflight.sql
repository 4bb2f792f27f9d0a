-- What:    is everything there that a run needs, and may one migrate now: a line per check, ok, look or
--          FAIL, with what to do. The same as `orphan-cleaner check`, without the program and without
--          asking auth-service, plus what is of interest before `migrate up`.
-- Locks:   ACCESS SHARE on the audit's DEFAULT partition; else the catalog only.
-- Time:    milliseconds.
-- As:      anybody in orphan_cleaner_reader; other people's sessions are seen by pg_read_all_stats only.
-- Example: psql "$DATABASE_URL" -f sql/runbook/preflight.sql

\set ON_ERROR_STOP on
BEGIN READ ONLY;
SET LOCAL statement_timeout = '10s';

WITH checks (n, name, status, found, what_to_do) AS (
    SELECT
        1, 'version',
        CASE WHEN current_setting('server_version_num')::integer >= 150000 THEN 'ok' ELSE 'FAIL' END,
        'PostgreSQL ' || current_setting('server_version'),
        'upgrade to PostgreSQL 15 or newer'
    UNION ALL
    SELECT
        2, 'primary',
        CASE WHEN pg_is_in_recovery() THEN 'FAIL' ELSE 'ok' END,
        CASE WHEN pg_is_in_recovery() THEN 'a standby' ELSE 'accepts writes' END,
        'connect to the primary'
    UNION ALL
    SELECT
        3, 'triggers fire',
        CASE WHEN current_setting('session_replication_role') = 'origin' THEN 'ok' ELSE 'FAIL' END,
        'session_replication_role is ' || current_setting('session_replication_role'),
        'RESET session_replication_role'
    UNION ALL
    SELECT
        4, 'members',
        CASE WHEN m.oid IS NULL THEN 'FAIL' ELSE 'ok' END,
        coalesce(
            to_char(greatest(m.reltuples, 0), 'FM999,999,999,999') || ' members by the statistics, '
            || pg_size_pretty(pg_table_size(m.oid)) || ', indexes ' || pg_size_pretty(pg_indexes_size(m.oid)),
            'there is no table public.conversation_members'
        ),
        'connect to messaging-service''s database'
    FROM (SELECT to_regclass('public.conversation_members') AS oid) AS want
    LEFT JOIN pg_class AS m ON m.oid = want.oid
    UNION ALL
    SELECT
        5, 'statistics',
        CASE WHEN greatest(s.last_analyze, s.last_autoanalyze) IS NULL THEN 'look' ELSE 'ok' END,
        'last analyzed ' || coalesce(greatest(s.last_analyze, s.last_autoanalyze)::timestamptz(0)::text, 'never'),
        'ANALYZE conversation_members'
    FROM pg_stat_user_tables AS s
    WHERE s.relid = to_regclass('public.conversation_members')
    UNION ALL
    SELECT
        6, 'tables',
        CASE count(to_regclass(ours.name)) WHEN count(*) THEN 'ok' WHEN 0 THEN 'look' ELSE 'FAIL' END,
        CASE count(to_regclass(ours.name))
            WHEN 0 THEN 'none of ours is there yet'
            WHEN count(*) THEN 'all of ours are there'
            ELSE 'not there: ' || string_agg(ours.name, ', ') FILTER (WHERE to_regclass(ours.name) IS NULL)
        END,
        'orphan-cleaner migrate up'
    FROM unnest(ARRAY[
        'orphan_cleaner.targets', 'orphan_cleaner.runs', 'orphan_cleaner.run_targets', 'orphan_cleaner.pauses', 'orphan_cleaner.limits',
        'orphan_cleaner.hours', 'orphan_cleaner.candidates',
        'orphan_cleaner.sightings', 'orphan_cleaner.coverage', 'orphan_cleaner.unknowns', 'orphan_cleaner.rechecks', 'orphan_cleaner.holds',
        'orphan_cleaner.refusals', 'orphan_cleaner.approvals', 'orphan_cleaner.restores', 'public.conversation_members_audit',
        'public.conversation_members_audit_default', 'public.conversation_members_backup'
    ]) AS ours (name)
    UNION ALL
    SELECT
        7, 'backup columns',
        CASE WHEN count(*) FILTER (WHERE m.attname IS NULL OR b.attname IS NULL) = 0 THEN 'ok' ELSE 'FAIL' END,
        coalesce(
            'differ: ' || string_agg(coalesce(m.attname, b.attname), ', ') FILTER (WHERE m.attname IS NULL OR b.attname IS NULL),
            'equal those of conversation_members'
        ),
        'docs/schema-drift.md'
    FROM (
        SELECT a.attname, a.atttypid, a.atttypmod, t.typbasetype, t.typtypmod
        FROM pg_attribute AS a
        JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = to_regclass('public.conversation_members') AND a.attnum > 0 AND NOT a.attisdropped
    ) AS m
    FULL JOIN (
        SELECT attname, atttypid, atttypmod
        FROM pg_attribute
        WHERE attrelid = to_regclass('public.conversation_members_backup') AND attnum > 0 AND NOT attisdropped
            AND attname NOT IN ('backed_up_at', 'run_id')
            -- Lost by conversation_members and kept aside.
            AND NOT starts_with(attname, 'retired_')
    ) AS b
        ON b.attname = m.attname
        -- The backup has a domain as its base type.
        AND (b.atttypid, b.atttypmod) IN ((m.atttypid, m.atttypmod), (m.typbasetype, m.typtypmod))
    UNION ALL
    SELECT
        8, 'partition ' || want.name,
        CASE WHEN i.inhrelid IS NULL THEN 'FAIL' ELSE 'ok' END,
        CASE WHEN i.inhrelid IS NULL THEN 'not attached' ELSE 'attached' END,
        'SELECT orphan_cleaner.partitions_ensure(7)'
    FROM (
        SELECT 'conversation_members_backup_' || to_char(now() AT TIME ZONE 'UTC' + make_interval(days => d), 'YYYYMMDD')
        FROM generate_series(0, 1) AS d
        UNION ALL
        SELECT 'conversation_members_audit_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMM')
    ) AS want (name)
    LEFT JOIN pg_inherits AS i ON i.inhrelid = to_regclass('public.' || want.name)
    UNION ALL
    SELECT
        9, 'longest transaction',
        CASE WHEN max(now() - a.xact_start) > interval '1 minute' THEN 'look' ELSE 'ok' END,
        coalesce(
            to_char(max(now() - a.xact_start), 'HH24:MI:SS') || ', the trigger''s migration gives up after 3 s behind one,'
            || ' the index waits for it',
            'none'
        ),
        'sql/runbook/locks_activity.sql'
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database()
        AND a.pid <> pg_backend_pid()
        AND a.xact_start IS NOT NULL
)
SELECT name, status, found, CASE WHEN status <> 'ok' THEN what_to_do END AS what_to_do
FROM checks
-- Before the first migration nothing can be wrong with our tables.
WHERE n NOT IN (7, 8) OR to_regclass('orphan_cleaner.runs') IS NOT NULL
ORDER BY n, name;

-- What is around conversation_members, and what stands in the way of the next run by our own tables.
SELECT to_regclass('orphan_cleaner.pauses') IS NOT NULL AND to_regprocedure('orphan_cleaner.surroundings()') IS NOT NULL AS is_migrated
\gset
\if :is_migrated
    SELECT check_name AS name, status, message AS found, nullif(hint, '') AS what_to_do
    FROM orphan_cleaner.surroundings();
    SELECT
        coalesce((SELECT 'paused by ' || paused_by || ': ' || reason FROM orphan_cleaner.pauses WHERE resumed_at IS NULL), 'not paused') AS pause,
        coalesce((
            SELECT format(
                'run %s of %s, phase %s, silent for %s', run_id, host, phase,
                to_char(clock_timestamp() - heartbeat_at, 'HH24:MI:SS')
            ) || CASE WHEN heartbeat_at + lease < clock_timestamp() THEN ': past its lease, the next run gives it up' ELSE '' END
            FROM orphan_cleaner.runs
            WHERE state = 'running'
        ), 'none') AS open_run,
        (SELECT count(*) FROM public.conversation_members_audit_default) AS rows_in_audit_default
    \gx
\endif
COMMIT;
