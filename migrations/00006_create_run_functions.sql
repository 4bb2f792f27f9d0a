-- Why:      the life of a run, as far as every run has it: begin, heartbeat and finish. They bring the run's id and token;
--           what binds a run (retention, max-gap, limits) was stored with it at begin and is read from there. And the
--           approval of a run that was refused.
-- Locks:    none here. At work, run_begin: SHARE ROW EXCLUSIVE on orphan_cleaner.runs, so that it waits, 3 s at most, for
--           a chunk in flight; the others: the run's row, or its approval.
-- Duration: milliseconds.
-- Rollback: drops the functions; no run can start, none can be approved.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.run_open(of_run bigint, of_token uuid, of_kind text)
RETURNS orphan_cleaner.runs
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run orphan_cleaner.runs;
BEGIN
    -- An old snapshot does not see a new hold; an old now() dates a sighting back.
    IF current_setting('transaction_isolation') <> 'read committed' OR clock_timestamp() > now() + interval '30 seconds' THEN
        RAISE EXCEPTION 'a run works in READ COMMITTED transactions younger than 30 seconds, not in a % one of %',
            current_setting('transaction_isolation'), clock_timestamp() - now() USING ERRCODE = 'OC007';
    END IF;
    SELECT r.* INTO run
    FROM orphan_cleaner.runs AS r
    WHERE r.run_id = of_run
        AND r.token = of_token
        AND r.state = 'running'
        AND r.kind = of_kind;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % is no longer open: it was silent for longer than its lease and was taken over', of_run
            USING ERRCODE = 'OC001', HINT = 'Run: orphan-cleaner status';
    END IF;
    RETURN run;
END
$$;

CREATE FUNCTION orphan_cleaner.run_begin(
    new_token uuid,
    new_kind text,
    new_phase text,
    new_settings jsonb,
    new_lease interval,
    new_host text,
    new_version text,
    every interval,
    is_revert boolean
)
RETURNS SETOF orphan_cleaner.runs
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
DECLARE
    holder orphan_cleaner.runs;
    last_run record;
    due_at timestamptz;
    paused record;
