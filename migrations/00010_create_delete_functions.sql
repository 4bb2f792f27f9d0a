-- Why:      the deletes of a run, chunk by chunk, and its end, which proves it.
-- Locks:    ACCESS SHARE on conversation_members, while bodies are checked. At work, per chunk: ROW EXCLUSIVE on the targets,
--           SHARE on holds and pauses: placing a hold and pausing wait for the chunks in flight, and every later chunk sees
--           them. Last, the rows with counts, under a lock on orphan_cleaner.effects.
-- Duration: milliseconds.
-- Rollback: drops the functions; runs refuse to start.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.run_retention(run orphan_cleaner.runs, of_target interval)
RETURNS interval
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT greatest(make_interval(secs => (run.settings ->> 'retention')::double precision), of_target)
$$;

-- The columns members_* of runs are what the runbook knows.
CREATE FUNCTION orphan_cleaner.run_count(of_run bigint, more_deleted bigint [])
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO orphan_cleaner.run_targets AS r (run_id, target, rows_deleted)
    SELECT of_run, t.name, coalesce(more_deleted[t.n], 0)
    FROM orphan_cleaner.targets_in_order AS t
    ORDER BY t.n
    ON CONFLICT (run_id, target) DO UPDATE
    SET rows_deleted = r.rows_deleted + excluded.rows_deleted;
    UPDATE orphan_cleaner.runs AS r
    SET heartbeat_at = clock_timestamp(),
        members_due = t.rows_due,
        members_deleted = t.rows_deleted,
        members_kept_young = t.rows_kept_young,
        members_held = t.rows_held,
        members_changed = t.rows_changed,
        members_blocked = t.rows_blocked
    FROM orphan_cleaner.run_targets AS t
    WHERE r.run_id = of_run
        AND t.run_id = of_run
        AND t.target = 'conversation_members'
$$;

CREATE FUNCTION orphan_cleaner.members_at_stake(user_ids uuid [], horizon timestamptz)
RETURNS bigint []
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET enable_seqscan = off
SET jit = off
AS $$
    WITH due AS MATERIALIZED (
        SELECT m.conversation_id, bool_or(m.role = 'owner') AS has_owner, array_agg(m.user_id) AS users
        FROM (SELECT NULL AS role) AS absent
        CROSS JOIN LATERAL (
            SELECT o.conversation_id, o.user_id, role::text AS role
            FROM public.conversation_members AS o
            WHERE o.user_id = ANY (ARRAY(SELECT unnest($1)))
                AND o.joined_at < $2
                AND o.conversation_id NOT IN (
                    SELECT h.conversation_id FROM orphan_cleaner.holds_in_force AS h WHERE h.conversation_id IS NOT NULL
                )
        ) AS m
        GROUP BY m.conversation_id
    )
    SELECT ARRAY[
        count(*) FILTER (WHERE s.loses_owner AND s.has_others AND NOT c.stays),
        count(*) FILTER (WHERE s.loses_owner AND c.stays),
        count(*) FILTER (WHERE NOT s.has_others AND NOT (s.loses_owner AND c.stays))
    ]
    FROM (SELECT EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.choice = 'keep') AS stays) AS c
    CROSS JOIN due AS d
    CROSS JOIN LATERAL (
        SELECT
            EXISTS (
                SELECT FROM public.conversation_members AS o WHERE o.conversation_id = d.conversation_id AND o.user_id <> ALL (d.users)
            ) AS has_others,
            d.has_owner AND NOT EXISTS (
                SELECT
                FROM (SELECT NULL AS role) AS absent
                CROSS JOIN LATERAL (
                    SELECT role::text AS role
                    FROM public.conversation_members AS o
                    WHERE o.conversation_id = d.conversation_id AND o.user_id <> ALL (d.users)
                ) AS m
                WHERE m.role = 'owner'
            ) AS loses_owner
    ) AS s
$$;

-- The last owners among what a delete takes, with their conversations locked: one stays, or has a successor.
CREATE FUNCTION orphan_cleaner.owners_leave(chosen tid [])
RETURNS tid []
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    losing uuid [] := ARRAY(
        SELECT DISTINCT m.conversation_id
        FROM public.conversation_members AS m
        WHERE m.ctid = ANY (chosen) AND m.role = 'owner' AND NOT EXISTS (
            SELECT FROM public.conversation_members AS o
            WHERE o.conversation_id = m.conversation_id AND o.role = 'owner' AND o.ctid <> ALL (chosen)
        )
    );
    kept bigint;
