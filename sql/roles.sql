-- The roles of orphan-cleaner and their grants, exactly: what is not granted here on our own tables and functions is
-- taken back. What the DBA granted to the owner role on other tables stays.
--
--   psql "$ADMIN_URL" -f sql/roles.sql
--
-- When:   once before or after the first `orphan-cleaner migrate up`, and again after each later one: new tables get
--         their owner and their grants here. Running it again changes nothing.
-- As:     a superuser; or a role with CREATEROLE that owns messaging-service's tables (where it is no superuser, it
--         becomes a member of orphan_cleaner_migrator, to hand over what it created).
-- Locks:  ACCESS EXCLUSIVE for milliseconds on each table of ours that changes its owner, 3 s at most to get it; none on
--         messaging-service's tables.
-- How:    one transaction; it either did all of it or nothing.
--
-- These are group roles: nobody can log in as one of them. A person or a program logs in as a role of its own that is
-- a member. Passwords are NOT set here, nor in any file: use `\password` of psql, a client certificate, or whatever
-- hands out secrets at your place.
--
--   CREATE ROLE cleaner LOGIN IN ROLE orphan_cleaner_runner;       -- the cron job
--   CREATE ROLE metrics LOGIN IN ROLE orphan_cleaner_reader;       -- reads status and report
--   GRANT orphan_cleaner_restorer TO alice;                        -- on call: pause, hold, restore
--   GRANT orphan_cleaner_runner TO alice;                          -- and revert a restore
--   GRANT orphan_cleaner_migrator TO messaging;                    -- the owner of messaging-service's tables
--
-- Who may what:
--   owner     owns our schema, tables and functions. The functions run as it: it reads conversations, reads, inserts and
--             deletes members. Grant it what triggers of the application on conversation_members need, such as
--             GRANT SELECT, UPDATE ON public.conversations TO orphan_cleaner_owner; an error that wants for it has the very
--             GRANT. Nobody logs in as this.
--   migrator  may become owner: migrate, approve, limits, effects, prune, the runbook's scripts that change something. Migrations
--             00004 and 00005, which put the triggers and the index on conversation_members, need the owner of that
--             table besides; make it a member of migrator.
--   runner    check, run, serve, status. Executes the functions of a run and reads; it writes no table at all.
--   restorer  pause, resume, hold, restore, status. Executes those functions and reads the backups; it writes no table.
--             restore --revert --execute, which deletes, takes a member of runner and of restorer.
--   reader    status, report, hold list. Writes nothing.

\set ON_ERROR_STOP on
\set QUIET on
-- Whatever role and database say: somebody's function may be named like one of PostgreSQL's.
SET search_path = pg_catalog;

DO $$
BEGIN
    IF to_regclass('public.conversation_members') IS NULL THEN
        RAISE EXCEPTION 'there is no table public.conversation_members: this is not the database of messaging-service';
    END IF;
    IF NOT (SELECT r.rolsuper OR r.rolcreaterole FROM pg_roles AS r WHERE r.rolname = current_user)
        AND to_regrole('orphan_cleaner_owner') IS NULL
    THEN
        RAISE EXCEPTION 'role % may not create roles', current_user
            USING HINT = 'Run this file as a superuser, or: ALTER ROLE ' || quote_ident(current_user) || ' CREATEROLE';
    END IF;
END
$$;
SELECT
    to_regclass('orphan_cleaner.runs') IS NOT NULL AS is_migrated,
    to_regclass('public.users') IS NOT NULL AS has_users,
    -- VACUUM, ANALYZE, REINDEX, LOCK TABLE in any mode: a right of its own since 17.
    current_setting('server_version_num')::integer >= 170000 AS has_maintain
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
                AND (
                    rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication
                    -- The owner's functions must see every member: docs/surroundings.md.
                    OR rolbypassrls AND rolname <> 'orphan_cleaner_owner'
                )
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
-- The first migration makes schema orphan_cleaner.
GRANT CREATE ON DATABASE :"DBNAME" TO orphan_cleaner_migrator;
GRANT USAGE ON SCHEMA public
    TO orphan_cleaner_owner, orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;
-- The partitions that partitions_ensure() makes belong to it.
GRANT CREATE ON SCHEMA public TO orphan_cleaner_owner;

-- 2. messaging-service's tables. Of the owner role only what it never needs is taken back: the DBA may have granted it
-- what the application's own triggers need.
REVOKE ALL ON public.conversations, public.conversation_members
    FROM orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;
