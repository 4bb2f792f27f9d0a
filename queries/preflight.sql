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
    current_user::text AS acting_as,
    now()::timestamptz AS database_time;

-- name: PreflightObjects :one
-- Which of our tables are there, and what this role may not do that a run needs.
-- Locks: none beyond the catalog.
SELECT
    (to_regclass('public.conversation_members') IS NOT NULL)::boolean AS has_members,
    (to_regclass('public.orphan_cleaner_goose') IS NOT NULL)::boolean AS has_goose,
    (to_regclass('public.orphan_runs') IS NOT NULL)::boolean AS is_development,
    -- Whether surroundings() is there, and this role may call it.
    (2 = (
        SELECT count(*)
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = to_regnamespace('orphan_cleaner')
            AND p.proname IN ('surroundings', 'effects_check')
            AND has_schema_privilege(p.pronamespace, 'USAGE')
            AND has_function_privilege(p.oid, 'EXECUTE')
    ))::boolean AS has_surroundings,
    -- What the migrations made and somebody dropped since.
    coalesce((
        SELECT string_agg(ours.object_name, ', ')
        FROM unnest(ARRAY[
            'orphan_cleaner.runs', 'orphan_cleaner.run_targets', 'orphan_cleaner.targets', 'orphan_cleaner.targets_in_order',
            'orphan_cleaner.pauses', 'orphan_cleaner.limits', 'orphan_cleaner.hours',
            'orphan_cleaner.candidates', 'orphan_cleaner.sightings', 'orphan_cleaner.coverage', 'orphan_cleaner.unknowns',
            'orphan_cleaner.rechecks', 'orphan_cleaner.holds', 'orphan_cleaner.holds_in_force', 'orphan_cleaner.refusals',
            'orphan_cleaner.approvals', 'orphan_cleaner.restores', 'orphan_cleaner.event_cursors', 'orphan_cleaner.effects', 'orphan_cleaner.promotions', 'public.conversation_members_audit',
            'public.conversation_members_audit_default', 'public.conversation_members_backup'
        ]) AS ours (object_name)
        -- Not to_regclass, which fails without USAGE on the schema.
        WHERE NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = to_regnamespace(split_part(ours.object_name, '.', 1))
                AND c.relname = split_part(ours.object_name, '.', 2)
        )
    ), '')::text AS objects_missing,
    coalesce((
        SELECT string_agg(missing.grant_name, ', ' ORDER BY missing.grant_name)
        FROM (
            SELECT 'USAGE on schema orphan_cleaner' AS grant_name
            WHERE NOT has_schema_privilege(to_regnamespace('orphan_cleaner'), 'USAGE')
            UNION ALL
            SELECT 'SELECT on ' || c.oid::regclass
            FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = to_regnamespace('orphan_cleaner')
                AND c.relname IN (
                    'run_targets', 'targets', 'targets_in_order', 'pauses', 'limits', 'hours', 'candidates', 'sightings', 'coverage', 'unknowns', 'rechecks', 'holds_in_force', 'effects',
                    'refusals', 'approvals', 'event_cursors'
                )
                AND NOT has_table_privilege(c.oid, 'SELECT')
            UNION ALL
            -- All but the tokens, column by column.
            SELECT 'SELECT on ' || c.oid::regclass
            FROM pg_catalog.pg_class AS c
            WHERE c.relnamespace = to_regnamespace('orphan_cleaner')
                AND c.relname = 'runs'
                AND NOT has_any_column_privilege(c.oid, 'SELECT')
            UNION ALL
            SELECT 'EXECUTE on orphan_cleaner.' || p.proname
            FROM pg_catalog.pg_proc AS p
            WHERE p.pronamespace = to_regnamespace('orphan_cleaner')
                AND p.proname IN (
                    'run_begin', 'run_heartbeat', 'run_stage', 'run_judge', 'members_at_stake', 'run_finish', 'assess', 'breakers',
                    'target_page', 'target_holders', 'sweep_chunk', 'sweep_returned',
                    'recheck_write', 'partitions_ensure', 'target_rows', 'target_canaries', 'surroundings', 'effects_check', 'run_totals', 'event_sink', 'event_page', 'event_advance'
                )
                AND NOT has_function_privilege(p.oid, 'EXECUTE')
        ) AS missing
    ), '')::text AS grants_missing;

-- name: PreflightVersion :one
-- The version of the newest migration that is applied.
-- Locks: ACCESS SHARE on orphan_cleaner_goose. Index: none. Rows: a dozen or two.
SELECT coalesce(max(version_id), 0)::bigint AS version
FROM (
    SELECT DISTINCT ON (version_id) version_id, is_applied
    FROM public.orphan_cleaner_goose
    ORDER BY version_id, id DESC
) AS newest
WHERE is_applied;

