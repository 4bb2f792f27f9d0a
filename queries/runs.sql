-- name: RunTurn :exec
-- Lets runners decide one after the other whether a run is due: RunBegin, as the next statement of
-- the transaction, sees what the one before has begun.
-- Locks: an advisory lock of our own, until the transaction ends. Index: none.
SELECT pg_advisory_xact_lock(hashtextextended('orphan_cleaner_begin', 0));

-- name: RunBegin :one
-- Opens a run, and in the same statement gives up a run whose heartbeat stopped
-- for longer than its own lease. Fails on orphan_runs_one_open while another
-- run is open. With an interval (every) it returns no row unless a run is due; see RunSchedule.
-- Locks: ROW EXCLUSIVE on orphan_runs. ChunkSettle comes before it: no chunk of the run it gives up is in flight.
-- Index: orphan_runs_one_open. Rows: one or two.
WITH abandoned AS (
    UPDATE orphan_runs
    SET state = 'abandoned',
        finished_at = now(),
        error = 'no heartbeat for longer than its lease'
    WHERE state = 'running'
        AND heartbeat_at + lease < now()
    RETURNING run_id
)
INSERT INTO orphan_runs (kind, phase, started_at, heartbeat_at, lease, host, version, settings, scheduled_for)
SELECT
    -- Not now(): the transaction may have waited for its turn, and began before
    -- the run did that it waited for.
    @kind, @phase, statement_timestamp(), statement_timestamp(), @lease, @host, @version, @settings,
    CASE
        WHEN sqlc.narg('every')::interval IS NULL THEN NULL
        WHEN l.next_at IS NULL OR l.started_at > statement_timestamp() THEN statement_timestamp()
        -- Late by whole intervals: skip those, keep the beat.
        ELSE l.next_at + floor(
            extract(EPOCH FROM statement_timestamp() - l.next_at) / extract(EPOCH FROM sqlc.narg('every')::interval)
        )::float8 * sqlc.narg('every')::interval
    END
    -- Reading the CTE here makes it run before the row is inserted.
FROM (SELECT count(*) FROM abandoned) AS given_up
LEFT JOIN LATERAL (
    SELECT a.started_at, coalesce(a.scheduled_for, a.started_at) + sqlc.narg('every')::interval AS next_at
    FROM orphan_runs AS a
    WHERE a.kind = 'clean'
        AND a.state <> 'abandoned'
        AND a.run_id NOT IN (SELECT g.run_id FROM abandoned AS g)
    ORDER BY a.run_id DESC
    LIMIT 1
) AS l ON true
WHERE sqlc.narg('every')::interval IS NULL
    OR l.next_at IS NULL
    OR l.next_at <= statement_timestamp()
    -- The clock went back: the run says so, by its breaker.
    OR l.started_at > statement_timestamp()
RETURNING run_id, started_at;

-- name: RunSchedule :one
-- When the next run is due, as RunBegin decides it: an interval after the last attempt was, of
-- whichever runner, unless that attempt was given up. Seconds; 0 or less: now.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey, backwards; orphan_runs_one_open. Rows: a few.
SELECT
    coalesce(
        CASE
            WHEN l.started_at > now() THEN 0
            ELSE extract(EPOCH FROM l.next_at - now())
        END, 0
    )::float8 AS due_in,
    (o.run_id IS NOT NULL)::boolean AS run_open,
    -- When the open run may be given up, unless it shows a sign of life.
    coalesce(extract(EPOCH FROM o.heartbeat_at + o.lease - now()), 0)::float8 AS lapses_in,
    EXISTS (SELECT FROM orphan_pauses AS p WHERE p.resumed_at IS NULL)::boolean AS paused
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT a.started_at, coalesce(a.scheduled_for, a.started_at) + @every::interval AS next_at
    FROM orphan_runs AS a
    WHERE a.kind = 'clean'
        AND a.state <> 'abandoned'
        AND NOT (a.state = 'running' AND a.heartbeat_at + a.lease < now())
    ORDER BY a.run_id DESC
    LIMIT 1
) AS l ON true
LEFT JOIN orphan_runs AS o ON o.state = 'running';

-- name: RunOpen :one
-- The open run, if there is one.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_one_open. Rows: at most one.
SELECT run_id, kind, phase, host, started_at, heartbeat_at,
    (heartbeat_at + lease < now())::boolean AS lapsed
FROM orphan_runs
WHERE state = 'running';

-- name: RunClock :one
-- Database time, and whether it is past every moment that a run has recorded.
-- Locks: ACCESS SHARE on orphan_runs. Index: none. Rows: all runs, some ten thousand a year.
SELECT now()::timestamptz AS database_time,
    (coalesce(max(greatest(heartbeat_at, finished_at)), '-infinity') <= now())::boolean AS runs_forward
FROM orphan_runs
WHERE run_id <> @run_id;

-- name: RunHeartbeat :one
-- The fence: proves that the run is still open, and keeps it so. In a chunk's transaction it comes
-- last: it locks the row for the COMMIT alone, and nobody takes the run over in between.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
UPDATE orphan_runs
SET heartbeat_at = clock_timestamp(),
    phase = @phase,
    members_deleted = members_deleted + @deleted::bigint
