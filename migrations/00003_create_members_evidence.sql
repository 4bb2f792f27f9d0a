-- Why:      one narrow audit row for each deleted member, whoever deleted it; the whole row of each member that a run
--           deleted, so that it can be restored; the functions that make their partitions ahead of time; the users who
--           are rechecked while there are backups; and how far others were told of deletes and restores. With its evidence,
--           conversation_members is a target.
-- Locks:    ACCESS SHARE on conversation_members, while its columns are read. At work, orphan_cleaner.partitions_ensure, of
--           each target: SHARE UPDATE EXCLUSIVE on the two parents, for milliseconds, under a lock_timeout of 3 s: neither the
--           application nor a run waits for it. An audit partition also takes ACCESS EXCLUSIVE on the audit's
--           DEFAULT partition, which is empty and unused unless the partition of a month was missing.
-- Duration: milliseconds.
-- Printed:  audit and backup, by the templates of internal/printer, as those of any target.
-- Rollback: refused while audit or backup holds a row: they are evidence, and the only copy of deleted members.

-- +goose Up
SET LOCAL lock_timeout = '3s';
-- PostgreSQL refuses to create a partitioned table where it names the database's own tablespace.
SET LOCAL default_tablespace = '';

CREATE TABLE public.conversation_members_audit (
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text,
    joined_at timestamptz,
    deleted_at timestamptz NOT NULL,
    deleted_by text NOT NULL,
    application text NOT NULL,
    run_id bigint,
    txid bigint NOT NULL
) PARTITION BY RANGE (deleted_at);

ALTER TABLE public.conversation_members_audit REPLICA IDENTITY FULL;

-- Rows arrive in the order of deleted_at: a BRIN of a few pages finds a day or a run, and costs next to nothing.
-- Autovacuum summarizes it; autosummarize would fill the server's log.
CREATE INDEX conversation_members_audit_deleted_at
    ON public.conversation_members_audit USING brin (deleted_at) WITH (pages_per_range = 16, autosummarize = off);

-- The application's own deletes must never fail for want of a partition.
CREATE TABLE public.conversation_members_audit_default PARTITION OF public.conversation_members_audit DEFAULT
    WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0);
ALTER TABLE public.conversation_members_audit_default REPLICA IDENTITY FULL;

COMMENT ON TABLE public.conversation_members_audit IS 'One row for each deleted row of public.conversation_members, written by a trigger, whoever deleted it. Partitioned by month (UTC).';
COMMENT ON TABLE public.conversation_members_audit_default IS 'Catches rows of a month without a partition; stays empty while partitions are made ahead.';
COMMENT ON COLUMN public.conversation_members_audit.conversation_id IS 'As it was before.';
COMMENT ON COLUMN public.conversation_members_audit.user_id IS 'As it was before.';
COMMENT ON COLUMN public.conversation_members_audit.role IS 'As it was before.';
COMMENT ON COLUMN public.conversation_members_audit.joined_at IS 'As it was before.';
COMMENT ON COLUMN public.conversation_members_audit.deleted_at IS 'Start of the transaction that deleted the row.';
COMMENT ON COLUMN public.conversation_members_audit.deleted_by IS 'session_user of the session that deleted it.';
COMMENT ON COLUMN public.conversation_members_audit.application IS 'application_name of that session.';
COMMENT ON COLUMN public.conversation_members_audit.run_id IS 'The run of orphan-cleaner that deleted it; null: somebody else.';
COMMENT ON COLUMN public.conversation_members_audit.txid IS 'pg_current_xact_id() of that transaction.';

-- No DEFAULT partition: without a partition for the backup there is no delete.
CREATE TABLE public.conversation_members_backup (
    -- Its columns as they are here and now, then ours.
    LIKE public.conversation_members,
    backed_up_at timestamptz NOT NULL,
    run_id bigint NOT NULL
) PARTITION BY RANGE (backed_up_at);

ALTER TABLE public.conversation_members_backup REPLICA IDENTITY FULL;

