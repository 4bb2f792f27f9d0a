-- Why:      a schema for everything of ours that the runbook does not name, unless conversation_members has a shape that no
--           run can work on. In it one row for each run: how far it is, what it did and why it stopped. The open row is the
--           lock, its token the fence: a runner that woke up too late holds the wrong one. Beside it what binds a run: the
--           registry of targets, pinned limits, and pauses; and the functions that apply limits, pause and resume.
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: refused while a run has deleted a row (it is evidence) or a pause is in force.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE SCHEMA orphan_cleaner;

COMMENT ON SCHEMA orphan_cleaner IS 'Runs, ledger, evidence and reviewed functions of orphan-cleaner.';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.members_shape()
RETURNS TABLE (check_name text, status text, message text, hint text)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH members AS (
        SELECT a.*, coalesce(nullif(t.typbasetype, 0), t.oid)::regtype AS type, t.typcategory
        FROM pg_attribute AS a
        JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = 'public.conversation_members'::regclass AND a.attnum > 0 AND NOT a.attisdropped
    ),
    keys AS (SELECT i.* FROM pg_index AS i WHERE i.indrelid = 'public.conversation_members'::regclass),
    wrong (message, hint) AS (
        SELECT
            format('conversation_members: %s is %s, not %s: %s', w.name, coalesce(nullif(format_type(m.atttypid, m.atttypmod), w.type::text), CASE WHEN m.attname IS NULL THEN 'missing' ELSE 'nullable or generated' END), w.type, w.why),
            format('ALTER TABLE public.conversation_members ' || CASE
                WHEN m.attname IS NULL THEN 'RENAME COLUMN another TO %1$s, if it is there by another name'
                WHEN m.attgenerated <> '' THEN 'ALTER COLUMN %1$s DROP EXPRESSION'
                WHEN m.type = w.type THEN 'ALTER COLUMN %1$s SET NOT NULL'
                WHEN w.type = 'uuid'::regtype THEN 'ALTER COLUMN %1$s TYPE uuid USING %1$s::uuid, if every value is a UUID'
                WHEN m.typcategory = 'N' THEN 'ALTER COLUMN %1$s TYPE timestamptz USING to_timestamp(%1$s / 1000.0), or without / 1000.0 if it counts seconds'
                ELSE 'ALTER COLUMN %1$s TYPE timestamptz USING %1$s::timestamp AT TIME ZONE ''UTC'', or the zone that messaging-service writes, such as ''Asia/Shanghai'''
            END, w.name)
        FROM (
            VALUES ('conversation_id', 'uuid'::regtype, 'a member could not be restored'), ('user_id', 'uuid', 'auth-service knows users by UUID'),
            ('joined_at', 'timestamptz', 'young members could be deleted'), ('last_read_at', 'timestamptz', 'members of active users could be deleted')
        ) AS w (name, type, why)
        LEFT JOIN members AS m ON m.attname = w.name
        WHERE coalesce(m.type <> w.type OR m.attgenerated <> '' OR w.name = 'conversation_id' AND NOT m.attnotnull, w.name <> 'last_read_at')
        UNION ALL
        SELECT format('conversation_members: %s is the name of a column that the backup has itself', m.attname), format('rename %1$s, as to member_%1$s', m.attname)
        FROM members AS m WHERE m.attname IN ('run_id', 'backed_up_at')
        UNION ALL
        SELECT 'conversation_members: no unique key on (conversation_id, user_id): a member could be restored twice', 'ALTER TABLE public.conversation_members ADD PRIMARY KEY (conversation_id, user_id)'
        WHERE NOT EXISTS (
            SELECT FROM keys AS k WHERE k.indisunique AND k.indisvalid AND k.indpred IS NULL AND k.indexprs IS NULL
                AND ARRAY(SELECT m.attname::text FROM members AS m WHERE m.attnum = ANY ((k.indkey::int2 [])[:k.indnkeyatts - 1])) <@ '{conversation_id,user_id}'
        )
        UNION ALL
        SELECT format('conversation_members: the constraint %s is deferrable: INSERT ... ON CONFLICT, as in a restore, fails', k.indexrelid::regclass), 'drop it, and add it NOT DEFERRABLE'
        FROM keys AS k WHERE NOT k.indimmediate
        UNION ALL
        SELECT 'public.conversations has no column id of type uuid: a restore could not tell which conversations are still there', 'point DATABASE_URL at messaging-service''s database, or give the table its name and key again'
        WHERE NOT EXISTS (
            SELECT FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
            WHERE a.attrelid = to_regclass('public.conversations') AND a.attname = 'id' AND 'uuid'::regtype IN (t.oid, t.typbasetype)
        )
    )
    SELECT 'shape', CASE WHEN w.message IS NULL THEN 'ok' ELSE 'FAIL' END,
        coalesce(w.message, 'conversation_members: its columns and keys are what runs need' || CASE
            WHEN 'last_read_at' IN (SELECT m.attname FROM members AS m) THEN '' ELSE '; without last_read_at the breaker recently-active is off' END),
        coalesce(w.hint, '')
    FROM (SELECT) AS one
    LEFT JOIN wrong AS w ON true
