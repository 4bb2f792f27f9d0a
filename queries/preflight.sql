-- name: PreflightServer :one
-- What the server is and how this session stands in it.
-- Locks: none.
SELECT
    current_setting('server_version_num')::integer AS version_num,
    current_setting('server_version')::text AS version,
    pg_is_in_recovery()::boolean AS in_recovery,
    current_setting('transaction_read_only')::text AS read_only,
    current_setting('session_replication_role')::text AS replication_role,
    current_database()::text AS database_name,
    session_user::text AS role_name,
    now()::timestamptz AS database_time;

-- name: PreflightObjects :one
-- Which of the tables and functions are there, and the grants on them.
-- Locks: none beyond the catalog.
SELECT
    (to_regclass('public.conversation_members') IS NOT NULL)::boolean AS has_members,
    (to_regclass('public.goose_db_version') IS NOT NULL)::boolean AS has_goose,
    -- What the migrations made and somebody dropped since.
    coalesce((
        SELECT string_agg(ours.object_name, ', ')
        FROM unnest(ARRAY[
            'orphan_runs', 'orphan_candidates', 'orphan_sightings', 'orphan_holds', 'orphan_holds_in_force',
            'orphan_pauses', 'orphan_refusals', 'orphan_approvals', 'conversation_members_audit',
            'conversation_members_audit_default', 'conversation_members_backup',
            'orphan_restores', 'orphan_departed'
        ]) AS ours (object_name)
        WHERE to_regclass('public.' || ours.object_name) IS NULL
    ), '')::text AS objects_missing,
    coalesce((
        SELECT string_agg(missing.grant_name, ', ')
        FROM (
            SELECT need.privilege || ' on ' || need.relation AS grant_name
            FROM (
                VALUES
                    ('conversation_members', 'SELECT'),
                    ('conversation_members', 'DELETE'),
                    -- FOR UPDATE of the rows that go
                    ('conversation_members', 'UPDATE'),
                    ('orphan_runs', 'SELECT'), ('orphan_runs', 'INSERT'), ('orphan_runs', 'UPDATE'),
                    ('orphan_candidates', 'SELECT'), ('orphan_candidates', 'INSERT'),
                    ('orphan_candidates', 'UPDATE'), ('orphan_candidates', 'DELETE'),
                    ('orphan_sightings', 'SELECT'), ('orphan_sightings', 'INSERT'),
                    ('orphan_sightings', 'DELETE'),
                    ('orphan_holds_in_force', 'SELECT'),
                    ('orphan_pauses', 'SELECT'),
                    ('orphan_refusals', 'SELECT'), ('orphan_refusals', 'INSERT'),
                    ('orphan_approvals', 'SELECT'), ('orphan_approvals', 'UPDATE'),
                    ('orphan_restores', 'SELECT'),
                    ('orphan_departed', 'SELECT'), ('orphan_departed', 'INSERT'),
                    ('orphan_departed', 'UPDATE'), ('orphan_departed', 'DELETE'),
                    ('conversation_members_audit', 'SELECT'),
                    ('conversation_members_audit_default', 'SELECT'),
                    ('conversation_members_backup', 'SELECT'),
                    ('goose_db_version', 'SELECT')
            ) AS need (relation, privilege)
            WHERE to_regclass('public.' || need.relation) IS NOT NULL
                AND NOT has_table_privilege(to_regclass('public.' || need.relation), need.privilege)
            UNION ALL
            SELECT 'EXECUTE on ' || p.proname
            FROM pg_catalog.pg_proc AS p
            WHERE p.pronamespace = 'public'::regnamespace
                AND p.proname IN ('orphan_ensure_partitions', 'orphan_clock_start', 'orphan_shadow_evidence', 'orphan_restore_plan')
                AND NOT has_function_privilege(p.oid, 'EXECUTE')
        ) AS missing
    ), '')::text AS grants_missing;

-- name: PreflightVersion :one
-- The version of the newest migration that is applied.
-- Locks: ACCESS SHARE on goose_db_version. Rows: a dozen.
SELECT coalesce(max(version_id), 0)::bigint AS version
FROM (
    SELECT DISTINCT ON (version_id) version_id, is_applied
    FROM goose_db_version
    ORDER BY version_id, id DESC
) AS newest
WHERE is_applied;

-- name: PreflightTable :one
-- The audit trigger, the truncate trigger, the index, and how the backup's columns differ.
-- Locks: none beyond the catalog.
SELECT
    coalesce((
        SELECT t.tgenabled::text
        FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid = to_regclass('public.conversation_members')
            AND t.tgname = 'conversation_members_audit_delete'
    ), 'missing')::text AS audit_trigger,
    coalesce((
        SELECT t.tgenabled::text
        FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid = to_regclass('public.conversation_members')
            AND t.tgname = 'conversation_members_refuse_truncate'
    ), 'missing')::text AS truncate_trigger,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = to_regclass('public.conversation_members')
            AND i.indisvalid
            AND i.indpred IS NULL
            AND a.attname = 'user_id'
    )::boolean AS has_index,
    coalesce((
        SELECT string_agg(
            coalesce(m.attname, b.attname) || ' ('
            || coalesce(format_type(m.atttypid, m.atttypmod), 'not there') || ' in conversation_members, '
            || coalesce(format_type(b.atttypid, b.atttypmod), 'not there') || ' in its backup)',
            ', '
        )
        FROM (
            SELECT attname, atttypid, atttypmod
            FROM pg_catalog.pg_attribute
            WHERE attrelid = to_regclass('public.conversation_members') AND attnum > 0 AND NOT attisdropped
        ) AS m
        FULL JOIN (
            SELECT attname, atttypid, atttypmod
            FROM pg_catalog.pg_attribute
            WHERE attrelid = to_regclass('public.conversation_members_backup')
                AND attnum > 0
                AND NOT attisdropped
                AND attname NOT IN ('backed_up_at', 'run_id')
        ) AS b ON b.attname = m.attname
        WHERE m.attname IS NULL
            OR b.attname IS NULL
            OR (m.atttypid, m.atttypmod) IS DISTINCT FROM (b.atttypid, b.atttypmod)
    ), '')::text AS drift;

-- name: PartitionEnsure :one
-- Makes the partitions of today and the next days where they are not there yet.
-- Locks: SHARE UPDATE EXCLUSIVE on the parents when it makes one, under a lock_timeout of 3 s.
SELECT orphan_ensure_partitions(@days_ahead::integer)::integer AS made;

-- name: PartitionsThere :one
-- Whether today's and tomorrow's backup partitions and this month's audit partition are attached,
-- and whether the audit's DEFAULT partition caught rows.
-- Locks: ACCESS SHARE on the audit's DEFAULT partition.
SELECT
    bool_or(p.name = 'conversation_members_backup_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'))::boolean AS today,
    bool_or(p.name = 'conversation_members_backup_' || to_char((now() + interval '1 day') AT TIME ZONE 'UTC', 'YYYYMMDD'))::boolean AS tomorrow,
    bool_or(p.name = 'conversation_members_audit_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMM'))::boolean AS month,
    EXISTS (SELECT FROM conversation_members_audit_default)::boolean AS default_in_use
FROM (
    SELECT c.relname::text AS name
    FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent IN (
        to_regclass('public.conversation_members_backup'), to_regclass('public.conversation_members_audit')
    )
) AS p;
