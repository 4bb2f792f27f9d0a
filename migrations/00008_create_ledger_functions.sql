-- Why:      what a missing user means (assess; shadow_evidence dates the first sighting), what a run has found (run_stage),
--           and how that becomes the ledger (merge). Who has left the ledger is rechecked: what was found (recheck_write).
--           Whose rows the database refuses to delete is marked (candidates_block).
-- Locks:    none here. At work: ACCESS SHARE on the targets, ROW EXCLUSIVE on staging, ledger and rechecks.
-- Duration: milliseconds.
-- Rollback: drops the functions; runs refuse to start.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.candidates_leave(user_ids uuid [])
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    -- Whoever leaves the ledger is rechecked while there are backups.
    WITH leaving AS (
        DELETE FROM orphan_cleaner.candidates AS c
        WHERE c.user_id = ANY (ARRAY(SELECT unnest(user_ids)))
        RETURNING c.user_id
    )
    INSERT INTO orphan_cleaner.rechecks AS r (user_id)
    SELECT l.user_id
    FROM leaving AS l
    ORDER BY l.user_id
    ON CONFLICT (user_id) DO UPDATE
    SET deleted_at = now(), checked_at = NULL, alive_at = NULL
$$;

-- The shadow table users belongs to messaging-service and is dropped in a later phase: a query that named it would not
-- even prepare then.
CREATE FUNCTION orphan_cleaner.shadow_evidence(user_ids uuid [])
RETURNS TABLE (user_id uuid, deleted_at timestamptz)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- A date without time zone is UTC, as messaging-service writes it.
SET timezone = 'UTC'
SET jit = off
AS $$
DECLARE
    covered_through uuid;
    created_at text;
BEGIN
    -- It dates the first sighting of users whom no run has seen alive, and nothing else.
    SELECT CASE WHEN v.previous_run_id IS NULL THEN v.cursor_id ELSE 'ffffffff-ffff-ffff-ffff-ffffffffffff' END INTO covered_through
    FROM orphan_cleaner.coverage AS v;
    IF covered_through = 'ffffffff-ffff-ffff-ffff-ffffffffffff' THEN
        RETURN;
    END IF;
    SELECT max('u.created_at::timestamptz') FILTER (WHERE a.attname = 'created_at' AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype))
    INTO created_at
    FROM pg_attribute AS a
    WHERE a.attrelid = to_regclass('public.users')
        AND NOT a.attisdropped
    HAVING bool_or(a.attname = 'id' AND a.atttypid = 'uuid'::regtype)
        AND bool_or(a.attname = 'deleted_at' AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype));
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($statement$
        SELECT u.id, u.deleted_at::timestamptz
        FROM public.users AS u
        WHERE u.id = ANY (ARRAY(SELECT unnest($1)))
            AND u.id > coalesce($2, '00000000-0000-0000-0000-000000000000')
            AND isfinite(u.deleted_at)
            AND u.deleted_at::timestamptz BETWEEN coalesce(%s, '2000-01-01') AND now()
            -- One moment that a large part of the table shares is a migration's, not anybody's.
            AND u.deleted_at NOT IN (
                SELECT s.deleted_at
                FROM public.users AS s
                WHERE s.deleted_at IS NOT NULL
                GROUP BY s.deleted_at
                HAVING count(*) > 5 AND count(*) * 10 > (SELECT count(*) FROM public.users)
            )
        $statement$, coalesce(created_at, 'NULL::timestamptz'))
        USING user_ids, covered_through;
END
$$;