$$;

CREATE FUNCTION orphan_cleaner.is_distributed(relation oid)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    catalog regclass := to_regclass('pg_catalog.pg_dist_partition');
    is_it boolean := false;
BEGIN
    IF catalog IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s AS p WHERE p.logicalrelid = $1)', catalog) INTO is_it USING relation;
    END IF;
    RETURN is_it;
END
$$;

DO $$
DECLARE
    wrong record;
    taken text;
    owner name;
BEGIN
    IF pg_catalog.to_regclass('public.orphan_runs') IS NOT NULL THEN
        RAISE EXCEPTION 'refusing to migrate: this database holds tables of a development version (public.orphan_runs and others)'
            USING HINT = 'See docs/upgrading.md: export what matters, drop the old tables, migrate up.';
    END IF;
    -- As in surroundings() (00005), before the first change.
    IF (SELECT c.relkind <> 'r' OR EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))
        FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass('public.conversation_members'))
    THEN
        RAISE EXCEPTION 'refusing to migrate: conversation_members is partitioned, inherits, or is no table at all'
            USING HINT = 'Deletes by way of another table would escape the audit: see docs/surroundings.md.';
    END IF;
    IF orphan_cleaner.is_distributed(pg_catalog.to_regclass('public.conversation_members')) THEN
        RAISE EXCEPTION 'refusing to migrate: conversation_members is distributed by Citus, which has no triggers there: deletes would escape the audit'
            USING HINT = 'Undistribute it, or clean many ordinary databases as a fleet: see docs/surroundings.md and docs/scale.md.';
    END IF;
    SELECT s.message, s.hint INTO wrong FROM orphan_cleaner.members_shape() AS s WHERE s.status = 'FAIL' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'refusing to migrate: %', wrong.message USING HINT = wrong.hint;
    END IF;
    SELECT r.rolname INTO owner
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
    WHERE c.oid = 'public.conversation_members'::pg_catalog.regclass AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE');
    IF FOUND THEN
        RAISE EXCEPTION 'refusing to migrate: role % is not the owner of public.conversation_members, role % is: neither trigger nor index could be made', current_user, owner
            USING HINT = pg_catalog.format('DATABASE_URL of role %I, or GRANT %1$I TO %I', owner, current_user);
    END IF;
    -- What the migrations make in public and on the table; an index of that name may be there for the same purpose.
    SELECT pg_catalog.string_agg(t.name, ', ' ORDER BY t.name) INTO taken
    FROM (
        SELECT pg_catalog.format('public.%I', c.relname) AS name
        FROM pg_catalog.pg_class AS c
        LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid
        LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE c.relnamespace = 'public'::pg_catalog.regnamespace
            AND (c.relname IN ('conversation_members_audit', 'conversation_members_backup', 'deleted_members_list')
                OR c.relname = 'conversation_members_user_id'
                AND (i.indrelid = 'public.conversation_members'::pg_catalog.regclass AND a.attname = 'user_id') IS NOT TRUE)
        UNION ALL
        SELECT pg_catalog.format('trigger %I', t.tgname)
        FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid = 'public.conversation_members'::pg_catalog.regclass
            AND t.tgname IN ('conversation_members_audit_delete', 'conversation_members_refuse_truncate')
    ) AS t;
    IF taken IS NOT NULL THEN
        RAISE EXCEPTION 'refusing to migrate: there already, and not by these migrations: %', taken
            USING HINT = 'If they are the application''s, rename or drop them there. If they are left of an earlier orphan-cleaner, see docs/upgrading.md.';
    END IF;
    -- In another version table, most likely the application's own, each program would take the other's versions for its own.
    -- goose records a version at the end of the transaction of its migration: a trigger that fires at COMMIT sees where.
    CREATE TEMPORARY TABLE recorded (is_checked boolean) ON COMMIT DROP;
    CREATE OR REPLACE FUNCTION pg_temp.check_recorded()
    RETURNS trigger
    LANGUAGE plpgsql
    AS $check$
    BEGIN
        IF pg_catalog.to_regclass('public.orphan_cleaner_goose') IS NOT NULL THEN
            IF EXISTS (SELECT FROM public.orphan_cleaner_goose WHERE version_id = 1 AND is_applied) THEN
                RETURN NULL;
            END IF;
        END IF;
        RAISE EXCEPTION 'refusing to migrate: these migrations would be recorded in another version table than public.orphan_cleaner_goose'
            USING DETAIL = 'A version table counts the migrations of one program. An application that shares it would skip its own.',
                HINT = 'Run: orphan-cleaner migrate up; or goose in the root of the checkout, where .env names the table; or goose -table public.orphan_cleaner_goose.';
    END
    $check$;
    CREATE CONSTRAINT TRIGGER recorded AFTER INSERT ON pg_temp.recorded
        DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION pg_temp.check_recorded();
    INSERT INTO pg_temp.recorded (is_checked) VALUES (true);
