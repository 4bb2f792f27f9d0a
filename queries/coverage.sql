-- name: CoverageShare :many
-- Whom a run asks about: ranges of user ids from from_user up to, and without, until_user (zeros: the end), of
-- each at most max_users (0: all). With since as the time from the run that checked last to now, the rest
-- of check_every is shared out so that the next run, and one more if it is missed, still come in time:
--   due   is a range that no run checked yet, that is unknown, or whose turn (check_every - 2 * since) is
--         over: whole, however much it has grown;
--   pace  is since / turn of all users, in whole batches: what due ranges leave of it goes to the ranges
--         checked longest ago. It spreads what would be due at once over the time until then.
-- A turn no longer than since makes everybody due; so does check_every 0.
-- Locks: ACCESS SHARE on orphan_coverage. Index: none: all is read.
-- Rows: as many as there are runs in check_every, or so; two more for each batch that was void.
WITH ranges AS (
    SELECT
        c.from_user,
        lead(c.from_user) OVER (ORDER BY c.from_user) AS until_user,
        c.users,
        c.is_unknown,
        extract(EPOCH FROM now() - c.checked_at) AS age
    FROM (
        SELECT from_user, checked_at, users, is_unknown
        FROM orphan_coverage
        UNION ALL
        -- Below the first row nobody was ever checked.
        SELECT '00000000-0000-0000-0000-000000000000', NULL, 0, false
        WHERE NOT EXISTS (SELECT FROM orphan_coverage WHERE from_user = '00000000-0000-0000-0000-000000000000')
    ) AS c
),
known AS (
    SELECT
        greatest(min(age), 0) AS since,
        -- In seconds: an interval with days in it would be longer or shorter by DST.
        extract(EPOCH FROM @check_every::interval) - 2 * greatest(min(age), 0) AS turn,
        sum(users) AS users
    FROM ranges
),
turns AS (
    SELECT
        r.from_user,
        r.until_user,
        r.users,
        r.age,
        r.is_unknown OR coalesce(k.turn <= k.since OR r.age >= k.turn, true) AS is_due,
        k.users AS all_users,
        CASE WHEN k.turn > 0 THEN greatest(ceil(k.users * k.since / k.turn / @batch_size::bigint), 1) * @batch_size::bigint END AS pace
    FROM ranges AS r
    CROSS JOIN known AS k
),
queue AS (
    SELECT
        t.from_user,
        t.until_user,
        t.users,
        t.is_due,
        t.all_users,
        t.pace - coalesce(
            sum(t.users) OVER (ORDER BY t.is_due DESC, t.age DESC, t.from_user ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
        ) AS room
    FROM turns AS t
)
SELECT
    q.from_user::uuid AS from_user,
    coalesce(q.until_user, '00000000-0000-0000-0000-000000000000')::uuid AS until_user,
    CASE WHEN q.is_due THEN 0 ELSE q.room END::bigint AS max_users,
    q.users::bigint AS users,
    q.all_users::bigint AS all_users
FROM queue AS q
WHERE q.is_due
    OR q.room > 0
ORDER BY q.from_user;

-- name: CoverageWrite :execrows
-- Writes down what a run has asked about, part by part in the order of ids: checked now, or as before, because
-- no correct answer came (unknown) or because it was not its turn. The parts take the place of the rows they cover.
-- An until_user of nothing but zeros is the end.
-- Locks: ROW EXCLUSIVE on orphan_coverage; ROW SHARE on orphan_runs, for the foreign key.
-- Index: orphan_coverage_pkey, or none: all of it is small. Rows: as many as parts are given, mostly two or three.
WITH parts AS (
    SELECT
        p.from_user,
        nullif(p.until_user, '00000000-0000-0000-0000-000000000000') AS until_user,
        p.users,
        p.is_checked,
        p.is_unknown,
        r.run_id,
        r.started_at
    FROM (
        SELECT
            unnest(@from_users::uuid [])::uuid AS from_user,
            unnest(@until_users::uuid [])::uuid AS until_user,
            unnest(@users::bigint [])::bigint AS users,
            unnest(@are_checked::boolean [])::boolean AS is_checked,
            unnest(@are_unknown::boolean [])::boolean AS is_unknown
    ) AS p
    JOIN orphan_runs AS r ON r.run_id = @run_id AND r.state = 'running'
),
covered AS (
    DELETE FROM orphan_coverage AS c
    USING parts AS p
    WHERE c.from_user > p.from_user
        AND (c.from_user < p.until_user OR p.until_user IS NULL)
)
INSERT INTO orphan_coverage AS c (from_user, checked_at, run_id, users, is_unknown)
SELECT
    p.from_user,
    -- When the run began: no user of it was asked about before.
    CASE WHEN p.is_checked THEN p.started_at ELSE o.checked_at END,
    CASE WHEN p.is_checked THEN p.run_id ELSE o.run_id END,
    p.users,
    p.is_unknown
FROM parts AS p
LEFT JOIN LATERAL (
    SELECT b.checked_at, b.run_id
    FROM orphan_coverage AS b
    WHERE b.from_user <= p.from_user
    ORDER BY b.from_user DESC
    LIMIT 1
) AS o ON true
ON CONFLICT (from_user) DO UPDATE
SET checked_at = excluded.checked_at,
    run_id = excluded.run_id,
    users = excluded.users,
    is_unknown = excluded.is_unknown;

-- name: CoverageState :many
-- How far the checking is; no row before the first: whether every user has been asked about, and when the run
-- began since which that is so; how many users there are, of how many the last run knew, and of how many it did not.
-- Locks: ACCESS SHARE on orphan_coverage. Index: none: all is read. Rows: one.
SELECT
    (bool_and(c.checked_at IS NOT NULL) AND bool_or(c.from_user = '00000000-0000-0000-0000-000000000000'))::boolean AS is_whole,
    coalesce(min(c.checked_at), now())::timestamptz AS checked_since,
    coalesce(l.checked_at, now())::timestamptz AS checked_last,
    sum(c.users)::bigint AS users,
    coalesce(sum(c.users) FILTER (WHERE c.checked_at = l.checked_at), 0)::bigint AS users_last,
    coalesce(sum(c.users) FILTER (WHERE c.is_unknown), 0)::bigint AS users_unknown
FROM orphan_coverage AS c
CROSS JOIN (SELECT max(checked_at) AS checked_at FROM orphan_coverage) AS l
GROUP BY l.checked_at;

-- name: CandidateMemberPage :many
-- The next candidates from from_user on, with the number of their members.
-- Locks: ACCESS SHARE on orphan_candidates and conversation_members.
-- Index: orphan_candidates_pkey, in order; conversation_members_user_id, mostly index-only. Rows: max_users and their members.
SELECT c.user_id, m.members
FROM orphan_candidates AS c
    -- User by user, by the index: a join may well be planned as a scan of the table.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM conversation_members AS m
    WHERE m.user_id = c.user_id
) AS m
WHERE c.user_id >= @from_user
    AND c.user_id <= @through_user
ORDER BY c.user_id
LIMIT @max_users::bigint;