CREATE FUNCTION orphan_cleaner.assess(user_ids uuid [], retention interval, max_gap interval, of_approval bigint)
RETURNS TABLE (
    user_id uuid,
    clock_start timestamptz,
    evidence text,
    is_new boolean,
    is_approved boolean,
    is_restarted boolean,
    is_active boolean,
    is_due boolean,
    rows_due bigint [],
    rows_young bigint [],
    rows_held bigint []
)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- By keys and all users at once, whatever the statistics say: ledger and staging were filled a moment ago.
SET enable_seqscan = off
SET enable_nestloop = off
SET enable_mergejoin = off
SET jit = off
AS $$
    SELECT
        k.user_id,
        k.clock_start,
        k.evidence,
        k.is_new,
        k.is_approved,
        k.is_restarted,
        k.is_active,
        k.is_due,
        -- By target: one that keeps rows longer than the others has a later clock, too. Element by element only where it must be: that
        -- costs several times what is done for the user otherwise.
        CASE
            WHEN NOT k.is_counted OR NOT k.is_due THEN NULL
            WHEN k.is_old_for_all THEN k.rows_old
            ELSE ARRAY(
                SELECT CASE WHEN k.clock_start <= now() - o.keeps THEN o.rows_old ELSE 0 END FROM unnest(k.rows_old, k.all_keep) AS o (rows_old, keeps)
            )
        END,
        CASE
            WHEN NOT k.is_counted OR k.is_held THEN NULL
            WHEN k.is_old_for_all THEN k.rows_young
            ELSE ARRAY(
                SELECT CASE WHEN k.clock_start <= now() - o.keeps THEN o.rows_young ELSE 0 END FROM unnest(k.rows_young, k.all_keep) AS o (rows_young, keeps)
            )
        END,
        CASE
            WHEN NOT k.is_counted THEN NULL
            WHEN k.is_old_for_all AND NOT k.is_held THEN k.rows_held
            ELSE ARRAY(
                SELECT CASE WHEN k.clock_start > now() - o.keeps THEN 0 WHEN k.is_held THEN o.rows_old + o.rows_young + o.rows_held ELSE o.rows_held END
                FROM unnest(k.rows_old, k.rows_young, k.rows_held, k.all_keep) AS o (rows_old, rows_young, rows_held, keeps)
            )
        END
    FROM (
        SELECT
            s.*,
            s.clock_start <= now() - s.keeps AND s.rows_old IS NOT NULL AS is_counted,
            s.clock_start <= now() - s.keeps AND NOT s.is_held AND (of_approval IS NULL OR s.is_approved_due) AS is_due,
            ARRAY(SELECT greatest(assess.retention, t.retention) FROM orphan_cleaner.targets_in_order AS t ORDER BY t.n) AS all_keep,
            s.clock_start <= now() - (SELECT max(greatest(assess.retention, t.retention)) FROM orphan_cleaner.targets AS t) AS is_old_for_all
        FROM (
            SELECT
                u.user_id,
                -- The clock never starts before the user was last seen alive: by a run, or by its own activity.
                greatest(b.starts_at, b.seen_at) AS clock_start,
                CASE WHEN b.seen_at > b.starts_at THEN 'activity' ELSE b.evidence END AS evidence,
                c.user_id IS NULL AS is_new,
                c.approved_run IS NOT NULL OR a.user_id IS NOT NULL AS is_approved,
                coalesce(a.is_due, false) OR c.approved_run IS NOT NULL AND of_approval IS NULL AS is_approved_due,
                coalesce(c.first_missing_at < greatest(b.starts_at, b.seen_at), false) AS is_restarted,
                u.user_id IN (
                    SELECT h.user_id
                    FROM orphan_cleaner.holds_in_force AS h
                    WHERE h.user_id IS NOT NULL
                ) AS is_held,
                -- Alive after it was found missing: either is wrong. Activity before that says nothing.
                coalesce(
                    f.active_at > now() - interval '1 day'
                    AND (c.evidence = 'activity' OR f.active_at > coalesce(c.first_missing_at, e.deleted_at)),
                    false
                ) AS is_active,
                coalesce(f.keeps, retention) AS keeps,
                f.rows_old,
                f.rows_young,
                f.rows_held
            FROM unnest(user_ids) AS u (user_id)
            LEFT JOIN orphan_cleaner.candidates AS c
                ON c.user_id = u.user_id
                AND c.user_id = ANY (ARRAY(SELECT unnest(user_ids)))
            LEFT JOIN orphan_cleaner.refusals AS a
                ON a.run_id = of_approval
                AND a.user_id = u.user_id
            LEFT JOIN orphan_cleaner.shadow_evidence(user_ids) AS e ON e.user_id = u.user_id
            LEFT JOIN orphan_cleaner.target_facts(user_ids, retention) AS f ON f.user_id = u.user_id
            CROSS JOIN LATERAL (
                SELECT
                    CASE
                        WHEN c.user_id IS NULL THEN coalesce(e.deleted_at, now())
                        WHEN c.last_missing_at >= now() - max_gap THEN c.first_missing_at
                        -- Not checked for longer than max-gap: whatever happened meanwhile, nobody saw it.
                        ELSE now()
                    END AS starts_at,
                    CASE
                        WHEN c.user_id IS NULL AND e.user_id IS NOT NULL THEN 'shadow'
                        WHEN c.last_missing_at >= now() - max_gap THEN c.evidence
                        ELSE 'sightings'
                    END AS evidence,
                    -- least() passes over null.
                    CASE WHEN f.active_at IS NOT NULL THEN least(f.active_at, now()) END AS seen_at
            ) AS b
            -- Worked out once for each user, and not for each figure.
            OFFSET 0
        ) AS s
    ) AS k
$$;