END
$$;
-- +goose StatementEnd

-- goose records when a migration was applied without a time zone, in that of the session: from here on in UTC.
ALTER TABLE IF EXISTS public.orphan_cleaner_goose ALTER COLUMN tstamp SET DEFAULT (pg_catalog.now() AT TIME ZONE 'UTC');

CREATE TABLE orphan_cleaner.runs (
    run_id bigint GENERATED ALWAYS AS IDENTITY,
    token uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    kind text NOT NULL,
    state text NOT NULL DEFAULT 'running',
    phase text NOT NULL,
    started_at timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    finished_at timestamptz,
    scheduled_for timestamptz,
    judged_at timestamptz,
    lease interval NOT NULL,
    host text NOT NULL,
    version text NOT NULL,
    settings jsonb NOT NULL,
    approved_run bigint,
    users_checked bigint NOT NULL DEFAULT 0,
    users_missing bigint NOT NULL DEFAULT 0,
    users_unknown bigint NOT NULL DEFAULT 0,
    users_new bigint NOT NULL DEFAULT 0,
    users_returned bigint NOT NULL DEFAULT 0,
    users_restarted bigint NOT NULL DEFAULT 0,
    users_due bigint NOT NULL DEFAULT 0,
    users_blocked bigint NOT NULL DEFAULT 0,
    candidates bigint NOT NULL DEFAULT 0,
    members_total bigint NOT NULL DEFAULT 0,
    members_due bigint NOT NULL DEFAULT 0,
    members_deleted bigint NOT NULL DEFAULT 0,
    members_restored bigint NOT NULL DEFAULT 0,
    members_kept_young bigint NOT NULL DEFAULT 0,
    members_held bigint NOT NULL DEFAULT 0,
    members_changed bigint NOT NULL DEFAULT 0,
    members_blocked bigint NOT NULL DEFAULT 0,
    conversations bigint NOT NULL DEFAULT 0,
    owners_lost bigint NOT NULL DEFAULT 0,
    owners_kept bigint NOT NULL DEFAULT 0,
    conversations_emptied bigint NOT NULL DEFAULT 0,
    batch_calls bigint NOT NULL DEFAULT 0,
    call_ms_buckets bigint [],
    call_ms_max double precision,
    checked_after uuid,
    checked_through uuid,
    rechecked_through uuid,
    totals jsonb,
    breaker text,
    error text,
    CONSTRAINT runs_pkey PRIMARY KEY (run_id),
    CONSTRAINT runs_kind_check CHECK (kind IN ('clean', 'restore')),
    CONSTRAINT runs_state_check CHECK (state IN ('running', 'succeeded', 'incomplete', 'refused', 'failed', 'paused', 'abandoned')),
    CONSTRAINT runs_phase_check CHECK (phase IN ('preflight', 'verify', 'judge', 'sweep', 'restore', 'finish')),
    CONSTRAINT runs_finished_check CHECK ((state = 'running') = (finished_at IS NULL)),
    CONSTRAINT runs_call_ms_buckets_check CHECK (pg_catalog.cardinality(call_ms_buckets) = 61)
);

