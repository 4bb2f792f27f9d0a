-- Why:      the scan of public.posts reads user ids in order, a page at a time.
-- Locks:    SHARE UPDATE EXCLUSIVE on public.posts: no read and no write waits. A leftover of a build that failed is dropped first (ACCESS EXCLUSIVE
--           for milliseconds, 3 s at most to get it).
-- Duration: reads the table twice: seconds for a million rows, minutes for a hundred million.
-- Rollback: drops the index; each page of a scan would read the whole table.
-- Printed by `orphan-cleaner target print`: change targets.yaml and print again, not this file.
-- Index: posts
-- But for a leftover, SHARE UPDATE EXCLUSIVE stops no read or write while it waits; giving up would leave an invalid index behind.
-- squawk-ignore-file require-lock-timeout

-- +goose NO TRANSACTION
-- +goose Up
-- +goose StatementBegin
DO $$
BEGIN
    IF pg_catalog.current_setting('application_name') = 'psql' THEN
        -- It reads Up and Down alike, and goes on after an error.
        RAISE WARNING 'refusing to migrate: psql would run Up and Down, and record neither: this session ends'
            USING HINT = 'Run: orphan-cleaner target apply --dir DIR';
        PERFORM pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid());
    END IF;
    IF pg_catalog.to_regclass('public.orphan_cleaner_targets_goose') IS NULL THEN
        RAISE EXCEPTION 'refusing to migrate: these migrations would be recorded in another version table than public.orphan_cleaner_targets_goose'
            USING HINT = 'Run: orphan-cleaner target apply --dir DIR; or goose in this folder, where .env names the table; or goose -table public.orphan_cleaner_targets_goose up';
    END IF;
END
$$;
-- +goose StatementEnd

-- An attempt that was cut off leaves an invalid index behind, which IF NOT EXISTS would take for the real one.
-- +goose StatementBegin
DO $$
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '3s', true);
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

-- A table that was loaded or restored lately may have no statistics: the planner would then sort the whole table for every page.
ANALYZE public.posts;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS public.orphan_cleaner_posts_user;
