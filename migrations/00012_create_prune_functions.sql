-- Why:      dropping evidence that is past its window, in functions, so that the look and the drop are one reviewed
--           transaction; and correcting what was recorded while the server's clock, which windows go by, was ahead.
-- Locks:    none here. At work, prune_drop, per partition: SHARE on holds; ACCESS EXCLUSIVE on the partition, the audit's
--           DEFAULT one and at last, for about a millisecond, the parent. Each waits 300 ms at most, less than the 500 ms
--           that the audit trigger waits: no delete of the application fails or goes unaudited for it. DETACH
--           CONCURRENTLY is impossible beside a DEFAULT partition.
-- Duration: milliseconds.
-- Rollback: drops the functions; prune and settle-clock stop working.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.partitions(only_partition text DEFAULT NULL)
RETURNS TABLE (
    parent text,
    partition_name text,
    partition_id oid,
    lower_bound timestamptz,
    upper_bound timestamptz,
    is_ours boolean,
    target text,
    is_backup boolean
)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
-- A bound is text in the catalog, written and read back in this session's terms.
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $$
    SELECT
        p.relname::text,
        c.relname::text,
        c.oid,
        b.lower_bound,
        b.upper_bound,
        coalesce(
            c.relkind = 'r'
            AND c.relnamespace = p.relnamespace
            AND NOT i.inhdetachpending
            AND CASE
                WHEN t.is_backup THEN
                    c.relname = p.relname || '_' || to_char(b.lower_bound, 'YYYYMMDD')
                    AND b.lower_bound = date_trunc('day', b.lower_bound)
                    AND b.upper_bound = b.lower_bound + interval '1 day'
                ELSE
                    c.relname = p.relname || '_' || to_char(b.lower_bound, 'YYYYMM')
                    AND b.lower_bound = date_trunc('month', b.lower_bound)
                    AND b.upper_bound = b.lower_bound + interval '1 month'
            END,
            false
        ),
        t.name,
        t.is_backup
    FROM (
        SELECT o.name, to_regclass(e.table_name) AS parent_id, e.is_backup
        FROM orphan_cleaner.targets AS o
        CROSS JOIN LATERAL (VALUES (o.backup_table, true), (o.audit_table, false)) AS e (table_name, is_backup)
    ) AS t
    JOIN pg_inherits AS i ON i.inhparent = t.parent_id
    JOIN pg_class AS p ON p.oid = i.inhparent
    JOIN pg_class AS c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL (
        -- Nulls for the DEFAULT partition, MINVALUE and MAXVALUE: not ours.
        SELECT
            regexp_match(pg_get_expr(c.relpartbound, c.oid), '^FOR VALUES FROM \(''([^'']+)''\) TO \(''([^'']+)''\)$') AS bounds
    ) AS e
    CROSS JOIN LATERAL (
        SELECT e.bounds[1]::timestamptz AS lower_bound, e.bounds[2]::timestamptz AS upper_bound
    ) AS b
    WHERE only_partition IS NULL OR c.relname = only_partition
$$;

