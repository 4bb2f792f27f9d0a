-- Why:      the trigger read who deletes, and in which transaction, once per deleted row.
-- Locks:    none on conversation_members: the function is replaced, the trigger stays as it is.
-- Duration: milliseconds.
-- Rollback: the function as it was.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION conversation_members_audit_delete()
RETURNS trigger
LANGUAGE plpgsql
-- The application may write the audit through this trigger and in no other way.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Somebody who locks the audit must not keep the application's delete waiting.
SET lock_timeout = '500ms'
AS $$
-- Whatever columns messaging-service may add, these names are the variables.
#variable_conflict use_variable
DECLARE
    run bigint := nullif(current_setting('orphan_cleaner.run_id', true), '')::bigint;
    -- Once per statement and not once per row.
    deleter text := session_user::text;
    application text := current_setting('application_name');
    transaction_id bigint := pg_current_xact_id()::text::bigint;
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
            SELECT conversation_id, user_id, role::text, joined_at, now(), deleter, application, transaction_id
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
    SELECT conversation_id, user_id, role::text, joined_at, now(), deleter, application, run, transaction_id
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

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION conversation_members_audit_delete()
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
