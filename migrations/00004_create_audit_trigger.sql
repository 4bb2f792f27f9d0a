-- Why:      every deleted member is audited, and a run's members are backed up, in the deleting transaction itself.
-- Locks:    SHARE ROW EXCLUSIVE on conversation_members for the time of CREATE TRIGGER: writes wait for it, and it waits
--           for running writes, 3 s at most; then it fails and can be repeated. Down: ACCESS EXCLUSIVE, likewise.
-- Duration: milliseconds, whatever the size of the table.
-- Rollback: deletes are no longer audited; runs refuse to start.

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
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.audit_members()
RETURNS trigger
LANGUAGE plpgsql
-- The application may write the audit through this trigger and in no other way.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Nobody who locks the audit must keep the application's delete waiting.
SET lock_timeout = '500ms'
AS $$
-- Whatever columns messaging-service may add, these names are the variables.
#variable_conflict use_variable
DECLARE
    -- Once per statement and not once per row.
    deleter text := session_user::text;
    application text := current_setting('application_name');
    run bigint;
    transaction_id bigint;
    columns text;
    audited bigint;
    backed_up bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM gone) THEN
        RETURN NULL;
    END IF;
    IF current_setting('orphan_cleaner.run_token', true) <> '' THEN
        run := orphan_cleaner.deleting_run();
    END IF;
    transaction_id := pg_current_xact_id()::text::bigint;

    IF run IS NULL THEN
        -- Somebody else's delete, which must not fail because of us. The first of a transaction is caught by a
        -- subtransaction; once it went well the audit's lock is held and its partition known, and the later ones need
        -- none: hundreds of subtransactions in one transaction would slow every session.
        IF current_setting('orphan_cleaner.audits', true) IS NOT DISTINCT FROM transaction_id::text THEN
            INSERT INTO public.conversation_members_audit (
                conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, txid
            )
            SELECT g.conversation_id, g.user_id, g.role::text, g.joined_at, now(), deleter, application, transaction_id
            FROM gone AS g;
            RETURN NULL;
        END IF;
        IF current_setting('orphan_cleaner.audit_failed', true) IS NOT DISTINCT FROM transaction_id::text THEN
            RETURN NULL;
        END IF;
        BEGIN
            INSERT INTO public.conversation_members_audit (
                conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, txid
            )
            SELECT g.conversation_id, g.user_id, g.role::text, g.joined_at, now(), deleter, application, transaction_id
            FROM gone AS g;
            PERFORM set_config('orphan_cleaner.audits', transaction_id::text, true);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'conversation_members: members deleted by this transaction are not audited: %', SQLERRM
                USING HINT = 'Run: orphan-cleaner check';
            PERFORM set_config('orphan_cleaner.audit_failed', transaction_id::text, true);
        END;
        RETURN NULL;
    END IF;

    INSERT INTO public.conversation_members_audit (
        conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, run_id, txid
    )
    SELECT g.conversation_id, g.user_id, g.role::text, g.joined_at, now(), deleter, application, run, transaction_id
    FROM gone AS g;
    GET DIAGNOSTICS audited = ROW_COUNT;

    -- By name, from the catalog: a column that messaging-service added and the backup lacks fails here, and with it
    -- the run's delete. Generated columns are computed anew on restore.
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO columns
    FROM pg_attribute AS a
    WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
    EXECUTE format(
        'INSERT INTO public.conversation_members_backup (%1$s, backed_up_at, run_id) SELECT %1$s, now(), $1 FROM gone',
        columns
    ) USING run;
    GET DIAGNOSTICS backed_up = ROW_COUNT;

    -- What the deleting function compares with the rows it deleted, before COMMIT.
    PERFORM set_config('orphan_cleaner.audited',
        (coalesce(nullif(current_setting('orphan_cleaner.audited', true), ''), '0')::bigint + audited)::text, true);
    PERFORM set_config('orphan_cleaner.backed_up',
        (coalesce(nullif(current_setting('orphan_cleaner.backed_up', true), ''), '0')::bigint + backed_up)::text, true);
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
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
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION orphan_cleaner.deleting_run() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_cleaner.audit_members() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_cleaner.refuse_truncate() FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.deleting_run() IS
    'The open run whose token this transaction carries; null: the delete is not a run''s.';
COMMENT ON FUNCTION orphan_cleaner.audit_members() IS
    'Audits every deleted member; backs up those of an open run and reports both counts to its transaction.';
COMMENT ON FUNCTION orphan_cleaner.refuse_truncate() IS
    'TRUNCATE fires no delete trigger: it would escape the audit.';

-- A statement trigger with a transition table costs half of what a row trigger does.
CREATE TRIGGER conversation_members_audit_delete
    AFTER DELETE ON public.conversation_members
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION orphan_cleaner.audit_members();
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
DROP FUNCTION orphan_cleaner.audit_members();
DROP FUNCTION orphan_cleaner.refuse_truncate();
DROP FUNCTION orphan_cleaner.deleting_run();