BEGIN
    IF EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.choice = 'keep') THEN
        RETURN ARRAY(
            SELECT unnest(chosen)
            EXCEPT
            (
                SELECT DISTINCT ON (m.conversation_id) m.ctid
                FROM public.conversation_members AS m
                WHERE m.ctid = ANY (chosen) AND m.role = 'owner' AND m.conversation_id = ANY (losing)
                ORDER BY m.conversation_id, m.joined_at, m.user_id
            )
        );
    END IF;
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    WITH successors AS (
        SELECT s.*
        FROM unnest(losing) AS l (conversation_id)
        CROSS JOIN LATERAL (
            SELECT m.conversation_id, m.user_id, m.role::text AS role
            FROM public.conversation_members AS m
            WHERE m.conversation_id = l.conversation_id
                AND m.ctid <> ALL (chosen)
                -- Whom no run has found missing, and whom nobody is just changing.
                AND NOT EXISTS (SELECT FROM orphan_cleaner.candidates AS c WHERE c.user_id = m.user_id)
            -- The oldest admin, else the oldest member. An enum of roles may know no admin.
            ORDER BY m.role::text <> 'admin', m.joined_at, m.user_id
            LIMIT 1
            FOR UPDATE OF m SKIP LOCKED
        ) AS s
    ),
    promoted AS (
        UPDATE public.conversation_members AS m
        SET role = 'owner'
        FROM successors AS s
        WHERE m.conversation_id = s.conversation_id AND m.user_id = s.user_id
        RETURNING m.conversation_id, m.user_id, s.role, m.role = 'owner' AS is_owner
    ),
    recorded AS (
        INSERT INTO orphan_cleaner.promotions (run_id, conversation_id, user_id, role_before)
        SELECT orphan_cleaner.deleting_run(), p.conversation_id, p.user_id, p.role
        FROM promoted AS p
        ON CONFLICT (run_id, conversation_id, user_id) DO NOTHING
    )
    SELECT (SELECT count(*) FROM successors) - (SELECT count(*) FROM promoted AS p WHERE p.is_owner) INTO kept;
    IF kept > 0 THEN
        RAISE EXCEPTION '% successors of last owners do not become owner: a trigger or rule keeps their role', kept
            USING ERRCODE = 'OC006', HINT = 'Correct it, or: orphan-cleaner effects set owners=keep';
    END IF;
    RETURN chosen;
END
$$;

CREATE FUNCTION orphan_cleaner.chunk_open(of_run bigint, of_token uuid, of_kind text, checked_from xid8)
RETURNS orphan_cleaner.runs
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run orphan_cleaner.runs;
BEGIN
    -- A run is given up, and a hold or pause is placed, before this chunk or after it.
    LOCK TABLE orphan_cleaner.runs IN ROW EXCLUSIVE MODE;
    LOCK TABLE orphan_cleaner.holds, orphan_cleaner.pauses IN SHARE MODE;
    run := orphan_cleaner.run_open(of_run, of_token, of_kind);
    IF run.judged_at IS NULL THEN
        RAISE EXCEPTION 'run % is not judged: it may delete nothing', of_run USING ERRCODE = 'OC008';
    END IF;
    IF EXISTS (SELECT FROM orphan_cleaner.pauses AS p WHERE p.resumed_at IS NULL) THEN
        RAISE EXCEPTION 'runs are paused' USING ERRCODE = 'OC002', HINT = 'Run: orphan-cleaner resume';
    END IF;
    IF checked_from IS NULL OR checked_from > pg_snapshot_xmax(pg_current_snapshot()) THEN
        RAISE EXCEPTION 'the snapshot % is not of this server''s past', checked_from USING ERRCODE = 'OC007';
    END IF;
    IF current_setting('session_replication_role') <> 'origin' THEN
        RAISE EXCEPTION 'session_replication_role is %: foreign keys and triggers would not fire', current_setting('session_replication_role')
            USING ERRCODE = 'OC007', HINT = 'Run: orphan-cleaner check';
    END IF;
    RETURN run;
