-- Why:      the shadow table is asked about a few thousand users at a time. Where it is not large the planner
--           would rather read it whole, each time anew; by its key this takes a sixth of the time.
-- Locks:    none.
-- Duration: milliseconds.
-- Rollback: the function as it was.

-- +goose Up
SET LOCAL lock_timeout = '3s';

ALTER FUNCTION orphan_shadow_evidence(uuid []) SET enable_seqscan = off;

-- +goose Down
SET LOCAL lock_timeout = '3s';

ALTER FUNCTION orphan_shadow_evidence(uuid []) RESET enable_seqscan;
