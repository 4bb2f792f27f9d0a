-- Why:      every deleted member is audited, and a run's members are backed up, in the deleting transaction itself. And what
--           this evidence is for: which members it can bring back and where they are (restore_plan, restore_chunks), and who
--           still needs a part of it.
-- Locks:    SHARE ROW EXCLUSIVE on conversation_members for the time of CREATE TRIGGER: writes wait for it, and it waits
--           for running writes, 3 s at most; then it fails and can be repeated. Down: ACCESS EXCLUSIVE, likewise.
-- Duration: milliseconds, whatever the size of the table.
-- Printed:  the triggers and the functions conversation_members_*, by the templates of internal/printer, as those of any target.
-- Rollback: deletes are no longer audited; runs refuse to start, `restore` and `prune` stop working.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.deleting_run()
RETURNS bigint
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- The function that deletes for a run names the run's token in this setting, local to its transaction. Whatever
    -- else it may hold is nobody's error: then the delete is somebody else's.
    SELECT r.run_id
    FROM orphan_cleaner.runs AS r
    WHERE r.state = 'running'
        AND r.token::text = current_setting('orphan_cleaner.run_token', true)
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_audit_deleted()
RETURNS trigger
LANGUAGE plpgsql
-- The application may write the audit through this trigger and in no other way.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Nobody who locks the audit must keep the application's delete waiting.
SET lock_timeout = '500ms'
AS $$
-- Whatever columns the table has, these names are the variables.
#variable_conflict use_variable
DECLARE
    -- Once per statement and not once per row.
    deleter text := session_user::text;
    application text := current_setting('application_name');
    run bigint;
    transaction_id bigint;
    audited bigint;
    backed_up bigint;
    columns text;
BEGIN
    IF NOT EXISTS (SELECT FROM gone) THEN
        RETURN NULL;
    END IF;
    IF current_setting('orphan_cleaner.run_token', true) <> '' THEN
        run := orphan_cleaner.deleting_run();
    END IF;
    transaction_id := pg_current_xact_id()::text::bigint;

    IF run IS NULL AND current_setting('orphan_cleaner.conversation_members_audits', true) IS DISTINCT FROM transaction_id::text THEN
        -- Somebody else's delete, which must not fail because of us. The first of a transaction is caught by a subtransaction;
        -- the later ones need none: hundreds of subtransactions in one transaction would slow every session.
        IF current_setting('orphan_cleaner.conversation_members_audit_failed', true) IS NOT DISTINCT FROM transaction_id::text THEN
            RETURN NULL;
        END IF;
        BEGIN
            INSERT INTO public.conversation_members_audit (conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, txid)
            SELECT g.conversation_id, g.user_id, g.role, g.joined_at, now(), deleter, application, transaction_id
            -- A name that the inner query has no column of is found in the outer one.
            FROM (SELECT NULL AS role, NULL::timestamptz AS joined_at) AS absent CROSS JOIN LATERAL (SELECT o.conversation_id, o.user_id, role::text AS role, joined_at FROM gone AS o) AS g;
            -- Not set_config(), which some revoke from PUBLIC.
            EXECUTE format('SET LOCAL orphan_cleaner.conversation_members_audits = %L', transaction_id);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'conversation_members: rows deleted by this transaction are not audited: %', SQLERRM
                USING HINT = 'Run: orphan-cleaner check';
            EXECUTE format('SET LOCAL orphan_cleaner.conversation_members_audit_failed = %L', transaction_id);
        END;
        RETURN NULL;
    END IF;

    IF run IS NOT NULL AND EXISTS (
        SELECT
        FROM orphan_cleaner.targets AS t
        WHERE t.name = current_setting('orphan_cleaner.target', true) AND t.name <> 'conversation_members' AND to_regclass(t.table_name) = TG_RELID
    ) THEN
        -- By another column of this table: audited here, and backed up there.
        run := NULL;
    END IF;
    -- A cascade or a trigger: the rows may be those of somebody who lives.
    IF run IS NOT NULL AND current_setting('orphan_cleaner.target', true) IS DISTINCT FROM 'conversation_members' THEN
        RAISE EXCEPTION 'a delete from another table would delete % rows of conversation_members, whoever they belong to', (SELECT count(*) FROM gone)
            USING ERRCODE = 'restrict_violation', DETAIL = format(
                'By a foreign key with ON DELETE CASCADE%s, or by a trigger, onto %s.',
                (
                    SELECT ', ' || string_agg(k.conname, ', ' ORDER BY k.conname)
                    FROM pg_constraint AS k
                    JOIN orphan_cleaner.targets AS t ON t.name = current_setting('orphan_cleaner.target', true) AND to_regclass(t.table_name) = k.confrelid
                    WHERE k.conrelid = TG_RELID AND k.contype = 'f' AND k.confdeltype = 'c'
                ),
                TG_RELID::regclass
            ),
                HINT = 'Add action: update for the other table, or delete those rows by hand.';
    END IF;

    INSERT INTO public.conversation_members_audit (conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, run_id, txid)
    SELECT g.conversation_id, g.user_id, g.role, g.joined_at, now(), deleter, application, run, transaction_id
    FROM (SELECT NULL AS role, NULL::timestamptz AS joined_at) AS absent CROSS JOIN LATERAL (SELECT o.conversation_id, o.user_id, role::text AS role, joined_at FROM gone AS o) AS g;
    GET DIAGNOSTICS audited = ROW_COUNT;
    IF run IS NULL THEN
        RETURN NULL;
    END IF;

    -- By name, from the catalog: a column that messaging-service added and the backup lacks fails here, and with it
    -- the run's delete. Generated columns are computed anew on restore.
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO columns
    FROM pg_attribute AS a
    WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
    EXECUTE format('INSERT INTO public.conversation_members_backup (%1$s, backed_up_at, run_id) SELECT %1$s, now(), $1 FROM gone', columns) USING run;
    GET DIAGNOSTICS backed_up = ROW_COUNT;

    -- What the deleting function compares with the rows it deleted, before COMMIT.
    PERFORM set_config('orphan_cleaner.audited',
        (coalesce(nullif(current_setting('orphan_cleaner.audited', true), ''), '0')::bigint + audited)::text, true);
    PERFORM set_config('orphan_cleaner.backed_up',
        (coalesce(nullif(current_setting('orphan_cleaner.backed_up', true), ''), '0')::bigint + backed_up)::text, true);
    RETURN NULL;
