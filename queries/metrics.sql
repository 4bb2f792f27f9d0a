-- name: MetricsState :one
-- What the metrics of every runner say: the runs, the ledger's size, the switches. Counts no member.
-- Locks: ACCESS SHARE on our tables.
-- Index: runs_pkey, runs_succeeded, runs_refused, runs_one_open, rechecks_alive, candidates_blocked, pauses_one_in_force; ledger and coverage are read whole.
-- Rows: a few runs, backwards; the ledger, one row per missing user; a few of the rest.
SELECT
    coalesce((
        SELECT extract(EPOCH FROM r.finished_at)
        FROM orphan_cleaner.runs AS r
        WHERE r.kind = 'clean'
            AND r.state = 'succeeded'
        ORDER BY r.run_id DESC
        LIMIT 1
    ), 0)::float8 AS last_success,
    coalesce((
        SELECT extract(EPOCH FROM r.started_at)
        FROM orphan_cleaner.runs AS r
        WHERE r.kind = 'clean'
        ORDER BY r.run_id DESC
        LIMIT 1
    ), 0)::float8 AS last_attempt,
    (coalesce((a.totals ->> 'members_deleted')::bigint, 0) + coalesce(o.members_deleted, 0))::bigint AS members_deleted,
    (coalesce((a.totals ->> 'members_restored')::bigint, 0) + coalesce(o.members_restored, 0))::bigint AS members_restored,
    (coalesce((a.totals ->> 'batch_calls')::bigint, 0) + coalesce(o.batch_calls, 0))::bigint AS batch_calls,
    (o.run_id IS NOT NULL)::boolean AS run_open,
    coalesce(f.users_checked, 0)::bigint AS users_checked,
    coalesce(f.users_unknown, 0)::bigint AS users_unknown,
    coalesce(f.members_held, 0)::bigint AS members_held,
    coalesce(f.members_kept_young, 0)::bigint AS members_kept_young,
    coalesce(t.breaker, '')::text AS tripped,
    coalesce((
        SELECT extract(EPOCH FROM least(
            (
                SELECT c.started_at
                FROM orphan_cleaner.runs AS c
                WHERE c.run_id >= v.previous_run_id
                    AND c.judged_at IS NOT NULL
                    AND (v.cursor_id IS NULL OR c.checked_through IS NULL OR c.checked_through > v.cursor_id)
                ORDER BY c.run_id
                LIMIT 1
            ),
            (SELECT min(u.unknown_since) FROM orphan_cleaner.unknowns AS u)
        ))
        FROM orphan_cleaner.coverage AS v
        -- Otherwise some were never checked.
        WHERE v.previous_run_id IS NOT NULL
    ), 0)::float8 AS everybody_checked,
    (SELECT count(*) FROM orphan_cleaner.candidates)::bigint AS candidate_users,
    (SELECT count(*) FROM orphan_cleaner.rechecks WHERE alive_at IS NOT NULL)::bigint AS resurrected_users,
    (SELECT count(*) FROM orphan_cleaner.candidates WHERE blocked_since IS NOT NULL)::bigint AS blocked_users,
    (p.paused_at IS NOT NULL)::boolean AS paused,
    coalesce(extract(EPOCH FROM now() - p.paused_at), 0)::float8 AS pause_age
FROM orphan_cleaner.run_totals() AS a (totals)
LEFT JOIN orphan_cleaner.runs AS o ON o.state = 'running'
LEFT JOIN LATERAL (
    SELECT users_checked, users_unknown, members_held, members_kept_young
    FROM orphan_cleaner.runs
    WHERE kind = 'clean'
        AND state NOT IN ('running', 'abandoned')
    ORDER BY run_id DESC
    LIMIT 1
) AS f ON true
LEFT JOIN LATERAL (
    -- Until it is settled: a refused run counts as long as no later one succeeded.
    SELECT refused.breaker
    FROM orphan_cleaner.runs AS refused
    WHERE refused.kind = 'clean'
        AND refused.state = 'refused'
        AND refused.run_id > coalesce((
            SELECT max(settled.run_id)
            FROM orphan_cleaner.runs AS settled
            WHERE settled.kind = 'clean' AND settled.state = 'succeeded'
        ), 0)
    ORDER BY refused.run_id DESC
    LIMIT 1
) AS t ON true
LEFT JOIN orphan_cleaner.pauses AS p ON p.resumed_at IS NULL;

-- name: MetricsRuns :many
-- How many runs of each kind ended in each state, those that never happened too.
-- Locks: ACCESS SHARE on runs. Index: runs_pkey, backwards. Rows: the last run, which has the sums of all before.
SELECT
    k.kind::text AS kind,
    s.state::text AS state,
    coalesce((t.totals ->> (k.kind || ' ' || s.state))::bigint, 0)::bigint AS runs