-- One open run, whoever starts it and from wherever. No session lock: a pooler in transaction mode would strand it.
CREATE UNIQUE INDEX runs_one_open ON orphan_cleaner.runs (state) WHERE state = 'running';
-- The newest moment that any run has recorded, and the runs of a span.
CREATE INDEX runs_heartbeat_at ON orphan_cleaner.runs (heartbeat_at);
CREATE INDEX runs_started_at ON orphan_cleaner.runs (started_at);
-- The last run that ended so, and the last one that rechecked, however many there were since.
CREATE INDEX runs_succeeded ON orphan_cleaner.runs (run_id) WHERE state = 'succeeded' AND kind = 'clean';
CREATE INDEX runs_refused ON orphan_cleaner.runs (run_id) WHERE state = 'refused' AND kind = 'clean';
-- Of whose rows others are told, however long ago that was.
CREATE INDEX runs_with_events ON orphan_cleaner.runs (run_id) WHERE state <> 'running' AND members_deleted + members_restored > 0;
CREATE INDEX runs_rechecked ON orphan_cleaner.runs (run_id) WHERE rechecked_through IS NOT NULL;

COMMENT ON TABLE orphan_cleaner.runs IS 'One row per run; the open one is the lock, its token the fence.';
COMMENT ON COLUMN orphan_cleaner.runs.run_id IS 'Names the run.';
COMMENT ON COLUMN orphan_cleaner.runs.token IS 'Random, drawn by the runner. Every write of the run brings it: an id may be used again after a failover, a token never.';
COMMENT ON COLUMN orphan_cleaner.runs.kind IS 'clean: delete orphans; restore: bring rows back, or revert that.';
COMMENT ON COLUMN orphan_cleaner.runs.state IS 'running (open), succeeded, incomplete (users or rows left for the next run), refused (by a breaker), failed, paused, abandoned (no heartbeat for longer than its lease).';
COMMENT ON COLUMN orphan_cleaner.runs.phase IS 'The step it is in, or ended in.';
COMMENT ON COLUMN orphan_cleaner.runs.started_at IS 'Database time when the run was opened.';
COMMENT ON COLUMN orphan_cleaner.runs.heartbeat_at IS 'Last sign of life, database time; at the end equal to finished_at.';
COMMENT ON COLUMN orphan_cleaner.runs.finished_at IS 'When the run left the state running.';
COMMENT ON COLUMN orphan_cleaner.runs.scheduled_for IS 'When a run of serve was due; null for a run of cron or by hand.';
COMMENT ON COLUMN orphan_cleaner.runs.judged_at IS 'When the breakers let it pass and the ledger was written; null: nothing may be deleted.';
COMMENT ON COLUMN orphan_cleaner.runs.lease IS 'A run silent for longer than this may be taken over.';
COMMENT ON COLUMN orphan_cleaner.runs.host IS 'host:pid of the runner.';
COMMENT ON COLUMN orphan_cleaner.runs.version IS 'Version of orphan-cleaner.';
COMMENT ON COLUMN orphan_cleaner.runs.settings IS 'The settings in force, without secrets: retention and max-gap in seconds, limits by name. Pinned limits are applied.';
COMMENT ON COLUMN orphan_cleaner.runs.approved_run IS 'The refused run by whose approval this one sweeps; only its users are due.';
COMMENT ON COLUMN orphan_cleaner.runs.users_checked IS 'Users with a valid response, alive or missing.';
COMMENT ON COLUMN orphan_cleaner.runs.users_missing IS 'Users who were not in a valid response.';
COMMENT ON COLUMN orphan_cleaner.runs.users_unknown IS 'Users without a valid response: never touched.';
COMMENT ON COLUMN orphan_cleaner.runs.users_new IS 'Missing users who were not in the ledger before.';
COMMENT ON COLUMN orphan_cleaner.runs.users_returned IS 'Candidates who are alive again and left the ledger.';
COMMENT ON COLUMN orphan_cleaner.runs.users_restarted IS 'Candidates whose clock restarted: not checked for longer than max-gap, or active since.';
COMMENT ON COLUMN orphan_cleaner.runs.users_due IS 'Users missing for longer than the retention and not on hold.';
COMMENT ON COLUMN orphan_cleaner.runs.users_blocked IS 'Due users whose rows something in the database refuses to delete.';
COMMENT ON COLUMN orphan_cleaner.runs.candidates IS 'Users in the ledger once the run was judged.';
COMMENT ON COLUMN orphan_cleaner.runs.members_total IS 'Rows of conversation_members seen by the scan.';
COMMENT ON COLUMN orphan_cleaner.runs.members_due IS 'Members of due users that the sweep may delete, as judged.';
COMMENT ON COLUMN orphan_cleaner.runs.members_deleted IS 'Members deleted; written in the transaction of each delete.';
COMMENT ON COLUMN orphan_cleaner.runs.members_restored IS 'Members restored; written in the transaction of each restore.';
COMMENT ON COLUMN orphan_cleaner.runs.members_kept_young IS 'Members of due users kept because the member itself is younger than the retention.';
COMMENT ON COLUMN orphan_cleaner.runs.members_held IS 'Members kept because of a hold.';
COMMENT ON COLUMN orphan_cleaner.runs.members_changed IS 'Members judged due and kept or gone by the time of the delete: changed since, on hold since, of a user who returned.';
COMMENT ON COLUMN orphan_cleaner.runs.members_blocked IS 'Members of blocked users.';
COMMENT ON COLUMN orphan_cleaner.runs.conversations IS 'Distinct conversations that lost a member.';
COMMENT ON COLUMN orphan_cleaner.runs.owners_lost IS 'Conversations whose last owner was due, and not all of their members; as judged.';
COMMENT ON COLUMN orphan_cleaner.runs.owners_kept IS 'Conversations whose last owner was due and stays, by choice; as judged.';
COMMENT ON COLUMN orphan_cleaner.runs.conversations_emptied IS 'Conversations all of whose members were due; as judged.';
COMMENT ON COLUMN orphan_cleaner.runs.batch_calls IS 'Batches of up to 100 users that were checked; a retried batch counts once.';
COMMENT ON COLUMN orphan_cleaner.runs.call_ms_buckets IS 'Batches by how long they took: element i counts those of at most 2^((i-1)/4) ms, the last one all others.';
COMMENT ON COLUMN orphan_cleaner.runs.call_ms_max IS 'The slowest batch, milliseconds.';
COMMENT ON COLUMN orphan_cleaner.runs.checked_after IS 'The run checked the users after this id; null: from the first one on.';
COMMENT ON COLUMN orphan_cleaner.runs.checked_through IS 'The run checked the users up to this id, itself included; null: to the end.';
COMMENT ON COLUMN orphan_cleaner.runs.rechecked_through IS 'The last user that was rechecked; the next run continues after this id.';
COMMENT ON COLUMN orphan_cleaner.runs.totals IS 'Sums over all runs up to and including this one, by run_totals, so that nobody has to add them up again.';
COMMENT ON COLUMN orphan_cleaner.runs.breaker IS 'Name of the breaker that refused the run.';
COMMENT ON COLUMN orphan_cleaner.runs.error IS 'Why the run did not succeed, in one line.';

