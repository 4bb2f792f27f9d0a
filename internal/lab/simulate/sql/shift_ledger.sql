-- shift.hours pass for everything that was recorded.
UPDATE public.simulated_users SET lingers = false WHERE lingers;

UPDATE orphan_cleaner.candidates
SET first_missing_at = first_missing_at - current_setting('shift.by')::interval,
    last_missing_at = last_missing_at - current_setting('shift.by')::interval;

UPDATE orphan_cleaner.coverage SET checked_at = checked_at - current_setting('shift.by')::interval;

-- All away before any comes back, so that no hour meets another. No breaker looks back for longer.
WITH away AS (
    DELETE FROM orphan_cleaner.hours RETURNING *
)
INSERT INTO orphan_cleaner.hours (hour, target, users, users_new, rows_total, rows_deleted, rows_approved)
SELECT a.hour - current_setting('shift.by')::interval, a.target, a.users, a.users_new, a.rows_total, a.rows_deleted, a.rows_approved
FROM away AS a
WHERE a.hour > now() - interval '120 days'
ORDER BY a.hour, a.target;

-- The newest run may be approved. Those of the last weeks are canaries' and breakers' memory.
DELETE FROM orphan_cleaner.approvals;
DELETE FROM orphan_cleaner.refusals WHERE run_id < (SELECT max(run_id) FROM orphan_cleaner.runs);
DELETE FROM orphan_cleaner.runs WHERE started_at < now() - interval '20 days' AND run_id < (SELECT max(run_id) FROM orphan_cleaner.runs);
UPDATE orphan_cleaner.runs
SET started_at = started_at - current_setting('shift.by')::interval,
    heartbeat_at = heartbeat_at - current_setting('shift.by')::interval,
    judged_at = judged_at - current_setting('shift.by')::interval,
    finished_at = finished_at - current_setting('shift.by')::interval;
DELETE FROM orphan_cleaner.rechecks;
