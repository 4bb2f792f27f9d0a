-- shift.hours pass for everything that was recorded.
UPDATE public.simulated_users SET lingers = false WHERE lingers;

UPDATE orphan_cleaner.candidates
SET first_missing_at = first_missing_at - current_setting('shift.by')::interval,
    last_missing_at = last_missing_at - current_setting('shift.by')::interval;

UPDATE orphan_cleaner.coverage SET checked_at = checked_at - current_setting('shift.by')::interval;

-- Away and back, so that no hour meets another on its way.
UPDATE orphan_cleaner.hours SET hour = hour - current_setting('shift.by')::interval - interval '10000 days';
UPDATE orphan_cleaner.hours SET hour = hour + interval '10000 days';

-- The newest run may be approved; of the others nothing is needed but that they were there.
DELETE FROM orphan_cleaner.approvals;
DELETE FROM orphan_cleaner.refusals;
DELETE FROM orphan_cleaner.runs WHERE run_id < (SELECT max(run_id) FROM orphan_cleaner.runs);
UPDATE orphan_cleaner.runs
SET started_at = started_at - current_setting('shift.by')::interval,
    heartbeat_at = heartbeat_at - current_setting('shift.by')::interval,
    judged_at = judged_at - current_setting('shift.by')::interval,
    finished_at = finished_at - current_setting('shift.by')::interval;
DELETE FROM orphan_cleaner.rechecks;