CREATE TABLE orphan_cleaner.targets (
    name text NOT NULL,
    ordinal bigint NOT NULL,
    table_name text NOT NULL,
    user_column text NOT NULL,
    action text NOT NULL,
    retention interval,
    limits jsonb NOT NULL DEFAULT '{}',
    backup_window interval,
    counter jsonb,
    audit_table text NOT NULL,
    backup_table text NOT NULL,
    digest text,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    applied_by text NOT NULL DEFAULT session_user,
    CONSTRAINT targets_pkey PRIMARY KEY (name),
    CONSTRAINT targets_ordinal_key UNIQUE (ordinal),
    -- Its functions begin with the name, and end with _page, _facts and so on.
    CONSTRAINT targets_name_check CHECK (name ~ '^[a-z_][a-z0-9_]{0,39}$'),
    CONSTRAINT targets_action_check CHECK (action IN ('delete', 'update')),
    CONSTRAINT targets_limits_check CHECK (pg_catalog.jsonb_typeof(limits) = 'object')
);

COMMENT ON TABLE orphan_cleaner.targets IS 'The registry: tables whose rows belong to users. The migration that makes the functions of a target adds its row.';
COMMENT ON COLUMN orphan_cleaner.targets.name IS 'Names the target, and begins the names of its functions.';
COMMENT ON COLUMN orphan_cleaner.targets.ordinal IS 'The order in which a chunk goes through the targets.';
COMMENT ON COLUMN orphan_cleaner.targets.table_name IS 'The table, with its schema.';
COMMENT ON COLUMN orphan_cleaner.targets.user_column IS 'Its column with the user id.';
COMMENT ON COLUMN orphan_cleaner.targets.action IS 'What becomes of a row: delete or update.';
COMMENT ON COLUMN orphan_cleaner.targets.retention IS 'Its own retention, where it is longer than the run''s.';
COMMENT ON COLUMN orphan_cleaner.targets.limits IS 'Its own limits, by the names of breakers; they count where they are stricter than the run''s.';
COMMENT ON COLUMN orphan_cleaner.targets.backup_window IS 'How long its backups are kept, and its audit not shorter, where that is longer than the windows of prune.';
COMMENT ON COLUMN orphan_cleaner.targets.counter IS 'The column that counts its rows: table, key (its columns, each with that of the target) and column; null: none, or effects.';
COMMENT ON COLUMN orphan_cleaner.targets.audit_table IS 'Its audit, partitioned by month, with its schema.';
COMMENT ON COLUMN orphan_cleaner.targets.backup_table IS 'Its backup, partitioned by UTC day, with its schema.';
COMMENT ON COLUMN orphan_cleaner.targets.digest IS 'Of the declaration from which its functions were printed; null: shipped.';
COMMENT ON COLUMN orphan_cleaner.targets.applied_at IS 'When its migration was applied.';
COMMENT ON COLUMN orphan_cleaner.targets.applied_by IS 'The database role that applied it.';

