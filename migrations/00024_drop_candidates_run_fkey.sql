-- Why:      every run names itself in every candidate, and the foreign key looked the run up and locked its
--           row each time: a third of what the ledger cost. The one statement that writes the name takes it
--           from the open run itself, and nothing deletes runs.
-- Locks:    ACCESS EXCLUSIVE on orphan_candidates and orphan_runs; a run in progress makes it wait, 3 s at most.
-- Duration: milliseconds.
-- Rollback: creates the foreign key again, which reads the ledger once.

-- +goose Up
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_candidates
    DROP CONSTRAINT orphan_candidates_last_missing_run_fkey;

-- +goose Down
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_candidates
    ADD CONSTRAINT orphan_candidates_last_missing_run_fkey
        FOREIGN KEY (last_missing_run) REFERENCES orphan_runs (run_id);
