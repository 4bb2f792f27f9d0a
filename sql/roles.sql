-- The roles of orphan-cleaner and their grants, exactly: what is not granted here is taken back.
--
--   psql "$ADMIN_URL" -f sql/roles.sql
--
-- When:   once before or after the first `orphan-cleaner migrate up`, and again after each later one:
--         new tables get their owner and their grants here. Running it again changes nothing.
-- As:     a superuser; or a role with CREATEROLE that owns messaging-service's tables (where it is no
--         superuser, it becomes a member of orphan_cleaner_migrator, to hand over what it created).
-- Locks:  ACCESS EXCLUSIVE for milliseconds on each table of ours that changes its owner, 3 s at most
--         to get it; none on messaging-service's tables.
-- How:    one transaction; it either did all of it or nothing.
--
-- These are group roles: nobody can log in as one of them. A person or a program logs in as a role of
-- its own that is a member. Passwords are NOT set here, nor in any file: use `\password` of psql, a
-- client certificate, or whatever hands out secrets at your place.
--
--   CREATE ROLE cleaner LOGIN IN ROLE orphan_cleaner_runner;       -- the cron job
--   CREATE ROLE metrics LOGIN IN ROLE orphan_cleaner_reader;       -- whoever reads status and report
--   GRANT orphan_cleaner_restorer TO alice;                        -- on call: pause, hold, give back
--   GRANT orphan_cleaner_runner TO alice;                          -- and take a restore back
--   GRANT orphan_cleaner_migrator TO messaging;                    -- the owner of messaging-service's tables
--
-- The runner's login must inherit (the default) and not SET ROLE: the audit trigger asks whether the
-- role that logged in, session_user, may write orphan_runs.
--
-- Who may what:
--   owner     owns our tables and functions. Of messaging-service it may read what its functions and
--             views read, and write nothing. Nobody logs in as this.
--   migrator  may become owner: migrate, approve, prune, the runbook's scripts that change something.
--             Migrations 00009 and 00012, which put the trigger and the index on conversation_members,
--             need the owner of that table besides; make it a member of migrator.
--   runner    check, run, serve, status. Selects and deletes members; cannot touch the evidence.
--   restorer  pause, resume, hold, restore, status. Cannot delete a member: restore --revert --execute,
--             which does, takes a member of runner besides.
--   reader    status, report, hold list. Writes nothing.
--
-- Variables: -v lock_column=NAME  the column of conversation_members on which the runner gets UPDATE
--            (default last_read_at). PostgreSQL wants UPDATE on some column for SELECT ... FOR UPDATE,
--            which keeps two deleters from a deadlock. No statement of ours updates it.

\set ON_ERROR_STOP on
\set QUIET on
\if :{?lock_column}
\else
    \set lock_column last_read_at
\endif

DO $$
BEGIN
    IF to_regclass('public.conversation_members') IS NULL THEN
        RAISE EXCEPTION 'there is no table public.conversation_members: this is not the database of messaging-service';
    END IF;
END
$$;
SELECT
    to_regclass('public.orphan_runs') IS NOT NULL AS is_migrated,
    to_regclass('public.users') IS NOT NULL AS has_users
\gset

BEGIN;
SET LOCAL lock_timeout = '3s';
SET LOCAL client_min_messages = warning;

