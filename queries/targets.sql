-- name: TargetTable :one
-- Why a table cannot be a target, or an empty text; and each column with its type, as arrays.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: one for each column.
SELECT
    coalesce((
        SELECT CASE
            WHEN n.nspname = 'orphan_cleaner' THEN 'it is a record of runs'
            WHEN c.relpersistence = 't' THEN 'it is temporary'
            WHEN c.relispartition THEN 'it is a partition'
            WHEN c.relkind = 'p' THEN 'it is partitioned'
            WHEN c.relkind = 'f' THEN 'it is a foreign table'
            WHEN c.relkind IN ('v', 'm') THEN 'it is a view'
            WHEN c.relkind <> 'r' THEN 'it is no table'
            WHEN EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhparent, i.inhrelid)) THEN 'it inherits or is inherited from'
            ELSE ''
        END
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = @table_schema::text AND c.relname = @table_name::text
    ), 'there is no such table')::text AS unfit,
    coalesce(columns.names, '{}')::text [] AS column_names,
    coalesce(columns.types, '{}')::text [] AS column_types,
    coalesce(columns.nullable, '{}')::text [] AS nullable,
    coalesce(columns.generated, '{}')::text [] AS generated
FROM (
    SELECT
        array_agg(a.attname::text ORDER BY a.attnum) AS names,
        array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) AS types,
        array_agg(a.attname::text) FILTER (WHERE NOT a.attnotnull) AS nullable,
        array_agg(a.attname::text) FILTER (WHERE a.attgenerated <> '') AS generated
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = @table_schema::text AND c.relname = @table_name::text AND a.attnum > 0 AND NOT a.attisdropped
) AS columns;

-- name: TargetKey :one
-- Whether exactly these columns are a primary key or have a unique index that is valid, not partial and not deferrable.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: the indexes of the table.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = @table_schema::text AND c.relname = @table_name::text
        AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
        AND (
            -- An expression has no column, so that the array is another one.
            SELECT array_agg(a.attname::text ORDER BY a.attname)
            FROM unnest(i.indkey::smallint []) WITH ORDINALITY AS k (attnum, place)
            LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE k.place <= i.indnkeyatts
        ) = (SELECT array_agg(k ORDER BY k COLLATE "C") FROM unnest(@key_columns::text []) AS k)
)::boolean AS is_unique;

-- name: TargetCascades :many
-- The tables whose rows a delete from this table deletes, too, by a foreign key.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: the foreign keys onto the table.
SELECT f.conname::text AS constraint_name, n.nspname::text AS table_schema, c.relname::text AS table_name
FROM pg_catalog.pg_constraint AS f
JOIN pg_catalog.pg_class AS c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS onto ON onto.oid = f.confrelid
JOIN pg_catalog.pg_namespace AS onto_schema ON onto_schema.oid = onto.relnamespace
WHERE f.contype = 'f' AND f.confdeltype = 'c' AND f.conparentid = 0
    AND onto_schema.nspname = @table_schema::text AND onto.relname = @table_name::text
ORDER BY n.nspname, c.relname, f.conname;

-- name: TargetStatements :one
-- Statements of a target, for the server to parse: it quotes the names, the caller vouches for the expressions. One
-- that selects by the condition, one that sets each column, and one that sets them all in a row that the condition
-- finds and returns the condition, now or in 100 years: it is to be rolled back.
-- Locks: none.
SELECT
    format('SELECT FROM %I.%I WHERE (%s)', @table_schema::text, @table_name::text, @condition::text)::text AS selecting,
    coalesce(s.each, '{}')::text [] AS setting,
    format(
        'UPDATE %1$I.%2$I SET %3$s WHERE ctid = (SELECT ctid FROM %1$I.%2$I WHERE (%4$s) LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING (%4$s) IS TRUE OR (%5$s) IS TRUE',
        @table_schema::text, @table_name::text, s.together, @condition::text,
        regexp_replace(@condition::text, '\mnow\s*\(\s*\)|\m(current_timestamp|current_date|localtimestamp)\M', '(\& + make_interval(100))', 'gi')
    )::text AS proving
