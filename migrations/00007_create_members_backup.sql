-- Why:      the whole row of every member that a run deleted, so that it can be given back.
-- Locks:    ACCESS SHARE on conversation_members, while its columns are read.
-- Duration: milliseconds.
-- Rollback: refused while it holds a row: dropping it would make a deletion final.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- The columns of conversation_members as they are here and now, then ours. No
-- DEFAULT partition: without a place for the backup there is no delete.
CREATE TABLE conversation_members_backup (
    LIKE conversation_members,
    backed_up_at timestamptz NOT NULL,
    run_id bigint NOT NULL
) PARTITION BY RANGE (backed_up_at);

-- A backup takes whatever the table held: the NOT NULLs that LIKE brought along
-- would refuse it on the day messaging-service relaxes one of them.
-- +goose StatementBegin
DO $$
DECLARE
    member_column name;
BEGIN
    FOR member_column IN
        SELECT attname
        FROM pg_attribute
        WHERE attrelid = 'conversation_members'::regclass
            AND attnum > 0
            AND NOT attisdropped
            AND attnotnull
    LOOP
        EXECUTE format('ALTER TABLE conversation_members_backup ALTER COLUMN %I DROP NOT NULL', member_column);
    END LOOP;
END
$$;
-- +goose StatementEnd

COMMENT ON TABLE conversation_members_backup IS 'Whole rows of the members that runs deleted. Partitioned by UTC day: conversation_members_backup_YYYYMMDD.';
COMMENT ON COLUMN conversation_members_backup.backed_up_at IS 'Start of the deleting transaction; equals deleted_at of the audit row.';
COMMENT ON COLUMN conversation_members_backup.run_id IS 'The run that deleted the member.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE conversation_members_backup IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM conversation_members_backup) THEN
        RAISE EXCEPTION 'refusing to drop conversation_members_backup: it is the only copy of deleted members'
            USING HINT = 'Restore or copy the rows and empty the table first, if you mean it.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP TABLE conversation_members_backup;
