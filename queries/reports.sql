-- name: ReportRange :one
-- The last whole month, UTC, the moment until which there is something to report, and whether a run began before that month ended.
-- Locks: ACCESS SHARE on runs. Index: runs_started_at. Rows: one.
SELECT
    ((date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month') AT TIME ZONE 'UTC')::timestamptz AS since,
    (date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')::timestamptz AS until,
    coalesce(
        (SELECT min(r.started_at) FROM orphan_cleaner.runs AS r) < date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', false
    )::boolean AS has_runs,
    now()::timestamptz AS database_time;

-- name: ReportDays :many
-- What the runs that began in a span did, by UTC day of their beginning; the last row, without a day, is
-- the whole span. Percentiles come from the sum of the histograms, each by the upper bound of its
-- element: at most 19 % too high, never too low.
-- Locks: ACCESS SHARE on runs. Index: runs_started_at. Rows: the runs of the span.
WITH span AS (
    SELECT @since::timestamptz AS since, @until::timestamptz AS until
),
begun AS (
    SELECT
        (r.started_at AT TIME ZONE 'UTC')::date AS day,
        r.run_id, r.kind, r.state, r.users_checked, r.batch_calls, r.members_deleted, r.members_restored,
        r.owners_lost, r.conversations_emptied, r.members_held, r.members_kept_young, r.users_blocked, r.call_ms_buckets, r.call_ms_max
    FROM span AS s
    JOIN orphan_cleaner.runs AS r ON r.started_at >= s.since AND r.started_at < s.until
),
listed AS (
    -- A day without a run is worth a line, a day to come is not.
    SELECT d::date AS day
    FROM span AS s
    CROSS JOIN LATERAL generate_series(
        date_trunc('day', s.since AT TIME ZONE 'UTC'),
        least(s.until - interval '1 microsecond', now()) AT TIME ZONE 'UTC',
        interval '1 day'
    ) AS d
    UNION ALL
    SELECT NULL
),
counted AS (
    SELECT
        b.day,
        count(*) FILTER (WHERE b.kind = 'clean') AS runs,
        count(*) FILTER (WHERE b.kind = 'clean' AND b.state = 'refused') AS refused,
        count(*) FILTER (WHERE b.kind = 'clean' AND b.state = 'incomplete') AS incomplete,
        count(*) FILTER (WHERE b.kind = 'clean' AND b.state IN ('failed', 'abandoned')) AS failed,
        sum(b.users_checked) FILTER (WHERE b.kind = 'clean') AS users_checked,
        sum(b.batch_calls) FILTER (WHERE b.kind = 'clean') AS batch_calls,
        -- Reverts delete, too: without them deleted and restored would not add up.
        sum(b.members_deleted) AS members_deleted,
        sum(b.members_restored) AS members_restored,
        sum(b.owners_lost) AS owners_lost,
        sum(b.conversations_emptied) AS conversations_emptied,
        max(b.call_ms_max) AS slowest_ms
    FROM begun AS b
    GROUP BY GROUPING SETS ((b.day), ())
),
kept AS (
    -- Not a sum: every run finds the same members again.
    SELECT DISTINCT ON (g.day) g.day, g.members_held, g.members_kept_young, g.users_blocked
    FROM (
        SELECT b.day, b.run_id, b.members_held, b.members_kept_young, b.users_blocked
        FROM begun AS b
        WHERE b.kind = 'clean' AND b.state IN ('succeeded', 'incomplete', 'refused')
        UNION ALL
        SELECT NULL, b.run_id, b.members_held, b.members_kept_young, b.users_blocked
        FROM begun AS b
        WHERE b.kind = 'clean' AND b.state IN ('succeeded', 'incomplete', 'refused')
    ) AS g
    ORDER BY g.day, g.run_id DESC
),
elements AS (
    SELECT b.day, e.element, sum(e.calls) AS calls
    FROM begun AS b
    CROSS JOIN LATERAL unnest(b.call_ms_buckets) WITH ORDINALITY AS e (calls, element)
    GROUP BY GROUPING SETS ((b.day, e.element), (e.element))
),
ranked AS (
    SELECT
        e.day,
        e.element,
        sum(e.calls) OVER (PARTITION BY e.day ORDER BY e.element) AS calls_up_to,
        sum(e.calls) OVER (PARTITION BY e.day) AS calls
    FROM elements AS e
),
percentiles AS (
    SELECT
        k.day,
        min(k.element) FILTER (WHERE k.calls_up_to >= 0.50 * k.calls) AS p50,
        min(k.element) FILTER (WHERE k.calls_up_to >= 0.99 * k.calls) AS p99
    FROM ranked AS k
    WHERE k.calls > 0
    GROUP BY k.day
)
SELECT
    coalesce(to_char(l.day, 'YYYY-MM-DD'), '')::text AS day,
    coalesce(c.runs, 0)::bigint AS runs,
    coalesce(c.refused, 0)::bigint AS refused,
    coalesce(c.incomplete, 0)::bigint AS incomplete,
    coalesce(c.failed, 0)::bigint AS failed,
    coalesce(c.users_checked, 0)::bigint AS users_checked,
    coalesce(c.batch_calls, 0)::bigint AS batch_calls,
    coalesce(c.members_deleted, 0)::bigint AS members_deleted,
    coalesce(c.members_restored, 0)::bigint AS members_restored,
    coalesce(c.owners_lost, 0)::bigint AS owners_lost,
    coalesce(c.conversations_emptied, 0)::bigint AS conversations_emptied,
    coalesce(k.members_held, 0)::bigint AS members_held,
    coalesce(k.members_kept_young, 0)::bigint AS members_kept_young,
    coalesce(k.users_blocked, 0)::bigint AS users_blocked,
    coalesce(c.slowest_ms, 0)::float8 AS slowest_ms,
    -- The last element has no bound of its own.
    coalesce(CASE WHEN p.p50 > 60 THEN c.slowest_ms ELSE least(power(2, (p.p50 - 1) / 4.0), c.slowest_ms) END, 0)::float8 AS p50_ms,
    coalesce(CASE WHEN p.p99 > 60 THEN c.slowest_ms ELSE least(power(2, (p.p99 - 1) / 4.0), c.slowest_ms) END, 0)::float8 AS p99_ms
FROM listed AS l
LEFT JOIN counted AS c ON c.day IS NOT DISTINCT FROM l.day
LEFT JOIN kept AS k ON k.day IS NOT DISTINCT FROM l.day
LEFT JOIN percentiles AS p ON p.day IS NOT DISTINCT FROM l.day
ORDER BY l.day NULLS LAST;

-- name: ReportTargets :many
-- What the runs that began in a span, reverts among them, deleted of each target, or updated, and restored.
-- Locks: ACCESS SHARE on targets, runs, run_targets and restores. Index: runs_started_at, run_targets_pkey, restores_pkey.
-- Rows: the runs of the span, a row a target each, and the rows of its restores.
WITH begun AS MATERIALIZED (
    SELECT r.run_id, r.kind
    FROM orphan_cleaner.runs AS r
    WHERE r.started_at >= @since::timestamptz
        AND r.started_at < @until::timestamptz
)
SELECT
    t.name AS target,
    coalesce((
        SELECT sum(r.rows_deleted)
        FROM (
            -- In one piece, not run by run; while the clock was wrong others began between them.
            SELECT a.run_id, a.target, a.rows_deleted
            FROM orphan_cleaner.run_targets AS a
            WHERE a.run_id BETWEEN (SELECT min(b.run_id) FROM begun AS b) AND (SELECT max(b.run_id) FROM begun AS b)
            OFFSET 0
        ) AS r
        WHERE r.run_id IN (SELECT b.run_id FROM begun AS b)
            AND r.target = t.name
    ), 0)::bigint AS rows_deleted,
    (
        SELECT count(*) FILTER (WHERE o.target = t.name)
        FROM begun AS b
        CROSS JOIN LATERAL (
            SELECT l.target
            FROM orphan_cleaner.restores AS l
            WHERE l.run_id = b.run_id
                AND l.state IN ('restored', 'reverted')
            OFFSET 0
        ) AS o
        WHERE b.kind = 'restore'
    )::bigint AS rows_restored
FROM orphan_cleaner.targets_in_order AS t
ORDER BY t.n;

-- name: ReportSizes :many
-- Which conversations the runs that began in a span took members from or restored them to, by the size
-- that each had before the span: members who had joined by then and are there, or have been deleted since.
-- Locks: ACCESS SHARE on conversation_members, runs, restores and the audit.
-- Index: conversation_members_audit_deleted_at (BRIN), conversation_members_pkey, restores_pkey.
-- Rows: the audit from the span on, and the members of the conversations touched.
WITH begun AS (
    SELECT r.run_id, r.kind
    FROM orphan_cleaner.runs AS r
    WHERE r.started_at >= @since::timestamptz
        AND r.started_at < @until::timestamptz
),
gone AS MATERIALIZED (
    -- Read once, whatever it is joined with.
    SELECT a.conversation_id, a.user_id, a.joined_at, a.run_id
    FROM public.conversation_members_audit AS a
    WHERE a.deleted_at >= @since::timestamptz
),
touched AS (
    SELECT t.conversation_id, sum(t.deleted) AS deleted, sum(t.restored) AS restored
    FROM (
        SELECT g.conversation_id, count(*) AS deleted, 0 AS restored
        FROM gone AS g
        WHERE g.run_id IN (SELECT b.run_id FROM begun AS b)
        GROUP BY g.conversation_id
        UNION ALL
        SELECT o.conversation_id, 0, count(*)
        FROM begun AS b
            -- Restore by restore, by the index.
        CROSS JOIN LATERAL (
            SELECT l.conversation_id, l.target
            FROM orphan_cleaner.restores AS l
            WHERE l.run_id = b.run_id
                AND l.state IN ('restored', 'reverted')
            OFFSET 0
        ) AS o
        WHERE b.kind = 'restore'
            AND o.target = 'conversation_members'
        GROUP BY o.conversation_id
    ) AS t
    GROUP BY t.conversation_id
),
sized AS (
    SELECT t.conversation_id, t.deleted, t.restored, count(DISTINCT b.user_id) AS size
    FROM touched AS t
    LEFT JOIN (
        SELECT m.conversation_id, m.user_id
        FROM touched AS n
            -- Conversation by conversation, by the index.
        CROSS JOIN LATERAL (
            SELECT i.conversation_id, i.user_id
            FROM public.conversation_members AS i
            WHERE i.conversation_id = n.conversation_id
                AND i.joined_at < @since::timestamptz
            OFFSET 0
        ) AS m
        UNION ALL
        SELECT g.conversation_id, g.user_id
        FROM touched AS n
        JOIN gone AS g ON g.conversation_id = n.conversation_id
        WHERE g.joined_at < @since::timestamptz
    ) AS b ON b.conversation_id = t.conversation_id
    GROUP BY t.conversation_id, t.deleted, t.restored
),
classes AS (
    -- 0: nobody had joined before the span.
    SELECT 1 AS ordinal, '0' AS name, 0 AS smallest, 0 AS largest
    UNION ALL SELECT 2, '1-2', 1, 2
    UNION ALL SELECT 3, '3-10', 3, 10
    UNION ALL SELECT 4, '11-100', 11, 100
    UNION ALL SELECT 5, '101-1000', 101, 1000
    UNION ALL SELECT 6, '>1000', 1001, 2147483647
)
SELECT
    c.name::text AS size,
    count(s.conversation_id)::bigint AS conversations,
    coalesce(sum(s.deleted), 0)::bigint AS members_deleted,
    coalesce(sum(s.restored), 0)::bigint AS members_restored
FROM classes AS c
LEFT JOIN sized AS s ON s.size BETWEEN c.smallest AND c.largest
GROUP BY c.ordinal, c.name
HAVING c.ordinal > 1 OR count(s.conversation_id) > 0
ORDER BY c.ordinal;