REVOKE TRUNCATE, REFERENCES, TRIGGER ON public.conversations, public.conversation_members FROM orphan_cleaner_owner;
\if :has_maintain
    REVOKE MAINTAIN ON public.conversations, public.conversation_members FROM orphan_cleaner_owner;
\endif

-- owner: what the reviewed functions do.
GRANT SELECT (id) ON public.conversations TO orphan_cleaner_owner;
GRANT SELECT, INSERT, DELETE ON public.conversation_members TO orphan_cleaner_owner;

-- runner, restorer, reader: who is a member since when, for status and report; the keys they cannot even read.
GRANT SELECT (conversation_id, user_id, joined_at) ON public.conversation_members
    TO orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;
-- restorer: what deleted_members_list looks up, and the result of a restore.
GRANT SELECT (id) ON public.conversations TO orphan_cleaner_restorer;
GRANT SELECT ON public.conversation_members TO orphan_cleaner_restorer;

-- owner: shadow_evidence() reads when a user was deleted, while the shadow table is there.
\if :has_users
    REVOKE ALL ON public.users FROM orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;
    DO $$
    DECLARE
        columns text;
    BEGIN
        SELECT string_agg(quote_ident(attname), ', ') INTO columns
        FROM pg_attribute
        WHERE attrelid = 'public.users'::regclass AND attname IN ('id', 'created_at', 'deleted_at') AND NOT attisdropped;
        -- It may be a table of another meaning.
        IF columns IS NOT NULL THEN
            EXECUTE format('GRANT SELECT (%s) ON public.users TO orphan_cleaner_owner', columns);
        END IF;
    END
    $$;
\endif

\if :is_migrated

-- 3. What is ours gets its owner, and nobody but the owner has rights on it, until the grants below.
DO $$
DECLARE
    roles CONSTANT text := 'orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader';
    item record;
