-- Why:      every deleted member is audited, and a run's members are backed up, in the deleting
--           transaction itself.
-- Locks:    SHARE ROW EXCLUSIVE on conversation_members for the time of CREATE TRIGGER: writes wait
--           for it, and it waits for running writes, 3 s at most; then it fails and can be repeated.
-- Duration: milliseconds, whatever the size of the table.
-- Rollback: deletes are no longer audited; runs refuse to start.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION conversation_members_audit_delete()
RETURNS trigger
LANGUAGE plpgsql
-- The application may write the audit through this trigger and in no other way.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Somebody who locks the audit must not keep the application's delete waiting.
SET lock_timeout = '500ms'
AS $$
DECLARE
    run bigint := nullif(current_setting('orphan_cleaner.run_id', true), '')::bigint;
    columns text;
    audited bigint;
    backed_up bigint;
BEGIN
    -- Only who may keep the record of runs can delete in the name of one.
    IF run IS NULL OR NOT has_table_privilege(session_user, 'public.orphan_runs', 'UPDATE') THEN
        -- Somebody else's delete, which must not fail because of us.
        BEGIN
            INSERT INTO public.conversation_members_audit (
                conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, txid
            )
            SELECT conversation_id, user_id, role::text, joined_at, now(), session_user,
                current_setting('application_name'), pg_current_xact_id()::text::bigint
            FROM gone;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'conversation_members: deleted members were not audited: %', SQLERRM
                USING HINT = 'Run: orphan-cleaner check';
        END;
        RETURN NULL;
    END IF;

    -- The last line of the fence: a run that is over deletes nothing.
    IF NOT EXISTS (SELECT FROM public.orphan_runs WHERE run_id = run AND state = 'running') THEN
        RAISE EXCEPTION 'run % is not open: its delete is refused', run
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    INSERT INTO public.conversation_members_audit (
        conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, run_id, txid
    )
    SELECT conversation_id, user_id, role::text, joined_at, now(), session_user,
        current_setting('application_name'), run, pg_current_xact_id()::text::bigint
    FROM gone;
    GET DIAGNOSTICS audited = ROW_COUNT;

    -- By name, from the catalog: a column that messaging-service added and the
    -- backup lacks fails here, and with it the run's delete.
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute
    WHERE attrelid = TG_RELID AND attnum > 0 AND NOT attisdropped;
    EXECUTE format(
        'INSERT INTO public.conversation_members_backup (%1$s, backed_up_at, run_id) SELECT %1$s, now(), $1 FROM gone',
        columns
    ) USING run;
    GET DIAGNOSTICS backed_up = ROW_COUNT;

    -- What the count proof compares with the rows deleted, before COMMIT.
    PERFORM set_config('orphan_cleaner.audited',
        (coalesce(nullif(current_setting('orphan_cleaner.audited', true), ''), '0')::bigint + audited)::text, true);
    PERFORM set_config('orphan_cleaner.backed_up',
        (coalesce(nullif(current_setting('orphan_cleaner.backed_up', true), ''), '0')::bigint + backed_up)::text, true);
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION conversation_members_refuse_truncate()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of conversation_members is refused: it would leave neither audit nor backup'
        USING HINT = 'Use DELETE, or, if you mean it: ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_refuse_truncate';
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION conversation_members_audit_delete() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION conversation_members_refuse_truncate() FROM PUBLIC;

COMMENT ON FUNCTION conversation_members_audit_delete() IS
    'Audits every deleted member; backs up those of an open run and reports both counts to its transaction.';
COMMENT ON FUNCTION conversation_members_refuse_truncate() IS
    'TRUNCATE fires no delete trigger: it would escape the audit.';

-- A statement trigger with a transition table costs half of what a row trigger does.
CREATE TRIGGER conversation_members_audit_delete
    AFTER DELETE ON conversation_members
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION conversation_members_audit_delete();
CREATE TRIGGER conversation_members_refuse_truncate
    BEFORE TRUNCATE ON conversation_members
    FOR EACH STATEMENT EXECUTE FUNCTION conversation_members_refuse_truncate();

-- ALWAYS: also under session_replication_role = replica.
ALTER TABLE conversation_members ENABLE ALWAYS TRIGGER conversation_members_audit_delete;
ALTER TABLE conversation_members ENABLE ALWAYS TRIGGER conversation_members_refuse_truncate;

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- IF EXISTS: down and up again is how a trigger that somebody dropped comes back.
DROP TRIGGER IF EXISTS conversation_members_audit_delete ON conversation_members;
DROP TRIGGER IF EXISTS conversation_members_refuse_truncate ON conversation_members;
DROP FUNCTION conversation_members_audit_delete();
DROP FUNCTION conversation_members_refuse_truncate();