-- A backup takes whatever the table held: the NOT NULLs that LIKE brought along would refuse it on the day one of them is relaxed.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE (
        SELECT 'ALTER TABLE public.conversation_members_backup ' || pg_catalog.string_agg(pg_catalog.format('ALTER COLUMN %I DROP NOT NULL', a.attname), ', ')
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = 'public.conversation_members'::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
    );
END
$$;
-- +goose StatementEnd

COMMENT ON TABLE public.conversation_members_backup IS 'Whole rows of public.conversation_members that runs deleted. Partitioned by UTC day: conversation_members_backup_YYYYMMDD.';
COMMENT ON COLUMN public.conversation_members_backup.backed_up_at IS 'Start of the transaction that deleted the row; equals deleted_at of the audit row.';
COMMENT ON COLUMN public.conversation_members_backup.run_id IS 'The run that deleted the row.';

CREATE TABLE orphan_cleaner.rechecks (
    user_id uuid NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    checked_at timestamptz,
    alive_at timestamptz,
    CONSTRAINT rechecks_pkey PRIMARY KEY (user_id)
)
-- Each check updates a row in place.
WITH (fillfactor = 70);

-- Almost always empty.
CREATE INDEX rechecks_alive ON orphan_cleaner.rechecks (user_id) WHERE alive_at IS NOT NULL;
-- What prune forgets: before the oldest backup.
CREATE INDEX rechecks_deleted_at ON orphan_cleaner.rechecks (deleted_at);

COMMENT ON TABLE orphan_cleaner.rechecks IS 'Users who left the ledger: checked again, in the order of their ids, while their backups exist.';
COMMENT ON COLUMN orphan_cleaner.rechecks.user_id IS 'A user of auth-service.';
COMMENT ON COLUMN orphan_cleaner.rechecks.deleted_at IS 'When the user left the ledger: the last row was deleted, or the user returned.';
COMMENT ON COLUMN orphan_cleaner.rechecks.checked_at IS 'Last valid response about the user since.';
COMMENT ON COLUMN orphan_cleaner.rechecks.alive_at IS 'Since when the user is known to be alive again while deleted rows can be restored; null: still missing. A restore takes the row away.';

CREATE TABLE orphan_cleaner.event_cursors (
    sink text NOT NULL,
    run_id bigint NOT NULL,
    kind text COLLATE "C" NOT NULL DEFAULT '',
    conversation_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    user_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    events bigint NOT NULL DEFAULT 0,
    ticket uuid,
    leased_until timestamptz,
    error text,
    CONSTRAINT event_cursors_pkey PRIMARY KEY (sink)
);

COMMENT ON TABLE orphan_cleaner.event_cursors IS 'How far the events of finished runs were relayed, one row per sink. What a sink lacks, prune keeps: delete the row of a sink that is no longer used.';
COMMENT ON COLUMN orphan_cleaner.event_cursors.sink IS 'redis, stdout, or file: and a path.';
COMMENT ON COLUMN orphan_cleaner.event_cursors.run_id IS 'All events of earlier runs were delivered.';
COMMENT ON COLUMN orphan_cleaner.event_cursors.kind IS 'With the next two columns, the last event of the run that was delivered; empty: none yet.';
COMMENT ON COLUMN orphan_cleaner.event_cursors.conversation_id IS 'Of that event.';
COMMENT ON COLUMN orphan_cleaner.event_cursors.user_id IS 'Of that event.';
COMMENT ON COLUMN orphan_cleaner.event_cursors.events IS 'How many events of the run were delivered.';
COMMENT ON COLUMN orphan_cleaner.event_cursors.ticket IS 'Random, drawn by the relay for a page: only with it is the cursor moved. A relay that woke up too late has another one.';
COMMENT ON COLUMN orphan_cleaner.event_cursors.leased_until IS 'Until then no other relay gets a page.';
COMMENT ON COLUMN orphan_cleaner.event_cursors.error IS 'Why the last page was not delivered; null: it was.';