BEGIN
    IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'orphan_cleaner') <> 'orphan_cleaner_owner'::regrole THEN
        ALTER SCHEMA orphan_cleaner OWNER TO orphan_cleaner_owner;
    END IF;
    EXECUTE 'REVOKE ALL ON SCHEMA orphan_cleaner FROM PUBLIC, ' || roles;
    FOR item IN
        SELECT c.oid::regclass AS name, c.relkind, c.relrowsecurity, c.relowner <> 'orphan_cleaner_owner'::regrole AS is_foreign
        FROM pg_class AS c
        WHERE c.relkind IN ('r', 'p', 'v')
            AND (
                c.relnamespace = 'orphan_cleaner'::regnamespace
                OR c.relnamespace = 'public'::regnamespace AND c.relname IN (
                    'conversation_members_audit', 'conversation_members_backup', 'deleted_members_list', 'orphan_cleaner_goose',
                    'orphan_drift_version'
                )
                -- Partitions, by what they are attached to and not by their name.
                OR EXISTS (
                    SELECT
                    FROM pg_inherits AS i
                    WHERE i.inhrelid = c.oid
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
        -- Switched on by an event trigger, most likely: who reads our tables would see no row. The grants below decide.
        IF item.relrowsecurity THEN
            EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', item.name);
        END IF;
    END LOOP;
    FOR item IN
        SELECT p.oid::regprocedure AS name, p.proowner <> 'orphan_cleaner_owner'::regrole AS is_foreign
        FROM pg_proc AS p
        WHERE p.pronamespace = 'orphan_cleaner'::regnamespace
    LOOP
        IF item.is_foreign THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO orphan_cleaner_owner', item.name);
        END IF;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC, %s', item.name, roles);
    END LOOP;
END
$$;

-- owner: counts, and the successor of a last owner, if orphan-cleaner effects says so; to look at the counts in any case.
-- To lock a row takes the right to update a column of it, whichever: of conversations for trigger, keep and promote, and of
-- members, too.
DO $$
DECLARE
    choices CONSTANT text [] := ARRAY(SELECT e.choice FROM orphan_cleaner.effects AS e);
    has_count CONSTANT boolean := EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.conversations'::regclass AND attname = 'member_count' AND NOT attisdropped);
    has_role CONSTANT boolean := EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'public.conversation_members'::regclass AND attname = 'role' AND NOT attisdropped);
BEGIN
    IF has_count THEN
        GRANT SELECT (member_count) ON public.conversations TO orphan_cleaner_owner;
    END IF;
    IF choices && (CASE WHEN has_count THEN '{on,trigger,keep,promote}' ELSE '{keep,promote}' END)::text [] THEN
        EXECUTE format('GRANT UPDATE (%s) ON public.conversations TO orphan_cleaner_owner', CASE WHEN has_count THEN 'member_count' ELSE 'id' END);
    END IF;
    IF choices && '{trigger,keep,promote}' THEN
        EXECUTE format('GRANT UPDATE (%s) ON public.conversation_members TO orphan_cleaner_owner', CASE WHEN has_role THEN 'role' ELSE 'joined_at' END);
    END IF;
END
$$;

-- 4. All three read our tables, but not the tokens of runs: whoever has one can end that run.
GRANT USAGE ON SCHEMA orphan_cleaner TO orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;
DO $$
DECLARE
    roles CONSTANT text := 'orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader';
    columns text;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute
    WHERE attrelid = 'orphan_cleaner.runs'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'token';
    EXECUTE format('GRANT SELECT (%s) ON orphan_cleaner.runs TO %s', columns, roles);
END
$$;
GRANT SELECT ON
    orphan_cleaner.targets, orphan_cleaner.targets_in_order, orphan_cleaner.run_targets,
    orphan_cleaner.pauses, orphan_cleaner.limits, orphan_cleaner.hours, orphan_cleaner.candidates, orphan_cleaner.sightings,
    orphan_cleaner.coverage, orphan_cleaner.unknowns, orphan_cleaner.rechecks, orphan_cleaner.holds, orphan_cleaner.holds_in_force,
    orphan_cleaner.refusals, orphan_cleaner.approvals, orphan_cleaner.restores, orphan_cleaner.event_cursors, orphan_cleaner.effects,
    orphan_cleaner.promotions, public.orphan_cleaner_goose
    TO orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;
-- Whether a month went without its partition.
GRANT SELECT (run_id) ON public.conversation_members_audit_default TO orphan_cleaner_runner;
-- Which conversations a run took members from, for the page of the run; not whom.
GRANT SELECT (conversation_id, deleted_at, run_id) ON public.conversation_members_audit TO orphan_cleaner_runner;
GRANT EXECUTE ON FUNCTION
    orphan_cleaner.breakers(jsonb, jsonb, jsonb),
    orphan_cleaner.surroundings(),
    orphan_cleaner.effects_check(),
    orphan_cleaner.counter_sample(integer),
    orphan_cleaner.run_totals(),
    orphan_cleaner.target_rows(uuid [])
    TO orphan_cleaner_runner, orphan_cleaner_restorer, orphan_cleaner_reader;

-- 5. runner: the functions of a run.
GRANT EXECUTE ON FUNCTION
    orphan_cleaner.partitions_ensure(integer),
    orphan_cleaner.run_begin(uuid, text, text, jsonb, interval, text, text, interval, boolean),
    orphan_cleaner.run_heartbeat(bigint, uuid, text, text),
    orphan_cleaner.run_finish(bigint, uuid, text, text, text, jsonb),
    orphan_cleaner.target_page(text, uuid, bigint),
    orphan_cleaner.target_holders(uuid []),
    orphan_cleaner.target_canaries(integer),
    orphan_cleaner.assess(uuid [], interval, interval, bigint),
    orphan_cleaner.run_stage(bigint, uuid, uuid [], uuid []),
    orphan_cleaner.run_judge(bigint, uuid, jsonb),
    orphan_cleaner.members_at_stake(uuid [], timestamptz),
    orphan_cleaner.sweep_chunk(bigint, uuid, uuid [], xid8, bigint),
    orphan_cleaner.sweep_returned(bigint, uuid, uuid []),
    orphan_cleaner.recheck_write(bigint, uuid, uuid [], uuid [], uuid),
    orphan_cleaner.event_sink(text, bigint),
    orphan_cleaner.event_page(text, uuid, integer, interval),
    orphan_cleaner.event_advance(text, uuid, text, uuid, uuid, bigint, text),
    orphan_cleaner.revert_judge(bigint, uuid, bigint, uuid [], jsonb),
    orphan_cleaner.revert_chunk(bigint, uuid, bigint, date, bigint, integer, uuid [], xid8, text)
    TO orphan_cleaner_runner;

-- 6. restorer. On call: stops runs, places holds, restores. The default privilege lets the runbook's statement read the
-- backup partition of a day by its own name.
GRANT EXECUTE ON FUNCTION
    orphan_cleaner.run_begin(uuid, text, text, jsonb, interval, text, text, interval, boolean),
    orphan_cleaner.run_heartbeat(bigint, uuid, text, text),
    orphan_cleaner.run_finish(bigint, uuid, text, text, text, jsonb),
    orphan_cleaner.hold_add(uuid, uuid, text, timestamptz, interval),
    orphan_cleaner.hold_lift(bigint, bigint, boolean),
    orphan_cleaner.pause(text),
    orphan_cleaner.resume(),
    orphan_cleaner.restorable(uuid, uuid),
    orphan_cleaner.restore_plan(bigint, uuid [], uuid [], timestamptz, timestamptz, text []),
    orphan_cleaner.restore_store(bigint, uuid, bigint, uuid [], uuid [], timestamptz, timestamptz, text []),
    orphan_cleaner.restore_chunks(bigint, text, integer),
    orphan_cleaner.restore_chunk(bigint, uuid, date, bigint, integer, uuid [], interval, text),
    orphan_cleaner.recheck_settle(bigint, uuid)
    TO orphan_cleaner_restorer;
GRANT SELECT ON
    public.conversation_members_audit, public.conversation_members_audit_default, public.conversation_members_backup,
    public.deleted_members_list
    TO orphan_cleaner_restorer;
DO $$
DECLARE
    partition regclass;
    target record;
    counter record;
BEGIN
    FOR target IN SELECT t.table_name, t.action, t.counter, t.audit_table, t.backup_table FROM orphan_cleaner.targets AS t WHERE to_regclass(t.table_name) IS NOT NULL LOOP
        -- What its functions do, as the owner.
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO orphan_cleaner_owner', (SELECT c.relnamespace::regnamespace FROM pg_class AS c WHERE c.oid = target.table_name::regclass));
        EXECUTE format('GRANT SELECT, INSERT, %s ON %s TO orphan_cleaner_owner', target.action, target.table_name::regclass);
        -- And the column that counts them; without a counter, or where it is gone, there is none.
        FOR counter IN
            SELECT
                c.oid::regclass AS name, c.relnamespace::regnamespace AS home, string_agg(quote_ident(a.attname), ', ') AS columns,
                string_agg(quote_ident(a.attname), ', ') FILTER (WHERE a.attname = target.counter ->> 'column') AS counts
            FROM pg_class AS c
            JOIN pg_attribute AS a ON a.attrelid = c.oid AND (a.attname = target.counter ->> 'column' OR target.counter -> 'key' ? a.attname::text)
            WHERE c.oid = to_regclass(target.counter ->> 'table')
            GROUP BY c.oid
            HAVING bool_or(a.attname = target.counter ->> 'column')
        LOOP
            EXECUTE format('GRANT USAGE ON SCHEMA %s TO orphan_cleaner_owner', counter.home);
            EXECUTE format('GRANT SELECT (%s), UPDATE (%s) ON %s TO orphan_cleaner_owner', counter.columns, counter.counts, counter.name);
        END LOOP;
        EXECUTE format('GRANT SELECT ON %s, %s TO orphan_cleaner_restorer', target.audit_table::regclass, target.backup_table::regclass);
        FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = target.backup_table::regclass LOOP
            EXECUTE format('GRANT SELECT ON %s TO orphan_cleaner_restorer', partition);
        END LOOP;
    END LOOP;
END
$$;
ALTER DEFAULT PRIVILEGES FOR ROLE orphan_cleaner_owner IN SCHEMA public
    GRANT SELECT ON TABLES TO orphan_cleaner_restorer;

-- 7. reader: the audit, for the report.
GRANT SELECT ON public.conversation_members_audit, public.conversation_members_audit_default TO orphan_cleaner_reader;

\endif

COMMIT;

-- 8. What this file does not change, because it is not ours, and what it leaves open.
SELECT
    has_schema_privilege('orphan_cleaner_runner', 'public', 'CREATE') AS runner_may_create,
    has_table_privilege(
        'orphan_cleaner_runner', 'public.conversation_members',
        'UPDATE, INSERT, DELETE, TRUNCATE, TRIGGER, REFERENCES' || CASE WHEN :'has_maintain'::boolean THEN ', MAINTAIN' ELSE '' END
    ) AS runner_may_more,
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
