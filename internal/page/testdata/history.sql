-- A messaging-service with 20,000 members, and a year of hourly runs: one in a thousand was refused, one in 500 failed, two are
-- restores. The last one, half an hour ago, succeeded. Run on a migrated database by a superuser.
SET session_replication_role = replica;

INSERT INTO public.conversations (id, name)
SELECT md5('conversation ' || n)::uuid, 'secret talk ' || n
FROM generate_series(0, 999) AS n;
INSERT INTO public.users (id, username, created_at)
SELECT md5('user ' || n)::uuid, 'secret name ' || n, now() - interval '2 years'
FROM generate_series(0, 3999) AS n;
INSERT INTO public.conversation_members (conversation_id, user_id, role, joined_at, last_read_at)
SELECT md5('conversation ' || (n / 5 + (n % 5) * 107) % 1000)::uuid, md5('user ' || n / 5)::uuid, 'member', now() - interval '90 days', now() - interval '45 days'
FROM generate_series(0, 19999) AS n
ON CONFLICT DO NOTHING;

INSERT INTO orphan_cleaner.runs (
    kind, state, phase, started_at, heartbeat_at, judged_at, finished_at, lease, host, version, settings, users_checked, users_missing,
    users_new, users_due, candidates, members_total, members_due, members_deleted, members_restored, conversations, batch_calls, call_ms_max, breaker, error
)
SELECT
    k.kind, k.state, 'finish', k.at, k.at + interval '4 seconds', CASE WHEN k.state = 'succeeded' THEN k.at + interval '3 seconds' END,
    k.at + interval '4 seconds', '1 minute', 'cleaner-7d9f:1', 'v1.0.0', '{"retention": 2592000, "delete-rows": 100000}',
    CASE WHEN k.kind = 'clean' THEN 3200 + (8759 - n) / 11 ELSE 0 END, CASE WHEN k.kind = 'clean' THEN k.missing ELSE 0 END, k.missing / 40, k.missing / 60, k.missing,
    19800, k.deleted, CASE WHEN k.state = 'succeeded' AND k.kind = 'clean' THEN k.deleted ELSE 0 END, CASE k.kind WHEN 'restore' THEN 40 ELSE 0 END,
    least(k.deleted, 3), 40, 31.5,
    CASE k.state WHEN 'refused' THEN 'delete-share' END,
    CASE k.state WHEN 'refused' THEN '1200 of 19800 members are due, limit 5 %' WHEN 'failed' THEN 'connecting to auth-service: connection refused' END
FROM generate_series(8759, 0, -1) AS n
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN n IN (100, 4000) THEN 'restore' ELSE 'clean' END AS kind,
        CASE WHEN n % 1000 = 7 THEN 'refused' WHEN n % 500 = 12 THEN 'failed' ELSE 'succeeded' END AS state,
        now() - make_interval(mins => 30, hours => n) AS at,
        (90 + 40 * sin(n / 700.0) + n % 7)::bigint AS missing,
        CASE WHEN n % 24 IN (3, 4, 5) THEN (3 + n % 5 + 2 * sin(n / 300.0))::bigint ELSE 0 END AS deleted
) AS k;
-- What run_finish writes.
UPDATE orphan_cleaner.runs AS r
SET totals = t.totals
FROM (
    SELECT s.run_id, jsonb_build_object(
        'members_deleted', sum(s.members_deleted) OVER w, 'members_restored', sum(s.members_restored) OVER w, 'batch_calls', sum(s.batch_calls) OVER w,
        'clean succeeded', count(*) FILTER (WHERE s.kind = 'clean' AND s.state = 'succeeded') OVER w,
        'clean refused', count(*) FILTER (WHERE s.kind = 'clean' AND s.state = 'refused') OVER w,
        'clean failed', count(*) FILTER (WHERE s.kind = 'clean' AND s.state = 'failed') OVER w,
        'restore succeeded', count(*) FILTER (WHERE s.kind = 'restore') OVER w
    ) AS totals
    FROM orphan_cleaner.runs AS s
    WINDOW w AS (ORDER BY s.run_id)
) AS t
WHERE t.run_id = r.run_id;

INSERT INTO orphan_cleaner.hours (hour, users, users_new, rows_total, rows_deleted)
SELECT date_trunc('hour', r.started_at), 4000, r.users_new, 19800, r.members_deleted
FROM orphan_cleaner.runs AS r
ON CONFLICT DO NOTHING;
INSERT INTO orphan_cleaner.coverage (cycle_run_id, previous_run_id, run_id, checked_at, users, users_so_far)
SELECT max(run_id), max(run_id), max(run_id), now() - interval '30 minutes', 3996, 3996 FROM orphan_cleaner.runs;
INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence)
SELECT md5('user ' || n)::uuid, now() - make_interval(hours => 730 - n * 6), now(), (SELECT max(run_id) FROM orphan_cleaner.runs), 3, 'sightings'
FROM generate_series(0, 119) AS n;
UPDATE orphan_cleaner.candidates
SET blocked_since = now() - interval '2 days',
    blocked_by = '{"rows": 5, "message": "update or delete on table \"conversation_members\" violates foreign key constraint \"pins_member_fkey\" on table \"pins\"", "sqlstate": "23503", "constraint": "pins_member_fkey", "table": "pins"}'
WHERE user_id = md5('user 0')::uuid;
INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES (md5('user 1')::uuid, 'a lawsuit, until the court decides');
INSERT INTO orphan_cleaner.holds (conversation_id, reason, until) VALUES (md5('conversation 7')::uuid, 'an audit', now() + interval '60 days');

-- The audit of the last run that deleted, and the restore of a part of it.
INSERT INTO public.conversation_members_audit (conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, run_id, txid)
SELECT md5('conversation ' || n % 3)::uuid, md5('departed ' || n)::uuid, 'member', now() - interval '60 days', r.started_at + interval '3 seconds', 'cleaner', 'test', r.run_id, 1
FROM (SELECT * FROM orphan_cleaner.runs WHERE members_deleted > 0 ORDER BY run_id DESC LIMIT 1) AS r
CROSS JOIN LATERAL generate_series(1, r.members_deleted) AS n;
INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at, state)
SELECT (SELECT max(run_id) FROM orphan_cleaner.runs) + 1, a.user_id, a.conversation_id, a.run_id, a.deleted_at, 'restored'
FROM public.conversation_members_audit AS a
ORDER BY a.user_id
LIMIT 2;
ANALYZE;