CREATE FUNCTION orphan_cleaner.run_stage(of_run bigint, of_token uuid, missing uuid [], unknown uuid [])
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
-- Staging is unlogged; nothing here need wait for the disk.
SET synchronous_commit = 'off'
AS $$
DECLARE
    run orphan_cleaner.runs := orphan_cleaner.run_open(of_run, of_token, 'clean');
    retention interval := make_interval(secs => (run.settings ->> 'retention')::double precision);
    max_gap interval := make_interval(secs => (run.settings ->> 'max-gap')::double precision);
    rows_due bigint;
BEGIN
    IF run.judged_at IS NOT NULL THEN
        RAISE EXCEPTION 'run % is judged already: nothing can be staged any more', of_run USING ERRCODE = 'OC008';
    END IF;
    -- In the order of the ids, which an index takes twice as fast; again by an attempt whose answer was lost.
    WITH staged AS (
        INSERT INTO orphan_cleaner.sightings AS s (
            run_id, user_id, verdict, clock_start, evidence, is_new, is_approved, is_restarted, is_active, is_due,
            rows_due, rows_young, rows_held
        )
        SELECT
            of_run, a.user_id, 'missing', a.clock_start, a.evidence, a.is_new, a.is_approved, a.is_restarted, a.is_active, a.is_due,
            a.rows_due, a.rows_young, a.rows_held
        FROM orphan_cleaner.assess(missing, retention, max_gap, run.approved_run) AS a
        ORDER BY a.user_id
        ON CONFLICT (run_id, user_id) DO NOTHING
        RETURNING s.rows_due
    )
    SELECT coalesce(sum(o.rows_due), 0)::bigint INTO rows_due FROM staged AS s CROSS JOIN LATERAL unnest(s.rows_due) AS o (rows_due);
    INSERT INTO orphan_cleaner.sightings (run_id, user_id, verdict)
    SELECT of_run, u.user_id, 'unknown'
    FROM unnest(unknown) AS u (user_id)
    ON CONFLICT (run_id, user_id) DO NOTHING;
    RETURN rows_due;
END
$$;

CREATE FUNCTION orphan_cleaner.merge(run orphan_cleaner.runs, report jsonb)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- Ledger and staging are joined whole: nobody has analyzed what was staged a moment ago.
SET enable_nestloop = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    leaving uuid [];
    reached uuid := (report ->> 'checked_through')::uuid;
    covered bigint := (report ->> 'users_covered')::bigint;
BEGIN
    UPDATE orphan_cleaner.candidates AS c
    SET first_missing_at = s.clock_start,
        last_missing_at = now(),
        last_missing_run = run.run_id,
        sightings = CASE WHEN s.is_restarted THEN 1 ELSE c.sightings + 1 END,
        evidence = s.evidence
    FROM orphan_cleaner.sightings AS s
    WHERE s.run_id = run.run_id
        AND s.verdict = 'missing'
        AND c.user_id = s.user_id;
    INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence, approved_run)
    SELECT s.user_id, s.clock_start, now(), run.run_id, s.evidence, CASE WHEN s.is_approved THEN run.approved_run END
    FROM orphan_cleaner.sightings AS s
    WHERE s.run_id = run.run_id
        AND s.is_new
    ORDER BY s.user_id;
    -- Every candidate with a row was checked: who is neither missing nor unknown is alive, or has no row left.
    SELECT array_agg(c.user_id) INTO leaving
    FROM orphan_cleaner.candidates AS c
    WHERE NOT EXISTS (
        SELECT
        FROM orphan_cleaner.sightings AS s
        WHERE s.run_id = run.run_id AND s.user_id = c.user_id
    );
    PERFORM orphan_cleaner.candidates_leave(leaving);

    DELETE FROM orphan_cleaner.unknowns AS u
    WHERE NOT EXISTS (
        SELECT
        FROM orphan_cleaner.sightings AS s
        WHERE s.run_id = run.run_id AND s.verdict = 'unknown' AND s.user_id = u.user_id
    );
    INSERT INTO orphan_cleaner.unknowns (user_id, unknown_since)
    SELECT
        s.user_id,
        -- The last valid response came in the last complete cycle, if there was one.
        coalesce((
            SELECT r.started_at
            FROM orphan_cleaner.coverage AS v
            JOIN orphan_cleaner.runs AS r ON r.run_id = v.previous_run_id
        ), run.started_at)
    FROM orphan_cleaner.sightings AS s
    WHERE s.run_id = run.run_id
        AND s.verdict = 'unknown'
    ON CONFLICT (user_id) DO NOTHING;

    INSERT INTO orphan_cleaner.coverage AS v (cursor_id, cycle_run_id, previous_run_id, run_id, checked_at, users, users_so_far)
    VALUES (reached, run.run_id, CASE WHEN reached IS NULL THEN run.run_id END, run.run_id, run.started_at, covered, covered)
    ON CONFLICT (is_only) DO UPDATE
    SET cursor_id = excluded.cursor_id,
        cycle_run_id = CASE WHEN (report ->> 'checked_after') IS NULL THEN excluded.run_id ELSE v.cycle_run_id END,
        previous_run_id = CASE
            WHEN excluded.cursor_id IS NOT NULL THEN v.previous_run_id
            WHEN (report ->> 'checked_after') IS NULL THEN excluded.run_id
            ELSE v.cycle_run_id
        END,
        run_id = excluded.run_id,
        checked_at = excluded.checked_at,
        users_so_far = CASE WHEN (report ->> 'checked_after') IS NULL THEN covered ELSE v.users_so_far + covered END,
        users = CASE
            WHEN excluded.cursor_id IS NOT NULL THEN v.users
            WHEN (report ->> 'checked_after') IS NULL THEN covered
            ELSE v.users_so_far + covered
        END;
    -- How many returned: a candidate without a row left has only left.
    RETURN (SELECT count(*) FROM orphan_cleaner.target_holders(leaving));
