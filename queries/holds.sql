-- name: HoldAdd :one
-- Places a hold on a user or a conversation; 0 when it would be over already.
-- Locks: ROW EXCLUSIVE on holds; waits for the chunks in flight, 5 s at most. Index: none. Rows: one.
SELECT coalesce(orphan_cleaner.hold_add(
    sqlc.narg('user_id')::uuid, sqlc.narg('conversation_id')::uuid, @reason::text,
    sqlc.narg('until')::timestamptz, sqlc.narg('lasting')::interval
), 0)::bigint AS hold_id;

-- name: HoldLift :one
-- Lifts one hold by its id, or those of a restore: but for users whose rows it restored and that are not reverted,
-- unless restored_too. Returns how many.
-- Locks: ROW EXCLUSIVE on holds. Index: holds_pkey, holds_run_id_user_id, restores_pkey. Rows: the users of the restore.
SELECT orphan_cleaner.hold_lift(
    sqlc.narg('hold_id')::bigint, sqlc.narg('restore_run')::bigint, @restored_too::boolean
)::bigint AS lifted;

-- name: HoldList :many
-- The holds in force, with the members they keep: each that was placed by hand, and those of a restore as one.
-- Locks: ACCESS SHARE. Index: conversation_members_user_id, conversation_members_pkey. Rows: the holds and their members.
SELECT
    h.hold_id, h.user_id, h.conversation_id, NULL::bigint AS run_id, h.reason, h.created_at, h.created_by, h.until,
    ((
        SELECT count(*)
        FROM public.conversation_members AS m
        WHERE m.user_id = h.user_id
    ) + (
        SELECT count(*)
        FROM public.conversation_members AS m
        WHERE m.conversation_id = h.conversation_id
    ))::bigint AS members,
    (h.user_id IS NOT NULL)::integer::bigint AS users
FROM orphan_cleaner.holds_in_force AS h
WHERE h.run_id IS NULL
UNION ALL
SELECT
    min(h.hold_id), NULL, NULL, h.run_id, min(h.reason), min(h.created_at), min(h.created_by), max(h.until),
    sum((
        SELECT count(*)
        FROM public.conversation_members AS m
        WHERE m.user_id = h.user_id
    ))::bigint,
    count(*)
FROM orphan_cleaner.holds_in_force AS h
WHERE h.run_id IS NOT NULL
GROUP BY h.run_id
ORDER BY 1;

-- name: HoldTargets :many
-- The rows that the holds of HoldList keep in each target, for those on users: one on a conversation keeps members only.
-- Locks: ACCESS SHARE on holds and the targets. Index: none here; inside, those of the targets on the user. Rows: the holds and their rows.
SELECT h.hold_id::bigint AS hold_id, r.target::text AS target, r.row_count::bigint AS row_count
FROM (
    SELECT i.hold_id, ARRAY[i.user_id] AS users
    FROM orphan_cleaner.holds_in_force AS i
    WHERE i.run_id IS NULL AND i.user_id IS NOT NULL
    UNION ALL
    SELECT min(i.hold_id), array_agg(i.user_id)
    FROM orphan_cleaner.holds_in_force AS i
    WHERE i.run_id IS NOT NULL
    GROUP BY i.run_id
) AS h
CROSS JOIN LATERAL orphan_cleaner.target_rows(h.users) AS r
WHERE r.row_count > 0
ORDER BY h.hold_id;
