-- name: MemberUserPage :many
-- The next distinct user ids from from_user on, with the number of their members.
-- Locks: ACCESS SHARE on conversation_members.
-- Index: conversation_members_user_id, in order, mostly index-only. Rows: the members of max_users users.
SELECT user_id, count(*) AS members
FROM conversation_members
WHERE user_id >= @from_user
    AND user_id <= @through_user
GROUP BY user_id
ORDER BY user_id
LIMIT @max_users::bigint;

-- name: MemberTotals :one
-- How many users and members there are; asked only when a run looks like being refused.
-- Locks: ACCESS SHARE on conversation_members.
-- Index: conversation_members_user_id, mostly index-only. Rows: all members.
SELECT
    count(*)::bigint AS users,
    coalesce(sum(u.members), 0)::bigint AS members
FROM (
    SELECT count(*) AS members
    FROM conversation_members
    GROUP BY user_id
) AS u;

-- name: MemberDeleteDue :one
-- Deletes up to max_rows members of users whom auth-service has just again left
-- out. Every condition is stated once more here, whatever the runner believes.
-- Locks: ROW EXCLUSIVE on conversation_members, the rows that go.
-- Index: conversation_members_user_id, conversation_members_pkey, orphan_candidates_pkey. Rows: max_rows.
WITH doomed AS (
    SELECT m.conversation_id, m.user_id
    FROM conversation_members AS m
    JOIN orphan_candidates AS c ON c.user_id = m.user_id
    WHERE m.user_id = ANY (@user_ids::uuid [])
        -- The run is open, and this session's triggers fire.
        AND EXISTS (
            SELECT
            FROM orphan_runs AS r
            WHERE r.run_id = @run_id AND r.state = 'running'
        )
        AND current_setting('session_replication_role') = 'origin'
        -- Missing in this very run, and for longer than the retention. By the time
        -- at which the ledger was written: the clock may have jumped forward since.
        AND c.last_missing_run = @run_id
        AND c.first_missing_at <= least(c.last_missing_at, now()) - @retention::interval
        -- A young member of a missing user means that something is wrong.
        AND m.joined_at < least(c.last_missing_at, now()) - @retention::interval
        AND NOT EXISTS (
            SELECT
            FROM orphan_holds_in_force AS h
            WHERE h.user_id = m.user_id
        )
        AND NOT EXISTS (
            SELECT
            FROM orphan_holds_in_force AS h
            WHERE h.conversation_id = m.conversation_id
        )
        -- With an approval, nobody but those it names.
        AND (
            @approved_run::bigint = 0
            OR EXISTS (
                SELECT
                FROM orphan_refusals AS f
                WHERE f.run_id = @approved_run::bigint AND f.user_id = c.user_id AND f.is_due
            )
        )
    ORDER BY m.user_id, m.conversation_id
    LIMIT @max_rows::bigint
    -- Always in one order: two deleters cannot deadlock.
    FOR UPDATE OF m
),
deleted AS (
    DELETE FROM conversation_members AS m
    USING doomed AS d
    WHERE m.conversation_id = d.conversation_id
        AND m.user_id = d.user_id
    RETURNING m.conversation_id
)
SELECT
    (SELECT count(*) FROM doomed)::bigint AS chosen,
    (SELECT count(*) FROM deleted)::bigint AS deleted;

-- name: ChunkSettings :one
-- Opens a chunk: bounds its waiting and names its run to the audit trigger. All
-- of it is local to the transaction, so that a pooler may hand the session on.
-- Returns the session's replication_role: in another than origin a chunk would choose nobody.
-- Locks: none.
SELECT
    set_config('jit', 'off', true) AS jit,
    set_config('lock_timeout', @lock_timeout::text, true) AS lock_timeout,
    set_config('statement_timeout', @statement_timeout::text, true) AS statement_timeout,
    set_config('idle_in_transaction_session_timeout', @statement_timeout::text, true) AS idle_timeout,
    set_config('orphan_cleaner.run_id', (@run_id::bigint)::text, true) AS run_id,
    set_config('orphan_cleaner.audited', '0', true) AS audited,
    set_config('orphan_cleaner.backed_up', '0', true) AS backed_up,
    current_setting('session_replication_role')::text AS replication_role;

-- name: ChunkProof :one
-- What the audit trigger reported of this transaction, for the count proof.
-- Locks: none.
SELECT
    coalesce(nullif(current_setting('orphan_cleaner.audited', true), ''), '-1')::bigint AS audited,
    coalesce(nullif(current_setting('orphan_cleaner.backed_up', true), ''), '-1')::bigint AS backed_up;