-- By names, looked up when it is planned: no view stands in the way when messaging-service alters, drops or swaps its tables.
-- With a SET, or as SECURITY DEFINER, it would not be inlined: 200,000 rows took 20 times as long, a call each. So each
-- name and operator is qualified instead.
CREATE FUNCTION orphan_cleaner.restorable(of_conversation uuid, of_user uuid)
RETURNS SETOF boolean
LANGUAGE sql
STABLE
AS $$
    SELECT true
    WHERE EXISTS (SELECT FROM public.conversations AS c WHERE c.id OPERATOR(pg_catalog.=) restorable.of_conversation)
        AND NOT EXISTS (
            SELECT
            FROM public.conversation_members AS m
            WHERE m.conversation_id OPERATOR(pg_catalog.=) restorable.of_conversation
                AND m.user_id OPERATOR(pg_catalog.=) restorable.of_user
        )
$$;

-- The name and form of this view is the runbook's (6.2): its restore statement reads the list of wrongly deleted
-- members from here.
CREATE VIEW public.deleted_members_list AS
SELECT
    a.conversation_id,
    a.user_id,
    a.deleted_at,
    a.run_id
FROM public.conversation_members_audit AS a
CROSS JOIN LATERAL orphan_cleaner.restorable(a.conversation_id, a.user_id)
WHERE a.run_id IS NOT NULL
    -- Emptied by a request for erasure (sql/runbook/user_erase.sql).
    AND a.user_id <> '00000000-0000-0000-0000-000000000000'
    -- Not a member who was restored and then left: the last delete was not ours.
    AND NOT EXISTS (
        SELECT
        FROM public.conversation_members_audit AS l
        WHERE l.conversation_id = a.conversation_id
            AND l.user_id = a.user_id
            AND l.deleted_at > a.deleted_at
            AND l.run_id IS NULL
    );

COMMENT ON VIEW public.deleted_members_list IS
    'Members that runs deleted and that can be restored. For a part of them create a TEMP TABLE of the same name: it is found first.';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.partition_add(parent regclass, partition_name text, lower_bound timestamptz, upper_bound timestamptz)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
-- Where the parent lies and as it is stored, whatever database or role say of new tables: the owner need not have a right on their tablespace.
SET default_tablespace = ''
SET default_table_access_method = 'heap'
AS $$
DECLARE
    home name := (SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = parent);
    is_pending boolean;
    default_partition regclass;
BEGIN
    -- Event triggers of others fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    SELECT i.inhdetachpending INTO is_pending
    FROM pg_inherits AS i
    WHERE i.inhrelid = to_regclass(format('%I.%I', home, partition_name))
        AND i.inhparent = parent;
    IF is_pending THEN
        RAISE EXCEPTION 'partition % is half detached: a DETACH CONCURRENTLY did not end', partition_name
            USING HINT = format('ALTER TABLE %s DETACH PARTITION %I.%I FINALIZE, then attach it again or rename it', parent, home, partition_name);
    END IF;
    IF FOUND THEN
        RETURN false;
    END IF;
    IF to_regclass(format('%I.%I', home, partition_name)) IS NOT NULL THEN
        RAISE EXCEPTION 'there is a % that is no partition of %', partition_name, parent
            USING HINT = format('Attach it again, or rename it: ALTER TABLE %2$I.%1$I RENAME TO %1$s_detached', partition_name, home);
    END IF;
    -- Create, then ATTACH: CREATE ... PARTITION OF would take ACCESS EXCLUSIVE on the parent and make every delete of
    -- the application wait.
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL)', home, partition_name, parent);
    -- So that a publication FOR ALL TABLES lets rows be moved and pruned.
    EXECUTE format('ALTER TABLE %I.%I REPLICA IDENTITY FULL', home, partition_name);
    IF EXISTS (SELECT FROM orphan_cleaner.targets AS t WHERE to_regclass(t.audit_table) = parent) THEN
        -- Autovacuum summarizes what was inserted, and reads no page twice for it.
        EXECUTE format(
            'ALTER TABLE %I.%I SET (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0)',
            home, partition_name
        );
        -- Rows that arrived before their partition did would make ATTACH fail.
        SELECT p.partdefid INTO default_partition
        FROM pg_partitioned_table AS p
        WHERE p.partrelid = parent AND p.partdefid <> 0;
        IF FOUND THEN
            EXECUTE format(
                'WITH late AS (DELETE FROM %s WHERE deleted_at >= $1 AND deleted_at < $2 RETURNING *)'
                ' INSERT INTO %I.%I SELECT * FROM late',
                default_partition, home, partition_name
            ) USING lower_bound, upper_bound;
        END IF;
    END IF;
    EXECUTE format(
        'ALTER TABLE %s ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
        parent, home, partition_name, lower_bound, upper_bound
    );
    RETURN true;