-- 1. The roles. They belong to the whole cluster; another database may have made them.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[
        'orphan_cleaner_owner', 'orphan_cleaner_migrator', 'orphan_cleaner_runner',
        'orphan_cleaner_restorer', 'orphan_cleaner_reader'
    ] LOOP
        IF to_regrole(role_name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        END IF;
        IF EXISTS (
            SELECT
            FROM pg_roles
            WHERE rolname = role_name
                AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
        ) THEN
            RAISE EXCEPTION 'role % is more than a group: it may log in, or has an attribute such as SUPERUSER', role_name
                USING HINT = format('ALTER ROLE %I NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS', role_name);
        END IF;
    END LOOP;
    -- What a table or function is owned by is kept apart from who may log in and change it.
    IF NOT EXISTS (
        SELECT
        FROM pg_auth_members
        WHERE roleid = 'orphan_cleaner_owner'::regrole AND member = 'orphan_cleaner_migrator'::regrole
    ) THEN
        GRANT orphan_cleaner_owner TO orphan_cleaner_migrator;
    END IF;
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
        AND NOT pg_has_role(current_user, 'orphan_cleaner_owner', 'USAGE')
    THEN
        EXECUTE format('GRANT orphan_cleaner_migrator TO %I', current_user);
    END IF;
END
$$;

GRANT CONNECT ON DATABASE :"DBNAME"
    TO orphan_cleaner_migrator, orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;
GRANT USAGE ON SCHEMA public
    TO orphan_cleaner_owner, orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;
-- The partitions that orphan_ensure_partitions() makes belong to it.
GRANT CREATE ON SCHEMA public TO orphan_cleaner_owner;

-- 2. messaging-service's tables: first nothing, then what is needed.
REVOKE ALL ON public.conversations, public.conversation_members
    FROM orphan_cleaner_owner, orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;

-- owner: what deleted_members_list reads, and orphan_restore_plan(), which compares whole rows with the
-- backup.
GRANT SELECT (id) ON public.conversations TO orphan_cleaner_owner;
GRANT SELECT ON public.conversation_members TO orphan_cleaner_owner;

-- runner: who is a member since when, was active when, and lies where (ctid); the keys it cannot even read.
GRANT SELECT (ctid, conversation_id, user_id, joined_at, last_read_at) ON public.conversation_members TO orphan_cleaner_runner;
GRANT DELETE ON public.conversation_members TO orphan_cleaner_runner;
GRANT UPDATE (:"lock_column") ON public.conversation_members TO orphan_cleaner_runner;

-- restorer: puts whole rows back.
GRANT SELECT (id) ON public.conversations TO orphan_cleaner_restorer;
GRANT SELECT, INSERT ON public.conversation_members TO orphan_cleaner_restorer;

-- reader: counts, and how large a conversation was before.
GRANT SELECT (conversation_id, user_id, joined_at) ON public.conversation_members TO orphan_cleaner_reader;

-- owner: orphan_shadow_evidence() reads when a user was deleted, while the shadow table is there.
\if :has_users
    REVOKE ALL ON public.users FROM orphan_cleaner_owner, orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;
    DO $$
    BEGIN
        IF EXISTS (
            SELECT
            FROM pg_attribute
            WHERE attrelid = 'public.users'::regclass AND attname = 'deleted_at' AND NOT attisdropped
        ) THEN
            GRANT SELECT (id, deleted_at) ON public.users TO orphan_cleaner_owner;
        END IF;
    END
    $$;
\endif

\if :is_migrated

-- 3. What is ours gets its owner, and nobody but the owner has rights on it, until the grants below.
DO $$
DECLARE
    tables CONSTANT text [] := ARRAY[
        'orphan_runs', 'orphan_candidates', 'orphan_sightings', 'orphan_holds', 'orphan_holds_in_force',
        'orphan_refusals', 'orphan_approvals', 'orphan_pauses', 'orphan_restores', 'orphan_departed', 'orphan_coverage',
        'conversation_members_audit', 'conversation_members_backup', 'deleted_members_list', 'goose_db_version', 'orphan_drift_version'
    ];
    functions CONSTANT text [] := ARRAY[
        'orphan_add_partition', 'orphan_ensure_partitions', 'orphan_clock_start', 'orphan_shadow_evidence', 'orphan_assess',
        'conversation_members_audit_delete', 'conversation_members_refuse_truncate', 'orphan_same_member',
        'orphan_restore_plan', 'orphan_restore_chunk', 'orphan_restore_chunks', 'orphan_restore_users', 'orphan_revert_chunk',
        'orphan_partitions', 'orphan_partition_need', 'orphan_partition_verdicts', 'orphan_drop_partition'
    ];
    roles CONSTANT text := 'orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader';
    item record;
BEGIN
    FOR item IN
        SELECT c.oid::regclass AS name, c.relkind, c.relowner <> 'orphan_cleaner_owner'::regrole AS is_foreign
        FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace
            AND (
                c.relname = ANY (tables)
                -- Partitions, by what they are attached to and not by their name.
                OR EXISTS (
                    SELECT
                    FROM pg_inherits AS i
                    WHERE i.inhrelid = c.oid
                        AND c.relkind = 'r'
                        AND i.inhparent IN (
                            'public.conversation_members_audit'::regclass, 'public.conversation_members_backup'::regclass
                        )
                )
            )
    LOOP
        IF item.is_foreign THEN
            EXECUTE format('ALTER %s %s OWNER TO orphan_cleaner_owner', CASE item.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, item.name);
        END IF;
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, %s', item.name, roles);
    END LOOP;
    FOR item IN
        SELECT p.oid::regprocedure AS name, p.proowner <> 'orphan_cleaner_owner'::regrole AS is_foreign
        FROM pg_proc AS p
        WHERE p.pronamespace = 'public'::regnamespace
            AND p.proname = ANY (functions)
    LOOP
        IF item.is_foreign THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO orphan_cleaner_owner', item.name);
        END IF;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC, %s', item.name, roles);
    END LOOP;
END
$$;

-- 4. runner. It keeps the ledger and its own record; of the evidence it sees what the count proof
-- counts, and it can write there only through the trigger.
GRANT SELECT, INSERT, UPDATE ON public.orphan_runs TO orphan_cleaner_runner;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.orphan_candidates TO orphan_cleaner_runner;
GRANT SELECT, INSERT, DELETE ON public.orphan_sightings TO orphan_cleaner_runner;
GRANT SELECT, INSERT ON public.orphan_refusals TO orphan_cleaner_runner;
GRANT SELECT, UPDATE (used_at, used_by_run) ON public.orphan_approvals TO orphan_cleaner_runner;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.orphan_departed, public.orphan_coverage TO orphan_cleaner_runner;
GRANT SELECT ON public.orphan_holds_in_force, public.orphan_pauses, public.goose_db_version TO orphan_cleaner_runner;
GRANT SELECT (run_id, conversation_id, state) ON public.orphan_restores TO orphan_cleaner_runner;
GRANT SELECT (conversation_id, run_id, deleted_at) ON public.conversation_members_audit TO orphan_cleaner_runner;
GRANT SELECT (run_id) ON public.conversation_members_audit_default TO orphan_cleaner_runner;
GRANT SELECT (run_id, backed_up_at) ON public.conversation_members_backup TO orphan_cleaner_runner;
GRANT EXECUTE ON FUNCTION public.orphan_ensure_partitions(integer) TO orphan_cleaner_runner;
GRANT EXECUTE ON FUNCTION public.orphan_clock_start(timestamptz, timestamptz, timestamptz, interval) TO orphan_cleaner_runner;
GRANT EXECUTE ON FUNCTION public.orphan_shadow_evidence(uuid []) TO orphan_cleaner_runner;
GRANT EXECUTE ON FUNCTION public.orphan_assess(uuid [], interval, interval, bigint) TO orphan_cleaner_runner;
GRANT EXECUTE ON FUNCTION public.orphan_restore_plan(bigint, uuid [], uuid [], timestamptz, timestamptz) TO orphan_cleaner_runner;

-- 5. restorer. Whoever is on call: stops runs, places holds, gives members back. The default privilege
-- lets the runbook's statement read the backup partition of a day by its own name.
GRANT SELECT, INSERT, UPDATE ON public.orphan_runs TO orphan_cleaner_restorer;
GRANT SELECT, INSERT (user_id, conversation_id, reason, until, run_id), UPDATE (lifted_at, lifted_by)
    ON public.orphan_holds TO orphan_cleaner_restorer;
GRANT SELECT, INSERT (reason), UPDATE (resumed_at, resumed_by) ON public.orphan_pauses TO orphan_cleaner_restorer;
GRANT SELECT, INSERT, UPDATE (state, reverted_by_run) ON public.orphan_restores TO orphan_cleaner_restorer;
GRANT SELECT, DELETE ON public.orphan_departed TO orphan_cleaner_restorer;
GRANT EXECUTE ON FUNCTION public.orphan_same_member(jsonb, jsonb) TO orphan_cleaner_restorer;
GRANT EXECUTE ON FUNCTION public.orphan_restore_plan(bigint, uuid [], uuid [], timestamptz, timestamptz) TO orphan_cleaner_restorer;
GRANT EXECUTE ON FUNCTION public.orphan_restore_chunk(bigint, date, bigint, integer, interval) TO orphan_cleaner_restorer;
GRANT EXECUTE ON FUNCTION public.orphan_restore_chunks(bigint, text, integer) TO orphan_cleaner_restorer;
GRANT EXECUTE ON FUNCTION public.orphan_restore_users(bigint, date, bigint, integer) TO orphan_cleaner_restorer;
GRANT EXECUTE ON FUNCTION public.orphan_revert_chunk(bigint, bigint, date, bigint, integer, uuid []) TO orphan_cleaner_restorer;
GRANT SELECT ON
    public.orphan_candidates, public.orphan_coverage, public.orphan_holds_in_force, public.orphan_refusals,
    public.orphan_approvals, public.conversation_members_audit, public.conversation_members_audit_default,
    public.conversation_members_backup, public.deleted_members_list, public.goose_db_version
    TO orphan_cleaner_restorer;
DO $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.conversation_members_backup'::regclass
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO orphan_cleaner_restorer', partition);
    END LOOP;
END
$$;
ALTER DEFAULT PRIVILEGES FOR ROLE orphan_cleaner_owner IN SCHEMA public
    GRANT SELECT ON TABLES TO orphan_cleaner_restorer;

-- 6. reader.
GRANT SELECT ON
    public.orphan_runs, public.orphan_candidates, public.orphan_holds_in_force, public.orphan_refusals,
    public.orphan_approvals, public.orphan_pauses, public.orphan_departed, public.orphan_coverage, public.conversation_members_audit,
    public.conversation_members_audit_default, public.goose_db_version
    TO orphan_cleaner_reader;
GRANT SELECT (run_id, conversation_id, state) ON public.orphan_restores TO orphan_cleaner_reader;

\endif

COMMIT;

-- 7. What this file does not change, because it is not ours, and what it leaves open.
SELECT
    has_schema_privilege('orphan_cleaner_runner', 'public', 'CREATE') AS runner_may_create,
    has_table_privilege('orphan_cleaner_runner', 'public.conversation_members', 'UPDATE, INSERT, TRUNCATE, TRIGGER, REFERENCES')
        AS runner_may_more,
    EXISTS (
        SELECT
        FROM pg_auth_members
        WHERE member IN (
            'orphan_cleaner_owner'::regrole, 'orphan_cleaner_runner'::regrole,
            'orphan_cleaner_restorer'::regrole, 'orphan_cleaner_reader'::regrole
        )
    ) AS is_more_than_itself
\gset
\if :runner_may_create
    \warn 'WARNING: everybody may create tables in schema public, the runner too. Consider: REVOKE CREATE ON SCHEMA public FROM PUBLIC'
\endif
\if :runner_may_more
    \warn 'WARNING: PUBLIC has rights on conversation_members that the runner must not have.'
\endif
\if :is_more_than_itself
    \warn 'WARNING: one of the group roles is a member of another role and has its rights too: see \\du orphan_cleaner_*'
\endif
\if :is_migrated
    \echo 'Roles and grants are as in this file.'
\else
    \echo 'The roles are there. After `orphan-cleaner migrate up`, run this file again for the grants on our tables.'
\endif
