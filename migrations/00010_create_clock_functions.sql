-- Why:      the rule of the retention clock, in one place that both the judging and the ledger use.
-- Locks:    none.
-- Duration: milliseconds.
-- Rollback: drops the functions; runs refuse to start.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE FUNCTION orphan_clock_start(
    first_missing_at timestamptz,
    last_missing_at timestamptz,
    shadow_deleted_at timestamptz,
    max_gap interval
)
RETURNS timestamptz
LANGUAGE sql
STABLE
RETURN least(
    -- Not seen for longer than max_gap, or never before: the clock starts now.
    CASE WHEN last_missing_at >= now() - max_gap THEN first_missing_at ELSE now() END,
    -- The shadow may only make it start earlier; least() passes over null.
    shadow_deleted_at
);

REVOKE EXECUTE ON FUNCTION orphan_clock_start(timestamptz, timestamptz, timestamptz, interval) FROM PUBLIC;

COMMENT ON FUNCTION orphan_clock_start(timestamptz, timestamptz, timestamptz, interval) IS
    'When the retention clock of a user who is missing now started.';

-- The shadow table users belongs to messaging-service and goes in a later phase:
-- a query that named it would not even prepare then.
-- +goose StatementBegin
CREATE FUNCTION orphan_shadow_evidence(user_ids uuid [])
RETURNS TABLE (user_id uuid, deleted_at timestamptz)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- A deleted_at without time zone is UTC, as messaging-service writes it.
SET timezone = 'UTC'
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

REVOKE EXECUTE ON FUNCTION orphan_shadow_evidence(uuid []) FROM PUBLIC;

COMMENT ON FUNCTION orphan_shadow_evidence(uuid []) IS
    'deleted_at of these users in the shadow table; no row where the table or the column is not there.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION orphan_shadow_evidence(uuid []);
DROP FUNCTION orphan_clock_start(timestamptz, timestamptz, timestamptz, interval);
