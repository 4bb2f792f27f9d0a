-- Why:      how many members a missing user had when it was staged is not used any more: the sweep looks where
--           they lie right before it deletes them.
-- Locks:    ACCESS EXCLUSIVE on orphan_sightings, which is ours and empty between runs.
-- Duration: milliseconds.
-- Rollback: adds the column again; staging is worth nothing between runs.

-- +goose Up
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_sightings
    DROP COLUMN members;

-- +goose Down
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_sightings
    ADD COLUMN members bigint;

COMMENT ON COLUMN orphan_sightings.members IS 'Members of a missing user when it was staged, of whatever age.';
