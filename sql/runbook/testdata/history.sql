-- A messaging-service with a million members, and orphan-cleaner at work on it for a year: hourly runs,
-- a ledger, holds, a refused run with its approval, a restore, and the evidence of the last weeks. Run on a
-- migrated database by a superuser.

-- No foreign key is checked row by row, and the audit trigger has nothing to do with it.
SET session_replication_role = replica;
SET synchronous_commit = off;
SET maintenance_work_mem = '256MB';
SET jit = off;

INSERT INTO public.conversations (id, name)
SELECT md5('conversation ' || n)::uuid, 'c' || n
FROM generate_series(0, 49999) AS n;

-- 200,000 users, five members each; the first 20,000 are missing.
DROP INDEX public.conversation_members_user_id;
ALTER TABLE public.conversation_members DROP CONSTRAINT conversation_members_pkey;
INSERT INTO public.conversation_members (conversation_id, user_id, role, joined_at, last_read_at)
SELECT
    md5('conversation ' || (n / 5 + (n % 5) * 10007) % 50000)::uuid,
    md5('user ' || n / 5)::uuid,
    CASE WHEN n % 20 = 0 THEN 'owner' ELSE 'member' END,
    now() - interval '60 days' - make_interval(hours => n % 5000),
    now() - interval '45 days'
FROM generate_series(0, 999999) AS n;
ALTER TABLE public.conversation_members ADD CONSTRAINT conversation_members_pkey PRIMARY KEY (conversation_id, user_id);
CREATE INDEX conversation_members_user_id ON public.conversation_members (user_id);

-- A run an hour; every thousandth but two was refused, every thousandth but one is a restore.
INSERT INTO orphan_cleaner.runs (
    kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings, members_deleted, breaker
)
SELECT
    CASE WHEN n % 1000 = 1 THEN 'restore' ELSE 'clean' END,
    CASE WHEN n % 1000 = 2 THEN 'refused' ELSE 'succeeded' END,
    'finish', at, at, at + interval '1 minute', '1 minute', 'host:1', 'test', '{}', 44,
    CASE WHEN n % 1000 = 2 THEN 'delete-share' END
FROM generate_series(8760, 0, -1) AS n
CROSS JOIN LATERAL (SELECT now() - make_interval(mins => 5, hours => n) AS at) AS started;
SELECT max(run_id) AS last, max(run_id) - 1 AS restore, max(run_id) - 2 AS refused FROM orphan_cleaner.runs \gset

INSERT INTO orphan_cleaner.run_targets (run_id, target, rows_due, rows_deleted)
SELECT r.run_id, 'conversation_members', r.members_due, r.members_deleted FROM orphan_cleaner.runs AS r;
INSERT INTO orphan_cleaner.hours (hour, target, users, users_new, rows_total, rows_deleted)
SELECT date_trunc('hour', now()) - make_interval(hours => n), t.target, 200000, 20, 1000000, 44
FROM generate_series(0, 8760) AS n
CROSS JOIN unnest(ARRAY['', 'conversation_members']) AS t (target);
INSERT INTO orphan_cleaner.coverage (cycle_run_id, previous_run_id, run_id, checked_at, users, users_so_far)
VALUES (:last, :last, :last, now() - interval '1 hour', 200000, 200000);
INSERT INTO orphan_cleaner.unknowns (user_id)
SELECT md5('user ' || n * 100)::uuid
FROM generate_series(0, 199) AS n;

