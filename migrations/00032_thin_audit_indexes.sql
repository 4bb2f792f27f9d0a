-- Why:      a sweep filled the server's log: every 16 pages of the audit each of its two BRIN indexes asked autovacuum for a
--           summary, and autovacuum takes note of 256 such wishes and logs the others. Now it looks at a partition after each
--           100,000 rows, and summarizes then. The index on run_id goes: a run is found by its time as well, and
--           every deleted member, whoever deleted it, paid for that index.
-- Locks:    ACCESS EXCLUSIVE on the audit and its indexes, for milliseconds. It waits 300 ms at most, then fails and can
--           be repeated: deletes of the application wait behind it, and are audited if they wait less than 500 ms.
-- Duration: milliseconds.
-- Rollback: makes the index on run_id again, and reads the whole audit for it, a second for every few million rows.
--           What the application deletes meanwhile and waits for longer than 500 ms is not audited: choose a quiet hour.

-- +goose Up
SET LOCAL lock_timeout = '300ms';

DROP INDEX conversation_members_audit_run_id;

-- +goose StatementBegin
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = 'conversation_members_audit'::regclass
    LOOP
        EXECUTE format(
            'ALTER TABLE %s SET (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0)',
            part
        );
    END LOOP;
    FOR part IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = 'conversation_members_audit_deleted_at'::regclass
    LOOP
        EXECUTE format('ALTER INDEX %s SET (autosummarize = off)', part);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION orphan_add_partition(
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
    brin regclass;
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
    IF parent = 'public.conversation_members_audit'::regclass THEN
        -- A vacuum summarizes what was inserted, and reads no page twice for it.
        EXECUTE format(
            'ALTER TABLE public.%I SET (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0)',
            partition_name
        );
        FOR brin IN
            SELECT i.indexrelid
            FROM pg_index AS i
            JOIN pg_class AS c ON c.oid = i.indexrelid
            JOIN pg_am AS a ON a.oid = c.relam
            -- Others that a DBA may have added know no such option.
            WHERE i.indrelid = to_regclass(format('public.%I', partition_name)) AND a.amname = 'brin'
        LOOP
            EXECUTE format('ALTER INDEX %s SET (autosummarize = off)', brin);
        END LOOP;
    END IF;
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

-- +goose Down
SET LOCAL lock_timeout = '300ms';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION orphan_add_partition(
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
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = 'conversation_members_audit'::regclass
    LOOP
        EXECUTE format(
            'ALTER TABLE %s RESET (autovacuum_vacuum_insert_threshold, autovacuum_vacuum_insert_scale_factor)',
            part
        );
    END LOOP;
    FOR part IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = 'conversation_members_audit_deleted_at'::regclass
    LOOP
        EXECUTE format('ALTER INDEX %s SET (autosummarize = on)', part);
    END LOOP;
END
$$;
-- +goose StatementEnd

CREATE INDEX conversation_members_audit_run_id
    ON conversation_members_audit USING brin (run_id) WITH (pages_per_range = 16, autosummarize = on);