FROM (
    SELECT
        array_agg(format('UPDATE %I.%I SET %I = (%s)', @table_schema::text, @table_name::text, e.name, e.expression) ORDER BY e.place) AS each,
        string_agg(format('%I = (%s)', e.name, e.expression), ', ' ORDER BY e.place) AS together
    FROM (
        SELECT place, (@set_columns::text [])[place] AS name, (@set_expressions::text [])[place] AS expression
        FROM generate_subscripts(@set_columns::text [], 1) AS place
    ) AS e
) AS s;

-- name: TargetReferences :many
-- Columns that may hold ids of users, by type, name or foreign key onto the shadow table, but for our own tables: each
-- with the statement that takes a sample of it (how many values, how many of them look like an id, how many are ids of
-- members or of shadow users), or with the grants that it lacks; and with what a target of the table would be: no key, where it can be none.
-- Views, foreign tables, partitions, and columns of json and of other types are left out.
-- A sample reads about 100 pages, spread over the table, and 1,000 values at most.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: the columns of the database.
WITH known AS (
    SELECT
        string_agg(format('EXISTS (SELECT FROM public.%I AS k WHERE k.%I = s.id)', v.relname, v.attname), ' OR ')
            FILTER (WHERE has_column_privilege(c.oid, v.attname, 'SELECT')) AS condition
    FROM (VALUES ('conversation_members', 'user_id'), ('users', 'id')) AS v (relname, attname)
    JOIN pg_catalog.pg_class AS c ON c.relname = v.relname AND c.relnamespace = to_regnamespace('public')
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = v.attname AND a.atttypid = 'uuid'::regtype
),
columns AS (
    SELECT
        c.oid, c.relkind, a.attnum, a.attnotnull, n.nspname, c.relname, a.attname, c.reltuples,
        format_type(a.atttypid, a.atttypmod) AS type_name,
        coalesce(e.typname, b.typname, t.typname) AS base_name,
        t.typcategory = 'A' AS is_array,
        EXISTS (
            SELECT
            FROM pg_catalog.pg_constraint AS f
            WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.confrelid = to_regclass('public.users') AND f.conkey = ARRAY[a.attnum]
        ) AS is_foreign_key,
        -- userId is user_id.
        lower(regexp_replace(a.attname, '([a-z0-9])([A-Z])', '\1_\2', 'g')) ~ (
            '(^|_)(user|author|owner|creator|sender|recipient|receiver|member|viewer|streamer|broadcaster|follower|followee|following'
            '|actor|moderator|inviter|invitee|assignee|reporter|uploader|participant|blocker|subscriber|customer|reviewer|approver)s?(_?u?u?ids?)?$'
            '|(^|_)(host|account|profile|person|editor)_u?u?ids?$|_by(_u?u?id)?$'
        ) AS is_named,
        -- Not pg_relation_size, which waits for a table that is locked.
        least(100, 10000.0 / greatest(1, c.relpages)) AS percent,
        concat_ws(
            '; ',
            CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, current_user) END,
            CASE WHEN NOT has_column_privilege(c.oid, a.attnum, 'SELECT')
                THEN format('GRANT SELECT (%I) ON %I.%I TO %I', a.attname, n.nspname, c.relname, current_user) END,
            CASE WHEN known.condition IS NULL THEN format('GRANT SELECT (user_id) ON public.conversation_members TO %I', current_user) END
        ) AS missing_grants,
        known.condition
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type AS b ON b.oid = t.typbasetype
    LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND t.typcategory = 'A'
    CROSS JOIN known
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'orphan_cleaner')
        AND NOT (
            n.nspname = 'public'
            AND (
                c.relname IN ('conversation_members_audit', 'conversation_members_backup', 'orphan_cleaner_goose')
                OR (c.relname = 'users' AND a.attname = 'id')
            )
        )
)
SELECT
    r.nspname::text AS table_schema, r.relname::text AS table_name, r.attname::text AS column_name, r.type_name::text AS type_name,
    r.is_foreign_key::boolean AS is_foreign_key, r.is_named::boolean AS is_named, r.is_array::boolean AS is_array,
    (r.base_name <> 'uuid')::boolean AS is_text, (NOT r.attnotnull)::boolean AS is_nullable,
    round(r.reltuples)::bigint AS rows_estimate, -- -1: never analyzed
    r.missing_grants::text AS missing_grants,
    coalesce(format(
        'SELECT count(*), count(s.id), count(*) FILTER (WHERE %s) FROM (SELECT %s AS id FROM %I.%I TABLESAMPLE SYSTEM (%s)%s WHERE %s IS NOT NULL LIMIT 1000) AS s',
        r.condition,
        CASE
            WHEN r.base_name = 'uuid' THEN v.value
            ELSE format('CASE WHEN %1$s ~* ''^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'' THEN %1$s::uuid END', v.value)
        END,
        r.nspname, r.relname, round(r.percent, 4), CASE WHEN r.is_array THEN format(', unnest(%I) AS element', r.attname) END, v.value
    ), '')::text AS sampling,
    coalesce((
        SELECT array_agg(k.attname::text ORDER BY array_position(i.indkey::smallint [], k.attnum))
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS k ON k.attrelid = i.indrelid AND k.attnum = ANY (i.indkey)
        WHERE i.indrelid = r.oid AND i.indisprimary AND r.relkind = 'r'
    ), '{}')::text [] AS key_columns,
    coalesce((
        SELECT g.attname
        FROM pg_catalog.pg_attribute AS g
        WHERE g.attrelid = r.oid AND g.attnum > 0 AND NOT g.attisdropped AND g.atttypid = 'timestamptz'::regtype
            AND lower(g.attname) ~ '^(created|inserted|joined|added|sent|started|occurred)_?at$'
        ORDER BY g.attnum
        LIMIT 1
    ), '')::text AS age_column,
    ARRAY(
        SELECT g.attname::text
        FROM pg_catalog.pg_attribute AS g
        WHERE g.attrelid = r.oid AND g.attnum > 0 AND NOT g.attisdropped AND g.attgenerated = ''
        ORDER BY g.attnum
    )::text [] AS column_names
