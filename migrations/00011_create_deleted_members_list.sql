-- Why:      the runbook's restore statement (6.2) reads the list of wrongly deleted members from
--           deleted_members_list; this is that list, so that the statement runs as printed.
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: drops the view.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE VIEW deleted_members_list AS
SELECT
    a.conversation_id,
    a.user_id,
    a.deleted_at,
    a.run_id
FROM conversation_members_audit AS a
WHERE a.run_id IS NOT NULL
    -- Not one who was given back and then left: the last delete was not ours.
    AND NOT EXISTS (
        SELECT
        FROM conversation_members_audit AS l
        WHERE l.conversation_id = a.conversation_id
            AND l.user_id = a.user_id
            AND l.deleted_at > a.deleted_at
            AND l.run_id IS NULL
    )
    -- Nor one who is back already, or whose conversation is gone.
    AND NOT EXISTS (
        SELECT
        FROM conversation_members AS m
        WHERE m.conversation_id = a.conversation_id
            AND m.user_id = a.user_id
    )
    AND EXISTS (
        SELECT
        FROM conversations AS c
        WHERE c.id = a.conversation_id
    );

COMMENT ON VIEW deleted_members_list IS
    'Members that runs deleted and that can be given back. For a part of them create a TEMP TABLE of the same name: it is found first.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP VIEW deleted_members_list;
