-- Why:      the scan of public.posts reads user ids in order, a page at a time.
-- Locks:    SHARE UPDATE EXCLUSIVE on public.posts: no read and no write waits.
-- Duration: reads the table twice: seconds for a million rows, minutes for a hundred million.
-- Rollback: drops the index; each page of a scan would read the whole table.
-- Printed by `orphan-cleaner target print`: change targets.yaml and print again, not this file.
-- Index: posts
-- SHARE UPDATE EXCLUSIVE stops no read or write while it waits; giving up would leave an invalid index behind.
-- squawk-ignore-file require-lock-timeout

-- +goose NO TRANSACTION
-- +goose Up
-- An attempt that was cut off leaves an invalid index behind, which IF NOT EXISTS would take for the real one.
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (
        SELECT
        FROM pg_catalog.pg_index
        WHERE indexrelid = pg_catalog.to_regclass('public.orphan_cleaner_posts_user')
            AND NOT indisvalid
    ) THEN
        DROP INDEX public.orphan_cleaner_posts_user;
    END IF;
END
$$;
-- +goose StatementEnd

CREATE INDEX CONCURRENTLY IF NOT EXISTS orphan_cleaner_posts_user ON public.posts (user_id);

-- A table that was loaded or restored lately may have no statistics.
ANALYZE public.posts;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS public.orphan_cleaner_posts_user;