FROM unnest(ARRAY['clean', 'restore']) AS k (kind)
CROSS JOIN unnest(ARRAY['succeeded', 'incomplete', 'refused', 'failed', 'paused', 'abandoned']) AS s (state)
CROSS JOIN orphan_cleaner.run_totals() AS t (totals)
ORDER BY k.kind, s.state;

-- name: MetricsTargets :many
-- What runs did with each target: all of them, and the last one that was judged.
-- Locks: ACCESS SHARE on targets, runs and run_targets. Index: run_targets_pkey. Rows: a few a target; of runs as MetricsRuns.
SELECT
    t.name AS target,
    coalesce((s.totals ->> ('rows_deleted ' || t.name))::bigint, 0)::bigint AS deleted_total,
    coalesce(l.rows_due, 0)::bigint AS due,
    coalesce(l.rows_deleted, 0)::bigint AS deleted,
    coalesce(l.rows_kept_young, 0)::bigint AS kept_young,
    coalesce(l.rows_held, 0)::bigint AS held,
    coalesce(l.rows_changed, 0)::bigint AS changed,
    coalesce(l.rows_blocked, 0)::bigint AS blocked
FROM orphan_cleaner.targets_in_order AS t
CROSS JOIN orphan_cleaner.run_totals() AS s (totals)
LEFT JOIN orphan_cleaner.run_targets AS l
    ON l.target = t.name
    AND l.run_id = (SELECT max(m.run_id) FROM orphan_cleaner.run_targets AS m)
ORDER BY t.n;

-- name: MetricsPartitions :many
-- For how many days after today each partitioned table has its partitions, without a gap; -1: not even for today.
-- Looks 62 days ahead.
-- Locks: none beyond the catalog. Rows: 130 a target.
SELECT
    t.parent::text AS table_name,
    (coalesce(min(d.ahead) FILTER (WHERE i.inhrelid IS NULL), 63) - 1)::bigint AS days_ahead
FROM (
    SELECT split_part(o.audit_table, '.', 2) AS parent, o.audit_table AS evidence, 'YYYYMM' AS pattern
    FROM orphan_cleaner.targets AS o
    UNION ALL
    SELECT split_part(o.backup_table, '.', 2), o.backup_table, 'YYYYMMDD'
    FROM orphan_cleaner.targets AS o
) AS t
CROSS JOIN generate_series(0, 62) AS d (ahead)
LEFT JOIN pg_catalog.pg_inherits AS i
    ON i.inhparent = to_regclass(t.evidence)
    AND i.inhrelid = to_regclass(t.evidence || '_' || to_char((now() AT TIME ZONE 'UTC') + make_interval(days => d.ahead), t.pattern))
GROUP BY t.parent
ORDER BY t.parent;

-- name: MetricsDue :one
-- What a run would delete now: members older than the retention, whose user's clock is past it, and
-- no hold on either. The audit's DEFAULT partition is counted up to 100,000 rows.
-- Locks: ACCESS SHARE on conversation_members and our tables.
-- Index: conversation_members_user_id. Rows: the ledger, and the members of due users.
SELECT
    count(*)::bigint AS due_users,
    coalesce(sum(m.members), 0)::bigint AS due_members,
    -- Those that count in a breaker.
    coalesce(sum(m.members) FILTER (WHERE c.approved_run IS NULL), 0)::bigint AS due_members_judged,
    coalesce(extract(EPOCH FROM now() - (min(c.first_missing_at) + @retention::interval)), 0)::float8 AS oldest_due_age,
    (
        SELECT count(*)
        FROM (SELECT FROM public.conversation_members_audit_default LIMIT 100000) AS rows_there
    )::bigint AS audit_default_rows
FROM orphan_cleaner.candidates AS c
    -- User by user, by the index: a join may well be planned as a scan of the table.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM public.conversation_members AS m
    WHERE m.user_id = c.user_id
        AND m.joined_at < now() - @retention::interval
        -- NOT IN is hashed once, whatever the statistics say of holds. It is never null here.
        AND m.conversation_id NOT IN (
            SELECT h.conversation_id
            FROM orphan_cleaner.holds_in_force AS h
            WHERE h.conversation_id IS NOT NULL
        )
) AS m
WHERE c.first_missing_at <= now() - @retention::interval
    AND c.user_id NOT IN (
        SELECT h.user_id
        FROM orphan_cleaner.holds_in_force AS h
        WHERE h.user_id IS NOT NULL
    )
    AND m.members > 0;

