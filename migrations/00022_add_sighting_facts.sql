-- Why:      what a run found out about a missing user when it staged it is used twice more: by the ledger
--           (when the shadow table says it was deleted) and by the sweep (how many members it has).
-- Locks:    ACCESS EXCLUSIVE on orphan_sightings, which is ours and empty between runs.
-- Duration: milliseconds.
-- Rollback: drops the columns; staging is worth nothing between runs.

-- +goose Up
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_sightings
    ADD COLUMN shadow_deleted_at timestamptz,
    ADD COLUMN members bigint;

COMMENT ON COLUMN orphan_sightings.shadow_deleted_at IS 'deleted_at of the shadow table users, where it had one when the user was staged.';
COMMENT ON COLUMN orphan_sightings.members IS 'Members of a missing user when it was staged, of whatever age.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_sightings
    DROP COLUMN shadow_deleted_at,
    DROP COLUMN members;
