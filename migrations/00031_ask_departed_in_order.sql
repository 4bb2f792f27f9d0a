-- Why:      the index on whose turn it is to be asked about again was a quarter of what a user costs who leaves the ledger,
--           and each answer wrote it anew. The departed are asked about in the order of their ids instead, by the key;
--           a run goes on where the last one stopped, and all of them come round.
-- Locks:    ACCESS EXCLUSIVE on orphan_departed and orphan_runs, for milliseconds; both are ours. A run that is open
--           waits for it.
-- Duration: milliseconds; nothing is rewritten.
-- Rollback: makes the index again, which takes a second for a million departed users, and forgets where the last run
--           stopped.

-- +goose Up
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_runs
    ADD COLUMN asked_again_through uuid;

DROP INDEX orphan_departed_turn;

COMMENT ON COLUMN orphan_runs.asked_again_through IS 'The last departed user that the run asked about again; the next run goes on behind it. Null: about none.';
COMMENT ON TABLE orphan_departed IS 'Users who left the ledger and are asked about again, in the order of ids and over and over, while their backups exist.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

CREATE INDEX orphan_departed_turn ON orphan_departed ((coalesce(checked_at, departed_at)), user_id);

ALTER TABLE orphan_runs
    DROP COLUMN asked_again_through;

COMMENT ON TABLE orphan_departed IS 'Users who left the ledger and are asked about again, oldest first, while their backups exist.';