-- name: MetricsBreakers :many
-- The figures and limits of the breakers as they are now, by the function that judges a run: the windows with the members that
-- are due now, the last run's share of newly missing users. What a refused run found counts until a later run is judged. No
-- row before the first judged run. Counts no member.
-- Locks: ACCESS SHARE on our tables.
-- Index: runs_pkey, backwards; candidates and hours are read whole.
-- Rows: the ledger; an hour each of the audit's window.
WITH judged AS (
    SELECT
        r.settings, r.users_checked, r.members_total, r.judged_at,
        CASE WHEN r.judged_at IS NULL THEN r.users_new ELSE 0 END AS refused_new,
        CASE WHEN r.judged_at IS NULL THEN r.members_due ELSE 0 END AS refused_due,
        r.users_new
    FROM orphan_cleaner.runs AS r
    WHERE r.kind = 'clean'
        AND (r.judged_at IS NOT NULL OR r.breaker IS NOT NULL)
    ORDER BY r.run_id DESC
    LIMIT 1
),
facts AS (
    SELECT
        j.*,
        jsonb_build_object(
            'users_checked', j.users_checked,
            'users_new', j.refused_new,
            'candidates', j.refused_new + (SELECT count(*) FROM orphan_cleaner.candidates AS c WHERE c.approved_run IS NULL),
            'targets', (
                SELECT jsonb_object_agg(t.name, jsonb_build_object(
                    'rows_due', CASE t.name WHEN 'conversation_members' THEN greatest(j.refused_due, @due_members::bigint) ELSE 0 END,
                    -- Given, so that nothing is counted.
                    'rows_total', coalesce(
                        (SELECT h.rows_total FROM orphan_cleaner.hours AS h WHERE h.target = t.name AND h.rows_total > 0 ORDER BY h.hour DESC LIMIT 1),
                        CASE t.name WHEN 'conversation_members' THEN greatest(j.members_total, j.users_checked) ELSE 0 END
                    )
                ))
                FROM orphan_cleaner.targets AS t
            )
        ) AS now
    FROM judged AS j
)
SELECT
    b.breaker::text AS breaker,
    b.figure::float8 AS figure,
    coalesce(b.limit_value, 0)::float8 AS limit_value,
    coalesce(
        CASE b.breaker
            WHEN 'history' THEN (f.settings ->> 'history')::float8 > 0
            WHEN 'delete-rows' THEN b.limit_value IS NOT NULL
            ELSE b.limit_value < 1
        END, false
    )::boolean AS is_on,
    -- For new-missing-rate: users who went missing within a day and a week, and how many usually do.
    (f.refused_new + coalesce((SELECT sum(h.users_new) FROM orphan_cleaner.hours AS h WHERE h.target = '' AND h.hour > now() - interval '1 day'), 0))::float8 AS new_1d,
    coalesce(m.said[1], 'NaN')::float8 AS new_7d,
    coalesce(m.said[3]::float8 / m.said[2]::float8, 'NaN')::float8 AS usual_1d,
    coalesce(m.said[3], 'NaN')::float8 AS usual_7d
FROM facts AS f
CROSS JOIN LATERAL (
    VALUES
    (true, f.now),
    -- The windows have the last run's finds already; its own share is of them alone. The hour's sum leaves out what the judgement did.
    (false, f.now || jsonb_build_object('users_new', greatest(
        f.refused_new,
        least(f.users_new, (SELECT h.users_new FROM orphan_cleaner.hours AS h WHERE h.target = '' AND h.hour <= f.judged_at ORDER BY h.hour DESC LIMIT 1))
    )))
) AS k (is_now, facts)
CROSS JOIN LATERAL orphan_cleaner.breakers(f.settings, k.facts) AS b
    -- The function returns the usual within its sentence only.
CROSS JOIN LATERAL (
    SELECT regexp_match(b.message, '^(\S+) users are newly missing within (\S+) days, limit twice the usual (\S+) and') AS said
) AS m
WHERE k.is_now = (b.breaker <> 'new-missing-share')
    AND b.target IN ('', 'conversation_members')
    -- Nothing is known of the others until a run checks.
    AND b.breaker NOT IN ('clock', 'canary-alive', 'canary-dead', 'recently-active', 'user-count');

-- name: MetricsCandidateMembers :one
-- The members of all candidates, due or not.
-- Locks: ACCESS SHARE on conversation_members and candidates.
-- Index: conversation_members_user_id. Rows: the ledger and its members, never the whole table.
SELECT coalesce(sum(m.members), 0)::bigint AS members
FROM orphan_cleaner.candidates AS c
    -- User by user, by the index.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM public.conversation_members AS m
    WHERE m.user_id = c.user_id
) AS m;