BEGIN
    IF new_token IS NULL OR new_lease IS NULL OR new_lease NOT BETWEEN interval '1 second' AND interval '1 hour' THEN
        RAISE EXCEPTION 'a run has a token, and a lease between 1 second and 1 hour, not %', new_lease USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF orphan_cleaner.lacks_standby() THEN
        RAISE EXCEPTION 'no standby is connected, and synchronous_standby_names asks for one: each COMMIT would wait for ever'
            USING ERRCODE = 'OC007', HINT = 'Run: orphan-cleaner check';
    END IF;
    -- Waits for a chunk in flight: it must have ended before its run is given up. Nobody without our roles can hold this lock.
    LOCK TABLE orphan_cleaner.runs IN SHARE ROW EXCLUSIVE MODE;
    UPDATE orphan_cleaner.runs AS r
    SET state = 'abandoned',
        finished_at = statement_timestamp(),
        error = 'no heartbeat for longer than its lease'
    WHERE r.state = 'running'
        AND r.heartbeat_at + r.lease < statement_timestamp();
    SELECT r.* INTO holder FROM orphan_cleaner.runs AS r WHERE r.state = 'running';
    IF FOUND THEN
        IF holder.token = new_token THEN
            -- Our own: an earlier attempt went through and its answer was lost.
            RETURN NEXT holder;
            RETURN;
        END IF;
        RAISE EXCEPTION 'another run is open: run % (%, phase %) of % since %; it ends by itself, or is given up when silent for its lease',
            holder.run_id, holder.kind, holder.phase, holder.host, to_char(holder.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
            USING ERRCODE = 'OC003', HINT = 'Run: orphan-cleaner status';
    END IF;
    -- A restore is how people correct what a pause was for; a revert deletes.
    IF new_kind = 'clean' OR is_revert THEN
        SELECT p.paused_by, p.paused_at, p.reason INTO paused FROM orphan_cleaner.pauses AS p WHERE p.resumed_at IS NULL;
        IF FOUND THEN
            RAISE EXCEPTION 'runs are paused by % since %: %', paused.paused_by, to_char(paused.paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), paused.reason
                USING ERRCODE = 'OC002', HINT = 'Run: orphan-cleaner resume';
        END IF;
    END IF;
    IF every IS NOT NULL THEN
        SELECT r.started_at, coalesce(r.scheduled_for, r.started_at) + every AS next_at INTO last_run
        FROM orphan_cleaner.runs AS r
        WHERE r.kind = 'clean'
            AND r.state <> 'abandoned'
        ORDER BY r.run_id DESC
        LIMIT 1;
        due_at := CASE
            -- The first run; or the clock went back, which the run will say by its breaker.
            WHEN last_run.next_at IS NULL OR last_run.started_at > statement_timestamp() THEN statement_timestamp()
            -- Late by whole intervals: skip those, keep the beat.
            ELSE last_run.next_at + greatest(floor(
                extract(EPOCH FROM statement_timestamp() - last_run.next_at) / extract(EPOCH FROM every)
            ), 0)::double precision * every
        END;
        IF due_at > statement_timestamp() THEN
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    INSERT INTO orphan_cleaner.runs AS r (
        token, kind, phase, started_at, heartbeat_at, lease, host, version, settings, scheduled_for, approved_run
    )
    VALUES (
        new_token, new_kind, new_phase, statement_timestamp(), statement_timestamp(), new_lease, new_host, new_version,
        orphan_cleaner.effective_settings(new_settings), due_at,
        -- Outside its window a run deletes nothing: an approval is for one that may.
        CASE WHEN new_kind = 'clean' AND NOT new_settings ? 'outside-window' THEN (
            SELECT a.run_id
            FROM orphan_cleaner.approvals AS a
            WHERE a.used_at IS NULL
                AND a.revoked_at IS NULL
                AND a.expires_at > now()
            ORDER BY a.approval_id
            LIMIT 1
        ) END
    )
    RETURNING r.*;
END
$$;

CREATE FUNCTION orphan_cleaner.run_heartbeat(of_run bigint, of_token uuid, of_kind text, new_phase text)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
BEGIN
    PERFORM orphan_cleaner.run_open(of_run, of_token, of_kind);
    UPDATE orphan_cleaner.runs AS r
    SET heartbeat_at = clock_timestamp(),
        phase = new_phase
    WHERE r.run_id = of_run
        AND r.token = of_token
        AND r.state = 'running';
    -- Whether runs are paused.
    RETURN EXISTS (SELECT FROM orphan_cleaner.pauses AS p WHERE p.resumed_at IS NULL);
END
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
    audited bigint := 0;
    backed_up bigint := 0;
    blocked bigint := coalesce((counts ->> 'members_blocked')::bigint, 0);
    settled bigint := coalesce((counts ->> 'members_settled')::bigint, 0);
    changed bigint;
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
    IF run.members_deleted > 0 THEN
        SELECT count(*), count(DISTINCT a.conversation_id) INTO audited, touched
        FROM public.conversation_members_audit AS a
        WHERE a.run_id = of_run AND a.deleted_at >= run.started_at;
        SELECT count(*) INTO backed_up
        FROM public.conversation_members_backup AS b
        WHERE b.run_id = run.run_id AND b.backed_up_at >= run.started_at;
        IF audited <> run.members_deleted OR backed_up <> run.members_deleted THEN
            new_state := 'failed';
            new_error := format('count proof failed over the whole run: %s deleted, %s audited, %s backed up', run.members_deleted, audited, backed_up);
        END IF;
    ELSIF run.kind = 'restore' THEN
        SELECT count(DISTINCT g.conversation_id) INTO touched
        FROM orphan_cleaner.restores AS g
        WHERE g.run_id = of_run AND g.state <> 'planned';
    END IF;
    -- Chunk by chunk the runner settled what was judged due, all of it, or staging lost users meanwhile. What it settled
    -- and nobody deleted had changed; the runner itself does not know what a chunk deleted whose answer was lost.
    changed := greatest(settled - run.members_deleted, 0);
    -- Those that wait for the window are the rest.
    IF new_state = 'succeeded' AND run.kind = 'clean' AND counts -> 'waits_for_window' IS DISTINCT FROM 'true'::jsonb AND run.members_due <> settled + blocked THEN
        new_state := 'failed';
        new_error := format('%s members were due, and only %s are accounted for: staging lost users after it was judged', run.members_due, settled + blocked);
    END IF;
    PERFORM orphan_cleaner.candidates_block(of_run, counts -> 'blocked', run.judged_at IS NOT NULL AND settled + blocked >= run.members_due
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
        members_changed = changed,
        members_blocked = blocked,
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

CREATE FUNCTION orphan_cleaner.approve(of_run bigint, by_whom text, lasting interval)
RETURNS TABLE (approval_id bigint, expires_at timestamptz)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
#variable_conflict use_column
DECLARE
    refused record;
BEGIN
    SELECT r.state, r.breaker INTO refused FROM orphan_cleaner.runs AS r WHERE r.run_id = of_run;
    IF NOT FOUND OR refused.state <> 'refused' THEN
        RAISE EXCEPTION 'run % was not refused: there is nothing to approve', of_run USING ERRCODE = 'OC011', HINT = 'Run: orphan-cleaner status';
    END IF;
    IF refused.breaker IN ('clock', 'canary-alive', 'canary-dead', 'recently-active') THEN
        RAISE EXCEPTION 'run % was refused by %: what doubts auth-service or the clock cannot be approved', of_run, refused.breaker
            USING ERRCODE = 'OC011', HINT = 'Correct the cause, then run: orphan-cleaner run';
    END IF;
    RETURN QUERY
    INSERT INTO orphan_cleaner.approvals AS a (run_id, approved_by, expires_at)
    VALUES (of_run, by_whom || ' (' || session_user || ')', now() + lasting)
    RETURNING a.approval_id, a.expires_at;
END
$$;

CREATE FUNCTION orphan_cleaner.revoke_approval(of_run bigint, by_whom text)
RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
    UPDATE orphan_cleaner.approvals AS a
    SET revoked_at = now(),
        revoked_by = by_whom || ' (' || session_user || ')'
    WHERE a.run_id = of_run
        AND a.used_at IS NULL
        AND a.revoked_at IS NULL
    RETURNING a.approval_id
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
        CROSS JOIN LATERAL (VALUES (r.kind || ' ' || r.state, 1), ('members_deleted', r.members_deleted), ('members_restored', r.members_restored), ('batch_calls', r.batch_calls)) AS s (name, value)
        WHERE r.run_id > coalesce((SELECT l.run_id FROM last AS l), 0) AND r.state <> 'running'
    )
    SELECT coalesce(jsonb_object_agg(a.name, a.value), '{}') FROM (SELECT s.name, sum(s.value) AS value FROM summands AS s GROUP BY s.name) AS a
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.run_open IS 'The open run of this id, token and kind; fails with OC001 where there is none. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.run_begin IS 'Opens a run and gives up one whose lease ended. OC003: another is open; OC002: runs are paused; no row: with an interval, none is due.';
COMMENT ON FUNCTION orphan_cleaner.run_heartbeat IS 'Keeps a run open; returns whether runs are paused. OC001: it is not open any more.';
COMMENT ON FUNCTION orphan_cleaner.run_finish IS 'Ends a run and proves it: deleted = audited = backed up, and what was due is accounted for, or it failed.';
COMMENT ON FUNCTION orphan_cleaner.approve IS 'Approves what a refused run found, once, for a while. For the owner of the schema.';
COMMENT ON FUNCTION orphan_cleaner.revoke_approval IS 'Revokes the open approval of a run; null when there is none. For the owner of the schema.';
COMMENT ON FUNCTION orphan_cleaner.run_totals IS 'What all runs that ended did together: members and batches, and how many of each kind ended in each state.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION
    orphan_cleaner.run_totals, orphan_cleaner.revoke_approval, orphan_cleaner.approve, orphan_cleaner.run_finish, orphan_cleaner.run_heartbeat,
    orphan_cleaner.run_begin, orphan_cleaner.run_open;
