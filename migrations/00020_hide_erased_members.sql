-- Why:      whose records were emptied on request of the law (sql/runbook/user_erase.sql) stands in the
--           audit with the nil UUID for a user. Nobody can be given back there: deleted_members_list,
--           the list of those that can, leaves these rows out.
-- Locks:    ACCESS EXCLUSIVE on the view; ACCESS SHARE on conversation_members and conversations.
-- Duration: milliseconds.
-- Rollback: the list has these rows again; no restore picks them all the same.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE OR REPLACE VIEW deleted_members_list AS
SELECT
    a.conversation_id,
    a.user_id,
    a.deleted_at,
    a.run_id
FROM conversation_members_audit AS a
WHERE a.run_id IS NOT NULL
    AND a.user_id <> '00000000-0000-0000-0000-000000000000'
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

-- +goose Down
SET LOCAL lock_timeout = '3s';

CREATE OR REPLACE VIEW deleted_members_list AS
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
