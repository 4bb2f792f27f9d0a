-- Why:      whether a run may change anything. Each breaker is a row of orphan_cleaner.breakers: figure, limit and message.
-- Locks:    none here. At work: ROW EXCLUSIVE on the ledger; ACCESS SHARE on the targets.
-- Duration: milliseconds.
-- Rollback: drops the functions; runs refuse to start.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
-- With a history, that of many databases, facts are their sums; users_all is among them.
CREATE FUNCTION orphan_cleaner.breakers(settings jsonb, facts jsonb, history jsonb DEFAULT NULL)
RETURNS TABLE (breaker text, target text, figure double precision, limit_value double precision, is_tripped boolean, can_be_approved boolean, message text)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- Of a run they are effective already; a dry run, which has none, is bound by pinned limits, too. Those of one database say
    -- nothing of many.
    WITH e AS (SELECT CASE WHEN history IS NULL THEN orphan_cleaner.effective_settings(breakers.settings) ELSE breakers.settings END AS settings),
    f AS (
        SELECT
            (facts ->> 'alive_missing')::double precision AS alive_missing, (facts ->> 'dead_present')::double precision AS dead_present,
            (facts ->> 'users_active')::double precision AS active, (facts ->> 'users_checked')::double precision AS users,
            -- Where each run checks a part of the users, the others are known from the last time.
            greatest(
                (facts ->> 'users_checked')::double precision,
                CASE WHEN history IS NULL THEN (SELECT v.users FROM orphan_cleaner.coverage AS v) ELSE (facts ->> 'users_all')::double precision END
            ) AS all_users,
            (facts ->> 'users_new')::double precision AS users_new, (facts ->> 'candidates')::double precision AS candidates,
            (SELECT max(r.heartbeat_at) FROM orphan_cleaner.runs AS r WHERE r.run_id IS DISTINCT FROM (facts ->> 'run_id')::bigint) AS latest,
            (e.settings ->> 'new-missing-share')::double precision AS new_missing_share, (e.settings ->> 'new-missing-rate')::double precision AS new_missing_rate,
            (e.settings ->> 'candidate-share')::double precision AS candidate_share, (e.settings ->> 'recently-active')::double precision AS recently_active
        FROM e
    ),
    targets AS (
        -- A target's own limits bind where they are stricter.
        SELECT
            t.n, t.name, d.rows_due AS due,
            -- A dry run does not know it.
            coalesce(
                (d.facts ->> 'rows_total')::double precision, orphan_cleaner.target_total(t.name, d.rows_due::bigint, (facts ->> 'users_checked')::bigint)
            ) AS total,
            (s.settings ->> 'delete-share')::double precision AS delete_share, (s.settings ->> 'delete-share-7d')::double precision AS delete_share_7d,
            (s.settings ->> 'delete-share-30d')::double precision AS delete_share_30d, (s.settings ->> 'delete-rows')::double precision AS delete_rows,
            (s.settings ->> 'history')::double precision AS history
        FROM e
        CROSS JOIN orphan_cleaner.targets_in_order AS t
        CROSS JOIN LATERAL (SELECT facts -> 'targets' -> t.name AS facts, (facts -> 'targets' -> t.name ->> 'rows_due')::double precision AS rows_due) AS d
        CROSS JOIN LATERAL (SELECT orphan_cleaner.stricter_settings(e.settings, t.limits) AS settings) AS s
    ),
    cycle AS (
        -- With a run that completes a cycle: how many users have rows by now, and had by the last one, less whom runs took out of the ledger.
        SELECT
            (facts ->> 'users_covered')::bigint + CASE WHEN (facts ->> 'checked_after') IS NULL THEN 0 ELSE v.users_so_far END AS users,
            v.users - (SELECT count(*) FROM orphan_cleaner.rechecks AS d WHERE d.deleted_at >= r.started_at) AS users_before,
            EXISTS (
                SELECT FROM orphan_cleaner.approvals AS a JOIN orphan_cleaner.runs AS o ON o.run_id = a.run_id AND o.breaker = 'user-count'
                WHERE a.used_at IS NULL AND a.revoked_at IS NULL AND a.expires_at > now()
            ) AS is_approved
        FROM orphan_cleaner.coverage AS v
        JOIN orphan_cleaner.runs AS r ON r.run_id = v.previous_run_id
        WHERE (facts ->> 'users_covered') IS NOT NULL AND (facts ->> 'checked_through') IS NULL
    ),
    past AS (
        -- Days of 24 hours back from now; the first is not over. Refused runs are not in it: no refusal becomes usual.
        SELECT floor(extract(EPOCH FROM now() - h.hour) / 86400)::integer AS days_ago, h.target, h.hour, h.users_new, h.rows_total, h.rows_deleted
        FROM orphan_cleaner.hours AS h
        WHERE history IS NULL
        UNION ALL
        SELECT d.days_ago, d.target, now() - d.days_ago * interval '1 day', d.users_new, d.rows_total, d.rows_deleted
        FROM jsonb_to_recordset(history) AS d (target text, days_ago integer, users_new bigint, rows_total bigint, rows_deleted bigint)
    ),
    days AS (
        SELECT
            p.target, p.days_ago, sum(p.users_new) AS users_new, sum(p.rows_deleted) AS rows_deleted,
            row_number() OVER (PARTITION BY p.target ORDER BY p.days_ago) AS ordinal
        FROM past AS p
        GROUP BY p.target, p.days_ago
    ),
    usual_days AS (
        -- The median of the last 28 on which a run was judged.
        SELECT d.target, percentile_cont(0.5) WITHIN GROUP (ORDER BY d.rows_deleted) AS rows_deleted
        FROM days AS d
        WHERE d.days_ago > 0 AND d.ordinal <= 28
        GROUP BY d.target
    ),
    usual AS (
        -- A day, by the 28 such days before the last seven, and by the calendar: after an outage one day has the finds of many.
        SELECT sum(d.users_new) / (max(d.days_ago) - min(d.days_ago) + 1) AS users_new
        FROM days AS d
        WHERE d.target = '' AND d.ordinal BETWEEN 8 AND 35
        HAVING max(d.days_ago) - min(d.days_ago) >= 13
    ),
    refused AS (
        SELECT min(floor(extract(EPOCH FROM now() - date_trunc('hour', r.started_at)) / 86400))::integer AS days_ago
        FROM orphan_cleaner.runs AS r
        WHERE history IS NULL AND r.state = 'refused' AND r.kind = 'clean' AND date_trunc('hour', r.started_at) <= now() - interval '7 days'
    ),
    window_sums AS (
        SELECT
            coalesce(sum(p.users_new) FILTER (WHERE p.days_ago < 7), 0) AS new_7d,
            -- The days whose finds these are: seven, or more after an outage. A refused run is none: what it found was refused.
            least(greatest(least(min(p.days_ago) FILTER (WHERE p.days_ago >= 7), (SELECT r.days_ago FROM refused AS r)), 7), 14) AS new_days,
            -- What the first run finds is no rate.
            count(*) > 0 AS is_known
        FROM past AS p
        WHERE p.target = ''
    ),
    row_sums AS (
        SELECT
            p.target,
            coalesce(sum(p.rows_deleted) FILTER (WHERE p.days_ago = 0), 0) AS deleted_24h,
            coalesce(sum(p.rows_deleted) FILTER (WHERE p.days_ago < 7), 0) AS deleted_7d,
            coalesce(sum(p.rows_deleted) FILTER (WHERE p.days_ago < 30), 0) AS deleted_30d,
            coalesce((array_agg(p.rows_total ORDER BY p.hour) FILTER (WHERE p.days_ago < 7 AND p.rows_total > 0))[1], 0) AS total_7d,
            coalesce((array_agg(p.rows_total ORDER BY p.hour) FILTER (WHERE p.days_ago < 30 AND p.rows_total > 0))[1], 0) AS total_30d
        FROM past AS p
        WHERE p.target <> ''
        GROUP BY p.target
    ),
    about_users AS (
        SELECT b.*, '' AS target
        FROM f
        LEFT JOIN usual AS k ON true
        LEFT JOIN cycle AS c ON true
        CROSS JOIN window_sums AS w
        CROSS JOIN (SELECT sum(t.total) AS total FROM targets AS t) AS s
        -- A floor lets small tables live, but never more than a quarter of one go.
        CROSS JOIN LATERAL (
            SELECT
                least(5, f.all_users / 4, s.total / 4) AS few_users,
                -- While two weeks are not known, a busy one: 0.3 % of the users a day.
                w.new_days * coalesce(k.users_new, 0.003 * least(f.all_users, s.total)) AS usual_new,
                greatest(f.users, 1) AS users,
                -- A user has a row: a runner's word for how many there are counts no further.
                greatest(least(f.all_users, s.total), 1) AS all_users
        ) AS x
        CROSS JOIN LATERAL (
            VALUES
            (
                1, 'clock', coalesce(extract(EPOCH FROM f.latest - clock_timestamp()), 0), 0, coalesce(f.latest > clock_timestamp(), false), false,
                format('the database''s clock is behind an earlier run by %s', f.latest - clock_timestamp())
            ),
            (
                2, 'canary-alive', f.alive_missing, 0, f.alive_missing > 0, false,
                format('%s users known to be alive are missing (ORPHAN_CLEANER_CANARY_ALIVE)', f.alive_missing)
            ),
            (
                3, 'canary-dead', f.dead_present, 0, f.dead_present > 0, false,
                format('%s users known to be deleted are present (ORPHAN_CLEANER_CANARY_DEAD)', f.dead_present)
            ),
            (
                4, 'recently-active', f.active, f.recently_active, f.active > f.recently_active AND f.active > 0.001 * x.all_users, false,
                format('%s users read a message within the last day after they were found missing, limit %s and 0.1 %% of the users (ORPHAN_CLEANER_MAX_RECENTLY_ACTIVE)', f.active, f.recently_active)
            ),
            (
                5, 'user-count', coalesce(1 - c.users::double precision / greatest(c.users_before, 1), 0), 0.5,
                coalesce(2 * c.users < c.users_before AND c.users_before - c.users > 10 AND NOT c.is_approved, false), true,
                format('%s users have members, the last complete cycle found %s: is this the whole table? If so, approve the run', c.users, c.users_before)
            ),
            (
                6, 'new-missing-share', f.users_new / x.users, f.new_missing_share,
                f.new_missing_share < 1 AND f.users_new > f.new_missing_share * x.users AND f.users_new > x.few_users, true,
                format('%s of %s users checked are newly missing, limit %s %% (ORPHAN_CLEANER_MAX_NEW_MISSING_SHARE)', f.users_new, f.users, trim_scale((100 * f.new_missing_share)::numeric(12, 4)))
            ),
            (
                7, 'new-missing-rate', (w.new_7d + f.users_new) / x.all_users, f.new_missing_rate,
                w.is_known AND f.new_missing_rate < 1 AND w.new_7d + f.users_new > f.new_missing_rate * x.all_users
                AND w.new_7d + f.users_new > 2 * x.usual_new + x.few_users, true,
                format('%s users are newly missing within %s days, limit twice the usual %s and %s %% of the users (ORPHAN_CLEANER_MAX_NEW_MISSING_RATE)',
                    w.new_7d + f.users_new, w.new_days, round(x.usual_new::numeric, 1), trim_scale((100 * f.new_missing_rate)::numeric(12, 4)))
            ),
            (
                8, 'candidate-share', f.candidates / x.all_users, f.candidate_share,
                f.candidate_share < 1 AND f.candidates > f.candidate_share * x.all_users AND f.candidates > x.few_users, true,
                format('%s of %s users are candidates, limit %s %% (ORPHAN_CLEANER_MAX_CANDIDATE_SHARE)', f.candidates, x.all_users, trim_scale((100 * f.candidate_share)::numeric(12, 4)))
            )
        ) AS b (ordinal, breaker, figure, limit_value, is_tripped, can_be_approved, message)
    ),
    about_rows AS (
        SELECT b.*, t.name AS target
        FROM targets AS t
        LEFT JOIN row_sums AS o ON o.target = t.name
        LEFT JOIN usual_days AS y ON y.target = t.name
        CROSS JOIN LATERAL (
            SELECT
                coalesce(o.deleted_24h, 0) AS deleted_24h, coalesce(o.deleted_7d, 0) AS deleted_7d, coalesce(o.deleted_30d, 0) AS deleted_30d,
                coalesce(y.rows_deleted, 0) AS rows_deleted,
                least(50, t.total / 4) AS few_rows,
                greatest(t.total, o.total_7d, 1) AS total_7d,
                greatest(t.total, o.total_30d, 1) AS total_30d,
                greatest(t.total, 1) AS total
        ) AS x
        CROSS JOIN LATERAL (
            VALUES
            (
                9, 'delete-share', t.due / x.total, t.delete_share,
                t.delete_share < 1 AND t.due > t.delete_share * x.total AND t.due > x.few_rows, true,
                format('%s of %s rows of %s are due, limit %s %% (ORPHAN_CLEANER_MAX_DELETE_SHARE)', t.due, t.total, t.name, trim_scale((100 * t.delete_share)::numeric(12, 4)))
            ),
            (
                10, 'delete-share-7d', (x.deleted_7d + t.due) / x.total_7d, t.delete_share_7d,
                t.due > 0 AND t.delete_share_7d < 1 AND x.deleted_7d + t.due > t.delete_share_7d * x.total_7d AND x.deleted_7d + t.due > x.few_rows, true,
                format('%s rows of %s are due or were deleted within 7 days of %s, limit %s %% (ORPHAN_CLEANER_MAX_DELETE_SHARE_7D)',
                    x.deleted_7d + t.due, t.name, x.total_7d, trim_scale((100 * t.delete_share_7d)::numeric(12, 4)))
            ),
            (
                11, 'delete-share-30d', (x.deleted_30d + t.due) / x.total_30d, t.delete_share_30d,
                t.due > 0 AND t.delete_share_30d < 1 AND x.deleted_30d + t.due > t.delete_share_30d * x.total_30d AND x.deleted_30d + t.due > x.few_rows, true,
                format('%s rows of %s are due or were deleted within 30 days of %s, limit %s %% (ORPHAN_CLEANER_MAX_DELETE_SHARE_30D)',
                    x.deleted_30d + t.due, t.name, x.total_30d, trim_scale((100 * t.delete_share_30d)::numeric(12, 4)))
            ),
            (
                12, 'delete-rows', t.due, t.delete_rows, t.due > t.delete_rows, true,
                format('%s rows of %s are due, limit %s (ORPHAN_CLEANER_MAX_DELETE_ROWS)', t.due, t.name, t.delete_rows)
            ),
            (
                13, 'history', x.deleted_24h + t.due, greatest(t.history * x.rows_deleted, 1000, 0.01 * t.total),
                t.due > 0 AND t.history > 0 AND x.deleted_24h + t.due > greatest(t.history * x.rows_deleted, 1000, 0.01 * t.total), true,
                format('%s rows of %s are due or were deleted within 24 hours, limit %s times the median day of %s, 1000 and 1 %% of the table (ORPHAN_CLEANER_MAX_HISTORY)',
                    x.deleted_24h + t.due, t.name, t.history, x.rows_deleted)
            )
        ) AS b (ordinal, breaker, figure, limit_value, is_tripped, can_be_approved, message)
    )
    SELECT b.breaker, b.target, b.figure, b.limit_value, coalesce(b.is_tripped, true), b.can_be_approved, b.message
    FROM (TABLE about_users UNION ALL TABLE about_rows) AS b
    ORDER BY b.ordinal, (SELECT t.n FROM targets AS t WHERE t.name = b.target)
