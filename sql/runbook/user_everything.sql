-- What:    everything that messaging-service's memberships and orphan-cleaner hold about one user, for a
--          request for access: memberships, shadow, ledger, staging, refusals and who approved them,
--          holds, restores, cursors of events, audit, backup, the same of further targets, and runs whose settings or error
--          name the user.
-- Locks:   ACCESS SHARE on each of these tables.
-- Time:    reads the audit and the backup whole, which have no index by user: 1 s per 5 million rows.
-- As:      a superuser, or a member of orphan_cleaner_migrator who owns messaging-service's tables.
-- Example: psql "$DATABASE_URL" -v user=6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10 -f sql/runbook/user_everything.sql

\set ON_ERROR_STOP on
\if :{?user}
\else
    DO $$ BEGIN RAISE EXCEPTION 'say which user: -v user=UUID'; END $$;
\endif
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL statement_timeout = '30min';
SELECT :'user'::uuid AS "user", now() AS as_of, to_regclass('public.users') IS NOT NULL AS has_users
\gset
\pset footer off
-- SELECT * throughout: also what messaging-service or a later migration added is held about the user.

\echo '== Held about user' :user 'at' :as_of
\echo
\echo '== conversation_members: memberships'
SELECT * FROM public.conversation_members WHERE user_id = :'user' ORDER BY joined_at, conversation_id;
\if :has_users
    \echo '== users: the shadow table'
    SELECT * FROM public.users WHERE id = :'user';
\endif
\echo '== orphan_cleaner.candidates: the ledger'
SELECT * FROM orphan_cleaner.candidates WHERE user_id = :'user';
\echo '== orphan_cleaner.sightings: staging of runs'
SELECT * FROM orphan_cleaner.sightings WHERE user_id = :'user' ORDER BY run_id;
\echo '== orphan_cleaner.refusals: refused runs that found the user due or newly missing, and approvals of them'
SELECT f.run_id, f.user_id, f.is_due, a.approval_id, a.approved_by, a.approved_at, a.expires_at, a.used_by_run, a.used_at,
    a.revoked_by, a.revoked_at
FROM orphan_cleaner.refusals AS f
LEFT JOIN orphan_cleaner.approvals AS a ON a.run_id = f.run_id
WHERE f.user_id = :'user'
ORDER BY f.run_id, a.approval_id;
\echo '== orphan_cleaner.holds: holds on the user'
SELECT * FROM orphan_cleaner.holds WHERE user_id = :'user' ORDER BY hold_id;
\echo '== orphan_cleaner.unknowns: without a valid response in the last run'
SELECT * FROM orphan_cleaner.unknowns WHERE user_id = :'user';
\echo '== orphan_cleaner.rechecks: rechecked since the user left the ledger'
SELECT * FROM orphan_cleaner.rechecks WHERE user_id = :'user';
\echo '== orphan_cleaner.restores: memberships that were restored'
SELECT * FROM orphan_cleaner.restores WHERE user_id = :'user' ORDER BY run_id, conversation_id;
\echo '== orphan_cleaner.event_cursors: the last event that a sink was told'
SELECT sink, run_id, kind, conversation_id, user_id FROM orphan_cleaner.event_cursors WHERE user_id = :'user' ORDER BY sink;
\echo '== conversation_members_audit: deleted memberships'
SELECT * FROM public.conversation_members_audit WHERE user_id = :'user' ORDER BY deleted_at, conversation_id;
\echo '== conversation_members_backup: deleted memberships, whole'
SELECT * FROM public.conversation_members_backup WHERE user_id = :'user' ORDER BY backed_up_at, conversation_id;
\echo '== targets: of each further one the rows, and what was deleted or updated, as audited and whole'
SELECT format('SELECT %L AS "table", held.* FROM %s AS held WHERE %I = %L', e.name, e.name, t.user_column, :'user')
FROM orphan_cleaner.targets AS t
CROSS JOIN LATERAL (VALUES (1, t.table_name), (2, t.audit_table), (3, t.backup_table)) AS e (ordinal, name)
WHERE t.name <> 'conversation_members'
ORDER BY t.ordinal, e.ordinal
\gexec
\echo '== orphan_cleaner.runs: runs whose settings or error name the user, such as a canary'
SELECT run_id, started_at, settings, error
FROM orphan_cleaner.runs
WHERE settings::text ILIKE '%' || :'user' || '%'
    OR error ILIKE '%' || :'user' || '%'
ORDER BY run_id;
COMMIT;
