-- Why:      backups past the restore window and audit months past theirs are given back to the disk by
--           dropping whole partitions. In functions, so that the looking and the drop are one
--           transaction that a DBA has reviewed: no statement in a program can name a partition.
-- Locks:    none here. At work, per partition: SHARE on orphan_holds; ACCESS EXCLUSIVE on the partition,
--           the audit's DEFAULT one and at last, for about a millisecond, the parent. Each waits 300 ms
--           at most, less than the 500 ms that the audit trigger waits: no delete of the application
--           fails or goes unaudited for it. DETACH CONCURRENTLY would need less of the backup, but is
--           impossible beside a DEFAULT partition, leaves a half-detached partition when it fails, and
--           is no faster (measured: 1 ms and then the DROP; the files, 40 ms for 300 MB, are removed
--           after the locks are released in either case).
-- Duration: milliseconds.
-- Rollback: drops the functions; `prune` stops working.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_partitions(only_partition text DEFAULT NULL)
RETURNS TABLE (
    parent text,
    partition_name text,
    partition_id oid,
    lower_bound timestamptz,
    upper_bound timestamptz,
    is_ours boolean
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
            AND c.relnamespace = 'public'::regnamespace
            AND NOT i.inhdetachpending
            AND CASE p.relname
                WHEN 'conversation_members_backup' THEN
                    c.relname = 'conversation_members_backup_' || to_char(b.lower_bound, 'YYYYMMDD')
                    AND b.lower_bound = date_trunc('day', b.lower_bound)
                    AND b.upper_bound = b.lower_bound + interval '1 day'
                ELSE
                    c.relname = 'conversation_members_audit_' || to_char(b.lower_bound, 'YYYYMM')
                    AND b.lower_bound = date_trunc('month', b.lower_bound)
                    AND b.upper_bound = b.lower_bound + interval '1 month'
            END,
            false
        )
    FROM pg_inherits AS i
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
    WHERE i.inhparent IN (
            to_regclass('public.conversation_members_backup'), to_regclass('public.conversation_members_audit')
        )
        AND (only_partition IS NULL OR c.relname = only_partition)
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_partition_need(parent text, partition_name text, upper_bound timestamptz)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reason text;
BEGIN
    -- An open restore may read any day; an open run proves itself from its first day on.
    SELECT r.kind || ' ' || r.run_id || ' is open' INTO reason
    FROM public.orphan_runs AS r
    WHERE r.state = 'running' AND (r.kind = 'restore' OR r.started_at < orphan_partition_need.upper_bound);
    IF reason IS NOT NULL THEN
        RETURN reason;
    END IF;
    -- Somebody looks into something, and may want to give members back.
    IF EXISTS (SELECT FROM public.orphan_pauses AS s WHERE s.resumed_at IS NULL) THEN
        RETURN 'runs are paused';
    END IF;
    IF parent = 'conversation_members_backup' THEN
        -- Two joins that can be hashed; without a hold neither reads the partition.
        EXECUTE format($statement$
            SELECT 'hold ' || min(n.hold_id) || CASE WHEN count(DISTINCT n.hold_id) > 1
                THEN ' and ' || count(DISTINCT n.hold_id) - 1 || ' more' ELSE '' END
            FROM (
                SELECT h.hold_id
                FROM public.%1$I AS b
                JOIN public.orphan_holds_in_force AS h ON h.user_id = b.user_id
                UNION ALL
                SELECT h.hold_id
                FROM public.%1$I AS b
                JOIN public.orphan_holds_in_force AS h ON h.conversation_id = b.conversation_id
            ) AS n
            $statement$, partition_name) INTO reason;
        IF reason IS NULL THEN
            -- A restore takes them off the list.
            EXECUTE format($statement$
                SELECT count(DISTINCT d.user_id) || ' users alive again'
                FROM public.%1$I AS b
                JOIN public.orphan_departed AS d ON d.user_id = b.user_id
                WHERE d.alive_at IS NOT NULL
                HAVING count(*) > 0
                $statement$, partition_name) INTO reason;
        END IF;
    END IF;
    RETURN reason;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_partition_verdicts(restore_window interval, audit_window interval, only_partition text DEFAULT NULL)
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
            coalesce(p.is_ours AND p.upper_bound <= now() - CASE p.parent
                WHEN 'conversation_members_backup' THEN restore_window
                ELSE audit_window
            END, false) AS is_expired
        FROM public.orphan_partitions(only_partition) AS p
    ),
    judged AS MATERIALIZED (
        SELECT
            l.*,
            CASE
                WHEN NOT l.is_ours THEN 'not made by orphan-cleaner'
                WHEN NOT l.is_expired THEN 'within the window'
                ELSE public.orphan_partition_need(l.parent, l.partition_name, l.upper_bound)
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
            WHEN j.kept_because IS NOT NULL OR j.parent = 'conversation_members_backup' THEN j.kept_because
            -- Whether a member left by itself since its backup: a restore asks the audit.
            -- About all partitions: of the backups that will stay. About one: of those that are there.
            WHEN only_partition IS NULL AND EXISTS (
                SELECT
                FROM judged AS b
                WHERE b.parent = 'conversation_members_backup' AND b.kept_because IS NOT NULL
                    AND coalesce(b.lower_bound, '-infinity') < j.upper_bound
            ) OR only_partition IS NOT NULL AND EXISTS (
                SELECT
                FROM public.orphan_partitions() AS b
                WHERE b.parent = 'conversation_members_backup'
                    AND coalesce(b.lower_bound, '-infinity') < j.upper_bound
            ) THEN 'backups of its time'
        END
    FROM judged AS j
    JOIN pg_class AS c ON c.oid = j.partition_id
    ORDER BY j.parent DESC, j.lower_bound, j.partition_name;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_drop_partition(partition_name text, restore_window interval, audit_window interval)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '300ms'
AS $$
DECLARE
    verdict record;
    default_partition regclass;
    known_alive uuid [] := ARRAY(SELECT d.user_id FROM public.orphan_departed AS d WHERE d.alive_at IS NOT NULL);
BEGIN
    -- Whoever places a hold does so before we look, or after the drop.
    LOCK TABLE public.orphan_holds IN SHARE MODE;
    SELECT v.* INTO verdict
    FROM public.orphan_partition_verdicts(restore_window, audit_window, orphan_drop_partition.partition_name) AS v;
    IF NOT FOUND THEN
        RETURN 'no such partition is attached';
    END IF;
    IF verdict.kept_because IS NOT NULL THEN
        RETURN verdict.kept_because;
    END IF;

    -- The quiet ones first. While the drop waits for the parent, everybody waits
    -- behind it: it must wait for nothing else then.
    EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', verdict.partition_name);
    SELECT p.partdefid INTO default_partition
    FROM pg_partitioned_table AS p
    WHERE p.partrelid = to_regclass('public.' || verdict.parent) AND p.partdefid <> 0;
    IF default_partition IS NOT NULL THEN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', default_partition);
    END IF;
    EXECUTE format('DROP TABLE public.%I', verdict.partition_name);

    -- From here on nobody can read the parent, and whoever has read it is done: a
    -- restore that began while we waited, and may have planned with this partition,
    -- gets it back, and so does a user who was found alive.
    IF EXISTS (SELECT FROM public.orphan_runs AS r WHERE r.state = 'running' AND r.kind = 'restore')
        OR EXISTS (SELECT FROM public.orphan_departed AS d WHERE d.alive_at IS NOT NULL AND d.user_id <> ALL (known_alive))
    THEN
        RAISE EXCEPTION '% is needed again: it stays', verdict.partition_name
            USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION orphan_partitions(text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_partition_need(text, text, timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_partition_verdicts(interval, interval, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_drop_partition(text, interval, interval) FROM PUBLIC;

COMMENT ON FUNCTION orphan_partitions(text) IS
    'The attached partitions of backup and audit, with the bounds that the catalog has; ours: an ordinary table of one UTC day or month, by bounds and name.';
COMMENT ON FUNCTION orphan_partition_need(text, text, timestamptz) IS
    'Who still needs a partition that is past its window; null: nobody.';
COMMENT ON FUNCTION orphan_partition_verdicts(interval, interval, text) IS
    'Which partitions are past their window, and why one is kept all the same: null means that it may go.';
COMMENT ON FUNCTION orphan_drop_partition(text, interval, interval) IS
    'Drops one partition that is past its window and that nothing needs; returns null, or why it is kept. Runs with the rights of its caller: the owner of the tables.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION orphan_drop_partition(text, interval, interval);
DROP FUNCTION orphan_partition_verdicts(interval, interval, text);
DROP FUNCTION orphan_partition_need(text, text, timestamptz);
DROP FUNCTION orphan_partitions(text);