END
$$;

CREATE FUNCTION orphan_cleaner.refuse_truncate()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of % is refused: it would leave neither audit nor backup', TG_TABLE_NAME
        USING HINT = format('Use DELETE, or, if you mean it: ALTER TABLE %s DISABLE TRIGGER %I', TG_RELID::regclass, TG_NAME);
END
$$;

CREATE FUNCTION orphan_cleaner.members_columns(form text, separator text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The columns that members and backup both have, by name; generated ones are computed anew, and compared by nobody.
    SELECT string_agg(replace(form, '@', quote_ident(m.attname)), separator ORDER BY m.attnum)
    FROM pg_attribute AS m
    JOIN pg_attribute AS b
        ON b.attrelid = 'public.conversation_members_backup'::regclass
        AND b.attname = m.attname
        AND NOT b.attisdropped
    WHERE m.attrelid = 'public.conversation_members'::regclass
        AND m.attnum > 0
        AND NOT m.attisdropped
        AND m.attgenerated = ''
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_restore_plan(
    of_run bigint,
    of_users uuid [],
    of_conversations uuid [],
    since timestamptz,
    until timestamptz
)
RETURNS TABLE (conversation_id uuid, user_id uuid, deleted_run bigint, backed_up_at timestamptz, verdict text, row_key text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- Without statistics all of the audit's months are read, and not what its BRIN says.
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
    RETURN QUERY EXECUTE format($statement$
    WITH events AS (
        SELECT
            b.conversation_id AS k1, b.user_id AS k2, b.user_id AS owner, ROW(%1$s)::text AS row_deleted,
            b.run_id, b.backed_up_at AS happened_at, true AS is_backup,
            ($1 IS NULL OR b.run_id = $1) AND ($4 IS NULL OR b.backed_up_at >= $4) AND ($5 IS NULL OR b.backed_up_at < $5) AS is_chosen
        FROM public.conversation_members_backup AS b
        -- Backups of a run are not older than the run, but for a clock that went back meanwhile.
        WHERE b.backed_up_at >= $6
            -- A subquery is hashed, an array would be searched from its beginning for each row.
            AND ($2 IS NULL OR b.user_id IN (SELECT unnest($2)))
            -- Emptied on request of the law.
            AND b.user_id IS NOT NULL
            AND b.conversation_id IS NOT NULL
            AND ($3 IS NULL OR b.conversation_id IN (SELECT unnest($3)))
        UNION ALL
        -- Deletes by others: what was restored and deleted since must stay away.
        SELECT a.conversation_id, a.user_id, a.user_id, NULL, NULL, a.deleted_at, false, false
        FROM public.conversation_members_audit AS a
        WHERE a.run_id IS NULL
            AND a.deleted_at >= $6
            AND ($2 IS NULL OR a.user_id IN (SELECT unnest($2)))
            AND ($3 IS NULL OR a.conversation_id IN (SELECT unnest($3)))
    ),
    -- One sort, and no join between large sets: nobody keeps statistics for it.
    newest AS (
        -- Of a row that was deleted more than once, the last backup counts; it is restored if any of its deletions was chosen.
        SELECT DISTINCT ON (e.k1, e.k2)
            e.*,
            bool_or(e.is_chosen) OVER events_of_row AS any_chosen,
            coalesce(max(e.happened_at) FILTER (WHERE NOT e.is_backup) OVER events_of_row > e.happened_at, false) AS has_left
        FROM events AS e
        WINDOW events_of_row AS (PARTITION BY e.k1, e.k2)
        ORDER BY e.k1, e.k2, e.is_backup DESC, e.happened_at DESC, e.run_id DESC
    )
    SELECT
        n.k1,
        n.owner,
        n.run_id,
        n.happened_at,
        CASE
            WHEN c.is_there IS NULL THEN 'conversation_gone'
            WHEN x.is_same THEN 'there'
            WHEN x.is_same IS NOT NULL THEN 'there_differs'
            WHEN n.has_left THEN 'left_since'
            ELSE 'restore'
        END,
        ''
    FROM newest AS n
    -- One lookup a row, whatever the planner believes: without statistics it would read whole tables.
    LEFT JOIN LATERAL (
        SELECT true AS is_there FROM public.conversations AS g WHERE g.id = n.k1 LIMIT 1
    ) AS c ON true
    LEFT JOIN LATERAL (
        SELECT ROW(%2$s)::text = n.row_deleted AS is_same
        FROM public.conversation_members AS m
        WHERE m.conversation_id = n.k1 AND m.user_id = n.k2
        LIMIT 1
    ) AS x ON true
    WHERE n.any_chosen
    $statement$, orphan_cleaner.members_columns('b.@::text', ', '), orphan_cleaner.members_columns('m.@::text', ', '))
    USING of_run, of_users, of_conversations, since, until,
        -- A value, by which the planner leaves out the days before: it would lock each that a subquery leaves out later.
        greatest(since, (SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = of_run), '-infinity');
END
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_restore_chunks(of_restore bigint, in_state text, pages integer)
RETURNS TABLE (day date, first_page bigint, members bigint, user_ids uuid [])
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    -- A row stays on its page unless somebody rewrites the partition: the caller looks again at the end.
    SELECT
        (b.backed_up_at AT TIME ZONE 'UTC')::date,
        (b.ctid::text::point)[0]::bigint / $3 * $3,
        count(*),
        array_agg(DISTINCT b.user_id)
    FROM public.conversation_members_backup AS b
    CROSS JOIN LATERAL (
        -- One lookup a row: without statistics the planner would read the list once for each row.
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = $1 AND r.user_id = b.user_id AND r.conversation_id = b.conversation_id
            AND r.target = 'conversation_members' AND r.row_key = ''
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = $2
        LIMIT 1
    ) AS listed
    WHERE b.backed_up_at >= (SELECT min(o.backed_up_at) FROM orphan_cleaner.restores AS o WHERE o.run_id = $1)
    GROUP BY 1, 2
    ORDER BY 1, 2
$$;

CREATE FUNCTION orphan_cleaner.partition_need(of_target text, is_backup boolean, partition_id oid, upper_bound timestamptz)
RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
-- Of a hold in force all is hashed: by statistics of no hold they were read for each row, 664,000 blocks and not 3,900.
SET enable_nestloop = off
SET enable_mergejoin = off
AS $$
DECLARE
    user_column text := (SELECT t.user_column FROM orphan_cleaner.targets AS t WHERE t.name = of_target);
    partition regclass := partition_id::regclass;
    holds bigint [];
    reason text;
BEGIN
    SELECT format('%s %s is open', r.kind, r.run_id) INTO reason
    FROM orphan_cleaner.runs AS r
    WHERE r.state = 'running' AND (r.kind = 'restore' OR r.started_at < partition_need.upper_bound);
    IF reason IS NULL AND EXISTS (SELECT FROM orphan_cleaner.pauses AS s WHERE s.resumed_at IS NULL) THEN
        reason := 'runs are paused';
    END IF;
    IF reason IS NULL AND of_target = 'conversation_members' AND NOT is_backup THEN
        -- The first run that a sink lacks is its oldest.
        SELECT format('run %s is not relayed to the sink %s; if nobody reads it any more, delete its row of orphan_cleaner.event_cursors', f.run_id, e.sink) INTO reason
        FROM orphan_cleaner.event_cursors AS e
        CROSS JOIN LATERAL (
            SELECT r.run_id, r.started_at
            FROM orphan_cleaner.runs AS r
            WHERE r.run_id >= e.run_id AND r.state <> 'running' AND r.members_deleted + r.members_restored > 0
            ORDER BY r.run_id
            LIMIT 1
        ) AS f
        WHERE f.started_at < partition_need.upper_bound
        LIMIT 1;
    END IF;
    IF reason IS NULL AND is_backup THEN
        -- Without a hold neither join reads the partition.
        EXECUTE format(
            'SELECT array_agg(DISTINCT h.hold_id) FROM %s AS b JOIN orphan_cleaner.holds_in_force AS h ON h.user_id = b.%I', partition, user_column
        ) INTO holds;
        IF of_target = 'conversation_members' THEN
            EXECUTE format(
                'SELECT $1 || array_agg(DISTINCT h.hold_id) FROM %s AS b JOIN orphan_cleaner.holds_in_force AS h ON h.conversation_id = b.conversation_id',
                partition
            ) INTO holds USING holds;
        END IF;
        SELECT 'hold ' || min(h.hold_id)::text || CASE WHEN count(DISTINCT h.hold_id) > 1 THEN ' and ' || (count(DISTINCT h.hold_id) - 1)::text || ' more' ELSE '' END
        INTO reason
        FROM unnest(holds) AS h (hold_id);
        IF reason IS NULL THEN
            -- A restore takes them off the list.
            EXECUTE format($statement$
                SELECT count(DISTINCT d.user_id)::text || ' users alive again'
                FROM %1$s AS b
                JOIN orphan_cleaner.rechecks AS d ON d.user_id = b.%2$I
                WHERE d.alive_at IS NOT NULL
                HAVING count(*) > 0
                $statement$, partition, user_column) INTO reason;
        END IF;
    END IF;
    RETURN reason;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.deleting_run IS 'The open run whose token this transaction carries; null: the delete is not a run''s.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_audit_deleted IS 'Audits every deleted row; backs up those of an open run and reports both counts to its transaction.';
COMMENT ON FUNCTION orphan_cleaner.refuse_truncate IS 'TRUNCATE fires no delete trigger: it would escape the audit.';
COMMENT ON FUNCTION orphan_cleaner.members_columns IS 'The columns that conversation_members and its backup share, each written in a form with @ for the name. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_restore_plan IS 'What a restore of this run, these users and span would do with each row: restore, there, there_differs, left_since. A null chooses all. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_restore_chunks IS 'Where the backup rows of a restore are: the chunks of that many pages that hold one, by UTC day, with their users. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.partition_need IS 'Who still needs a partition that is past its window; null: nobody.';

-- A statement trigger with a transition table costs half of what a row trigger does.
CREATE TRIGGER conversation_members_audit_delete
    AFTER DELETE ON public.conversation_members
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION orphan_cleaner.conversation_members_audit_deleted();
CREATE TRIGGER conversation_members_refuse_truncate
    BEFORE TRUNCATE ON public.conversation_members
    FOR EACH STATEMENT EXECUTE FUNCTION orphan_cleaner.refuse_truncate();
-- ALWAYS: also under session_replication_role = replica.
ALTER TABLE public.conversation_members ENABLE ALWAYS TRIGGER conversation_members_audit_delete;
ALTER TABLE public.conversation_members ENABLE ALWAYS TRIGGER conversation_members_refuse_truncate;

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- IF EXISTS: down and up again is how a trigger that somebody dropped comes back.
DROP TRIGGER IF EXISTS conversation_members_audit_delete ON public.conversation_members;
DROP TRIGGER IF EXISTS conversation_members_refuse_truncate ON public.conversation_members;
DROP FUNCTION
    orphan_cleaner.partition_need, orphan_cleaner.conversation_members_restore_chunks,
    orphan_cleaner.conversation_members_restore_plan, orphan_cleaner.members_columns,
    orphan_cleaner.refuse_truncate, orphan_cleaner.conversation_members_audit_deleted, orphan_cleaner.deleting_run;
