-- name: RestorePreview :many
-- What a restore would do with the members that were chosen, by the run that deleted them and the UTC day.
-- Locks: ACCESS SHARE on conversation_members, conversations and our tables.
-- Index: conversation_members_pkey, conversations_pkey. Rows: the backups from the run or the span on, read once.
WITH chosen AS (
    SELECT
        sqlc.narg('of_run')::bigint AS of_run,
        sqlc.narg('of_users')::uuid [] AS of_users,
        sqlc.narg('of_conversations')::uuid [] AS of_conversations,
        sqlc.narg('since')::timestamptz AS since,
        sqlc.narg('until')::timestamptz AS until
)
SELECT
    p.deleted_run::bigint AS deleted_run,
    to_char(p.backed_up_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')::text AS day,
    count(*) FILTER (WHERE p.verdict = 'restore') AS restore,
    count(DISTINCT p.user_id) FILTER (WHERE p.verdict = 'restore') AS users,
    count(DISTINCT p.conversation_id) FILTER (WHERE p.verdict = 'restore') AS conversations,
    count(*) FILTER (WHERE p.verdict = 'there') AS there,
    count(*) FILTER (WHERE p.verdict = 'there_differs') AS there_differs,
    count(*) FILTER (WHERE p.verdict = 'conversation_gone') AS conversation_gone,
    count(*) FILTER (WHERE p.verdict = 'left_since') AS left_since
FROM chosen AS w
CROSS JOIN LATERAL orphan_restore_plan(w.of_run, w.of_users, w.of_conversations, w.since, w.until) AS p
GROUP BY 1, 2
ORDER BY 1, 2;

-- name: RestoreStore :one
-- Writes down which members a restore gives back, and counts what becomes of the others.
-- Locks: ROW EXCLUSIVE on orphan_restores; ACCESS SHARE on conversation_members and conversations.
-- Index: orphan_runs_pkey, conversation_members_pkey, conversations_pkey. Rows: the backups from the run or the span on, read once.
WITH chosen AS (
    SELECT
        sqlc.narg('of_run')::bigint AS of_run,
        sqlc.narg('of_users')::uuid [] AS of_users,
        sqlc.narg('of_conversations')::uuid [] AS of_conversations,
        sqlc.narg('since')::timestamptz AS since,
        sqlc.narg('until')::timestamptz AS until
),
plan AS MATERIALIZED (
    SELECT
        p.conversation_id::uuid AS conversation_id,
        p.user_id::uuid AS user_id,
        p.deleted_run::bigint AS deleted_run,
        p.backed_up_at::timestamptz AS backed_up_at,
        p.verdict::text AS verdict
    FROM chosen AS w
    CROSS JOIN LATERAL orphan_restore_plan(w.of_run, w.of_users, w.of_conversations, w.since, w.until) AS p
),
stored AS (
    INSERT INTO orphan_restores (run_id, user_id, conversation_id, deleted_run, backed_up_at)
    SELECT r.run_id, p.user_id, p.conversation_id, p.deleted_run, p.backed_up_at
    FROM plan AS p
    JOIN orphan_runs AS r ON r.run_id = @run_id AND r.state = 'running' AND r.kind = 'restore'
    WHERE p.verdict = 'restore'
    -- Stored before, by an attempt whose answer was lost.
    ON CONFLICT (run_id, user_id, conversation_id) DO NOTHING
)
SELECT
    count(*) FILTER (WHERE p.verdict = 'restore') AS restore,
    count(DISTINCT p.user_id) FILTER (WHERE p.verdict = 'restore') AS users,
    count(*) FILTER (WHERE p.verdict = 'there') AS there,
    count(*) FILTER (WHERE p.verdict = 'there_differs') AS there_differs,
    count(*) FILTER (WHERE p.verdict = 'conversation_gone') AS conversation_gone,
    count(*) FILTER (WHERE p.verdict = 'left_since') AS left_since
FROM plan AS p;

-- name: RestoreChunks :many
-- Where the backup rows of a restore lie: the chunks of so many pages that hold one, by UTC day.
-- Locks: ACCESS SHARE on the backup. Index: orphan_restores_pkey. Rows: the backups from the oldest row of the restore on, read once.
SELECT c.day::text AS day, c.first_page::bigint AS first_page, c.members::bigint AS members
FROM orphan_restore_chunks(@run_id::bigint, @state::text, @pages::integer) AS c;

-- name: RestoreChunk :one
-- Gives back the planned members on some pages of the backup of a day; returns how many.
-- Locks: ROW EXCLUSIVE on conversation_members and our tables; the conversations FOR KEY SHARE, by their foreign key.
-- Index: orphan_restores_pkey; a TID range of the backup. Rows: those on the pages, some thousand at most.
SELECT orphan_restore_chunk(
    @run_id::bigint, (@day::text)::date, @first_page::bigint, @pages::integer, @hold::interval
)::bigint AS restored;

-- name: RunRestored :exec
-- Counts members given back on the run's row, in the transaction that gave them back.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
UPDATE orphan_runs
SET members_restored = members_restored + @restored::bigint
WHERE run_id = @run_id
    AND state = 'running';

-- name: RestoreSummary :one
-- What became of the members of a restore.
-- Locks: ACCESS SHARE on orphan_restores. Index: orphan_restores_pkey. Rows: those of the restore.
SELECT
    r.kind,
    r.state,
    r.members_restored,
    r.members_deleted,
    g.planned::bigint AS planned,
    g.restored::bigint AS restored,
    g.users::bigint AS users,
    g.reverted::bigint AS reverted
FROM orphan_runs AS r
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE g.state = 'planned') AS planned,
        count(*) FILTER (WHERE g.state = 'restored') AS restored,
        count(DISTINCT g.user_id) FILTER (WHERE g.state = 'restored') AS users,
        count(*) FILTER (WHERE g.state = 'reverted') AS reverted
    FROM orphan_restores AS g
    WHERE g.run_id = r.run_id
) AS g
WHERE r.run_id = @run_id;