END
$$;

CREATE FUNCTION orphan_cleaner.partitions_ensure(days_ahead integer)
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
    target record;
    made integer := 0;
BEGIN
    IF days_ahead IS NULL OR days_ahead NOT BETWEEN 0 AND 31 THEN
        RAISE EXCEPTION 'days_ahead must be between 0 and 31, not %', days_ahead USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR target IN
        SELECT
            t.backup_table::regclass AS backup, split_part(t.backup_table, '.', 2) AS backup_name,
            t.audit_table::regclass AS audit, split_part(t.audit_table, '.', 2) AS audit_name
        FROM orphan_cleaner.targets AS t
        ORDER BY t.ordinal
    LOOP
        -- Two runners that start together take turns. The lock that ATTACH takes, taken first: no delete and no run waits for it.
        EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', target.backup);
        FOR day IN SELECT today + n FROM generate_series(0, days_ahead) AS n LOOP
            made := made + orphan_cleaner.partition_add(
                target.backup,
                target.backup_name || '_' || to_char(day, 'YYYYMMDD'),
                day::timestamp AT TIME ZONE 'UTC',
                (day + 1)::timestamp AT TIME ZONE 'UTC'
            )::integer;
        END LOOP;
        FOR day IN SELECT (month + make_interval(months => n))::date FROM generate_series(0, 1 + days_ahead / 28) AS n LOOP
            made := made + orphan_cleaner.partition_add(
                target.audit,
                target.audit_name || '_' || to_char(day, 'YYYYMM'),
                day::timestamp AT TIME ZONE 'UTC',
                (day + interval '1 month')::timestamp AT TIME ZONE 'UTC'
            )::integer;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.restorable IS 'Returns a row if a deleted member can be restored: the member is not there, and its conversation is. The tables are looked up by name when a query is planned.';
COMMENT ON FUNCTION orphan_cleaner.partition_add IS 'Creates and attaches one partition unless it is there; true when it made it. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.partitions_ensure IS 'Makes, for each target, the backup partitions of today and the next days, and the audit partitions of their months; returns how many it made.';

INSERT INTO orphan_cleaner.targets (name, ordinal, table_name, user_column, action, audit_table, backup_table)
VALUES (
    'conversation_members', 1, 'public.conversation_members', 'user_id', 'delete',
    'public.conversation_members_audit', 'public.conversation_members_backup'
);

SELECT orphan_cleaner.partitions_ensure(7);

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE public.conversation_members_audit, public.conversation_members_backup IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM public.conversation_members_audit) THEN
        RAISE EXCEPTION 'refusing to drop public.conversation_members_audit: it holds evidence of rows that were deleted'
            USING HINT = 'Copy the rows elsewhere and empty the table first, if you mean it.';
    END IF;
    IF EXISTS (SELECT FROM public.conversation_members_backup) THEN
        RAISE EXCEPTION 'refusing to drop public.conversation_members_backup: it is the only copy of what was deleted'
            USING HINT = 'Restore or copy the rows and empty the table first, if you mean it.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP FUNCTION orphan_cleaner.partitions_ensure, orphan_cleaner.partition_add;
DROP VIEW public.deleted_members_list;
DROP FUNCTION orphan_cleaner.restorable;
DROP TABLE orphan_cleaner.event_cursors;
DROP TABLE orphan_cleaner.rechecks;
DROP TABLE public.conversation_members_backup;
DROP TABLE public.conversation_members_audit;
DELETE FROM orphan_cleaner.targets WHERE name = 'conversation_members';
