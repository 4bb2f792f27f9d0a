-- name: RestorePreview :many
-- What a restore would do with the rows that were chosen, by the run that deleted them and the UTC day.
-- Locks: ACCESS SHARE on conversation_members, conversations and our tables.
-- Index: conversation_members_pkey, conversations_pkey. Rows: the backups from the run or the span on, read once.
WITH chosen AS (
    SELECT
        sqlc.narg('of_run')::bigint AS of_run,
        sqlc.narg('of_users')::uuid [] AS of_users,
        sqlc.narg('of_conversations')::uuid [] AS of_conversations,
        sqlc.narg('since')::timestamptz AS since,
        sqlc.narg('until')::timestamptz AS until,
        sqlc.narg('of_targets')::text [] AS of_targets
)
SELECT
    p.target::text AS target,
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
CROSS JOIN LATERAL orphan_cleaner.restore_plan(w.of_run, w.of_users, w.of_conversations, w.since, w.until, w.of_targets) AS p
GROUP BY 1, 2, 3
ORDER BY 2, 3, 1;

-- name: RestoreFacts :one
-- What a revert of a restore would be judged by if auth-service returned none of its users.
-- Locks: ACCESS SHARE on targets and restores. Index: restores_pkey. Rows: those of the restore.
SELECT jsonb_build_object(
    'users_checked', (SELECT count(DISTINCT u.user_id) FROM orphan_cleaner.restores AS u WHERE u.run_id = @run_id AND u.state = 'restored'),
    'users_new', 0, 'users_active', 0, 'candidates', 0, 'alive_missing', 0, 'dead_present', 0,
    'targets', jsonb_object_agg(t.name, jsonb_build_object('rows_due', coalesce(g.restored, 0)))
)::jsonb AS facts
FROM orphan_cleaner.targets AS t
LEFT JOIN (
    SELECT r.target, count(*) AS restored
    FROM orphan_cleaner.restores AS r
    WHERE r.run_id = @run_id AND r.state = 'restored'
    GROUP BY r.target
) AS g ON g.target = t.name;

-- name: RestoreSummary :one
-- What became of the rows of a restore.
-- Locks: ACCESS SHARE on restores. Index: restores_pkey. Rows: those of the restore.
SELECT
    r.kind,
    r.state,
    r.members_restored,
    r.members_deleted,
    coalesce((SELECT sum(t.rows_deleted) FROM orphan_cleaner.run_targets AS t WHERE t.run_id = r.run_id), 0)::bigint AS rows_deleted,
    g.planned::bigint AS planned,
    g.restored::bigint AS restored,
    g.users::bigint AS users,
    g.reverted::bigint AS reverted
FROM orphan_cleaner.runs AS r
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE g.state = 'planned') AS planned,
        count(*) FILTER (WHERE g.state = 'restored') AS restored,
        count(DISTINCT g.user_id) FILTER (WHERE g.state = 'restored') AS users,
        count(*) FILTER (WHERE g.state = 'reverted') AS reverted
    FROM orphan_cleaner.restores AS g
    WHERE g.run_id = r.run_id
) AS g
WHERE r.run_id = @run_id;

-- name: RestoreLeft :one
-- How many members of a restore's list could still be restored: the member is not there, and its conversation is.
-- Locks: ACCESS SHARE on conversation_members and conversations.
-- Index: restores_pkey, conversation_members_pkey, conversations_pkey. Rows: those of the restore.
SELECT count(*) AS members
FROM orphan_cleaner.restores AS r
    -- One lookup a row: only few are left of a list.
