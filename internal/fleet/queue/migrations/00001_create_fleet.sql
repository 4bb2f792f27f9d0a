-- Why:      the control database of a fleet: its runs, what each shard found, approvals, pauses, and one budget of calls for all
--           workers. River's tables are made beside these, in the same schema, by River's own migrations.
-- Locks:    none on tables of others. At work: the row of the run, of a shard or of the budget.
-- Duration: milliseconds.
-- Rollback: drops all of it, the history of the fleet too; shards keep their own.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE SCHEMA IF NOT EXISTS orphan_cleaner_fleet;

CREATE TABLE orphan_cleaner_fleet.runs (
    fleet_run bigint GENERATED ALWAYS AS IDENTITY,
    state text NOT NULL DEFAULT 'running',
    started_at timestamptz NOT NULL DEFAULT now(),
    progressed_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    waves bigint NOT NULL DEFAULT 0,
    host text NOT NULL,
    breaker text,
    error text,
    sums jsonb NOT NULL DEFAULT '{}',
    approved_run bigint,
    CONSTRAINT runs_pkey PRIMARY KEY (fleet_run),
    CONSTRAINT runs_state CHECK (state IN ('running', 'succeeded', 'refused', 'incomplete', 'failed', 'paused')),
    CONSTRAINT runs_finished CHECK ((state = 'running') = (finished_at IS NULL))
);
CREATE UNIQUE INDEX runs_one_open ON orphan_cleaner_fleet.runs (state) WHERE state = 'running';

CREATE TABLE orphan_cleaner_fleet.shards (
    fleet_run bigint NOT NULL,
    shard text NOT NULL,
    ordinal bigint NOT NULL,
    wave bigint NOT NULL DEFAULT 0,
    verified jsonb,
    swept jsonb,
    CONSTRAINT shards_pkey PRIMARY KEY (fleet_run, shard),
    CONSTRAINT shards_run FOREIGN KEY (fleet_run) REFERENCES orphan_cleaner_fleet.runs (fleet_run) ON DELETE CASCADE
);

CREATE TABLE orphan_cleaner_fleet.ranges (
    fleet_run bigint NOT NULL,
    first_id uuid NOT NULL,
    last_id uuid NOT NULL,
    asked_at timestamptz,
    checked bytea NOT NULL DEFAULT '',
    missing uuid [] NOT NULL DEFAULT '{}',
    CONSTRAINT ranges_pkey PRIMARY KEY (fleet_run, first_id),
    CONSTRAINT ranges_run FOREIGN KEY (fleet_run) REFERENCES orphan_cleaner_fleet.runs (fleet_run) ON DELETE CASCADE,
    CONSTRAINT ranges_order CHECK (first_id <= last_id),
    CONSTRAINT ranges_checked CHECK (octet_length(checked) % 8 = 0)
);
-- Neither gets smaller by compression.
ALTER TABLE orphan_cleaner_fleet.ranges ALTER COLUMN checked SET STORAGE EXTERNAL, ALTER COLUMN missing SET STORAGE EXTERNAL;

CREATE TABLE orphan_cleaner_fleet.approvals (
    fleet_run bigint NOT NULL,
    approved_by text NOT NULL,
    approved_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_by bigint,
    used_at timestamptz,
    revoked_by text,
    revoked_at timestamptz,
    CONSTRAINT approvals_pkey PRIMARY KEY (fleet_run),
    CONSTRAINT approvals_run FOREIGN KEY (fleet_run) REFERENCES orphan_cleaner_fleet.runs (fleet_run) ON DELETE CASCADE
);

CREATE TABLE orphan_cleaner_fleet.pauses (
    pause_id bigint GENERATED ALWAYS AS IDENTITY,
    paused_by text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    resumed_by text,
    resumed_at timestamptz,
    CONSTRAINT pauses_pkey PRIMARY KEY (pause_id),
    CONSTRAINT pauses_reason CHECK (length(reason) BETWEEN 1 AND 500)
);
CREATE UNIQUE INDEX pauses_one_open ON orphan_cleaner_fleet.pauses ((resumed_at IS NULL)) WHERE resumed_at IS NULL;

