{{define "audit_deleted" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_audit_deleted()
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
{{- if .Shipped}}
    columns text;
{{- end}}
BEGIN
    IF NOT EXISTS (SELECT FROM gone) THEN
        RETURN NULL;
    END IF;
    IF current_setting('orphan_cleaner.run_token', true) <> '' THEN
        run := orphan_cleaner.deleting_run();
    END IF;
    transaction_id := pg_current_xact_id()::text::bigint;

    IF run IS NULL AND current_setting('orphan_cleaner.{{.Name}}_audits', true) IS DISTINCT FROM transaction_id::text THEN
        -- Somebody else's delete, which must not fail because of us. The first of a transaction is caught by a subtransaction;
        -- the later ones need none: hundreds of subtransactions in one transaction would slow every session.
        IF current_setting('orphan_cleaner.{{.Name}}_audit_failed', true) IS NOT DISTINCT FROM transaction_id::text THEN
            RETURN NULL;
        END IF;
        BEGIN
            INSERT INTO {{.AuditTable}} ({{list "" .Audited}}, deleted_at, deleted_by, application, txid)
            SELECT {{list "g." .Audited}}, now(), deleter, application, transaction_id
{{- if .Shipped}}
            -- A name that the inner query has no column of is found in the outer one.
{{- end}}
            FROM {{.Gone}};
            -- Not set_config(), which some revoke from PUBLIC.
            EXECUTE format('SET LOCAL orphan_cleaner.{{.Name}}_audits = %L', transaction_id);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING '{{.Name}}: rows deleted by this transaction are not audited: %', SQLERRM
                USING HINT = 'Run: orphan-cleaner check';
            EXECUTE format('SET LOCAL orphan_cleaner.{{.Name}}_audit_failed = %L', transaction_id);
        END;
        RETURN NULL;
    END IF;

    IF run IS NOT NULL AND EXISTS (
        SELECT
        FROM orphan_cleaner.targets AS t
        WHERE t.name = current_setting('orphan_cleaner.target', true) AND t.name <> {{literal .Name}} AND to_regclass(t.table_name) = TG_RELID
    ) THEN
        -- By another column of this table: audited here, and backed up there.
        run := NULL;
    END IF;
    -- A cascade or a trigger: the rows may be those of somebody who lives.
    IF run IS NOT NULL AND current_setting('orphan_cleaner.target', true) IS DISTINCT FROM {{literal .Name}} THEN
        RAISE EXCEPTION 'a delete from another table would delete % rows of {{.Name}}, whoever they belong to', (SELECT count(*) FROM gone)
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
{{- if not .Shipped}}
    -- A backup has whole rows, of the columns that it was printed for.
    IF run IS NOT NULL AND {{literal (array .Stored)}}::name [] IS DISTINCT FROM ARRAY(
        SELECT a.attname
        FROM pg_attribute AS a
        WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attname
    ) THEN
        RAISE EXCEPTION '{{.Name}}: % has other columns than those that its backup was printed for', TG_RELID::regclass
            USING ERRCODE = 'OC007', HINT = 'Run: orphan-cleaner target print, and apply what it prints';
    END IF;
{{- end}}

    INSERT INTO {{.AuditTable}} ({{list "" .Audited}}, deleted_at, deleted_by, application, run_id, txid)
    SELECT {{list "g." .Audited}}, now(), deleter, application, run, transaction_id
    FROM {{.Gone}};
    GET DIAGNOSTICS audited = ROW_COUNT;
    IF run IS NULL THEN
        RETURN NULL;
    END IF;
{{- if .Shipped}}

    -- By name, from the catalog: a column that messaging-service added and the backup lacks fails here, and with it
    -- the run's delete. Generated columns are computed anew on restore.
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO columns
    FROM pg_attribute AS a
    WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
    EXECUTE format('INSERT INTO {{.BackupTable}} (%1$s, backed_up_at, run_id) SELECT %1$s, now(), $1 FROM gone', columns) USING run;
{{- else}}
    INSERT INTO {{.BackupTable}} ({{list "" .Stored}}, backed_up_at, run_id)
    SELECT {{list "g." .Stored}}, now(), run
    FROM gone AS g;
{{- end}}
    GET DIAGNOSTICS backed_up = ROW_COUNT;

    -- What the deleting function compares with the rows it deleted, before COMMIT.
    PERFORM set_config('orphan_cleaner.audited',
        (coalesce(nullif(current_setting('orphan_cleaner.audited', true), ''), '0')::bigint + audited)::text, true);
    PERFORM set_config('orphan_cleaner.backed_up',
        (coalesce(nullif(current_setting('orphan_cleaner.backed_up', true), ''), '0')::bigint + backed_up)::text, true);
    RETURN NULL;
END
$$;
{{end}}

{{define "delete" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_delete(user_ids uuid [], horizon timestamptz, checked_from xid8, max_rows bigint)
RETURNS TABLE (rows_deleted bigint, is_whole boolean, counted jsonb)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- A chunk that waits keeps others waiting, and after a second (deadlock_timeout) is taken for a part of a deadlock.
SET lock_timeout = '500ms'
SET enable_seqscan = off
SET jit = off
AS $$
-- Whatever columns the table has, these names are the variables.
#variable_conflict use_variable
DECLARE
    -- A row version is unchanged if its transaction is older than every one that ran when the users were checked. Its xmin
    -- has 32 bits and may be older than they reach back: only those in the window since then count as changed. The
    -- million is for transactions that begin while this one waits for a row.
    first_xid bigint := checked_from::text::bigint;
    window_size bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - first_xid + 1000000;
    chosen tid [] := orphan_cleaner.{{.Name}}_choose(user_ids, horizon, first_xid, window_size, max_rows);
{{- if not .IsUpdate}}
    inserted bigint;
{{- end}}
BEGIN
    is_whole := cardinality(chosen) <= max_rows;
    chosen := {{if .Shipped}}orphan_cleaner.{{.Name}}_leave(chosen[1:max_rows]){{else}}chosen[1:max_rows]{{end}};
{{- if .HasCounter}}{{template "counted" .}}{{else}}
    counted := NULL;
{{- end}}
{{- if .IsUpdate}}
    rows_deleted := orphan_cleaner.{{.Name}}_set(chosen, first_xid, window_size);
    RETURN NEXT;
END
{{- else}}
    PERFORM set_config('orphan_cleaner.target', {{literal .Name}}, true);
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    inserted := pg_stat_get_xact_tuples_inserted({{literal .Table}}::regclass);
    -- The guard once more, for a row that changed while this waited for it: what is found in its place must not be deleted unseen.
    DELETE FROM {{.Table}} AS m
    WHERE m.ctid = ANY (chosen)
        AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 >= window_size;
    GET DIAGNOSTICS rows_deleted = ROW_COUNT;
    -- Deferred triggers of the application too: at COMMIT they would run as the login, and find no table of public.
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM set_config('orphan_cleaner.target', '', true);
    IF rows_deleted <> cardinality(chosen) THEN
        RAISE EXCEPTION '% rows of {{.Name}} chosen, % deleted: they changed at that moment, or a trigger or rule keeps them',
            cardinality(chosen), rows_deleted
            USING ERRCODE = 'OC006', HINT = 'Run: orphan-cleaner check';
    END IF;
    -- Or puts them back. Looked for only where something was inserted, since it reads the rows of these users again.
    IF pg_stat_get_xact_tuples_inserted({{literal .Table}}::regclass) > inserted AND EXISTS (
        SELECT
        FROM {{.Table}} AS m
        WHERE m.{{.Owner}} = ANY (ARRAY(SELECT unnest(user_ids)))
            AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 < window_size
    ) THEN
        RAISE EXCEPTION '% rows of {{.Name}} deleted, and some of these users have new ones at once: a trigger puts them back', rows_deleted
            USING ERRCODE = 'OC006', HINT = 'Run: orphan-cleaner check';
    END IF;
    RETURN NEXT;
END
{{- end}}
$$;
{{end}}

{{define "counted"}}
    -- Read before: all of these rows are {{.Did}}, or it rolls back.
    SELECT {{template "counted_keys" .}} INTO counted
    FROM (
        SELECT {{countedOf "m." .}}, count(*) AS n
        FROM {{.Table}} AS m
        WHERE m.ctid = ANY (chosen)
{{- if .Shipped}}
            AND EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.name = 'counter' AND e.choice = 'on')
{{- end}}
        GROUP BY {{list "m." .Counter.Values}}
    ) AS k;
{{- end}}