CROSS JOIN LATERAL (
    SELECT c.id
    FROM public.conversations AS c
    WHERE c.id = r.conversation_id
    LIMIT 1
) AS c
LEFT JOIN LATERAL (
    SELECT m.user_id
    FROM public.conversation_members AS m
    WHERE m.conversation_id = r.conversation_id AND m.user_id = r.user_id
    LIMIT 1
) AS m ON true
WHERE r.run_id = @run_id
    AND r.state = 'planned'
    AND m.user_id IS NULL
    -- Who joined again and left since stays away.
    AND NOT EXISTS (
        SELECT
        FROM public.conversation_members_audit AS a
        JOIN orphan_cleaner.runs AS o ON o.run_id = r.run_id
        WHERE a.run_id IS NULL
            AND a.deleted_at >= o.started_at - interval '1 minute'
            AND a.deleted_at > r.backed_up_at
            AND a.user_id = r.user_id
            AND a.conversation_id = r.conversation_id
    );

-- name: RestoreStore :many
-- Records which rows a restore brings back; returns what becomes of all that were chosen, by verdict.
-- Locks: ROW EXCLUSIVE on restores; ACCESS SHARE on conversation_members and conversations.
-- Index: runs_pkey, conversation_members_pkey, conversations_pkey. Rows: the backups from the run or the span on, read once.
SELECT s.verdict::text AS verdict, s.members::bigint AS members, s.users::bigint AS users
FROM orphan_cleaner.restore_store(
    @run_id::bigint, @token::uuid, sqlc.narg('of_run')::bigint, sqlc.narg('of_users')::uuid [],
    sqlc.narg('of_conversations')::uuid [], sqlc.narg('since')::timestamptz, sqlc.narg('until')::timestamptz,
    sqlc.narg('of_targets')::text []
) AS s;

-- name: RestoreChunks :many
-- Where the backup rows of a restore are: the chunks of so many pages that hold one, by UTC day, with their users.
-- Locks: ACCESS SHARE on the backup. Index: restores_pkey. Rows: the backups from the oldest row of the restore on, read once.
SELECT c.day::text AS day, c.first_page::bigint AS first_page, c.members::bigint AS members, c.user_ids::uuid [] AS user_ids, c.target::text AS target
FROM orphan_cleaner.restore_chunks(@run_id::bigint, @state::text, @pages::integer) AS c;

-- name: RestoreChunk :one
-- Restores the planned rows of these users, of a target, on some pages of its backup of a day; returns how many.
-- Locks: ROW EXCLUSIVE on conversation_members and our tables; the conversations FOR KEY SHARE, by their foreign key.
-- Index: restores_pkey; a TID range of the backup. Rows: those on the pages, some thousand at most.
SELECT orphan_cleaner.restore_chunk(
    @run_id::bigint, @token::uuid, (@day::text)::date, @first_page::bigint, @pages::integer, @user_ids::uuid [], @hold::interval, @target::text
)::bigint AS restored;

-- name: RevertChunk :one
-- Deletes rows of a restore once more: unchanged since, on no other hold, of users who are still missing.
-- Locks: ROW EXCLUSIVE on conversation_members, the rows deleted, and on our tables.
-- Index: restores_pkey, conversation_members_pkey or conversation_members_user_id; a TID range of the backup. Rows: those on the pages.
SELECT orphan_cleaner.revert_chunk(
    @run_id::bigint, @token::uuid, @reverted_run::bigint, (@day::text)::date, @first_page::bigint, @pages::integer,
    @user_ids::uuid [], (@checked_from::text)::xid8, @target::text
)::bigint AS deleted;

-- name: RevertJudge :one
-- Judges a revert: names the breaker that refuses it, or admits the missing users to deletion.
-- Locks: ACCESS SHARE on conversation_members; ROW EXCLUSIVE on sightings. Index: restores_pkey, conversation_members_user_id.
-- Rows: those of the restore; all members, counted.
SELECT
    coalesce(j.breaker, '')::text AS breaker,
    coalesce(j.message, '')::text AS message
FROM orphan_cleaner.revert_judge(@run_id::bigint, @token::uuid, @reverted_run::bigint, @missing::uuid [], @report::jsonb) AS j;