-- name: RestoreLeft :one
-- How many members of a restore's list could still be given back: not there, and their conversation is.
-- Locks: ACCESS SHARE on conversation_members and conversations.
-- Index: orphan_restores_pkey, conversation_members_pkey, conversations_pkey. Rows: those of the restore.
SELECT count(*) AS members
FROM orphan_restores AS r
    -- One lookup a row: only few are left of a list.
CROSS JOIN LATERAL (
    SELECT c.id
    FROM conversations AS c
    WHERE c.id = r.conversation_id
    LIMIT 1
) AS c
LEFT JOIN LATERAL (
    SELECT m.user_id
    FROM conversation_members AS m
    WHERE m.conversation_id = r.conversation_id AND m.user_id = r.user_id
    LIMIT 1
) AS m ON true
WHERE r.run_id = @run_id
    AND r.state = 'planned'
    AND m.user_id IS NULL
    -- Who joined again and left since stays away.
    AND NOT EXISTS (
        SELECT
        FROM conversation_members_audit AS a
        JOIN orphan_runs AS o ON o.run_id = r.run_id
        WHERE a.run_id IS NULL
            AND a.deleted_at >= o.started_at - interval '1 minute'
            AND a.deleted_at > r.backed_up_at
            AND a.user_id = r.user_id
            AND a.conversation_id = r.conversation_id
    );

-- name: RestoreUsers :many
-- The users whose members a restore gave back, on some pages of the backup of a day.
-- Locks: ACCESS SHARE on the backup and orphan_restores. Index: orphan_restores_pkey; a TID range of the backup.
-- Rows: those on the pages.
SELECT u.user_id::uuid AS user_id
FROM orphan_restore_users(@run_id::bigint, (@day::text)::date, @first_page::bigint, @pages::integer) AS u;

-- name: RevertChunk :one
-- Takes members of a restore again: unchanged since, on no other hold, of users whom auth-service has just left out.
-- Locks: ROW EXCLUSIVE on conversation_members, the rows that go, and on our tables.
-- Index: orphan_restores_pkey, conversation_members_pkey; a TID range of the backup. Rows: those on the pages.
SELECT orphan_revert_chunk(
    @run_id::bigint, @reverted_run::bigint, (@day::text)::date, @first_page::bigint, @pages::integer, @user_ids::uuid []
)::bigint AS deleted;

-- name: RestorePrune :execrows
-- Forgets which members old restores gave back, once neither a revert could go by it nor the audit of the
-- time is kept, max_rows at a time. The restores themselves stay in orphan_runs.
-- Locks: ROW EXCLUSIVE on orphan_restores. Index: orphan_restores_pkey. Rows: max_rows.
DELETE FROM orphan_restores AS g
USING (
    SELECT o.run_id, o.user_id, o.conversation_id
    FROM orphan_runs AS r
    JOIN orphan_restores AS o ON o.run_id = r.run_id
    WHERE r.kind = 'restore'
        AND r.finished_at < now() - @keep::interval
        AND o.backed_up_at < (
            SELECT min(coalesce(p.lower_bound, '-infinity'))
            FROM orphan_partitions() AS p
            WHERE p.parent = 'conversation_members_backup'
        )
    LIMIT @max_rows::bigint
) AS old
WHERE g.run_id = old.run_id
    AND g.user_id = old.user_id
    AND g.conversation_id = old.conversation_id;