CREATE TABLE orphan_cleaner.pauses (
    pause_id bigint GENERATED ALWAYS AS IDENTITY,
    reason text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    paused_by text NOT NULL DEFAULT session_user,
    resumed_at timestamptz,
    resumed_by text,
    CONSTRAINT pauses_pkey PRIMARY KEY (pause_id),
    CONSTRAINT pauses_reason_check CHECK (pg_catalog.btrim(reason) <> '')
);

-- One pause in force is enough; a second one would outlive the first resume.
CREATE UNIQUE INDEX pauses_one_in_force ON orphan_cleaner.pauses ((resumed_at IS NULL)) WHERE resumed_at IS NULL;

COMMENT ON TABLE orphan_cleaner.pauses IS 'While a row has no resumed_at, no run starts and none goes on.';
COMMENT ON COLUMN orphan_cleaner.pauses.pause_id IS 'Names the pause.';
COMMENT ON COLUMN orphan_cleaner.pauses.reason IS 'Why, for the reader of the list.';
COMMENT ON COLUMN orphan_cleaner.pauses.paused_at IS 'When it began.';
COMMENT ON COLUMN orphan_cleaner.pauses.paused_by IS 'The database role that paused.';
COMMENT ON COLUMN orphan_cleaner.pauses.resumed_at IS 'When it ended; null: in force.';
COMMENT ON COLUMN orphan_cleaner.pauses.resumed_by IS 'The database role that resumed.';

CREATE TABLE orphan_cleaner.limits (
    name text NOT NULL,
    value double precision NOT NULL,
    set_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    set_by text NOT NULL DEFAULT session_user,
    CONSTRAINT limits_pkey PRIMARY KEY (name),
    CONSTRAINT limits_value_check CHECK (value >= 0)
);