$$;

CREATE FUNCTION orphan_cleaner.run_judge(of_run bigint, of_token uuid, report jsonb)
RETURNS TABLE (breaker text, message text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
SET row_security = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    run orphan_cleaner.runs := orphan_cleaner.run_open(of_run, of_token, 'clean');
    staged record;
    estimate double precision;
    targets jsonb;
    facts jsonb;
    returned bigint;
BEGIN
    IF run.judged_at IS NOT NULL OR run.breaker IS NOT NULL THEN
        -- By this very call, whose answer was lost.
        breaker := run.breaker;
        message := run.error;
        RETURN NEXT;
        RETURN;
    END IF;
    IF (report ->> 'checked_after')::uuid IS DISTINCT FROM (SELECT v.cursor_id FROM orphan_cleaner.coverage AS v)
        AND (report ->> 'checked_after') IS NOT NULL
    THEN
        RAISE EXCEPTION 'run % did not go on where the last one stopped', of_run USING ERRCODE = 'OC007';
    END IF;
    SELECT
        count(*) FILTER (WHERE s.verdict = 'missing') AS missing,
        count(*) FILTER (WHERE s.verdict = 'unknown') AS unknown,
        count(*) FILTER (WHERE s.is_new) AS users_new,
        -- Whom a restore brought back is on its hold, and no news.
        count(*) FILTER (WHERE s.is_new AND NOT s.is_approved AND NOT EXISTS (
            SELECT FROM orphan_cleaner.holds_in_force AS h WHERE h.user_id = s.user_id AND h.run_id IS NOT NULL
        )) AS users_new_judged,
        count(*) FILTER (WHERE s.verdict = 'missing' AND NOT s.is_approved) AS candidates_judged,
        count(*) FILTER (WHERE s.is_restarted) AS users_restarted,
        count(*) FILTER (WHERE s.is_active) AS users_active,
        count(*) FILTER (WHERE s.is_due) AS users_due
    INTO staged
    FROM orphan_cleaner.sightings AS s
    WHERE s.run_id = of_run;
    IF staged.missing <> (report ->> 'users_missing')::bigint OR staged.unknown <> (report ->> 'users_unknown')::bigint THEN
        RAISE EXCEPTION 'staging holds % missing and % unknown users, the run found % and %: a crash of the server emptied it',
            staged.missing, staged.unknown, report ->> 'users_missing', report ->> 'users_unknown'
            USING ERRCODE = 'OC009', HINT = 'The next run starts over: orphan-cleaner run';
    END IF;
    INSERT INTO orphan_cleaner.run_targets (run_id, target, rows_total, rows_due, rows_kept_young, rows_held, rows_approved)
    SELECT of_run, t.name, orphan_cleaner.target_total(t.name, d.rows_due, (report ->> 'users_checked')::bigint), d.rows_due, d.rows_young, d.rows_held, d.rows_approved
    FROM orphan_cleaner.targets_in_order AS t
    CROSS JOIN LATERAL (
        SELECT
            coalesce(sum(s.rows_due[t.n]), 0)::bigint AS rows_due,
            coalesce(sum(s.rows_due[t.n]) FILTER (WHERE s.is_approved), 0)::bigint AS rows_approved,
            coalesce(sum(s.rows_young[t.n]), 0)::bigint AS rows_young,
            coalesce(sum(s.rows_held[t.n]), 0)::bigint AS rows_held
        FROM orphan_cleaner.sightings AS s
        WHERE s.run_id = of_run
    ) AS d;
    SELECT sum(t.rows_total)::double precision, jsonb_object_agg(t.target, jsonb_build_object('rows_due', t.rows_due - t.rows_approved, 'rows_total', t.rows_total))
    INTO estimate, targets
    FROM orphan_cleaner.run_targets AS t
    WHERE t.run_id = of_run;
    facts := report || jsonb_build_object(
        'run_id', of_run, 'users_checked', least((report ->> 'users_checked')::double precision, estimate), 'users_new', staged.users_new_judged, 'users_active', staged.users_active,
        'candidates', staged.candidates_judged, 'targets', targets
    );
    SELECT b.breaker, b.message INTO breaker, message FROM orphan_cleaner.breakers(run.settings, facts) AS b WHERE b.is_tripped LIMIT 1;
    UPDATE orphan_cleaner.runs AS r
    SET heartbeat_at = clock_timestamp(),
        breaker = run_judge.breaker,
        error = run_judge.message,
        users_checked = (report ->> 'users_checked')::bigint, users_missing = staged.missing, users_unknown = staged.unknown,
        users_new = staged.users_new, users_restarted = staged.users_restarted, users_due = staged.users_due,
        candidates = staged.missing,
        members_total = (report ->> 'members_total')::bigint,
        batch_calls = (report ->> 'batch_calls')::bigint,
        checked_after = (report ->> 'checked_after')::uuid, checked_through = (report ->> 'checked_through')::uuid
    WHERE r.run_id = of_run;
    PERFORM orphan_cleaner.run_count(of_run, NULL);
    IF breaker IS NOT NULL THEN
        INSERT INTO orphan_cleaner.refusals AS f (run_id, user_id, is_due)
        SELECT of_run, s.user_id, s.is_due
        FROM orphan_cleaner.sightings AS s
        WHERE s.run_id = of_run AND s.verdict = 'missing' AND (s.is_due OR s.is_new)
        ORDER BY s.user_id;
        DELETE FROM orphan_cleaner.sightings;
        RETURN NEXT;
        RETURN;
    END IF;
    returned := orphan_cleaner.merge(run, report);
    INSERT INTO orphan_cleaner.hours AS h (hour, target, users, users_new, rows_total)
    SELECT date_trunc('hour', now()), '', (report ->> 'users_checked')::bigint, CASE WHEN EXISTS (SELECT FROM orphan_cleaner.hours) THEN staged.users_new_judged ELSE 0 END, 0
    UNION ALL
    SELECT date_trunc('hour', now()), t.target, 0, 0, t.rows_total FROM orphan_cleaner.run_targets AS t WHERE t.run_id = of_run
    ON CONFLICT (hour, target) DO UPDATE
    SET users = excluded.users, users_new = h.users_new + excluded.users_new,
        rows_total = CASE h.rows_total WHEN 0 THEN excluded.rows_total ELSE h.rows_total END;
    IF run.approved_run IS NOT NULL THEN
        UPDATE orphan_cleaner.approvals AS a
        SET used_at = now(), used_by_run = of_run
        WHERE a.run_id = run.approved_run
            AND a.used_at IS NULL
            AND a.revoked_at IS NULL
            AND a.expires_at > now();
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the approval of run % was used, revoked or expired while this run verified', run.approved_run USING ERRCODE = 'OC010';
        END IF;
    END IF;
    UPDATE orphan_cleaner.runs AS r
    SET judged_at = now(), users_returned = returned, candidates = (SELECT count(*) FROM orphan_cleaner.candidates),
        owners_lost = k.at_stake[1], owners_kept = k.at_stake[2], conversations_emptied = k.at_stake[3]
    FROM (
        SELECT orphan_cleaner.members_at_stake(
            ARRAY(SELECT s.user_id FROM orphan_cleaner.sightings AS s WHERE s.run_id = of_run AND s.is_due),
            now() - make_interval(secs => (run.settings ->> 'retention')::double precision)
        ) AS at_stake
        -- Counted once, and not for each of the three columns.
        OFFSET 0
    ) AS k
    WHERE r.run_id = of_run;
    RETURN NEXT;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.breakers IS 'Every breaker with its figure and its limit, in the order in which they are judged; the first one that is tripped refuses the run. With a history, the days of many databases, it judges their sums.';
COMMENT ON FUNCTION orphan_cleaner.run_judge IS 'Judges what a run has staged. Refused: names the breaker, keeps what an approval would cover, leaves the ledger as it was. Passed: writes the ledger.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION orphan_cleaner.run_judge, orphan_cleaner.breakers;