CREATE TABLE orphan_cleaner_fleet.budget (
    is_only boolean NOT NULL DEFAULT true,
    free_at timestamptz NOT NULL DEFAULT '-infinity',
    taken_at timestamptz NOT NULL DEFAULT '-infinity',
    calls bigint NOT NULL DEFAULT 0,
    CONSTRAINT budget_pkey PRIMARY KEY (is_only),
    CONSTRAINT budget_is_only CHECK (is_only)
);
INSERT INTO orphan_cleaner_fleet.budget (is_only) VALUES (true);

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner_fleet.run_begin(shards text [], by_host text, give_up interval)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
DECLARE
    paused record;
    other record;
    begun bigint;
BEGIN
    -- One at a time: two that begin at once see the same open run.
    LOCK TABLE orphan_cleaner_fleet.runs IN SHARE ROW EXCLUSIVE MODE;
    -- By a clock that is behind, no run and no approval would ever be too old.
    IF EXISTS (SELECT FROM orphan_cleaner_fleet.runs AS r WHERE greatest(r.started_at, r.progressed_at, r.finished_at) > clock_timestamp() + interval '1 minute') THEN
        RAISE EXCEPTION 'the clock of the control database is behind an earlier run of the fleet'
            USING ERRCODE = 'OC013', HINT = 'Correct the clock of its server';
    END IF;
    SELECT s.fleet_run, left(string_agg(s.shard, ', ' ORDER BY s.ordinal), 200) AS names
    INTO other
    FROM orphan_cleaner_fleet.shards AS s
    JOIN orphan_cleaner_fleet.runs AS r ON r.fleet_run = s.fleet_run
    WHERE r.started_at > now() - interval '3 days'
    GROUP BY s.fleet_run
    HAVING NOT bool_or(s.shard = ANY (shards))
    ORDER BY s.fleet_run DESC
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the control database is of another fleet: run % had the shards %', other.fleet_run, other.names
            USING ERRCODE = 'OC014', HINT = 'Give each fleet a control database of its own; if all shards were renamed, wait for three days';
    END IF;
    UPDATE orphan_cleaner_fleet.runs AS r
    SET state = 'failed', finished_at = now(), error = format('no worker has gone on with it for %s', now() - r.progressed_at)
    WHERE r.state = 'running'
        AND r.progressed_at < now() - give_up;
    SELECT r.fleet_run INTO begun FROM orphan_cleaner_fleet.runs AS r WHERE r.state = 'running';
    IF FOUND THEN
        RAISE EXCEPTION 'another run is open: run % of the fleet', begun USING ERRCODE = 'OC003', HINT = 'Run: orphan-cleaner fleet status';
    END IF;
    SELECT p.paused_by, p.reason INTO paused FROM orphan_cleaner_fleet.pauses AS p WHERE p.resumed_at IS NULL;
    IF FOUND THEN
        RAISE EXCEPTION 'the fleet is paused by %: %', paused.paused_by, paused.reason USING ERRCODE = 'OC002', HINT = 'Run: orphan-cleaner fleet resume';
    END IF;
    -- Reports are kept for three days, those of an approved run for as long as it counts in a window.
    DELETE FROM orphan_cleaner_fleet.shards AS s
    USING orphan_cleaner_fleet.runs AS r
    WHERE r.fleet_run = s.fleet_run
        AND r.finished_at < now() - interval '3 days'
        AND NOT EXISTS (
            SELECT
            FROM orphan_cleaner_fleet.approvals AS a
            WHERE a.fleet_run = s.fleet_run AND coalesce(a.used_at, a.expires_at) > now() - interval '36 days'
        );
    -- No run is open, so nobody goes by these answers any more.
    TRUNCATE orphan_cleaner_fleet.ranges;
    INSERT INTO orphan_cleaner_fleet.runs AS r (host, approved_run)
    SELECT by_host, (
        SELECT a.fleet_run
        FROM orphan_cleaner_fleet.approvals AS a
        WHERE a.used_at IS NULL AND a.revoked_at IS NULL AND a.expires_at > now()
        ORDER BY a.fleet_run
        LIMIT 1
    )
    RETURNING r.fleet_run INTO begun;
    INSERT INTO orphan_cleaner_fleet.shards (fleet_run, shard, ordinal)
    SELECT begun, s.name, s.ordinal FROM unnest(shards) WITH ORDINALITY AS s (name, ordinal);
    RETURN begun;
END
$$;