END
$$;

CREATE FUNCTION orphan_cleaner.sweep_rows(
    run orphan_cleaner.runs,
    user_ids uuid [],
    checked_from xid8,
    max_rows bigint
)
RETURNS TABLE (rows_deleted bigint [], is_whole boolean, counted jsonb [])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
    deleted bigint;
    is_done boolean;
    keys jsonb;
    cascades text;
BEGIN
    rows_deleted := '{}';
    counted := '{}';
    is_whole := true;
    FOR target IN SELECT t.* FROM orphan_cleaner.targets_in_order AS t ORDER BY t.n LOOP
        PERFORM set_config('orphan_cleaner.run_token', run.token::text, true),
            set_config('orphan_cleaner.audited', '0', true),
            set_config('orphan_cleaner.backed_up', '0', true);
        EXECUTE format('SELECT d.rows_deleted, d.is_whole, d.counted FROM orphan_cleaner.%I($1, $2, $3, $4) AS d', target.name || '_delete')
        INTO deleted, is_done, keys
        -- By the time at which the ledger was written: the clock may have jumped forward since.
        USING user_ids, least(run.judged_at, now()) - orphan_cleaner.run_retention(run, target.retention), checked_from, max_rows;
        PERFORM set_config('orphan_cleaner.run_token', '', true);
        IF current_setting('orphan_cleaner.audited')::bigint > deleted THEN
            -- Other rows than those that are due, of this table or of another target: their users are blocked.
            SELECT string_agg(format('%s of %s', k.conname, k.conrelid::regclass), ', ' ORDER BY k.conname) INTO cascades
            FROM pg_constraint AS k
            WHERE k.contype = 'f' AND k.confdeltype = 'c' AND k.conparentid = 0
                AND k.confrelid = (SELECT to_regclass(t.table_name) FROM orphan_cleaner.targets AS t WHERE t.name = target.name);
            IF cascades IS NOT NULL THEN
                RAISE EXCEPTION 'with % rows of % the database deletes % that are not due, by foreign keys ON DELETE CASCADE: %',
                    deleted, target.name, current_setting('orphan_cleaner.audited')::bigint - deleted, cascades
                    USING ERRCODE = 'OC006', HINT = format('Make %s a target of action update, or let the key refuse the delete', target.name);
            END IF;
        END IF;
        IF current_setting('orphan_cleaner.audited') <> deleted::text OR current_setting('orphan_cleaner.backed_up') <> deleted::text THEN
            RAISE EXCEPTION 'count proof failed: % rows of % deleted, % audited, % backed up; rolled back',
                deleted, target.name, current_setting('orphan_cleaner.audited'), current_setting('orphan_cleaner.backed_up')
                USING ERRCODE = 'OC005', HINT = 'Run: orphan-cleaner check';
        END IF;
        rows_deleted := rows_deleted || deleted;
        counted := array_append(counted, keys);
        is_whole := is_whole AND is_done;
        max_rows := max_rows - deleted;
    END LOOP;
    RETURN NEXT;
END
$$;

CREATE FUNCTION orphan_cleaner.sweep_chunk(
    of_run bigint,
    of_token uuid,
    user_ids uuid [],
    checked_from xid8,
    max_rows bigint
)
RETURNS TABLE (rows_deleted bigint [], is_whole boolean)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
-- By keys, whatever the statistics say of a ledger that was written a moment ago.
SET enable_seqscan = off
SET enable_nestloop = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    run orphan_cleaner.runs := orphan_cleaner.chunk_open(of_run, of_token, 'clean', checked_from);
    shortest interval := (SELECT min(orphan_cleaner.run_retention(run, t.retention)) FROM orphan_cleaner.targets AS t);
    due uuid [];
    due_approved uuid [];
    approved record;
    judged record;
    counting record;