FROM columns AS r
CROSS JOIN LATERAL (SELECT CASE WHEN r.is_array THEN 'element' ELSE format('%I', r.attname) END AS value) AS v
WHERE r.base_name = 'uuid' OR (r.is_named AND NOT r.is_array AND r.base_name IN ('text', 'varchar', 'bpchar'))
ORDER BY r.nspname, r.relname, r.attnum;

-- name: TargetShape :one
-- What a migration of a target has to name: the table and its columns, quoted where they must be, with their types, in
-- the order of the table, but for generated columns; and whether a valid btree of all rows begins with the user's column.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: the columns of the table.
SELECT
    format('%I.%I', n.nspname, c.relname)::text AS quoted_table,
    quote_ident(c.relname)::text AS quoted_base,
    array_agg(a.attname::text ORDER BY a.attnum)::text [] AS column_names,
    array_agg(quote_ident(a.attname) ORDER BY a.attnum)::text [] AS quoted_columns,
    array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)::text [] AS column_types,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_index AS x
        JOIN pg_catalog.pg_attribute AS u ON u.attrelid = x.indrelid AND u.attnum = x.indkey[0]
        JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
        JOIN pg_catalog.pg_am AS m ON m.oid = i.relam
        WHERE x.indrelid = c.oid AND u.attname = @user_column::text AND m.amname = 'btree' AND x.indisvalid AND x.indpred IS NULL
    )::boolean AS is_indexed
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE n.nspname = @table_schema::text AND c.relname = @table_name::text
GROUP BY c.oid, n.nspname, c.relname;

-- name: TargetTaken :one
-- A function or table of ours whose name a target of this name would take, or an empty text.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: those of ours.
SELECT coalesce(
    (
        SELECT 'function orphan_cleaner.' || min(p.proname)
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = to_regnamespace('orphan_cleaner')
            AND p.proname IN (@name::text || '_page', @name::text || '_holders', @name::text || '_total', @name::text || '_facts', @name::text || '_delete', @name::text || '_restore_plan')
    ),
    (
        SELECT 'table orphan_cleaner.' || min(c.relname)
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = to_regnamespace('orphan_cleaner') AND c.relname IN (@name::text || '_audit', @name::text || '_backup')
    ),
    ''
)::text AS taken;

