-- Why:      what runs of every kind have: begin and heartbeat. Callers give the run's id and token; what binds a run
--           (retention, max-gap, limits) was stored with it at begin and is read from there. Beside them the dispatchers, by
--           which the functions of a run call those of the targets.
-- Locks:    none here. At work, run_begin: SHARE ROW EXCLUSIVE on orphan_cleaner.runs, so that it waits, 3 s at most, for
--           a chunk in flight; the others: the run's row. Those that call a target's: see there.
-- Duration: milliseconds.
-- Rollback: drops the functions; no run can start.

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

CREATE FUNCTION orphan_cleaner.targets_change()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
BEGIN
    LOCK TABLE orphan_cleaner.runs IN SHARE ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM orphan_cleaner.runs AS r WHERE r.state = 'running') THEN
        RAISE EXCEPTION 'the targets cannot change while a run is open: it counts by their order'
            USING HINT = 'Wait until it ends: orphan-cleaner status';
    END IF;
    RETURN NULL;
END
$$;

-- A dispatcher for each verb: no function beside them calls one of a target by its name.
CREATE FUNCTION orphan_cleaner.target_page(of_target text, from_user uuid, max_users bigint)
RETURNS TABLE (user_ids uuid [], row_count bigint)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
BEGIN
    FOR target IN SELECT t.name FROM orphan_cleaner.targets_in_order AS t WHERE t.name = of_target LOOP
        RETURN QUERY EXECUTE format('SELECT p.user_ids, p.row_count FROM orphan_cleaner.%I($1, $2) AS p', target.name || '_page')
        USING from_user, max_users;
    END LOOP;
END
$$;

CREATE FUNCTION orphan_cleaner.target_holders(user_ids uuid [])
RETURNS SETOF uuid
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
    holders uuid [];
    others uuid [] := user_ids;
BEGIN
    FOR target IN SELECT t.name, t.n < max(t.n) OVER () AS has_next FROM orphan_cleaner.targets_in_order AS t ORDER BY t.n LOOP
        EXECUTE format('SELECT array_agg(h.user_id) FROM orphan_cleaner.%I($1) AS h (user_id)', target.name || '_holders')
        INTO holders
        USING others;
        RETURN QUERY SELECT unnest(holders);
        IF target.has_next THEN
            others := ARRAY(SELECT unnest(others) EXCEPT SELECT unnest(holders));
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION orphan_cleaner.target_total(of_target text, rows_due bigint, users bigint)
RETURNS double precision
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    total double precision;
BEGIN
    EXECUTE format('SELECT orphan_cleaner.%I($1, $2)', of_target || '_total') INTO total USING rows_due, users;
    RETURN total;
END
$$;

CREATE FUNCTION orphan_cleaner.target_facts_statement()
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- One statement over all targets, each with a place of its own in the arrays. One target needs no sums.
    SELECT CASE count(*) WHEN 1 THEN format(
        'SELECT o.user_id, ARRAY[o.rows_old], ARRAY[o.rows_young], ARRAY[o.rows_held], greatest($2, %L::interval), o.active_at FROM orphan_cleaner.%I($1, now() - greatest($2, %1$L::interval)) AS o',
        min(t.retention), min(t.name) || '_facts'
    ) ELSE format(
        'SELECT f.user_id, ARRAY[%s], ARRAY[%s], ARRAY[%s], min(f.keeps), max(f.active_at) FROM (%s) AS f GROUP BY f.user_id',
        string_agg(format('coalesce(sum(f.rows_old) FILTER (WHERE f.n = %s), 0)::bigint', t.n), ', ' ORDER BY t.n),
        string_agg(format('coalesce(sum(f.rows_young) FILTER (WHERE f.n = %s), 0)::bigint', t.n), ', ' ORDER BY t.n),
        string_agg(format('coalesce(sum(f.rows_held) FILTER (WHERE f.n = %s), 0)::bigint', t.n), ', ' ORDER BY t.n),
        string_agg(format(
            'SELECT %s AS n, greatest($2, %L::interval) AS keeps, o.* FROM orphan_cleaner.%I($1, now() - greatest($2, %2$L::interval)) AS o',
            t.n, t.retention, t.name || '_facts'
        ), ' UNION ALL ')
    ) END
    FROM orphan_cleaner.targets_in_order AS t
$$;

CREATE FUNCTION orphan_cleaner.target_facts(user_ids uuid [], retention interval)
RETURNS TABLE (user_id uuid, rows_old bigint [], rows_young bigint [], rows_held bigint [], keeps interval, active_at timestamptz)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE orphan_cleaner.target_facts_statement() USING user_ids, retention;
END
$$;

CREATE FUNCTION orphan_cleaner.target_rows(user_ids uuid [])
RETURNS TABLE (target text, row_count bigint)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.name, coalesce(sum(f.rows_old[t.n] + f.rows_young[t.n] + f.rows_held[t.n]), 0)::bigint
    FROM orphan_cleaner.targets_in_order AS t
    LEFT JOIN orphan_cleaner.target_facts(user_ids, interval '0') AS f ON true
    GROUP BY t.n, t.name
    ORDER BY t.n
$$;

CREATE FUNCTION orphan_cleaner.target_canaries(users integer)
RETURNS SETOF uuid
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target record;
BEGIN
    FOR target IN SELECT t.name, count(*) OVER () AS targets FROM orphan_cleaner.targets_in_order AS t LOOP
        RETURN QUERY EXECUTE format('SELECT orphan_cleaner.%I($1)', target.name || '_canaries') USING (users / target.targets)::integer;
    END LOOP;