CREATE FUNCTION orphan_cleaner_fleet.run_open(of_run bigint)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '10s'
AS $$
BEGIN
    -- Whoever changes a run has its row: of two workers that end the last two shards, one sees both ended.
    PERFORM FROM orphan_cleaner_fleet.runs AS r WHERE r.fleet_run = of_run AND r.state = 'running' FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % of the fleet is not open any more', of_run USING ERRCODE = 'OC001', HINT = 'Run: orphan-cleaner fleet status';
    END IF;
END
$$;

CREATE FUNCTION orphan_cleaner_fleet.shard_done(of_run bigint, of_shard text, is_sweep boolean, report jsonb)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '10s'
AS $$
BEGIN
    PERFORM orphan_cleaner_fleet.run_open(of_run);
    -- The first report stays: a job that was given to somebody else, too, changes nothing.
    UPDATE orphan_cleaner_fleet.shards AS s
    SET verified = CASE WHEN is_sweep THEN s.verified ELSE report END,
        swept = CASE WHEN is_sweep THEN report END
    WHERE s.fleet_run = of_run
        AND s.shard = of_shard
        AND CASE WHEN is_sweep THEN s.wave > 0 AND s.swept IS NULL ELSE s.verified IS NULL END;
    IF FOUND THEN
        UPDATE orphan_cleaner_fleet.runs AS r SET progressed_at = clock_timestamp() WHERE r.fleet_run = of_run;
    END IF;
    -- Whether it was the last one of its pass or wave.
    RETURN NOT EXISTS (
        SELECT
        FROM orphan_cleaner_fleet.shards AS s
        WHERE s.fleet_run = of_run
            AND (s.verified IS NULL OR s.wave > 0 AND s.swept IS NULL)
    );
END
$$;

CREATE FUNCTION orphan_cleaner_fleet.ranges_add(of_run bigint, first_ids uuid [], last_ids uuid [])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '10s'
AS $$
BEGIN
    PERFORM orphan_cleaner_fleet.run_open(of_run);
    INSERT INTO orphan_cleaner_fleet.ranges (fleet_run, first_id, last_id)
    SELECT of_run, g.first_id, g.last_id FROM unnest(first_ids, last_ids) AS g (first_id, last_id);
END
$$;

CREATE FUNCTION orphan_cleaner_fleet.range_done(
    of_run bigint, of_first uuid, through_id uuid, checked_users bytea, missing_users uuid [], took interval
)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '10s'
AS $$
BEGIN
    PERFORM orphan_cleaner_fleet.run_open(of_run);
    -- The first answer stays, as the first report of a shard does. It is as old as the first of its calls.
    UPDATE orphan_cleaner_fleet.ranges AS g
    SET last_id = through_id, asked_at = clock_timestamp() - took, checked = checked_users, missing = missing_users
    WHERE g.fleet_run = of_run
        AND g.first_id = of_first
        AND g.last_id >= through_id
        AND g.asked_at IS NULL;
    IF FOUND THEN
        UPDATE orphan_cleaner_fleet.runs AS r SET progressed_at = clock_timestamp() WHERE r.fleet_run = of_run;
        RETURN true;
    END IF;
    RETURN false;
END
$$;

CREATE FUNCTION orphan_cleaner_fleet.wave_begin(of_run bigint, of_wave bigint, shards text [], new_sums jsonb, by_approval bigint)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM orphan_cleaner_fleet.run_open(of_run);
    UPDATE orphan_cleaner_fleet.runs AS r
    SET waves = of_wave, sums = new_sums, progressed_at = clock_timestamp()
    WHERE r.fleet_run = of_run
        AND r.waves = of_wave - 1
        AND r.approved_run IS NOT DISTINCT FROM by_approval;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'wave % of run % is begun already, or the one before is not, or the approval was revoked', of_wave, of_run USING ERRCODE = 'OC008';
    END IF;
    UPDATE orphan_cleaner_fleet.shards AS s
    SET wave = of_wave
    WHERE s.fleet_run = of_run
        AND s.shard = ANY (shards)
        AND s.wave = 0
        AND s.verified IS NOT NULL;
    -- The first wave is what an approval is for.
    UPDATE orphan_cleaner_fleet.approvals AS a
    SET used_at = now(), used_by = of_run
    FROM orphan_cleaner_fleet.runs AS r
    WHERE r.fleet_run = of_run
        AND a.fleet_run = r.approved_run
        AND a.used_at IS NULL;