-- name: PreflightSurroundings :many
-- Whether the targets, what is around them and what we made there suit a run.
-- Locks: none beyond the catalog. Rows: a dozen, and two a target.
SELECT s.check_name::text AS check_name, s.status::text AS status, s.message::text AS message, s.hint::text AS hint
FROM orphan_cleaner.surroundings() AS s
UNION ALL
SELECT e.check_name, e.status, e.message, e.hint
FROM orphan_cleaner.effects_check() AS e;

-- name: PreflightQualify :exec
-- Makes types come out with their schema for the rest of the transaction, so that a statement that is
-- printed means the same wherever it is run.
-- Locks: none.
SELECT set_config('search_path', 'pg_catalog', true);

-- name: PreflightDrift :many
-- How the backup's columns differ from those of conversation_members, each with the statement that brings
-- the backup along (up), the one that takes it back (down), and the condition on a row of the backup under
-- which either would lose a value (up_loses, down_loses). Where up is empty no statement helps.
-- Collations, defaults, identities, NOT NULL and whether a column is generated do not count: the backup
-- holds values. A new column that is never null, or generated, gets values in the older backups, too, as it
-- did in the members that stayed, or these could not be restored; up_settle makes it a plain one again.
-- Locks: none beyond the catalog. Rows: the columns that differ, in the order in which to run them.
WITH RECURSIVE unwrapped AS (
    SELECT
        a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod,
        a.atttypid AS base_id, a.atttypmod AS base_mod
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid IN (
            to_regclass('public.conversation_members'), to_regclass('public.conversation_members_backup')
        )
        AND a.attnum > 0
        AND NOT a.attisdropped
    UNION ALL
    SELECT u.attrelid, u.attnum, u.attname, u.atttypid, u.atttypmod, d.typbasetype, d.typtypmod
    FROM unwrapped AS u
    JOIN pg_catalog.pg_type AS d ON d.oid = u.base_id AND d.typtype = 'd'
),
columns AS (
    SELECT
        u.attrelid, u.attname, u.atttypid, u.atttypmod, u.base_id, u.base_mod,
        format_type(u.atttypid, u.atttypmod) AS declared,
        -- A domain is stored as its base type: its constraints would refuse old rows of the backup, and
        -- the NULLs of those that were there before the column.
        format_type(u.base_id, u.base_mod) AS stored,
        t.typcategory,
        a.attgenerated <> '' AS is_generated,
        a.attidentity <> '' AS is_identity,
        a.attnotnull OR o.typnotnull AS is_required,
        coalesce(
            pg_get_expr(d.adbin, d.adrelid),
            pg_get_expr(o.typdefaultbin, 0),
            CASE WHEN a.attidentity <> '' THEN format(
                'nextval(%L::regclass)', pg_get_serial_sequence('public.conversation_members', a.attname::text)
            ) END
        ) AS expression
    FROM unwrapped AS u
    JOIN pg_catalog.pg_type AS t ON t.oid = u.base_id AND t.typtype <> 'd'
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = u.attrelid AND a.attnum = u.attnum
    JOIN pg_catalog.pg_type AS o ON o.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
),
pairs AS (
    SELECT
        coalesce(m.attname, b.attname) AS attname,
        m.attname IS NOT NULL AS in_members,
        b.attname IS NOT NULL AS in_backup,
        m.declared AS members_type,
        b.declared AS backup_type,
        m.stored AS new_type,
        m.expression,
        coalesce(m.is_identity, false) AS is_identity,
        CASE
            WHEN m.is_generated THEN 'EXPRESSION'
            WHEN m.is_required AND m.expression IS NOT NULL THEN 'DEFAULT'
            ELSE ''
        END AS filled_by,
        -- No data is thrown away: the column steps aside, under the first such name that is free.
        (
            SELECT free.new_name
            FROM (
                SELECT n, ('retired_' || CASE n WHEN 1 THEN '' ELSE n::text || '_' END || coalesce(m.attname, b.attname))::name AS new_name
                FROM generate_series(1, 1000) AS n
            ) AS free
            WHERE NOT EXISTS (SELECT FROM columns AS taken WHERE taken.attname = free.new_name)
            ORDER BY free.n
            LIMIT 1
        ) AS retired_name,
        -- An explicit cast where there is one; by way of text otherwise.
        CASE WHEN m.base_id = b.base_id OR 'S' IN (m.typcategory, b.typcategory) OR EXISTS (
            SELECT FROM pg_catalog.pg_cast AS c WHERE c.castsource = b.base_id AND c.casttarget = m.base_id
        ) THEN '::' ELSE '::text::' END AS up_cast,
        CASE WHEN m.base_id = b.base_id OR 'S' IN (m.typcategory, b.typcategory) OR EXISTS (
            SELECT FROM pg_catalog.pg_cast AS c WHERE c.castsource = m.base_id AND c.casttarget = b.base_id
        ) THEN '::' ELSE '::text::' END AS down_cast,
        CASE
            WHEN m.attname IN ('backed_up_at', 'run_id') THEN 'clash'
            -- What the queries and the trigger themselves read, and cannot do without.
            WHEN coalesce(m.attname, b.attname) IN ('conversation_id', 'user_id', 'joined_at')
                AND (m.attname IS NULL OR b.attname IS NOT NULL) THEN 'needed'
            WHEN b.attname IS NULL THEN 'gained'
            WHEN m.attname IS NULL THEN 'lost'
            ELSE 'retyped'
        END AS kind
    FROM (SELECT * FROM columns WHERE attrelid = to_regclass('public.conversation_members')) AS m
    FULL JOIN (SELECT * FROM columns WHERE attrelid = to_regclass('public.conversation_members_backup')) AS b
        ON b.attname = m.attname
    WHERE CASE
        WHEN b.attname IS NULL THEN true
        -- The backup's own, and those that were retired before.
        WHEN m.attname IS NULL THEN b.attname NOT IN ('backed_up_at', 'run_id') AND NOT starts_with(b.attname, 'retired_')
        WHEN m.attname IN ('backed_up_at', 'run_id') THEN true
        ELSE (b.atttypid, b.atttypmod) NOT IN ((m.atttypid, m.atttypmod), (m.base_id, m.base_mod))
    END
)
SELECT
    p.kind::text AS kind,
    p.attname::text AS column_name,
    coalesce(p.members_type, '')::text AS members_type,
    coalesce(p.backup_type, '')::text AS backup_type,
    CASE p.kind
        WHEN 'gained' THEN format('ALTER TABLE public.conversation_members_backup ADD COLUMN %I %s', p.attname, p.new_type)
            || CASE p.filled_by
                WHEN 'EXPRESSION' THEN ' GENERATED ALWAYS AS (' || p.expression || ') STORED'
                WHEN 'DEFAULT' THEN ' DEFAULT ' || p.expression
                ELSE ''
            END
        WHEN 'lost' THEN format('ALTER TABLE public.conversation_members_backup RENAME COLUMN %I TO %I', p.attname, p.retired_name)
        WHEN 'retyped' THEN format(
            'ALTER TABLE public.conversation_members_backup ALTER COLUMN %1$I TYPE %2$s USING %1$I%3$s%2$s',
            p.attname, p.new_type, p.up_cast
        )
        ELSE ''
    END::text AS up,
    CASE
        WHEN p.kind = 'gained' AND p.filled_by <> ''
            THEN format('ALTER TABLE public.conversation_members_backup ALTER COLUMN %I DROP %s', p.attname, p.filled_by)
        ELSE ''
    END::text AS up_settle,
    CASE p.kind
        WHEN 'gained' THEN format('ALTER TABLE public.conversation_members_backup DROP COLUMN %I', p.attname)
        WHEN 'lost' THEN format('ALTER TABLE public.conversation_members_backup RENAME COLUMN %I TO %I', p.retired_name, p.attname)
        WHEN 'retyped' THEN format(
            'ALTER TABLE public.conversation_members_backup ALTER COLUMN %1$I TYPE %2$s USING %1$I%3$s%2$s',
            p.attname, p.backup_type, p.down_cast
        )
        ELSE ''
    END::text AS down,
    CASE p.kind
        -- There and back: an explicit cast truncates and rounds without a word.
        WHEN 'retyped' THEN format(
            '%1$I%2$s%3$s%4$s%5$s::text IS DISTINCT FROM %1$I::text',
            p.attname, p.up_cast, p.new_type, p.down_cast, p.backup_type
        )
        ELSE ''
    END::text AS up_loses,
    CASE p.kind
        WHEN 'gained' THEN CASE
            WHEN p.filled_by = 'EXPRESSION' THEN ''
            -- What is the default comes back as it.
            WHEN p.filled_by = 'DEFAULT' AND NOT p.is_identity THEN format('%I::text IS DISTINCT FROM (%s)::text', p.attname, p.expression)
            ELSE format('%I IS NOT NULL', p.attname)
        END
        WHEN 'retyped' THEN format(
            '%1$I%2$s%3$s%4$s%5$s::text IS DISTINCT FROM %1$I::text',
            p.attname, p.down_cast, p.backup_type, p.up_cast, p.new_type
        )
        ELSE ''
    END::text AS down_loses,
    -- Literals for the text of a refusal: the name, and for a new type what keeps the old values as they are.
    quote_literal(p.attname)::text AS quoted_name,
    quote_literal(format(
        'ALTER TABLE public.conversation_members_backup RENAME COLUMN %1$I TO %2$I;'
        ' ALTER TABLE public.conversation_members_backup ADD COLUMN %1$I %3$s',
        p.attname, p.retired_name, p.new_type
    ))::text AS quoted_instead