BEGIN
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'a chunk has between 1 and 1,000,000 rows, not %', max_rows USING ERRCODE = 'OC007';
    END IF;
    SELECT
        array_agg(c.user_id ORDER BY c.user_id) FILTER (WHERE c.approved_run IS NULL AND f.user_id IS NULL),
        array_agg(c.user_id ORDER BY c.user_id) FILTER (WHERE c.approved_run IS NOT NULL OR f.user_id IS NOT NULL)
    INTO due, due_approved
    FROM orphan_cleaner.candidates AS c
    LEFT JOIN orphan_cleaner.refusals AS f
        ON f.run_id = run.approved_run
        AND f.user_id = c.user_id
        AND f.is_due
    WHERE c.user_id = ANY (ARRAY(SELECT unnest(user_ids)))
        -- Missing in this very run, and for longer than the retention.
        AND c.last_missing_run = of_run
        AND c.first_missing_at <= least(run.judged_at, now()) - shortest
        AND NOT EXISTS (SELECT FROM orphan_cleaner.holds_in_force AS h WHERE h.user_id = c.user_id)
        -- With an approval, nobody but those it covers.
        AND (run.approved_run IS NULL OR f.user_id IS NOT NULL);
    SELECT * INTO judged FROM orphan_cleaner.sweep_rows(run, due, checked_from, max_rows);
    SELECT * INTO approved FROM orphan_cleaner.sweep_rows(run, due_approved, checked_from, max_rows);
    rows_deleted := ARRAY(SELECT d.judged + d.approved FROM unnest(judged.rows_deleted, approved.rows_deleted) AS d (judged, approved));
    is_whole := judged.is_whole AND approved.is_whole;
    IF is_whole THEN
        due := due || due_approved;
        PERFORM orphan_cleaner.candidates_leave(ARRAY(
            SELECT u.user_id
            FROM unnest(due) AS u (user_id)
            EXCEPT
            SELECT h.user_id
            FROM orphan_cleaner.target_holders(due) AS h (user_id)
        ));
    END IF;
    -- After all deletes, which may wait for rows: with counts locked nobody is waited for. And a count may be in a row of
    -- another target, which changed then.
    FOR counting IN
        SELECT t.name, coalesce(judged.counted[t.n], '[]') || coalesce(approved.counted[t.n], '[]') AS counted
        FROM orphan_cleaner.targets_in_order AS t
        WHERE coalesce(judged.counted[t.n], approved.counted[t.n]) IS NOT NULL
        ORDER BY t.n
    LOOP
        EXECUTE format('SELECT orphan_cleaner.%I($1, -1)', counting.name || '_counts') USING counting.counted;
    END LOOP;
    -- Last, so that chunks of several connections wait for each other only until COMMIT.
    INSERT INTO orphan_cleaner.hours AS h (hour, target, rows_deleted, rows_approved)
    SELECT date_trunc('hour', now()), t.name, judged.rows_deleted[t.n], approved.rows_deleted[t.n]
    FROM orphan_cleaner.targets_in_order AS t
    ORDER BY t.n
    ON CONFLICT (hour, target) DO UPDATE
    SET rows_deleted = h.rows_deleted + excluded.rows_deleted,
        rows_approved = h.rows_approved + excluded.rows_approved;
    PERFORM orphan_cleaner.run_count(of_run, rows_deleted);
    RETURN NEXT;
END
$$;

CREATE FUNCTION orphan_cleaner.sweep_returned(of_run bigint, of_token uuid, user_ids uuid [])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
BEGIN
    PERFORM orphan_cleaner.run_open(of_run, of_token, 'clean');
    PERFORM orphan_cleaner.candidates_leave(user_ids);
END
$$;

CREATE FUNCTION orphan_cleaner.run_totals()
RETURNS jsonb
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Of a year of minutes 19,500 blocks were read, and not 5: how far back it must go no statistics tell.
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
    -- From the last run that has them on: as a rule the last one.
    WITH last AS (SELECT r.run_id, r.totals FROM orphan_cleaner.runs AS r WHERE r.totals IS NOT NULL ORDER BY r.run_id DESC LIMIT 1),
    summands AS (
        SELECT t.name, t.value::bigint AS value FROM last AS l CROSS JOIN LATERAL jsonb_each_text(l.totals) AS t (name, value)
        UNION ALL
        SELECT s.name, s.value
        FROM orphan_cleaner.runs AS r
        CROSS JOIN LATERAL (
            VALUES (r.kind || ' ' || r.state, 1), ('members_deleted', r.members_deleted), ('members_restored', r.members_restored), ('batch_calls', r.batch_calls)
            UNION ALL
            SELECT 'rows_deleted ' || t.target, t.rows_deleted FROM orphan_cleaner.run_targets AS t WHERE t.run_id = r.run_id
        ) AS s (name, value)
        WHERE r.run_id > coalesce((SELECT l.run_id FROM last AS l), 0) AND r.state <> 'running'
    )
    SELECT coalesce(jsonb_object_agg(a.name, a.value), '{}') FROM (SELECT s.name, sum(s.value) AS value FROM summands AS s GROUP BY s.name) AS a