END
$$;

CREATE FUNCTION orphan_cleaner_fleet.run_end(of_run bigint, new_state text, new_breaker text, new_error text, new_sums jsonb)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- The end of a run is on disk when it is told.
SET synchronous_commit = 'on'
AS $$
BEGIN
    PERFORM orphan_cleaner_fleet.run_open(of_run);
    UPDATE orphan_cleaner_fleet.runs AS r
    SET state = new_state, breaker = new_breaker, error = left(new_error, 2000), sums = new_sums, finished_at = clock_timestamp()
    WHERE r.fleet_run = of_run;
END
$$;

CREATE FUNCTION orphan_cleaner_fleet.approve(of_run bigint, by_whom text, lasting interval)
RETURNS timestamptz
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refused record;
    until timestamptz;
BEGIN
    SELECT r.state, r.breaker INTO refused FROM orphan_cleaner_fleet.runs AS r WHERE r.fleet_run = of_run;
    IF NOT FOUND OR refused.breaker IS NULL THEN
        RAISE EXCEPTION 'run % of the fleet was not refused: there is nothing to approve', of_run USING ERRCODE = 'OC011', HINT = 'Run: orphan-cleaner fleet status';
    END IF;
    IF refused.breaker IN ('clock', 'canary-alive', 'canary-dead', 'recently-active') THEN
        RAISE EXCEPTION 'run % of the fleet was refused by %: what doubts auth-service or the clock cannot be approved', of_run, refused.breaker
            USING ERRCODE = 'OC011', HINT = 'Correct the cause, then run: orphan-cleaner fleet run';
    END IF;
    INSERT INTO orphan_cleaner_fleet.approvals AS a (fleet_run, approved_by, expires_at)
    VALUES (of_run, by_whom || ' (' || session_user || ')', now() + lasting)
    ON CONFLICT (fleet_run) DO UPDATE
    SET approved_by = excluded.approved_by, approved_at = now(), expires_at = excluded.expires_at, revoked_by = NULL, revoked_at = NULL
    WHERE a.used_at IS NULL
    RETURNING a.expires_at INTO until;
    IF until IS NULL THEN
        RAISE EXCEPTION 'the approval of run % of the fleet was used already', of_run USING ERRCODE = 'OC011', HINT = 'Run: orphan-cleaner fleet status';
    END IF;
    RETURN until;
END
$$;

CREATE FUNCTION orphan_cleaner_fleet.revoke_approval(of_run bigint, by_whom text)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    revoked bigint;
BEGIN
    -- No run begins meanwhile. The open one has used it once its first wave is begun.
    LOCK TABLE orphan_cleaner_fleet.runs IN ROW EXCLUSIVE MODE;
    UPDATE orphan_cleaner_fleet.runs AS r
    SET approved_run = NULL
    WHERE r.state = 'running'
        AND r.waves = 0
        AND r.approved_run = of_run;
    UPDATE orphan_cleaner_fleet.approvals AS a
    SET revoked_at = now(), revoked_by = by_whom || ' (' || session_user || ')'
    WHERE a.fleet_run = of_run
        AND a.used_at IS NULL
        AND a.revoked_at IS NULL
    RETURNING a.fleet_run INTO revoked;
    RETURN revoked;
END
$$;

CREATE FUNCTION orphan_cleaner_fleet.pause(by_whom text, why text)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO orphan_cleaner_fleet.pauses (paused_by, reason) VALUES (by_whom || ' (' || session_user || ')', why)
$$;

CREATE FUNCTION orphan_cleaner_fleet.resume(by_whom text)
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE orphan_cleaner_fleet.pauses AS p
    SET resumed_at = now(), resumed_by = by_whom || ' (' || session_user || ')'
    WHERE p.resumed_at IS NULL
    RETURNING p.pause_id
$$;

CREATE FUNCTION orphan_cleaner_fleet.take_calls(wanted bigint, per_second double precision)
RETURNS double precision
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '10s'
-- A crash loses at most the calls of a moment.
SET synchronous_commit = 'off'
AS $$
DECLARE
    begins timestamptz;