CREATE FUNCTION orphan_cleaner.prune_look(restore_window interval, audit_window interval, only_partition text DEFAULT NULL)
RETURNS TABLE (
    parent text,
    partition_name text,
    lower_bound timestamptz,
    upper_bound timestamptz,
    rows_estimate bigint,
    bytes bigint,
    is_expired boolean,
    kept_because text
)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF restore_window < interval '1 day' OR audit_window < restore_window THEN
        RAISE EXCEPTION 'the restore window is a day or longer, and the audit window is not shorter, not % and %',
            restore_window, audit_window
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY
    WITH listed AS MATERIALIZED (
        SELECT
            p.*,
            -- A target's own window can be longer only: nobody's runbook promises less.
            coalesce(
                p.is_ours
                AND p.upper_bound <= now() - greatest(CASE WHEN p.is_backup THEN restore_window ELSE audit_window END, t.backup_window),
                false
            ) AS is_expired
        FROM orphan_cleaner.partitions(only_partition) AS p
        JOIN orphan_cleaner.targets AS t ON t.name = p.target
    ),
    judged AS MATERIALIZED (
        SELECT
            l.*,
            CASE
                WHEN NOT l.is_ours THEN 'not made by orphan-cleaner'
                WHEN NOT l.is_expired THEN 'within the window'
                ELSE orphan_cleaner.partition_need(l.target, l.is_backup, l.partition_id, l.upper_bound)
            END AS kept_because
        FROM listed AS l
    )
    SELECT
        j.parent,
        j.partition_name,
        j.lower_bound,
        j.upper_bound,
        -- Never analyzed: what the statistics have counted; -1: nobody has.
        coalesce(
            nullif(c.reltuples, -1)::bigint,
            nullif(pg_stat_get_live_tuples(c.oid), 0),
            CASE WHEN pg_relation_size(c.oid) = 0 THEN 0 ELSE -1 END
        ),
        pg_total_relation_size(c.oid),
        j.is_expired,
        CASE
            WHEN j.kept_because IS NOT NULL OR j.is_backup THEN j.kept_because
            -- Whether a row was deleted by others since its backup: a restore asks the audit, for the backups that stay, or are there.
            WHEN only_partition IS NULL AND EXISTS (
                SELECT
                FROM judged AS b
                WHERE b.target = j.target AND b.is_backup AND b.kept_because IS NOT NULL
                    AND coalesce(b.lower_bound, '-infinity') < j.upper_bound
            ) OR only_partition IS NOT NULL AND EXISTS (
                SELECT
                FROM orphan_cleaner.partitions() AS b
                WHERE b.target = j.target AND b.is_backup
                    AND coalesce(b.lower_bound, '-infinity') < j.upper_bound
            ) THEN 'backups of its time'
        END
    FROM judged AS j
    JOIN pg_class AS c ON c.oid = j.partition_id
    ORDER BY j.target, j.is_backup DESC, j.lower_bound, j.partition_name;
END
$$;

CREATE FUNCTION orphan_cleaner.prune_drop(partition_name text, restore_window interval, audit_window interval)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '300ms'
SET enable_seqscan = off
AS $$
DECLARE
    verdict record;
    chosen regclass;
    default_partition regclass;
    newest timestamptz;
    known_alive uuid [] := ARRAY(SELECT d.user_id FROM orphan_cleaner.rechecks AS d WHERE d.alive_at IS NOT NULL);
BEGIN
    -- Windows are differences of the server's clock: the newest run says whether it can be right, also one beside us.
    SELECT max(r.heartbeat_at) INTO newest FROM orphan_cleaner.runs AS r;
    IF newest > clock_timestamp() OR newest < clock_timestamp() - interval '3 days' THEN
        RAISE EXCEPTION 'the newest run is of %, now is %: nothing is dropped while the clock may be wrong', newest, clock_timestamp()
            USING ERRCODE = 'OC012',
                HINT = 'Check the server''s clock. If it is right: orphan-cleaner run, or after it was ahead: orphan-cleaner migrate settle-clock';
    END IF;
    -- Whoever places a hold does so before we look, or after the drop.
    LOCK TABLE orphan_cleaner.holds IN SHARE MODE;
    SELECT v.* INTO verdict
    FROM orphan_cleaner.prune_look(restore_window, audit_window, prune_drop.partition_name) AS v;
    IF NOT FOUND THEN
        RETURN 'no such partition is attached';
    END IF;
    IF verdict.kept_because IS NOT NULL THEN
        RETURN verdict.kept_because;
    END IF;

    -- The quiet ones first. While the drop waits for the parent, everybody waits behind it: for nothing else then.
    SELECT p.partition_id::regclass INTO chosen FROM orphan_cleaner.partitions(prune_drop.partition_name) AS p;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', chosen);
    SELECT p.partdefid INTO default_partition
    FROM pg_inherits AS i
    JOIN pg_partitioned_table AS p ON p.partrelid = i.inhparent
    WHERE i.inhrelid = chosen AND p.partdefid <> 0;
    IF default_partition IS NOT NULL THEN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', default_partition);
    END IF;
    -- Event triggers of others fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    EXECUTE format('DROP TABLE %s', chosen);

    -- From here on nobody can read the parent, and whoever has read it is done: a restore that began while we waited, and
    -- may have planned with this partition, gets it back, and so does a user who was found alive.
    IF EXISTS (SELECT FROM orphan_cleaner.runs AS r WHERE r.state = 'running' AND r.kind = 'restore')
        OR EXISTS (SELECT FROM orphan_cleaner.rechecks AS d WHERE d.alive_at IS NOT NULL AND d.user_id <> ALL (known_alive))
    THEN
        RAISE EXCEPTION '% is needed again: it stays', verdict.partition_name
            USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION orphan_cleaner.prune_rows(refusal_window interval, audit_window interval, max_rows bigint)