-- A tenth of the ledger is due.
INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence)
SELECT md5('user ' || n)::uuid, now() - make_interval(hours => CASE WHEN n % 10 = 0 THEN 800 ELSE n % 700 END), now(), :last, 3, 'sightings'
FROM generate_series(0, 19999) AS n;
INSERT INTO orphan_cleaner.sightings (run_id, user_id, verdict)
SELECT :last, md5('user ' || n)::uuid, CASE WHEN n % 100 = 0 THEN 'unknown' ELSE 'missing' END
FROM generate_series(0, 19999) AS n;
INSERT INTO orphan_cleaner.refusals (run_id, user_id, is_due)
SELECT r.run_id, md5('user ' || n)::uuid, n % 10 = 0
FROM orphan_cleaner.runs AS r, generate_series(0, 9999) AS n
WHERE r.state = 'refused';
INSERT INTO orphan_cleaner.approvals (run_id, approved_at, approved_by, expires_at, used_at, used_by_run)
SELECT run_id, started_at, 'a DBA', started_at + interval '1 day', started_at, run_id
FROM orphan_cleaner.runs
WHERE run_id % 10 = 0;
INSERT INTO orphan_cleaner.approvals (run_id, approved_by, expires_at) VALUES (:refused, 'a DBA', now() + interval '1 day');
INSERT INTO orphan_cleaner.pauses (reason, paused_at, resumed_at)
SELECT 'an experiment', started_at, started_at + interval '1 minute'
FROM orphan_cleaner.runs
WHERE run_id % 10 = 0;
-- Holds: some thousand that were lifted, five hundred of a restore, a few dozen by hand.
INSERT INTO orphan_cleaner.holds (user_id, reason, lifted_at)
SELECT md5('user ' || 100000 + n)::uuid, 'lifted', now()
FROM generate_series(1, 5000) AS n;
INSERT INTO orphan_cleaner.holds (user_id, reason, run_id)
SELECT md5('user ' || 50000 + n)::uuid, 'restored', :restore
FROM generate_series(1, 500) AS n;
INSERT INTO orphan_cleaner.holds (user_id, conversation_id, reason)
SELECT
    CASE WHEN n % 2 = 0 THEN md5('user ' || n)::uuid END,
    CASE WHEN n % 2 = 1 THEN md5('conversation ' || n)::uuid END,
    'a lawsuit'
FROM generate_series(1, 40) AS n;
INSERT INTO orphan_cleaner.rechecks (user_id, deleted_at, checked_at)
SELECT md5('departed ' || n)::uuid, now() - make_interval(hours => n % 2000), CASE WHEN n % 3 > 0 THEN now() - make_interval(mins => n % 3000) END
FROM generate_series(1, 100000) AS n;

-- The evidence of three weeks: 44 members a run and some hundred a run's time by the application.
SELECT orphan_cleaner.partition_add(
    'public.conversation_members_backup', 'conversation_members_backup_' || to_char(day, 'YYYYMMDD'),
    day AT TIME ZONE 'UTC', (day + interval '1 day') AT TIME ZONE 'UTC'
)
FROM generate_series(date_trunc('day', now() AT TIME ZONE 'UTC') - interval '22 days', now() AT TIME ZONE 'UTC', '1 day') AS day
\g /dev/null
SELECT orphan_cleaner.partition_add(
    'public.conversation_members_audit', 'conversation_members_audit_' || to_char(month, 'YYYYMM'),
    month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC'
)
FROM generate_series(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month', now() AT TIME ZONE 'UTC', '1 month') AS month
\g /dev/null
INSERT INTO public.conversation_members_audit (conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, run_id, txid)
SELECT md5('conversation ' || n % 50000)::uuid, md5(r.run_id || ' departed ' || n)::uuid, 'member', now() - interval '60 days',
    r.started_at + make_interval(secs => n / 10), 'cleaner', 'test', CASE WHEN n <= 44 THEN r.run_id END, r.run_id
FROM orphan_cleaner.runs AS r
CROSS JOIN generate_series(1, 500) AS n
WHERE r.run_id > :last - 504
ORDER BY r.run_id, n;
INSERT INTO public.conversation_members_backup (conversation_id, user_id, role, joined_at, is_muted, backed_up_at, run_id)
SELECT conversation_id, user_id, role, joined_at, false, deleted_at, run_id
FROM public.conversation_members_audit
WHERE run_id IS NOT NULL
ORDER BY deleted_at;
INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at, state)
SELECT r.run_id, b.user_id, b.conversation_id, b.run_id, b.backed_up_at, 'restored'
FROM orphan_cleaner.runs AS r, conversation_members_backup AS b
WHERE r.kind = 'restore'
    AND b.run_id > :last - 100;

-- All that a delete and a restore may do, and what they did.
INSERT INTO orphan_cleaner.effects (name, choice) VALUES ('counter', 'on'), ('owners', 'promote');
INSERT INTO orphan_cleaner.promotions (run_id, conversation_id, user_id, role_before, undone_by_run)
SELECT DISTINCT ON (b.run_id, b.conversation_id) b.run_id, b.conversation_id, gen_random_uuid(), 'member',
    CASE WHEN b.run_id > :last - 50 THEN (SELECT max(r.run_id) FROM orphan_cleaner.runs AS r WHERE r.kind = 'restore') END
FROM conversation_members_backup AS b
WHERE b.run_id > :last - 100;

RESET session_replication_role;
-- A large sample: the plans must not depend on which rows it happens to be.
SET default_statistics_target = 500;
VACUUM (ANALYZE);
