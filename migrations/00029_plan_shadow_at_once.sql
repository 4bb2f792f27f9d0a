-- Why:      the planner weighed each of the thousands of users that the shadow table is asked about, which took
--           longer than looking them up.
-- Locks:    none.
-- Duration: milliseconds.
-- Rollback: the function as it was.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION orphan_shadow_evidence(user_ids uuid [])
RETURNS TABLE (user_id uuid, deleted_at timestamptz)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- A deleted_at without time zone is UTC, as messaging-service writes it.
SET timezone = 'UTC'
SET enable_seqscan = off
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT
        FROM pg_attribute
        WHERE attrelid = to_regclass('public.users')
            AND attname = 'id'
            AND NOT attisdropped
            AND atttypid = 'uuid'::regtype
    ) OR NOT EXISTS (
        SELECT
        FROM pg_attribute
        WHERE attrelid = to_regclass('public.users')
            AND attname = 'deleted_at'
            AND NOT attisdropped
            AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)
    ) THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE
        'SELECT u.id, u.deleted_at::timestamptz FROM public.users AS u'
        -- A subquery, so that the planner does not weigh thousands of users one by one.
        ' WHERE u.id = ANY (ARRAY(SELECT unnest($1))) AND u.deleted_at IS NOT NULL'
        USING user_ids;
END
$$;
-- +goose StatementEnd

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION orphan_shadow_evidence(user_ids uuid [])
RETURNS TABLE (user_id uuid, deleted_at timestamptz)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- A deleted_at without time zone is UTC, as messaging-service writes it.
SET timezone = 'UTC'
SET enable_seqscan = off
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT
        FROM pg_attribute
        WHERE attrelid = to_regclass('public.users')
            AND attname = 'id'
            AND NOT attisdropped
            AND atttypid = 'uuid'::regtype
    ) OR NOT EXISTS (
        SELECT
        FROM pg_attribute
        WHERE attrelid = to_regclass('public.users')
            AND attname = 'deleted_at'
            AND NOT attisdropped
            AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)
    ) THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE
        'SELECT u.id, u.deleted_at::timestamptz FROM public.users AS u'
        ' WHERE u.id = ANY ($1) AND u.deleted_at IS NOT NULL'
        USING user_ids;
END
$$;
-- +goose StatementEnd