$$;

CREATE FUNCTION orphan_cleaner.run_finish(
    of_run bigint,
    of_token uuid,
    new_state text,
    new_breaker text,
    new_error text,
    counts jsonb
)
RETURNS SETOF orphan_cleaner.runs
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
-- The end of a run is on disk when it is told.
SET synchronous_commit = 'on'
AS $$
DECLARE
    run orphan_cleaner.runs;
    target record;
    audited bigint;
    backed_up bigint;
    lost bigint;
    is_whole boolean := true;
    touched bigint := 0;
BEGIN
    SELECT r.* INTO run FROM orphan_cleaner.runs AS r WHERE r.run_id = of_run AND r.token = of_token FOR UPDATE;
    IF NOT FOUND OR run.state <> 'running' AND run.state <> new_state THEN
        RAISE EXCEPTION 'run % is no longer open: it was silent for longer than its lease and was taken over', of_run
            USING ERRCODE = 'OC001', HINT = 'Run: orphan-cleaner status';
    END IF;
    IF run.state <> 'running' THEN
        -- Ended so before: by this very call, whose answer was lost.
        RETURN NEXT run;
        RETURN;
    END IF;
    -- Chunk by chunk the runner settled what was judged due, all of it, or staging lost users meanwhile. What it settled
    -- and nobody deleted had changed; the runner itself does not know what a chunk deleted whose answer was lost.
    UPDATE orphan_cleaner.run_targets AS t
    SET rows_changed = greatest(c.rows_settled - t.rows_deleted, 0),
        rows_blocked = c.rows_blocked
    FROM jsonb_to_recordset(coalesce(nullif(counts -> 'targets', 'null'), '[]')) AS c (name text, rows_settled bigint, rows_blocked bigint)
    WHERE t.run_id = of_run AND t.target = c.name AND run.judged_at IS NOT NULL;
    FOR target IN
        SELECT t.*, coalesce(c.rows_settled, 0) AS rows_settled
        FROM orphan_cleaner.run_targets AS t
        LEFT JOIN jsonb_to_recordset(coalesce(nullif(counts -> 'targets', 'null'), '[]')) AS c (name text, rows_settled bigint) ON c.name = t.target
        WHERE t.run_id = of_run
    LOOP
        IF target.rows_deleted > 0 THEN
            EXECUTE format('SELECT p.audited, p.backed_up, p.conversations FROM orphan_cleaner.%I($1, $2) AS p', target.target || '_proof')
            INTO audited, backed_up, lost
            USING of_run, run.started_at;
            touched := touched + coalesce(lost, 0);
            IF audited <> target.rows_deleted OR backed_up <> target.rows_deleted THEN
                new_state := 'failed';
                new_error := format('count proof failed over the whole run: %s rows of %s deleted, %s audited, %s backed up',
                    target.rows_deleted, target.target, audited, backed_up);
            END IF;
        END IF;
        is_whole := is_whole AND target.rows_settled + target.rows_blocked >= target.rows_due;
        -- Those that wait for the window are the rest.
        IF new_state = 'succeeded' AND run.kind = 'clean' AND counts -> 'waits_for_window' IS DISTINCT FROM 'true'::jsonb
            AND target.rows_due <> target.rows_settled + target.rows_blocked
        THEN
            new_state := 'failed';
            new_error := format('%s rows of %s were due, and only %s are accounted for: staging lost users after it was judged',
                target.rows_due, target.target, target.rows_settled + target.rows_blocked);
        END IF;
    END LOOP;
    IF run.kind = 'restore' AND run.members_deleted = 0 THEN
        SELECT count(DISTINCT g.conversation_id) INTO touched
        FROM orphan_cleaner.restores AS g
        WHERE g.run_id = of_run AND g.state <> 'planned' AND g.conversation_id <> '00000000-0000-0000-0000-000000000000';
    END IF;
    PERFORM orphan_cleaner.run_count(of_run, NULL) WHERE run.judged_at IS NOT NULL;
    PERFORM orphan_cleaner.candidates_block(of_run, counts -> 'blocked', run.judged_at IS NOT NULL AND is_whole
        AND jsonb_array_length(counts -> 'blocked') = (counts ->> 'users_blocked')::bigint) WHERE run.kind = 'clean';
    DELETE FROM orphan_cleaner.sightings;
    RETURN QUERY
    UPDATE orphan_cleaner.runs AS r
    SET state = new_state,
        phase = CASE WHEN new_state = 'succeeded' THEN 'finish' ELSE coalesce(counts ->> 'phase', r.phase) END,
        heartbeat_at = clock_timestamp(),
        finished_at = clock_timestamp(),
        breaker = new_breaker,
        error = new_error,
        conversations = touched,
        users_checked = coalesce((counts ->> 'users_checked')::bigint, r.users_checked),
        users_missing = coalesce((counts ->> 'users_missing')::bigint, r.users_missing),
        users_unknown = coalesce((counts ->> 'users_unknown')::bigint, r.users_unknown),
        users_returned = r.users_returned + coalesce((counts ->> 'users_returned')::bigint, 0),
        users_blocked = coalesce((counts ->> 'users_blocked')::bigint, r.users_blocked),
        members_total = coalesce((counts ->> 'members_total')::bigint, r.members_total),
        batch_calls = coalesce((counts ->> 'batch_calls')::bigint, r.batch_calls),
        call_ms_buckets = CASE WHEN jsonb_typeof(counts -> 'call_ms_buckets') = 'array' THEN ARRAY(
            SELECT e.calls::bigint
            FROM jsonb_array_elements_text(counts -> 'call_ms_buckets') WITH ORDINALITY AS e (calls, ordinal)
            ORDER BY e.ordinal
        ) END,
        call_ms_max = (counts ->> 'call_ms_max')::double precision
    WHERE r.run_id = of_run
    RETURNING r.*;
    UPDATE orphan_cleaner.runs AS r SET totals = orphan_cleaner.run_totals() WHERE r.run_id = of_run;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.run_retention IS 'The retention of a run for a target: its own, or the target''s where that is longer. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.run_count IS 'Counts what a run has deleted, by target in order, and brings the columns of runs about conversation_members in line. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.members_at_stake IS 'With the rows of these users older than the horizon: how many conversations lose their last owner, how many keep that one by choice, and how many lose their last member.';