FROM pairs AS p
    -- Who steps aside does so first, who follows others last.
ORDER BY array_position(ARRAY['clash', 'needed', 'lost', 'retyped', 'gained'], p.kind), p.filled_by = 'EXPRESSION', p.attname;

-- name: PartitionEnsure :one
-- Makes the partitions of today and the next days where they are not there yet.
-- Locks: SHARE UPDATE EXCLUSIVE on the parents when it makes one, under a lock_timeout of 3 s. Index: none.
SELECT orphan_cleaner.partitions_ensure(@days_ahead::integer)::integer AS made;

-- name: PartitionsThere :one
-- Whether the backup partitions of today and tomorrow and the audit partition of this month are attached, of every
-- target, and whether the DEFAULT partition of the members' audit caught rows.
-- Locks: ACCESS SHARE on targets and on the audit's DEFAULT partition. Index: none. Rows: one of it at most.
SELECT
    bool_and(to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD') = ANY (p.days))::boolean AS today,
    bool_and(to_char((now() + interval '1 day') AT TIME ZONE 'UTC', 'YYYYMMDD') = ANY (p.days))::boolean AS tomorrow,
    bool_and(to_char(now() AT TIME ZONE 'UTC', 'YYYYMM') = ANY (p.months))::boolean AS month,
    EXISTS (SELECT FROM public.conversation_members_audit_default)::boolean AS default_in_use
FROM (
    SELECT
        ARRAY(
            SELECT substr(c.relname, length(split_part(t.backup_table, '.', 2)) + 2)
            FROM pg_catalog.pg_inherits AS i
            JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
            -- No row goes into one that a DETACH CONCURRENTLY has not finished with.
            WHERE i.inhparent = to_regclass(t.backup_table) AND NOT i.inhdetachpending
        ) AS days,
        ARRAY(
            SELECT substr(c.relname, length(split_part(t.audit_table, '.', 2)) + 2)
            FROM pg_catalog.pg_inherits AS i
            JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
            WHERE i.inhparent = to_regclass(t.audit_table) AND NOT i.inhdetachpending
        ) AS months
    FROM orphan_cleaner.targets AS t
) AS p;

-- name: PreflightConnections :one
-- How many connections there may be, and how many there are. A limit of -1 is none.
-- Locks: none beyond the catalog.
SELECT
    current_setting('max_connections')::integer AS max_connections,
    (
        current_setting('superuser_reserved_connections')::integer
        + coalesce(current_setting('reserved_connections', true)::integer, 0)
    )::integer AS reserved,
    (SELECT sum(s.numbackends) FROM pg_catalog.pg_stat_database AS s)::integer AS used,
    (
        SELECT count(*)
        FROM pg_catalog.pg_stat_activity AS a
        WHERE a.application_name = @application_name::text
            AND a.usename = session_user
    )::integer AS ours,
    (SELECT r.rolconnlimit FROM pg_catalog.pg_roles AS r WHERE r.rolname = session_user)::integer AS role_limit,
    (SELECT d.datconnlimit FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())::integer AS database_limit;

-- name: PreflightTempFiles :many
-- Who in this database may write less to temporary files than conversation_members is large, the least first. A delete
-- of all members collects them for the audit in memory, and beyond work_mem in such a file. '' is every role.
-- Locks: none beyond the catalog. Rows: the settings of roles and databases that name temp_file_limit.
SELECT
    l.role_name::text AS role_name,
    pg_size_pretty(l.bytes)::text AS temp_file_limit,
    pg_size_pretty(t.bytes)::text AS table_size,
    -- A row on disk is the longer for its header.
    (l.bytes / greatest(t.bytes / greatest(t.reltuples, 1), 1))::bigint AS members
FROM (
    SELECT
        coalesce(r.rolname, '') AS role_name,
        CASE WHEN s.setting ~ '^-?[0-9]+$' THEN s.setting::bigint * 1024 ELSE pg_size_bytes(s.setting) END AS bytes
    FROM (
        SELECT d.setrole, substr(c.setting, 17) AS setting
        FROM pg_catalog.pg_db_role_setting AS d
        CROSS JOIN unnest(d.setconfig) AS c (setting)
        WHERE c.setting LIKE 'temp\_file\_limit=%'
            AND d.setdatabase IN (0, (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = current_database()))
        UNION ALL
        SELECT 0, current_setting('temp_file_limit')
    ) AS s
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
) AS l
CROSS JOIN (
    SELECT pg_table_size(c.oid) AS bytes, c.reltuples
    FROM pg_catalog.pg_class AS c
    WHERE c.oid = to_regclass('public.conversation_members')
) AS t
WHERE l.bytes >= 0 AND l.bytes < t.bytes
ORDER BY l.bytes, l.role_name;