RETURNS TABLE (refusals bigint, rechecks bigint, restores bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
-- By statistics of an empty table the other one was read for each row, and it did not end.
SET enable_nestloop = off
SET enable_mergejoin = off
AS $$
DECLARE
    oldest_backup timestamptz := (
        SELECT min(coalesce(p.lower_bound, '-infinity'))
        FROM orphan_cleaner.partitions() AS p
        WHERE p.is_backup
    );
BEGIN
    DELETE FROM orphan_cleaner.refusals AS f
    WHERE f.ctid = ANY (ARRAY(
        SELECT o.ctid
        FROM orphan_cleaner.refusals AS o
        JOIN orphan_cleaner.runs AS r ON r.run_id = o.run_id
        WHERE r.finished_at < now() - refusal_window
            -- An approval that a run may still use, or is using.
            AND NOT EXISTS (
                SELECT
                FROM orphan_cleaner.approvals AS a
                LEFT JOIN orphan_cleaner.runs AS u ON u.run_id = a.used_by_run
                WHERE a.run_id = o.run_id
                    AND a.revoked_at IS NULL
                    AND (a.used_at IS NULL AND a.expires_at > now() OR u.state = 'running')
            )
        LIMIT max_rows
    ));
    GET DIAGNOSTICS refusals = ROW_COUNT;
    DELETE FROM orphan_cleaner.rechecks AS d
    WHERE d.ctid = ANY (ARRAY(
        SELECT o.ctid
        FROM orphan_cleaner.rechecks AS o
        WHERE o.deleted_at < oldest_backup
            AND o.alive_at IS NULL
        ORDER BY o.deleted_at
        LIMIT max_rows
    ));
    GET DIAGNOSTICS rechecks = ROW_COUNT;
    DELETE FROM orphan_cleaner.restores AS g
    WHERE g.ctid = ANY (ARRAY(
        SELECT o.ctid
        FROM orphan_cleaner.runs AS r
        JOIN orphan_cleaner.restores AS o ON o.run_id = r.run_id
        WHERE r.kind = 'restore'
            AND r.finished_at < now() - audit_window
            AND o.backed_up_at < oldest_backup
            AND NOT EXISTS (SELECT FROM orphan_cleaner.event_cursors AS e WHERE e.run_id <= r.run_id)
        LIMIT max_rows
    ));
    GET DIAGNOSTICS restores = ROW_COUNT;
    DELETE FROM orphan_cleaner.hours AS h WHERE h.hour < now() - audit_window;
    DELETE FROM orphan_cleaner.promotions AS p
    WHERE greatest(p.promoted_at, p.undone_at) < now() - audit_window
        AND NOT EXISTS (SELECT FROM orphan_cleaner.event_cursors AS e WHERE e.run_id <= greatest(p.run_id, p.undone_by_run));
    RETURN NEXT;
END
$$;

CREATE FUNCTION orphan_cleaner.settle_clock()
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    settled bigint;
BEGIN
    -- What was recorded while the clock was ahead happened now at the latest.
    UPDATE orphan_cleaner.runs AS r
    SET started_at = least(r.started_at, now()),
        heartbeat_at = least(r.heartbeat_at, now()),
        finished_at = least(r.finished_at, now()),
        scheduled_for = least(r.scheduled_for, now()),
        judged_at = least(r.judged_at, now())
    WHERE r.heartbeat_at > now()
        AND r.state <> 'running';
    GET DIAGNOSTICS settled = ROW_COUNT;
    DELETE FROM orphan_cleaner.hours AS h WHERE h.hour > now();
    -- Clocks that started in the future start now; nobody becomes due by that.
    UPDATE orphan_cleaner.candidates AS c
    SET first_missing_at = least(c.first_missing_at, now()),
        last_missing_at = least(c.last_missing_at, now())
    WHERE c.last_missing_at > now();
    RETURN settled;
END
$$;

CREATE FUNCTION orphan_cleaner.effects_check()
RETURNS TABLE (check_name text, status text, message text, hint text)
LANGUAGE sql
STABLE
-- As surroundings(): what the owner of the functions that delete and restore may decides.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    WITH chosen AS (
        SELECT max(e.choice) FILTER (WHERE e.name = 'counter') AS counter, max(e.choice) FILTER (WHERE e.name = 'owners') AS owners
        FROM orphan_cleaner.effects AS e
    ),
    columns AS (
        SELECT
            max(a.attnum) FILTER (WHERE a.attrelid = to_regclass('public.conversations') AND a.attname = 'member_count') AS count_column,
            max(a.attnum) FILTER (WHERE a.attrelid = to_regclass('public.conversation_members') AND a.attname = 'role') AS role_column
        FROM pg_attribute AS a
        WHERE a.attrelid IN (to_regclass('public.conversations'), to_regclass('public.conversation_members')) AND NOT a.attisdropped
    ),
    counting AS (
        SELECT string_agg(t.tgname, ', ' ORDER BY t.tgname) AS triggers
        FROM pg_trigger AS t
        JOIN pg_proc AS p ON p.oid = t.tgfoid AND p.prosrc ~* '\mmember_count\M'
        WHERE t.tgrelid = to_regclass('public.conversation_members') AND t.tgenabled IN ('O', 'A') AND t.tgtype & 8 = 8
    ),
    wrong (check_name, status, message, hint) AS (
        SELECT e.name, 'FAIL', format('%s is %s, and %s', e.name, e.choice, w.why), w.hint
        FROM orphan_cleaner.effects AS e
        CROSS JOIN columns AS k
        CROSS JOIN LATERAL (
            SELECT 'conversations has no column member_count' AS why, 'orphan-cleaner effects set counter=unread' AS hint
            WHERE e.choice IN ('on', 'trigger') AND k.count_column IS NULL
            UNION ALL
            SELECT format('conversations.member_count is %s', CASE WHEN a.attgenerated <> '' THEN 'generated' ELSE 'of type ' || format_type(a.atttypid, a.atttypmod) END),
                'make it an integer, or: orphan-cleaner effects set counter=unread'
            FROM pg_attribute AS a
            JOIN pg_type AS n ON n.oid = a.atttypid AND (n.typcategory <> 'N' OR a.attgenerated <> '')
            WHERE e.choice = 'on' AND a.attrelid = to_regclass('public.conversations') AND a.attnum = k.count_column
            UNION ALL
            SELECT 'conversation_members has no column role', 'orphan-cleaner effects set owners=report'
            WHERE e.choice IN ('keep', 'promote') AND k.role_column IS NULL
            UNION ALL
            SELECT format('conversation_members.role is %s', CASE WHEN a.attgenerated <> '' THEN 'generated' ELSE format('of type %s, which has no owner', format_type(a.atttypid, a.atttypmod)) END),
                'orphan-cleaner effects set owners=report'
            FROM pg_attribute AS a
            JOIN pg_type AS n ON n.oid = a.atttypid
            WHERE e.choice IN ('keep', 'promote') AND a.attrelid = to_regclass('public.conversation_members') AND a.attnum = k.role_column
                AND (a.attgenerated <> '' AND e.choice = 'promote' OR n.typcategory <> 'S' AND NOT EXISTS (SELECT FROM pg_enum AS l WHERE l.enumtypid IN (n.oid, n.typbasetype) AND l.enumlabel = 'owner'))
            UNION ALL
            SELECT format('role %s, whose functions a run calls, lacks %s', current_user, g.lacks),
                'psql -f sql/roles.sql; or: ' || g.grants
            FROM (
                SELECT string_agg(n.lacks, ', ') AS lacks, string_agg(format('GRANT %s TO %I', n.lacks, current_user), '; ') AS grants
                FROM (
                    SELECT 'SELECT (member_count), UPDATE (member_count) ON public.conversations' AS lacks
                    WHERE e.choice IN ('on', 'trigger', 'keep', 'promote') AND k.count_column IS NOT NULL
                        AND NOT (has_column_privilege('public.conversations', k.count_column, 'SELECT') AND has_column_privilege('public.conversations', k.count_column, 'UPDATE'))
                    UNION ALL
                    -- To lock a row takes the right to update a column of it, whichever.
                    SELECT 'UPDATE (id) ON public.conversations'
                    WHERE e.choice IN ('keep', 'promote') AND k.count_column IS NULL AND NOT has_any_column_privilege('public.conversations', 'UPDATE')
                    UNION ALL
                    SELECT format('UPDATE (%s) ON public.conversation_members', CASE WHEN k.role_column IS NULL THEN 'joined_at' ELSE 'role' END)
                    WHERE e.choice IN ('trigger', 'keep', 'promote')
                        AND NOT coalesce(has_column_privilege('public.conversation_members', k.role_column, 'UPDATE'), has_any_column_privilege('public.conversation_members', 'UPDATE'))
                ) AS n
            ) AS g
            WHERE g.lacks IS NOT NULL AND e.choice NOT IN ('unread', 'report')
        ) AS w
    )
    SELECT w.check_name, w.status, w.message, w.hint FROM wrong AS w
    UNION ALL
    -- Of printed targets.
    SELECT
        'counter-of-' || t.name,
        CASE WHEN f.unfit IS NOT NULL OR s.is_bound OR g.grants <> '' THEN 'FAIL' WHEN d.triggers IS NOT NULL THEN 'warn' ELSE 'ok' END,
        CASE
            WHEN f.unfit IS NOT NULL THEN format('%s, which is to count rows of %s, %s', n.column, t.name, f.unfit)
            WHEN g.grants <> '' THEN format('role %s, whose functions a run calls, may not keep %s', current_user, n.column)
            WHEN s.is_bound THEN format('row-level security of %s is on: role %s, whose functions a run calls, would not find every count', t.counter ->> 'table', current_user)
            WHEN d.triggers IS NOT NULL THEN format('runs keep %s, and so does a trigger, it seems: %s', n.column, d.triggers)
            ELSE format('runs and restores keep %s', n.column)
        END,
        CASE
            WHEN f.unfit IS NOT NULL THEN 'correct or remove counter in targets.yaml, then: orphan-cleaner target print, and target apply'
            WHEN g.grants <> '' THEN 'psql -f sql/roles.sql; or: ' || g.grants
            WHEN s.is_bound THEN format('as a superuser: ALTER ROLE %I BYPASSRLS; or, as the owner of the table: ALTER TABLE %s DISABLE ROW LEVEL SECURITY', current_user, t.counter ->> 'table')
            WHEN d.triggers IS NOT NULL THEN 'if it does, remove counter from targets.yaml, then: orphan-cleaner target print, and target apply'
            ELSE ''
        END
    FROM orphan_cleaner.targets AS t
    CROSS JOIN LATERAL (SELECT format('%s.%I', t.counter ->> 'table', t.counter ->> 'column') AS column) AS n
    LEFT JOIN (
        -- By names: this role may have no right on the schema.
        pg_class AS c
        JOIN pg_namespace AS h ON h.oid = c.relnamespace
    ) ON format('%I.%I', h.nspname, c.relname) = t.counter ->> 'table'
    LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = t.counter ->> 'column' AND NOT a.attisdropped
    -- What target print would refuse.
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN a.attnum IS NULL THEN 'is not there'
            WHEN a.attgenerated <> '' THEN 'is generated'
            WHEN a.atttypid NOT IN ('smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'numeric'::regtype)
                THEN 'is of type ' || format_type(a.atttypid, a.atttypmod)
            WHEN c.relkind <> 'r' OR NOT EXISTS (
                SELECT
                FROM pg_index AS i
                WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
                    AND ARRAY(
                        SELECT k.attname::text
                        FROM unnest(i.indkey::smallint []) WITH ORDINALITY AS p (attnum, place)
                        LEFT JOIN pg_attribute AS k ON k.attrelid = c.oid AND k.attnum = p.attnum
                        WHERE p.place <= i.indnkeyatts
                        ORDER BY k.attname
                    ) = ARRAY(SELECT k.name FROM jsonb_object_keys(t.counter -> 'key') AS k (name) ORDER BY k.name COLLATE "C")
            ) THEN 'is in no ordinary table with its key unique'
        END AS unfit
    ) AS f
    CROSS JOIN LATERAL (SELECT coalesce(row_security_active(c.oid), false) AS is_bound) AS s
    CROSS JOIN LATERAL (
        SELECT string_agg(format('GRANT %s TO %I', l.lacks, current_user), '; ') AS grants
        FROM (
            SELECT format('USAGE ON SCHEMA %I', h.nspname) AS lacks
            WHERE NOT has_schema_privilege(h.oid, 'USAGE')
            UNION ALL
            SELECT format('SELECT (%I) ON %s', k.attname, t.counter ->> 'table')
            FROM pg_attribute AS k
            WHERE k.attrelid = c.oid AND (k.attnum = a.attnum OR t.counter -> 'key' ? k.attname::text) AND NOT has_column_privilege(c.oid, k.attnum, 'SELECT')
            UNION ALL
            SELECT format('UPDATE (%I) ON %s', a.attname, t.counter ->> 'table')
            WHERE NOT has_column_privilege(c.oid, a.attnum, 'UPDATE')
        ) AS l
    ) AS g
    CROSS JOIN LATERAL (
        SELECT string_agg(r.tgname, ', ' ORDER BY r.tgname) AS triggers
        FROM pg_trigger AS r
        JOIN pg_class AS o ON o.oid = r.tgrelid
        JOIN pg_namespace AS i ON i.oid = o.relnamespace
        JOIN pg_proc AS p ON p.oid = r.tgfoid AND p.pronamespace <> 'orphan_cleaner'::regnamespace AND p.prosrc ~* format('\m%s\M', t.counter ->> 'column')
        WHERE format('%I.%I', i.nspname, o.relname) = t.table_name AND r.tgenabled IN ('O', 'A')
            AND r.tgtype & CASE t.action WHEN 'delete' THEN 8 ELSE 16 END <> 0
    ) AS d
    WHERE t.counter IS NOT NULL
    UNION ALL
    SELECT c.check_name, c.status, c.message, c.hint
    FROM chosen AS s
    CROSS JOIN counting AS t
    CROSS JOIN LATERAL (
        VALUES
        (
            'counter',
            CASE WHEN s.counter = 'on' AND t.triggers IS NOT NULL OR s.counter = 'trigger' AND t.triggers IS NULL THEN 'warn' ELSE 'ok' END,
            CASE
                WHEN s.counter = 'on' AND t.triggers IS NOT NULL THEN format('runs keep member_count, and so does a trigger, it seems: %s', t.triggers)
                WHEN s.counter = 'on' THEN 'runs and restores keep member_count'
                WHEN s.counter = 'trigger' AND t.triggers IS NULL THEN 'a trigger is to keep member_count, and none that fires at a delete names it'
                WHEN s.counter = 'trigger' THEN format('a trigger of messaging-service keeps member_count: %s', t.triggers)
                WHEN s.counter = 'unread' THEN 'runs leave member_count alone: nobody reads it'
                ELSE 'runs leave member_count alone: nobody has chosen'
            END,
            CASE
                WHEN s.counter = 'on' AND t.triggers IS NOT NULL THEN 'orphan-cleaner effects set counter=trigger'
                WHEN s.counter = 'trigger' AND t.triggers IS NULL THEN 'orphan-cleaner effects set counter=on'
                ELSE ''
            END
        ),
        (
            'owners', 'ok',
            CASE s.owners
                WHEN 'keep' THEN 'the last owner of a conversation stays'
                WHEN 'promote' THEN 'where the last owner is deleted another member becomes owner'
                ELSE 'conversations that lose their last owner are counted'
            END,
            ''
        )
    ) AS c (check_name, status, message, hint)
    WHERE c.check_name NOT IN (SELECT w.check_name FROM wrong AS w)
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.partitions IS 'The attached partitions of backups and audits, with the bounds that the catalog has; ours: an ordinary table of one UTC day or month, by bounds and name.';
COMMENT ON FUNCTION orphan_cleaner.prune_look IS 'Which partitions are past their window, and why one is kept all the same; null: it may be dropped.';
COMMENT ON FUNCTION orphan_cleaner.prune_drop IS 'Drops one partition that is past its window and that nothing needs; returns null, or why it is kept. Runs with the rights of its caller: the owner of the tables.';
COMMENT ON FUNCTION orphan_cleaner.prune_rows IS 'Deletes what only describes evidence that is gone: refusals, rechecks and restores, at most max_rows of each, and sums of old hours.';
COMMENT ON FUNCTION orphan_cleaner.settle_clock IS 'After the server''s clock was ahead: moves what runs recorded in the future to now; returns how many runs. For the owner of the schema.';
COMMENT ON FUNCTION orphan_cleaner.effects_check IS 'What was chosen for counts and owners, and the counters of printed targets, and whether it can be done: a row for each, ok, warn or FAIL, with a hint. A FAIL stops runs.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION
    orphan_cleaner.effects_check, orphan_cleaner.settle_clock, orphan_cleaner.prune_rows, orphan_cleaner.prune_drop, orphan_cleaner.prune_look,
    orphan_cleaner.partitions;