WHERE run_id = @run_id
    AND state = 'running'
RETURNING EXISTS (SELECT FROM orphan_pauses AS p WHERE p.resumed_at IS NULL) AS paused;

-- name: RunFacts :execrows
-- Writes down what the run has found so far. Its COMMIT does not wait for the disk: that is done while the run is
-- proved, and its end waits for all of it.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
UPDATE orphan_runs
SET heartbeat_at = clock_timestamp(),
    users_checked = @users_checked,
    users_missing = @users_missing,
    users_unknown = @users_unknown,
    users_new = @users_new,
    users_returned = @users_returned,
    users_due = @users_due,
    members_total = @members_total,
    members_due = @members_due,
    members_kept_young = @members_kept_young,
    members_held = @members_held,
    batch_calls = @batch_calls,
    chunks_left = @chunks_left,
    call_ms_buckets = sqlc.narg('call_ms_buckets'),
    call_ms_max = sqlc.narg('call_ms_max')
WHERE run_id = @run_id
    AND state = 'running'
RETURNING set_config('synchronous_commit', 'off', true);

-- name: RunConversations :one
-- In how many conversations a run deleted members, from the audit, or gave them back, from the list of the restore.
-- Locks: ACCESS SHARE on orphan_runs and both tables.
-- Index: conversation_members_audit_deleted_at (BRIN); orphan_restores_pkey. Rows: what was deleted since the run began.
SELECT count(*) AS conversations
    -- UNION, each conversation once: hashed, where count(DISTINCT) would sort.
FROM (
    SELECT a.conversation_id
    FROM conversation_members_audit AS a
    WHERE a.run_id = @run_id::bigint
        AND a.deleted_at >= (SELECT r.started_at FROM orphan_runs AS r WHERE r.run_id = @run_id::bigint)
    UNION
    SELECT g.conversation_id
    FROM orphan_restores AS g
    WHERE g.run_id = @run_id::bigint
        AND g.state <> 'planned'
) AS touched;

-- name: RunFinish :one
-- Ends a run: state, reason, and what RunConversations counted.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
UPDATE orphan_runs AS r
SET state = @state,
    phase = @phase,
    heartbeat_at = clock_timestamp(),
    finished_at = clock_timestamp(),
    breaker = sqlc.narg('breaker'),
    error = sqlc.narg('error'),
    conversations = @conversations
WHERE r.run_id = @run_id
    -- Ended so before: by this very run, whose answer was lost. Nobody else writes that state.
    AND r.state IN ('running', @state)
RETURNING r.members_deleted, r.members_restored, r.started_at, r.finished_at;

-- name: RunRecordFailure :one
-- Records a run that failed its preflight, so that `status` shows it.
-- Locks: ROW EXCLUSIVE on orphan_runs. Index: none. Rows: one.
INSERT INTO orphan_runs (kind, state, phase, finished_at, lease, host, version, settings, error)
VALUES (@kind, 'failed', 'preflight', clock_timestamp(), @lease, @host, @version, @settings, @error)
RETURNING run_id;

-- name: RunFailPreflight :execrows
-- Ends a scheduled run whose preflight failed. Reads nothing else: what failed may be a grant.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
UPDATE orphan_runs
SET state = 'failed',
    heartbeat_at = clock_timestamp(),
    finished_at = clock_timestamp(),
    error = @error
WHERE run_id = @run_id
    AND state = 'running';

-- name: RunProof :one
-- The count proof of a whole run: its audit rows and its backup rows.
-- Locks: ACCESS SHARE on both tables.
-- Index: conversation_members_audit_deleted_at (BRIN); the backup is read from the day of the run on.
SELECT
    (
        SELECT count(*)
        FROM conversation_members_audit AS a
        WHERE a.run_id = @run_id::bigint AND a.deleted_at >= @started_at::timestamptz
    )::bigint AS audited,
    (
        SELECT count(*)
        FROM conversation_members_backup AS b
        WHERE b.run_id = @run_id::bigint AND b.backed_up_at >= @started_at::timestamptz
    )::bigint AS backed_up;

-- name: RunRecent :many
-- The last runs, newest first.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey, backwards. Rows: as asked.
SELECT run_id, kind, state, phase, started_at, finished_at, host, users_checked, users_missing,
    users_unknown, users_due, members_due, members_deleted, members_restored, members_kept_young, members_held,
    conversations, batch_calls, breaker, error,
    extract(EPOCH FROM coalesce(finished_at, now()) - started_at)::float8 AS seconds
FROM orphan_runs
ORDER BY run_id DESC
LIMIT @max_rows;

-- name: RunDeleted :one
-- What the open run's own row says it deleted, written in the transactions of its chunks.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey. Rows: one.
SELECT members_deleted, started_at
FROM orphan_runs
WHERE run_id = @run_id;

-- name: RunHistory :one
-- What runs used to delete: the median of the last 20 that succeeded.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey, backwards. Rows: a few dozen.
SELECT
    count(*) AS runs,
    coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY recent.members_deleted), 0)::float8 AS median
FROM (
    SELECT members_deleted
    FROM orphan_runs
    WHERE kind = 'clean'
        AND state = 'succeeded'
    ORDER BY run_id DESC
    LIMIT 20
) AS recent;