-- name: TargetHolding :one
-- The statement that counts the candidates with rows in a target, or an empty text where its functions or its table are not there.
-- Locks: none beyond the catalog. Index: those of the catalog. Rows: none.
SELECT CASE
    WHEN to_regprocedure(format('orphan_cleaner.%I(uuid [])', @name::text || '_holders')) IS NULL THEN ''
    WHEN EXISTS (SELECT FROM orphan_cleaner.targets AS t WHERE t.name = @name::text AND to_regclass(t.table_name) IS NULL) THEN ''
    ELSE format('SELECT count(*) FROM orphan_cleaner.%I(ARRAY(SELECT c.user_id FROM orphan_cleaner.candidates AS c))', @name::text || '_holders')
END::text AS holding;

-- name: TargetList :many
-- The registry, in the order of the sweep: each target with the digest that was printed (empty: built in), and with that
-- of its functions as they are; and how the table differs from what its backup was printed for, of an update in the columns
-- that its functions name.
-- Locks: ACCESS SHARE on targets. Index: none needed: a few rows. Rows: the targets, their functions and columns.
SELECT
    t.name, t.table_name, t.user_column, t.action, coalesce(extract(EPOCH FROM t.retention), 0)::bigint AS retention_seconds, t.limits,
    coalesce(extract(EPOCH FROM t.backup_window), 0)::bigint AS backup_window_seconds, coalesce(t.counter, 'null') AS counter,
    coalesce(t.digest, '')::text AS digest, t.applied_at, t.applied_by,
    coalesce((
        SELECT encode(
            sha256(convert_to(
                string_agg(p.proname || E'\n' || array_to_string(p.proconfig, E'\n') || E'\n' || p.prosrc, E'\n' ORDER BY p.proname COLLATE "C"), 'UTF8'
            )),
            'hex'
        )
        FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'orphan_cleaner'::regnamespace
            AND p.proname IN (SELECT t.name || '_' || v.verb FROM unnest(@verbs::text []) AS v (verb))
    ), '')::text AS functions_digest,
    coalesce((
        SELECT string_agg(
            CASE
                WHEN n.attname IS NULL THEN format('column %s is gone', p.attname)
                WHEN p.attname IS NULL THEN format('column %s is new', n.attname)
                ELSE format('column %s is %s, and was %s', n.attname, n.type, b.type)
            END, ', ' ORDER BY coalesce(n.attname, p.attname)
        )
        FROM (
            SELECT unnest(substring(f.prosrc FROM '''(\{"[^}]*\})''::name \[\] IS DISTINCT')::name []) AS attname
            FROM pg_catalog.pg_proc AS f
            WHERE f.pronamespace = 'orphan_cleaner'::regnamespace AND f.proname = t.name || '_audit_deleted'
            UNION ALL
            SELECT a.attname
            FROM pg_catalog.pg_proc AS f
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = to_regclass(t.backup_table) AND a.attnum > 0 AND NOT a.attisdropped AND f.prosrc ~ format('\."?%s\M', a.attname)
            WHERE f.pronamespace = 'orphan_cleaner'::regnamespace AND f.proname = t.name || '_keep' AND a.attname NOT IN ('set_to', 'backed_up_at', 'run_id')
        ) AS p
        FULL JOIN (
            SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type
            FROM pg_catalog.pg_attribute AS a
            -- By names: who lists may have no right on the schema.
            JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
            JOIN pg_catalog.pg_namespace AS s ON s.oid = c.relnamespace
            WHERE format('%I.%I', s.nspname, c.relname) = t.table_name AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ) AS n ON n.attname = p.attname
        LEFT JOIN (
            SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type
            FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = to_regclass(t.backup_table) AND a.attnum > 0 AND NOT a.attisdropped
        ) AS b ON b.attname = n.attname
        WHERE t.digest IS NOT NULL
            AND (n.attname IS NULL OR p.attname IS NULL AND t.action = 'delete' OR p.attname IS NOT NULL AND n.type IS DISTINCT FROM b.type)
    ), '')::text AS columns_differ
FROM orphan_cleaner.targets AS t
ORDER BY t.ordinal;
