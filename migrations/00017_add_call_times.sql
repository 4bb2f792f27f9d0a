-- Why:      how long auth-service took, per run, so that P50 and P99 of a day or a month can be told:
--           percentiles of runs cannot be averaged, histograms can be added up.
-- Locks:    ACCESS EXCLUSIVE on orphan_runs, which only runs use, for milliseconds. None on
--           messaging-service's tables.
-- Duration: milliseconds; no row is rewritten.
-- Rollback: drops the times; nothing but the report reads them.

-- +goose Up
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_runs
    ADD COLUMN call_ms_buckets bigint [],
    ADD COLUMN call_ms_max float8;

COMMENT ON COLUMN orphan_runs.call_ms_buckets IS
    'How many batches took how long, retries and waiting for MAX_QPS included. Element n counts those of up to 2^((n - 1) / 4) ms that are in no element before it; the 61st, the last, has no upper bound. A percentile told by the bound of its element is at most 19 % too high and never too low. Null: no batch was asked about.';
COMMENT ON COLUMN orphan_runs.call_ms_max IS 'The slowest batch, in ms; null: no batch was asked about.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_runs
    DROP COLUMN call_ms_max,
    DROP COLUMN call_ms_buckets;
