-- Why:      the runner owns nothing, yet partitions must exist before they are needed.
-- Locks:    none here. At work: SHARE UPDATE EXCLUSIVE on the two parents, for milliseconds,
--           under a lock_timeout; neither the application nor a run waits for it. An audit partition
--           also takes ACCESS EXCLUSIVE on the audit's DEFAULT partition, which is empty and unused
--           unless a month's partition was missing.
-- Duration: milliseconds.
-- Rollback: drops the functions; the partitions stay.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_add_partition(
    parent regclass,
    partition_name text,
    lower_bound timestamptz,
    upper_bound timestamptz
)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    default_partition regclass;
BEGIN
    IF EXISTS (
        SELECT
        FROM pg_inherits
        WHERE inhrelid = to_regclass(format('public.%I', partition_name))
            AND inhparent = parent
    ) THEN
        RETURN false;
    END IF;
    IF to_regclass(format('public.%I', partition_name)) IS NOT NULL THEN
        RAISE EXCEPTION 'there is a % that is no partition of %', partition_name, parent
            USING HINT = format('Attach it again, or rename it: ALTER TABLE public.%1$I RENAME TO %1$s_detached', partition_name);
    END IF;
    -- Create, then ATTACH: CREATE ... PARTITION OF would take ACCESS EXCLUSIVE on
    -- the parent and make every delete of the application wait.
    EXECUTE format('CREATE TABLE public.%I (LIKE %s INCLUDING ALL)', partition_name, parent);
    -- Rows that arrived before their partition did would make ATTACH fail.
    SELECT partdefid INTO default_partition
    FROM pg_partitioned_table
    WHERE partrelid = parent AND partdefid <> 0;
    IF default_partition IS NOT NULL THEN
        EXECUTE format(
            'WITH late AS (DELETE FROM %s WHERE deleted_at >= $1 AND deleted_at < $2 RETURNING *)'
            ' INSERT INTO public.%I SELECT * FROM late',
            default_partition, partition_name
        ) USING lower_bound, upper_bound;
    END IF;
    EXECUTE format(
        'ALTER TABLE %s ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
        parent, partition_name, lower_bound, upper_bound
    );
    RETURN true;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_ensure_partitions(days_ahead integer)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    day date;
    made integer := 0;
BEGIN
    IF days_ahead NOT BETWEEN 0 AND 31 THEN
        RAISE EXCEPTION 'days_ahead must be between 0 and 31, not %', days_ahead;
    END IF;
    -- Two runners that start together take turns; released with the transaction.
    PERFORM pg_advisory_xact_lock(hashtextextended('orphan_ensure_partitions', 0));
    FOR day IN SELECT today + n FROM generate_series(0, days_ahead) AS n LOOP
        IF public.orphan_add_partition(
            'public.conversation_members_backup',
            'conversation_members_backup_' || to_char(day, 'YYYYMMDD'),
            day::timestamp AT TIME ZONE 'UTC',
            (day + 1)::timestamp AT TIME ZONE 'UTC'
        ) THEN
            made := made + 1;
        END IF;
    END LOOP;
    FOR day IN SELECT (month + make_interval(months => n))::date FROM generate_series(0, 1 + days_ahead / 28) AS n LOOP
        IF public.orphan_add_partition(
            'public.conversation_members_audit',
            'conversation_members_audit_' || to_char(day, 'YYYYMM'),
            day::timestamp AT TIME ZONE 'UTC',
            (day + interval '1 month')::timestamp AT TIME ZONE 'UTC'
        ) THEN
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION orphan_add_partition(regclass, text, timestamptz, timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_ensure_partitions(integer) FROM PUBLIC;

COMMENT ON FUNCTION orphan_add_partition(regclass, text, timestamptz, timestamptz) IS
    'Creates and attaches one partition unless it is there; true when it made it. Not for the runner.';
COMMENT ON FUNCTION orphan_ensure_partitions(integer) IS
    'Makes the backup partitions of today and the next days, and the audit partitions of their months; returns how many it made.';

SELECT orphan_ensure_partitions(7);

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION orphan_ensure_partitions(integer);
DROP FUNCTION orphan_add_partition(regclass, text, timestamptz, timestamptz);
