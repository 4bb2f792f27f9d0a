-- goose's own bookkeeping, which goose creates: here only so that sqlc can type
-- the query that reads it. Never applied.
CREATE TABLE public.orphan_cleaner_goose (
    id integer NOT NULL,
    version_id bigint NOT NULL,
    is_applied boolean NOT NULL,
    tstamp timestamp NOT NULL
);