COMMENT ON TABLE orphan_cleaner.limits IS 'Pinned settings: a run''s own can only be stricter.';
COMMENT ON COLUMN orphan_cleaner.limits.name IS 'retention, max-gap (seconds) or the name of a breaker.';
COMMENT ON COLUMN orphan_cleaner.limits.value IS 'Seconds, a share of 1, or a number of rows or users.';
COMMENT ON COLUMN orphan_cleaner.limits.set_at IS 'When it was pinned.';
COMMENT ON COLUMN orphan_cleaner.limits.set_by IS 'The database role that pinned it.';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.stricter_settings(settings jsonb, limits jsonb)
RETURNS jsonb
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT settings || coalesce(jsonb_object_agg(
        l.name,
        CASE l.name
            WHEN 'retention' THEN greatest((settings ->> l.name)::double precision, l.value::double precision)
            -- 0 or less switches this one off: the laxest value of all.
            WHEN 'history' THEN coalesce(least(nullif(greatest((settings ->> l.name)::double precision, 0), 0), nullif(l.value::double precision, 0)), 0)
            ELSE least((settings ->> l.name)::double precision, l.value::double precision)
        END
    ), '{}')
    FROM jsonb_each_text(limits) AS l (name, value)
$$;

CREATE FUNCTION orphan_cleaner.effective_settings(settings jsonb)
RETURNS jsonb
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT orphan_cleaner.stricter_settings(settings, coalesce((SELECT jsonb_object_agg(l.name, l.value) FROM orphan_cleaner.limits AS l), '{}'))
$$;

CREATE FUNCTION orphan_cleaner.lacks_standby()
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Whoever may see nothing else of a standby sees that there is one.
    SELECT current_setting('synchronous_standby_names') <> ''
        AND current_setting('synchronous_commit') NOT IN ('off', 'local')
        AND NOT EXISTS (SELECT FROM pg_stat_replication)
$$;

CREATE FUNCTION orphan_cleaner.pause(why text)
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
    INSERT INTO orphan_cleaner.pauses (reason) VALUES (why) RETURNING pause_id
$$;

CREATE FUNCTION orphan_cleaner.resume()
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
    UPDATE orphan_cleaner.pauses AS p
    SET resumed_at = now(),
        resumed_by = session_user
    WHERE p.resumed_at IS NULL
    RETURNING p.pause_id
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.is_distributed IS 'Whether Citus, where it is there, distributes this table.';
COMMENT ON FUNCTION orphan_cleaner.members_shape IS 'Whether the columns and keys of conversation_members are such that runs can delete and restore: a row for each thing that is wrong, FAIL, or one that is ok.';
COMMENT ON FUNCTION orphan_cleaner.stricter_settings IS 'Settings with limits applied that can only make them stricter: a longer retention, a lower limit. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.effective_settings IS 'A run''s settings with the pinned limits applied: flags can only be stricter.';
COMMENT ON FUNCTION orphan_cleaner.lacks_standby IS 'Whether each COMMIT would wait for a synchronous standby that is not there. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.pause IS 'Pauses all runs. Fails on pauses_one_in_force when they are paused already.';
COMMENT ON FUNCTION orphan_cleaner.resume IS 'Lets runs continue; null when they were not paused.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE orphan_cleaner.runs, orphan_cleaner.targets, orphan_cleaner.pauses IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM orphan_cleaner.runs WHERE members_deleted > 0) THEN
        RAISE EXCEPTION 'refusing to drop orphan_cleaner.runs: it records runs that deleted members'
            USING HINT = 'Copy the table elsewhere and empty it first, if you mean it.';
    END IF;
    IF EXISTS (SELECT FROM orphan_cleaner.targets) THEN
        RAISE EXCEPTION 'refusing to drop orphan_cleaner.targets: further targets are registered'
            USING HINT = 'Take their migrations down first: goose -table public.orphan_cleaner_targets_goose down-to 0';
    END IF;
    IF EXISTS (SELECT FROM orphan_cleaner.pauses WHERE resumed_at IS NULL) THEN
        RAISE EXCEPTION 'refusing to drop orphan_cleaner.pauses: a pause is in force'
            USING HINT = 'Run: orphan-cleaner resume';
    END IF;
END
$$;
-- +goose StatementEnd

DROP FUNCTION
    orphan_cleaner.resume, orphan_cleaner.pause, orphan_cleaner.lacks_standby, orphan_cleaner.effective_settings,
    orphan_cleaner.stricter_settings, orphan_cleaner.members_shape, orphan_cleaner.is_distributed;
DROP TABLE orphan_cleaner.limits, orphan_cleaner.pauses, orphan_cleaner.targets, orphan_cleaner.runs;
DROP SCHEMA orphan_cleaner;
