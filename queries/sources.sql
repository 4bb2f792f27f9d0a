-- name: SourceBegin :one
-- Opens every transaction on the database that is asked for users, where that is the source of truth: bounds it, and has
-- a row-level security policy raise an error, where it would hide users. All of it is local to the transaction.
-- Names are qualified: search_path is the other database's, and may find a function named like a built-in first.
-- Says by how many seconds what is read may be out of date: 0 on a primary, infinity where nobody knows.
-- Locks: none.
SELECT
    pg_catalog.set_config('statement_timeout', @statement_timeout::text, true),
    pg_catalog.set_config('lock_timeout', @statement_timeout::text, true),
    pg_catalog.set_config('idle_in_transaction_session_timeout', @statement_timeout::text, true),
    pg_catalog.set_config('row_security', 'off', true),
    pg_catalog.set_config('jit', 'off', true),
    (CASE
        WHEN pg_catalog.pg_is_in_recovery()
            -- Two bounds, each of them safe. Whatever was committed up to the last replayed commit is here; after an
            -- idle hour that is an hour ago.
            THEN coalesce(least(
                pg_catalog.abs(extract(EPOCH FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())),
                -- All that the primary had when it was last heard of is here, too. Only a receiver that is
                -- streaming has heard of it, and only pg_read_all_stats shows that. The view over this function would
                -- take 0.2 ms to plan, for each batch.
                (
                    SELECT extract(EPOCH FROM pg_catalog.clock_timestamp() - w.last_msg_receipt_time)
                    FROM pg_catalog.pg_stat_get_wal_receiver() AS w
                    WHERE w.status = 'streaming'
                        AND pg_catalog.pg_last_wal_replay_lsn() >= w.latest_end_lsn
                        AND pg_catalog.pg_last_wal_replay_lsn() >= pg_catalog.pg_last_wal_receive_lsn()
                )
            ), 'infinity')
        ELSE 0
    END)::float8 AS behind;

-- name: SourcePrefersIndex :exec
-- Has EXPLAIN show an index wherever one can be used: a table of some pages is read from end to end even so.
-- Locks: none.
SELECT pg_catalog.set_config('enable_seqscan', 'off', true);

-- name: SourcePlan :one
-- What is wrong with the plan of the query for users, as EXPLAIN (VERBOSE, FORMAT JSON) shows it: whether it writes or
-- locks rows, leaves out rows that it has found, which volatile functions it calls, and which large tables it reads from end to end.
-- Locks: none beyond the catalog.
WITH RECURSIVE rows_come_from (node) AS (
    -- Not what is looked up for each row, as by a lateral join, or once, as (SELECT … LIMIT 1): a LIMIT there may be right.
    SELECT jsonb_path_query(@plan::jsonb, 'strict $[*]."Plan"')
    UNION ALL
    SELECT child.node
    FROM rows_come_from AS r, jsonb_array_elements(r.node -> 'Plans') AS child (node)
    WHERE CASE child.node ->> 'Parent Relationship'
        WHEN 'SubPlan' THEN false
        WHEN 'InitPlan' THEN child.node ->> 'Subplan Name' LIKE 'CTE %'
        WHEN 'Inner' THEN r.node ->> 'Node Type' <> 'Nested Loop'
        ELSE true
    END
)

SELECT
    jsonb_path_exists(@plan::jsonb, 'strict $.** ? (@."Node Type" == "ModifyTable" || @."Node Type" == "LockRows")')::boolean AS writes,
    (
        EXISTS (SELECT FROM rows_come_from AS r WHERE r.node ->> 'Node Type' = 'Limit')
        OR jsonb_path_exists(@plan::jsonb, 'strict $.** ? (@."Node Type" == "Sample Scan")')
    )::boolean AS cuts,
    coalesce((
        SELECT string_agg(DISTINCT called.name, ', ')
        FROM jsonb_path_query(@plan::jsonb, 'strict $.** ? (@.type() == "string")') AS texts (text),
            -- Names before a bracket, outside of literals.
            regexp_matches(regexp_replace(texts.text #>> '{}', '''[^'']*''', '', 'g'), '([[:alnum:]_."]+)\(', 'g') AS found (names),
            LATERAL (SELECT found.names[1]) AS called (name)
        WHERE EXISTS (
            SELECT
            FROM pg_catalog.pg_proc AS p
            JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
            WHERE called.name IN (quote_ident(p.proname), quote_ident(n.nspname) || '.' || quote_ident(p.proname))
                AND p.provolatile = 'v'
                AND p.prokind = 'f'
        )
    ), '')::text AS volatile_functions,
    coalesce((
        SELECT string_agg(DISTINCT format('%s (%s rows)', c.oid::regclass, large.estimate::bigint), ', ')
        FROM jsonb_path_query(
            @plan::jsonb,
            -- Of an index, too: where no condition bounds it, all of it is read.
            'strict $.** ? (@."Node Type" == "Seq Scan" || (@."Node Type" == "Index Only Scan" || @."Node Type" == "Index Scan") && !exists(@."Index Cond"))'
        ) AS nodes (node)
        JOIN pg_catalog.pg_class AS c
            ON c.oid = to_regclass(format('%I.%I', nodes.node ->> 'Schema', nodes.node ->> 'Relation Name'))
        -- As the planner does it: as many rows as when it was analyzed, in the pages of now; of 100 bytes where it never was.
        CROSS JOIN LATERAL (
            SELECT pg_relation_size(c.oid) / CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN current_setting('block_size')::float8 * c.relpages / c.reltuples ELSE 100 END AS estimate
        ) AS large
        WHERE large.estimate >= 10000
    ), '')::text AS scanned;

-- name: SourceIdentity :one
-- Which database this is, the same on its standbys.
-- Locks: none.
SELECT (s.system_identifier::text || '/' || current_database())::text AS identity
FROM pg_catalog.pg_control_system() AS s;
