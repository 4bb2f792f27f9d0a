-- Why:      VERIFY pages through the distinct user ids and SWEEP finds a user's members: both need an
--           index that messaging-service's table often lacks.
-- Locks:    SHARE UPDATE EXCLUSIVE on conversation_members while it builds: reads and writes go on,
--           VACUUM and DDL wait. A leftover of a build that failed is dropped first (ACCESS EXCLUSIVE
--           for milliseconds, 3 s at most to get it).
--           ANALYZE takes the same lock for the time of reading a sample.
-- Duration: about 1 s a million rows; it also waits for transactions older than itself.
-- Rollback: drops the index, concurrently.

-- +goose NO TRANSACTION

-- +goose Up
-- +goose StatementBegin
DO $$
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '3s', true);
    IF EXISTS (
        SELECT
        FROM pg_catalog.pg_index
        WHERE indexrelid = pg_catalog.to_regclass('public.conversation_members_user_id')
            AND NOT indisvalid
    ) THEN
        DROP INDEX public.conversation_members_user_id;
    END IF;
END
$$;
-- +goose StatementEnd

CREATE INDEX CONCURRENTLY IF NOT EXISTS conversation_members_user_id ON public.conversation_members (user_id);

-- A table that was loaded or restored lately may have no statistics: the planner
-- would then sort the whole table for every page.
ANALYZE public.conversation_members;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS public.conversation_members_user_id;
