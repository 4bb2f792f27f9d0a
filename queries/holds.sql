-- name: HoldAdd :one
-- Places a hold on a user or a conversation; no row when it would be over already.
-- Locks: ROW EXCLUSIVE on orphan_holds. Index: none. Rows: one.
INSERT INTO orphan_holds (user_id, conversation_id, reason, until)
SELECT
    sqlc.narg('user_id')::uuid,
    sqlc.narg('conversation_id')::uuid,
    @reason::text,
    ends.at
FROM (SELECT coalesce(sqlc.narg('until')::timestamptz, now() + sqlc.narg('lasting')::interval) AS at) AS ends
WHERE ends.at IS NULL
    OR ends.at > now()
RETURNING hold_id;

-- name: HoldList :many
-- The holds in force, with the members they keep: each that was placed by hand, and those of a restore as one.
-- Locks: ACCESS SHARE. Index: conversation_members_user_id, conversation_members_pkey. Rows: the holds and their members.
SELECT
    h.hold_id, h.user_id, h.conversation_id, NULL::bigint AS run_id, h.reason, h.created_at, h.created_by, h.until,
    ((
        SELECT count(*)
        FROM conversation_members AS m
        WHERE m.user_id = h.user_id
    ) + (
        SELECT count(*)
        FROM conversation_members AS m
        WHERE m.conversation_id = h.conversation_id
    ))::bigint AS members,
    (h.user_id IS NOT NULL)::integer::bigint AS users
FROM orphan_holds_in_force AS h
WHERE h.run_id IS NULL
UNION ALL
SELECT
    min(h.hold_id), NULL, NULL, h.run_id, min(h.reason), min(h.created_at), min(h.created_by), max(h.until),
    sum((
        SELECT count(*)
        FROM conversation_members AS m
        WHERE m.user_id = h.user_id
    ))::bigint,
    count(*)
FROM orphan_holds_in_force AS h
WHERE h.run_id IS NOT NULL
GROUP BY h.run_id
ORDER BY 1;

-- name: HoldRemove :execrows
-- Lifts a hold; its row stays as history.
-- Locks: ROW EXCLUSIVE on orphan_holds. Index: orphan_holds_pkey. Rows: one.
UPDATE orphan_holds
SET lifted_at = now(),
    lifted_by = session_user
WHERE hold_id = @hold_id
    AND lifted_at IS NULL;

-- name: HoldRemoveOfRun :execrows
-- Lifts the holds that a restore placed, but for users whose members it gave back and that are not reverted, unless all is said.
-- Locks: ROW EXCLUSIVE on orphan_holds. Index: orphan_holds_run_id_user_id, orphan_restores_pkey. Rows: the users of the restore.
UPDATE orphan_holds AS h
SET lifted_at = now(),
    lifted_by = session_user
WHERE h.run_id = @run_id::bigint
    AND h.lifted_at IS NULL
    AND (
        @every::boolean
        OR NOT EXISTS (
            SELECT
            FROM orphan_restores AS r
            WHERE r.run_id = @run_id::bigint AND r.user_id = h.user_id AND r.state = 'restored'
        )
    );