COMMENT ON FUNCTION orphan_cleaner.owners_leave IS 'Of rows to be deleted: keeps the last owner of a conversation, or makes another member owner; returns the rows that may be deleted. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.chunk_open IS 'Begins every chunk that deletes: takes its locks, and checks that the run is open, judged and not paused, and that triggers fire. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.sweep_rows IS 'Deletes rows of users in the targets, in their order, and proves of each that as many were audited and backed up; with what is to be counted. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.sweep_chunk IS 'One chunk: deletes at most max_rows rows of due users whom auth-service has just left out again, unchanged since checked_from; by target, in order.';
COMMENT ON FUNCTION orphan_cleaner.sweep_returned IS 'Takes users out of the ledger who are alive after all.';
COMMENT ON FUNCTION orphan_cleaner.run_totals IS 'What all runs that ended did together: members and batches, rows deleted of each target, and how many of each kind ended in each state.';
COMMENT ON FUNCTION orphan_cleaner.run_finish IS 'Ends a run and proves it: deleted = audited = backed up, and what was due is accounted for, or it failed.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION
    orphan_cleaner.run_finish, orphan_cleaner.run_totals, orphan_cleaner.sweep_returned, orphan_cleaner.sweep_chunk, orphan_cleaner.sweep_rows,
    orphan_cleaner.chunk_open, orphan_cleaner.owners_leave, orphan_cleaner.run_count, orphan_cleaner.run_retention, orphan_cleaner.members_at_stake;
