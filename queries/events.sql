-- name: EventSink :exec
-- Begins a cursor for a sink that has none: at a run, or behind the newest finished one.
-- Locks: ROW EXCLUSIVE on event_cursors. Index: event_cursors_pkey, runs_pkey, backwards. Rows: one.
SELECT orphan_cleaner.event_sink(@sink::text, sqlc.narg('from_run')::bigint);

-- name: EventPage :many
-- The next events behind a sink's cursor, of one finished run, in the order of kind, conversation and user; none while
-- another relay has a page.
-- Locks: the sink's row of event_cursors; ACCESS SHARE on the audit, restores and promotions.
-- Index: runs_with_events, conversation_members_audit_deleted_at (BRIN), restores_pkey, promotions_pkey, promotions_undone_by_run.
-- Rows: what was deleted, by whomever, in the span of that run, read twice.
SELECT
    p.run_id::bigint AS run_id,
    p.kind::text AS kind,
    p.conversation_id::uuid AS conversation_id,
    p.user_id::uuid AS user_id,
    p.happened_at::timestamptz AS happened_at,
    coalesce(p.role, '')::text AS role
FROM orphan_cleaner.event_page(@sink::text, @ticket::uuid, @max_rows::integer, @lease::interval) AS p;

-- name: EventAdvance :one
-- Moves a sink's cursor to the last event that was delivered, or records the error; false: another relay has the page.
-- Locks: the sink's row of event_cursors. Index: none is needed: it has a row for each sink. Rows: one.
SELECT coalesce(orphan_cleaner.event_advance(
    @sink::text, @ticket::uuid, sqlc.narg('last_kind')::text, sqlc.narg('last_conversation')::uuid, sqlc.narg('last_user')::uuid,
    @delivered::bigint, sqlc.narg('error')::text
), false)::boolean AS moved;

-- name: EventBacklog :many
-- How many events of finished runs each sink lacks, since when, and why.
-- Locks: ACCESS SHARE on event_cursors, runs and promotions. Index: runs_with_events, promotions_pkey. Rows: the runs behind each cursor.
SELECT
    c.sink,
    coalesce(c.error, '')::text AS error,
    coalesce(b.events, 0)::bigint AS events,
    coalesce(extract(EPOCH FROM now() - b.oldest), 0)::float8 AS oldest_age
FROM orphan_cleaner.event_cursors AS c
CROSS JOIN LATERAL (
    SELECT sum(l.events) AS events, min(r.finished_at) AS oldest
    FROM orphan_cleaner.runs AS r
    CROSS JOIN LATERAL (
        SELECT r.members_deleted + r.members_restored - CASE r.run_id WHEN c.run_id THEN c.events ELSE 0 END
            + (SELECT count(*) FROM orphan_cleaner.promotions AS p WHERE p.run_id = r.run_id)
            + (SELECT count(*) FROM orphan_cleaner.promotions AS p WHERE p.undone_by_run = r.run_id AND p.undone_at IS NOT NULL) AS events
    ) AS l
    WHERE r.run_id >= c.run_id
        AND r.state <> 'running'
        AND r.members_deleted + r.members_restored > 0
        AND l.events > 0
) AS b
ORDER BY c.sink;
