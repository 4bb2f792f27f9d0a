-- After history.sql: the last run was refused, and nothing has settled it.
UPDATE orphan_cleaner.runs
SET state = 'refused', judged_at = NULL, breaker = 'delete-rows', users_due = 20, members_due = 100,
    error = '100 members are due, limit 50 (ORPHAN_CLEANER_MAX_DELETE_ROWS)', settings = '{"retention": 2592000, "delete-rows": 50, "delete-share": 0.05, "delete-share-7d": 0.05, "delete-share-30d": 0.15, "candidate-share": 0.15, "new-missing-share": 0.1, "new-missing-rate": 0.01, "history": 10, "recently-active": 5}'
WHERE run_id = (SELECT max(run_id) FROM orphan_cleaner.runs);
INSERT INTO orphan_cleaner.refusals (run_id, user_id, is_due)
SELECT (SELECT max(run_id) FROM orphan_cleaner.runs), md5('user ' || n)::uuid, n < 20
FROM generate_series(0, 29) AS n;
