-- name: MemberUserPage :one
-- The next distinct user ids from from_user on, in order, and how many members they have. As one array: a row
-- for each of 5,000 users costs both sides more than finding them.
-- Locks: ACCESS SHARE on conversation_members.
-- Index: conversation_members_user_id, in order, mostly index-only. Rows: the members of max_users users.
SELECT
    coalesce(array_agg(u.user_id), '{}')::uuid [] AS users,
    coalesce(sum(u.members), 0)::bigint AS members
FROM (
    SELECT user_id, count(*) AS members
    FROM conversation_members
    WHERE user_id >= @from_user
        AND user_id <= @through_user
    GROUP BY user_id
    ORDER BY user_id
    LIMIT @max_users::bigint
) AS u;

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

-- name: MemberPlaces :many
-- Where the members of these users lie behind a place of the table, in its order: what the sweep cuts its
-- chunks from. Members of any age, on hold or not: whether one may go decides MemberDeleteDue. Follows SettingsForPlaces.
-- Locks: ACCESS SHARE on conversation_members. Index: conversation_members_user_id. Rows: max_members.
SELECT
    m.ctid::tid AS place,
    m.user_id
FROM conversation_members AS m
    -- A subquery, so that the planner does not weigh thousands of users one by one.
WHERE m.user_id = ANY (ARRAY(SELECT unnest(@user_ids::uuid [])))
    AND m.ctid > @after::tid
ORDER BY place
LIMIT @max_members::bigint;

-- name: MemberDeleteDue :execrows
-- Deletes members of users whom auth-service has just again left out. A place says where to look and no more:
-- every condition is stated once more here, whatever the runner believes, and whoever lies there. A row that was
-- changed since lies elsewhere, and stays. Follows SettingsForChunk.
-- Locks: ROW EXCLUSIVE on conversation_members, the rows that go, as they lie in the table. Chunks of one run
-- have no row in common; a deadlock with the application is its victim, and repeated.
-- Index: orphan_candidates_pkey; the members by their places. Rows: the places given, each page read once.
DELETE FROM conversation_members AS m
USING (
    SELECT l.user_id, l.first_missing_at, least(l.last_missing_at, now()) - @retention::interval AS horizon
    FROM orphan_candidates AS l
    -- A subquery, so that the planner does not weigh thousands of users one by one, and hashes these few.
    WHERE l.user_id = ANY (ARRAY(SELECT unnest(@user_ids::uuid [])))
        -- Missing in this very run.
        AND l.last_missing_run = @run_id
    -- The horizon is worked out once for each user, and not for each member.
    OFFSET 0
) AS c
WHERE m.user_id = c.user_id
    AND m.ctid = ANY (@places::tid [])
    -- The run is open, and this session's triggers fire.
    AND EXISTS (
        SELECT
        FROM orphan_runs AS r
        WHERE r.run_id = @run_id AND r.state = 'running'
    )
    AND current_setting('session_replication_role') = 'origin'
    -- Missing for longer than the retention. By the time at which the ledger was written: the clock may have
    -- jumped forward since.
    AND c.first_missing_at <= c.horizon
    -- A young member of a missing user means that something is wrong.
    AND m.joined_at < c.horizon
    AND NOT EXISTS (
        SELECT
        FROM orphan_holds_in_force AS h
        WHERE h.user_id = c.user_id
    )
    -- NOT IN is hashed once, NOT EXISTS would be looked up for each member. It is never null here.
    AND m.conversation_id NOT IN (
        SELECT h.conversation_id
        FROM orphan_holds_in_force AS h
        WHERE h.conversation_id IS NOT NULL
    )
    -- With an approval, nobody but those it names.
    AND (
        @approved_run::bigint = 0
        OR EXISTS (
            SELECT
            FROM orphan_refusals AS f
            WHERE f.run_id = @approved_run::bigint AND f.user_id = c.user_id AND f.is_due
        )
    );

-- name: ChunkSettings :one
-- Opens a chunk: bounds its waiting and names its run to the audit trigger. All
-- of it is local to the transaction, so that a pooler may hand the session on.
-- Returns the session's replication_role: in another than origin a chunk would choose nobody.
-- Locks: an advisory lock of our own, shared by all chunks, until the transaction ends; see ChunkSettle. Index: none.
SELECT
    set_config('jit', 'off', true) AS jit,
    set_config('lock_timeout', @lock_timeout::text, true) AS lock_timeout,
    set_config('statement_timeout', @statement_timeout::text, true) AS statement_timeout,
    set_config('idle_in_transaction_session_timeout', @statement_timeout::text, true) AS idle_timeout,
    set_config('orphan_cleaner.run_id', (@run_id::bigint)::text, true) AS run_id,
    set_config('orphan_cleaner.audited', '0', true) AS audited,
    set_config('orphan_cleaner.backed_up', '0', true) AS backed_up,
    current_setting('session_replication_role')::text AS replication_role,
    pg_advisory_xact_lock_shared(hashtextextended('orphan_cleaner_chunk', 0))::text AS in_flight;

-- name: ChunkSettle :exec
-- Waits for the chunks in flight: they may have been planned before a hold or a pause was committed that
-- this follows, every later chunk sees it. Chunks that come meanwhile wait behind it.
-- Locks: the advisory lock that chunks share, alone, for a moment. Index: none.
SELECT pg_advisory_xact_lock(hashtextextended('orphan_cleaner_chunk', 0));

-- name: ChunkProof :one
-- What the audit trigger reported of this transaction, for the count proof.
-- Locks: none.
SELECT
    coalesce(nullif(current_setting('orphan_cleaner.audited', true), ''), '-1')::bigint AS audited,
    coalesce(nullif(current_setting('orphan_cleaner.backed_up', true), ''), '-1')::bigint AS backed_up;