END
$$;

CREATE FUNCTION orphan_cleaner.recheck_write(of_run bigint, of_token uuid, alive uuid [], missing uuid [], reached uuid)
RETURNS TABLE (user_id uuid, members bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
#variable_conflict use_column
BEGIN
    PERFORM orphan_cleaner.run_open(of_run, of_token, 'clean');
    UPDATE orphan_cleaner.runs AS r SET rechecked_through = reached WHERE r.run_id = of_run;
    UPDATE orphan_cleaner.rechecks AS d SET checked_at = now(), alive_at = NULL WHERE d.user_id = ANY (missing);
    IF cardinality(alive) > 0 THEN
        -- Alive, and what was deleted can be restored.
        RETURN QUERY
        UPDATE orphan_cleaner.rechecks AS d
        SET checked_at = now(),
            alive_at = coalesce(d.alive_at, now())
        FROM (
            SELECT p.user_id, count(*) AS members
            FROM orphan_cleaner.restore_plan(NULL, alive, NULL, NULL, NULL, NULL) AS p
            WHERE p.verdict = 'restore'
            GROUP BY p.user_id
        ) AS l
        WHERE d.user_id = l.user_id
        RETURNING d.user_id, l.members;
        -- The others need no recheck any more.
        DELETE FROM orphan_cleaner.rechecks AS d
        WHERE d.user_id = ANY (alive)
            AND d.checked_at IS DISTINCT FROM now();
    END IF;
END
$$;

CREATE FUNCTION orphan_cleaner.candidates_block(of_run bigint, blocked jsonb, is_whole boolean)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE orphan_cleaner.candidates AS c
    SET blocked_since = CASE WHEN n.cause IS NOT NULL THEN coalesce(c.blocked_since, now()) END,
        blocked_by = n.cause
    FROM (
        SELECT coalesce(e.entry ->> 'user_id', b.user_id::text)::uuid AS user_id, e.entry - 'user_id' AS cause
        FROM jsonb_path_query(blocked, '$[0 to 999] ? (@.user_id.type() == "string")') AS e (entry)
        FULL JOIN (SELECT o.user_id FROM orphan_cleaner.candidates AS o WHERE o.blocked_since IS NOT NULL) AS b ON b.user_id::text = e.entry ->> 'user_id'
    ) AS n
    JOIN orphan_cleaner.sightings AS s ON s.run_id = of_run AND s.user_id = n.user_id
    WHERE c.user_id = n.user_id
        AND CASE WHEN n.cause IS NULL THEN is_whole ELSE s.is_due AND length(n.cause::text) <= 5000 END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.candidates_leave IS 'Takes users out of the ledger and onto the list of rechecks. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.shadow_evidence IS 'Plausible deleted_at of users whom no run has checked yet; no row where the table or the column is not there.';
COMMENT ON FUNCTION orphan_cleaner.assess IS 'What missing users mean for a run: who is new, due or held, since when, and how many of their rows would be deleted or kept. Changes nothing.';
COMMENT ON FUNCTION orphan_cleaner.run_stage IS 'Stages missing users, with what assess says of them, and unknown ones; returns the rows due among them.';
COMMENT ON FUNCTION orphan_cleaner.merge IS 'Merges staging into the ledger, and records how far checking has come; returns how many users returned. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.recheck_write IS 'Records what rechecks found; returns users who are alive again while their deleted rows can be restored.';
COMMENT ON FUNCTION orphan_cleaner.candidates_block IS 'Marks due users of a run as blocked; with is_whole, lifts the mark of everybody else whom the run found missing. Granted to nobody.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION
    orphan_cleaner.candidates_block, orphan_cleaner.recheck_write, orphan_cleaner.merge, orphan_cleaner.run_stage, orphan_cleaner.assess,
    orphan_cleaner.shadow_evidence, orphan_cleaner.candidates_leave;
