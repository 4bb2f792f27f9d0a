-- Why:      `serve` begins a run an interval after the one before. Reckoned from when that one really
--           began, each delay would move all runs after it; reckoned from when it was due, none does.
-- Locks:    ACCESS EXCLUSIVE on orphan_runs, for milliseconds; a run that is open waits for it.
-- Duration: milliseconds; a column without a default does not rewrite the table.
-- Rollback: drops the column; the schedule goes by started_at from then on.
-- +goose Up
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_runs ADD COLUMN scheduled_for timestamptz;

COMMENT ON COLUMN orphan_runs.scheduled_for IS 'When the schedule of `serve` had this run due; null: begun by hand or by cron. The next one is due an interval later.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_runs DROP COLUMN scheduled_for;