BEGIN
    -- GCRA without a burst: each bundle has a time of its own, behind that of the one before, and its calls are spread over it.
    IF NOT (wanted BETWEEN 1 AND 10000 AND per_second > 0 AND per_second <= 1000000) THEN
        RAISE EXCEPTION 'a bundle has 1 to 10000 calls, and there are up to 1000000 a second' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Where the clock was set back, what was given away by it before is moved with it: nobody waits for days.
    UPDATE orphan_cleaner_fleet.budget AS b
    SET free_at = greatest(b.free_at - (greatest(b.taken_at, clock_timestamp()) - clock_timestamp()), clock_timestamp()) + make_interval(secs => wanted / per_second),
        taken_at = clock_timestamp(),
        calls = b.calls + wanted
    RETURNING b.free_at - make_interval(secs => wanted / per_second) INTO begins;
    -- In how many seconds the first of them may be made.
    RETURN greatest(extract(EPOCH FROM begins - clock_timestamp()), 0);
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner_fleet FROM PUBLIC;

COMMENT ON SCHEMA orphan_cleaner_fleet IS 'orphan-cleaner: the runs of a fleet of databases, and River''s jobs.';
COMMENT ON TABLE orphan_cleaner_fleet.runs IS 'Runs of the fleet.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.fleet_run IS 'Number of the run.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.state IS 'running, or how it ended.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.started_at IS 'When it was begun.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.progressed_at IS 'When a shard was done, or a wave begun, last.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.finished_at IS 'When it ended.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.waves IS 'How many waves were begun.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.host IS 'Who began it, host:pid.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.breaker IS 'The breaker that refused the fleet.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.error IS 'Why it did not succeed.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.sums IS 'What was judged last.';
COMMENT ON COLUMN orphan_cleaner_fleet.runs.approved_run IS 'The refused run by whose approval this one goes.';
COMMENT ON TABLE orphan_cleaner_fleet.shards IS 'What each shard found and did in a run of the fleet.';
COMMENT ON COLUMN orphan_cleaner_fleet.shards.fleet_run IS 'The run.';
COMMENT ON COLUMN orphan_cleaner_fleet.shards.shard IS 'Its name in fleet.yaml.';
COMMENT ON COLUMN orphan_cleaner_fleet.shards.ordinal IS 'Its place there, from 1.';
COMMENT ON COLUMN orphan_cleaner_fleet.shards.wave IS 'The wave that sweeps it; 0: none so far.';
COMMENT ON COLUMN orphan_cleaner_fleet.shards.verified IS 'Report of the first pass.';
COMMENT ON COLUMN orphan_cleaner_fleet.shards.swept IS 'Report of the sweep.';
COMMENT ON TABLE orphan_cleaner_fleet.ranges IS 'Each user is checked once: the ranges of user ids of the last run, and what auth-service said of their users. Together they cover all ids.';
COMMENT ON COLUMN orphan_cleaner_fleet.ranges.fleet_run IS 'The run.';
COMMENT ON COLUMN orphan_cleaner_fleet.ranges.first_id IS 'First id of the range.';
COMMENT ON COLUMN orphan_cleaner_fleet.ranges.last_id IS 'Last id of the range.';
COMMENT ON COLUMN orphan_cleaner_fleet.ranges.asked_at IS 'When auth-service was first called about it; null: not done.';
COMMENT ON COLUMN orphan_cleaner_fleet.ranges.checked IS 'A hash of 8 bytes for each user with a valid response, sorted. Who is not among them is checked by the shard.';
COMMENT ON COLUMN orphan_cleaner_fleet.ranges.missing IS 'Those of them who are missing, sorted.';
COMMENT ON TABLE orphan_cleaner_fleet.approvals IS 'Refused runs that were approved: the next run is not judged by what they found.';
COMMENT ON COLUMN orphan_cleaner_fleet.approvals.fleet_run IS 'The refused run.';
COMMENT ON COLUMN orphan_cleaner_fleet.approvals.approved_by IS 'Who, and as which login.';
COMMENT ON COLUMN orphan_cleaner_fleet.approvals.approved_at IS 'When.';
COMMENT ON COLUMN orphan_cleaner_fleet.approvals.expires_at IS 'Until when a run may use it.';
COMMENT ON COLUMN orphan_cleaner_fleet.approvals.used_by IS 'The run whose first wave it let begin.';
COMMENT ON COLUMN orphan_cleaner_fleet.approvals.used_at IS 'When that wave began.';
COMMENT ON COLUMN orphan_cleaner_fleet.approvals.revoked_by IS 'Who revoked it, and as which login.';
COMMENT ON COLUMN orphan_cleaner_fleet.approvals.revoked_at IS 'When.';
COMMENT ON TABLE orphan_cleaner_fleet.pauses IS 'While a row has no resumed_at, no run of the fleet begins, and none continues with another shard.';
COMMENT ON COLUMN orphan_cleaner_fleet.pauses.pause_id IS 'Number of the pause.';
COMMENT ON COLUMN orphan_cleaner_fleet.pauses.paused_by IS 'Who, and as which login.';
COMMENT ON COLUMN orphan_cleaner_fleet.pauses.paused_at IS 'Since when.';
COMMENT ON COLUMN orphan_cleaner_fleet.pauses.reason IS 'Why.';
COMMENT ON COLUMN orphan_cleaner_fleet.pauses.resumed_by IS 'Who ended it.';
COMMENT ON COLUMN orphan_cleaner_fleet.pauses.resumed_at IS 'Until when; null: it is in force.';
COMMENT ON TABLE orphan_cleaner_fleet.budget IS 'One row: the calls of all workers to auth-service.';
COMMENT ON COLUMN orphan_cleaner_fleet.budget.is_only IS 'Keeps it one row.';
COMMENT ON COLUMN orphan_cleaner_fleet.budget.free_at IS 'Up to this time all calls are granted.';
COMMENT ON COLUMN orphan_cleaner_fleet.budget.taken_at IS 'When calls were last granted.';
COMMENT ON COLUMN orphan_cleaner_fleet.budget.calls IS 'Calls granted so far.';
COMMENT ON FUNCTION orphan_cleaner_fleet.run_begin IS 'Begins a run of these shards, and gives up one that nobody continued. OC003: another is open; OC002: the fleet is paused; OC013: the clock is behind an earlier run; OC014: there were runs of another fleet within three days.';
COMMENT ON FUNCTION orphan_cleaner_fleet.run_open IS 'Locks the row of an open run; OC001: it is not open any more. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner_fleet.shard_done IS 'Stores the first report of a shard; returns whether all shards of the pass or wave are done.';
COMMENT ON FUNCTION orphan_cleaner_fleet.ranges_add IS 'Adds ranges whose users are to be checked.';
COMMENT ON FUNCTION orphan_cleaner_fleet.range_done IS 'Stores the answers of a range up to an id; false: the range is done already, and the first answers stay. The caller adds what is left after that id.';
COMMENT ON FUNCTION orphan_cleaner_fleet.wave_begin IS 'Begins the next wave, once, and uses the approval by which it was judged; OC008: begun already, or that approval was revoked.';
COMMENT ON FUNCTION orphan_cleaner_fleet.run_end IS 'Ends a run.';
COMMENT ON FUNCTION orphan_cleaner_fleet.approve IS 'Approves what a refused run found, once, for a while.';
COMMENT ON FUNCTION orphan_cleaner_fleet.revoke_approval IS 'Revokes an approval that no run has used, also for the open run that goes by it; null: there is none.';
COMMENT ON FUNCTION orphan_cleaner_fleet.pause IS 'Pauses the fleet; a unique violation: it is paused already.';
COMMENT ON FUNCTION orphan_cleaner_fleet.resume IS 'Ends the pause; null: there is none.';
COMMENT ON FUNCTION orphan_cleaner_fleet.take_calls IS 'Grants a bundle of calls; returns in how many seconds the first may be made; the others follow at equal intervals.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION
    orphan_cleaner_fleet.take_calls, orphan_cleaner_fleet.resume, orphan_cleaner_fleet.pause, orphan_cleaner_fleet.revoke_approval, orphan_cleaner_fleet.approve, orphan_cleaner_fleet.run_end,
    orphan_cleaner_fleet.wave_begin, orphan_cleaner_fleet.range_done, orphan_cleaner_fleet.ranges_add, orphan_cleaner_fleet.shard_done, orphan_cleaner_fleet.run_open, orphan_cleaner_fleet.run_begin;
DROP TABLE
    orphan_cleaner_fleet.budget, orphan_cleaner_fleet.pauses, orphan_cleaner_fleet.approvals, orphan_cleaner_fleet.ranges, orphan_cleaner_fleet.shards,
    orphan_cleaner_fleet.runs;