END
$$;

CREATE FUNCTION orphan_cleaner.restore_plan(
    of_run bigint,
    of_users uuid [],
    of_conversations uuid [],
    since timestamptz,
    until timestamptz,
    of_targets text []
)
RETURNS TABLE (conversation_id uuid, user_id uuid, deleted_run bigint, backed_up_at timestamptz, verdict text, row_key text, target text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chosen record;
BEGIN
    -- What later rows point at comes back first.
    FOR chosen IN SELECT t.name FROM orphan_cleaner.targets_in_order AS t WHERE t.name = ANY (of_targets) IS NOT FALSE ORDER BY t.n DESC LOOP
        RETURN QUERY EXECUTE format('SELECT p.*, $6 FROM orphan_cleaner.%I($1, $2, $3, $4, $5) AS p', chosen.name || '_restore_plan')
        USING of_run, of_users, of_conversations, since, until, chosen.name;
    END LOOP;
END
$$;

CREATE FUNCTION orphan_cleaner.restore_chunks(of_restore bigint, in_state text, pages integer)
RETURNS TABLE (day date, first_page bigint, members bigint, user_ids uuid [], target text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chosen record;
BEGIN
    FOR chosen IN
        SELECT t.name
        FROM orphan_cleaner.targets_in_order AS t
        WHERE EXISTS (SELECT FROM orphan_cleaner.restores AS r WHERE r.run_id = of_restore AND r.target = t.name AND r.state = in_state)
        ORDER BY t.n DESC
    LOOP
        RETURN QUERY EXECUTE format('SELECT c.*, $4 FROM orphan_cleaner.%I($1, $2, $3) AS c', chosen.name || '_restore_chunks')
        USING of_restore, in_state, pages, chosen.name;
    END LOOP;
END
$$;

CREATE FUNCTION orphan_cleaner.restore_chunk(
    of_restore bigint,
    of_token uuid,
    day date,
    first_page bigint,
    pages integer,
    of_users uuid [],
    hold interval,
    of_target text
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    target record;
    restored bigint;
BEGIN
    PERFORM orphan_cleaner.run_open(of_restore, of_token, 'restore');
    FOR target IN SELECT t.name FROM orphan_cleaner.targets AS t WHERE t.name = of_target LOOP
        EXECUTE format('SELECT orphan_cleaner.%I($1, $2, $3, $4, $5, $6, $7)', target.name || '_restore_chunk')
        INTO restored
        USING of_restore, of_token, day, first_page, pages, of_users, hold;
    END LOOP;
    RETURN coalesce(restored, 0);
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
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

CREATE TRIGGER targets_change
    BEFORE INSERT OR UPDATE OR DELETE ON orphan_cleaner.targets
    FOR EACH STATEMENT EXECUTE FUNCTION orphan_cleaner.targets_change();

COMMENT ON FUNCTION orphan_cleaner.targets_change IS 'Keeps the registry as it is while a run is open.';
COMMENT ON FUNCTION orphan_cleaner.run_open IS 'The open run of this id, token and kind; fails with OC001 where there is none. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.target_page IS 'The next distinct user ids of a target from one on, in order, and how many rows they have.';
COMMENT ON FUNCTION orphan_cleaner.target_holders IS 'Those of the users who have a row in any target, each once.';
COMMENT ON FUNCTION orphan_cleaner.target_total IS 'How many rows a target has: counted where it may matter, else an estimate. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.target_facts_statement IS 'The statement by which target_facts asks all targets at once. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.target_facts IS 'Of each user with rows: by target, in order, those older than its retention, younger ones and those on hold; the shortest retention, and the last activity, over the targets with rows of the user. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.target_rows IS 'How many rows these users have in each target, in the order of the sweep: what a hold on them keeps, or an approval may delete.';
COMMENT ON FUNCTION orphan_cleaner.target_canaries IS 'Users who were alive so far, spread over all ids, so many over all targets; a user may be named more than once.';
COMMENT ON FUNCTION orphan_cleaner.restore_plan IS 'What a restore of this run, these users, conversations and span would do with each row of all targets, or of those named, the last target first. A null chooses all.';
COMMENT ON FUNCTION orphan_cleaner.restore_chunks IS 'Where the backup rows of a restore are: the chunks of that many pages that hold one, by UTC day, with their users; the last target first.';
COMMENT ON FUNCTION orphan_cleaner.restore_chunk IS 'Restores the planned rows of these users and a target on some pages of its backup of a day, places holds on their users, returns how many.';
COMMENT ON FUNCTION orphan_cleaner.run_begin IS 'Opens a run and gives up one whose lease ended. OC003: another is open; OC002: runs are paused; no row: with an interval, none is due.';
COMMENT ON FUNCTION orphan_cleaner.run_heartbeat IS 'Keeps a run open; returns whether runs are paused. OC001: it is not open any more.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP TRIGGER targets_change ON orphan_cleaner.targets;
DROP FUNCTION
    orphan_cleaner.run_heartbeat, orphan_cleaner.run_begin, orphan_cleaner.restore_chunk, orphan_cleaner.restore_chunks, orphan_cleaner.restore_plan,
    orphan_cleaner.target_canaries, orphan_cleaner.target_rows, orphan_cleaner.target_facts, orphan_cleaner.target_facts_statement,
    orphan_cleaner.target_total, orphan_cleaner.target_holders,
    orphan_cleaner.target_page, orphan_cleaner.targets_change, orphan_cleaner.run_open;
