-- name: RefusalStore :execrows
-- Keeps the users that a refused run found due or newly missing: what an approval of it is about.
-- Locks: ROW EXCLUSIVE on orphan_refusals. Index: none: staging and the ledger are read whole. Rows: the missing users.
INSERT INTO orphan_refusals (run_id, user_id, is_due)
SELECT s.run_id, s.user_id, k.is_due
FROM orphan_sightings AS s
LEFT JOIN orphan_candidates AS c ON c.user_id = s.user_id
CROSS JOIN LATERAL (
    SELECT orphan_clock_start(c.first_missing_at, c.last_missing_at, s.shadow_deleted_at, @max_gap::interval)
        <= now() - @retention::interval AS is_due
) AS k
WHERE s.run_id = @run_id
    AND s.verdict = 'missing'
    AND (k.is_due OR c.user_id IS NULL);

-- name: RefusalUnsettled :many
-- The last refused run, unless a later run succeeded.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey, backwards. Rows: at most one.
SELECT r.run_id, r.breaker, r.error, r.finished_at
FROM orphan_runs AS r
WHERE r.state = 'refused'
    AND NOT EXISTS (
        SELECT
        FROM orphan_runs AS later
        WHERE later.run_id > r.run_id AND later.state = 'succeeded'
    )
ORDER BY r.run_id DESC
LIMIT 1;

-- name: RefusalSummary :one
-- What approving a refused run would let go.
-- Locks: ACCESS SHARE on conversation_members. Index: orphan_refusals_pkey, conversation_members_user_id.
-- Rows: the members of the due users.
SELECT
    r.state,
    r.breaker,
    (SELECT count(*) FROM orphan_refusals AS f WHERE f.run_id = r.run_id AND f.is_due)::bigint AS users_due,
    (SELECT count(*) FROM orphan_refusals AS f WHERE f.run_id = r.run_id AND NOT f.is_due)::bigint AS users_new,
    m.members::bigint AS members,
    m.conversations::bigint AS conversations
FROM orphan_runs AS r
CROSS JOIN LATERAL (
    SELECT count(*) AS members, count(DISTINCT m.conversation_id) AS conversations
    FROM orphan_refusals AS f
        -- User by user, by the index: a join may well be planned as a scan of the table.
    CROSS JOIN LATERAL (
        SELECT i.conversation_id
        FROM conversation_members AS i
        WHERE i.user_id = f.user_id
        OFFSET 0
    ) AS m
    WHERE f.run_id = r.run_id AND f.is_due
) AS m
WHERE r.run_id = @run_id;

-- name: RefusalLargest :many
-- The users of a refused run with the most members.
-- Locks: ACCESS SHARE on conversation_members. Index: orphan_refusals_pkey, conversation_members_user_id. Rows: the members of the due users.
SELECT f.user_id, m.members
FROM orphan_refusals AS f
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM conversation_members AS i
    WHERE i.user_id = f.user_id
) AS m
WHERE f.run_id = @run_id
    AND f.is_due
    AND m.members > 0
ORDER BY m.members DESC, f.user_id
LIMIT 10;

-- name: RefusalPrune :execrows
-- Forgets the users of refused runs that nobody will approve any more, max_rows at a time.
-- Locks: ROW EXCLUSIVE on orphan_refusals. Index: orphan_refusals_pkey. Rows: max_rows.
DELETE FROM orphan_refusals AS f
USING (
    SELECT o.run_id, o.user_id
    FROM orphan_refusals AS o
    JOIN orphan_runs AS r ON r.run_id = o.run_id
    WHERE r.finished_at < now() - @keep::interval
        -- An approval that a run may still use, or is using.
        AND NOT EXISTS (
            SELECT
            FROM orphan_approvals AS a
            LEFT JOIN orphan_runs AS u ON u.run_id = a.used_by_run
            WHERE a.run_id = o.run_id
                AND a.revoked_at IS NULL
                AND (a.used_at IS NULL AND a.expires_at > now() OR u.state = 'running')
        )
    ORDER BY o.run_id, o.user_id
    LIMIT @max_rows::bigint
) AS old
WHERE f.run_id = old.run_id
    AND f.user_id = old.user_id;
