-- Why:      one narrow row per deleted member, whoever deleted it.
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: refused while it holds a row: it is evidence.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE conversation_members_audit (
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text,
    joined_at timestamptz,
    deleted_at timestamptz NOT NULL,
    deleted_by text NOT NULL,
    application text NOT NULL,
    run_id bigint,
    txid bigint NOT NULL
) PARTITION BY RANGE (deleted_at);

-- Rows arrive in the order of deleted_at and run_id: a BRIN of a few pages finds
-- a day or a run, and costs a delete next to nothing.
CREATE INDEX conversation_members_audit_deleted_at
    ON conversation_members_audit USING brin (deleted_at) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX conversation_members_audit_run_id
    ON conversation_members_audit USING brin (run_id) WITH (pages_per_range = 16, autosummarize = on);

-- The application's own deletes must never fail for want of a partition.
CREATE TABLE conversation_members_audit_default PARTITION OF conversation_members_audit DEFAULT;

COMMENT ON TABLE conversation_members_audit IS 'One row per deleted member, written by a trigger, whoever deleted it. Partitioned by month (UTC).';
COMMENT ON TABLE conversation_members_audit_default IS 'Catches rows of a month without a partition; stays empty while partitions are made ahead.';
COMMENT ON COLUMN conversation_members_audit.conversation_id IS 'As it was in the deleted member.';
COMMENT ON COLUMN conversation_members_audit.user_id IS 'As it was in the deleted member.';
COMMENT ON COLUMN conversation_members_audit.role IS 'As it was in the deleted member.';
COMMENT ON COLUMN conversation_members_audit.joined_at IS 'As it was in the deleted member.';
COMMENT ON COLUMN conversation_members_audit.deleted_at IS 'Start of the deleting transaction.';
COMMENT ON COLUMN conversation_members_audit.deleted_by IS 'session_user of the deleting session.';
COMMENT ON COLUMN conversation_members_audit.application IS 'application_name of the deleting session.';
COMMENT ON COLUMN conversation_members_audit.run_id IS 'The run of orphan-cleaner that deleted it; null: somebody else.';
COMMENT ON COLUMN conversation_members_audit.txid IS 'pg_current_xact_id() of the deleting transaction.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE conversation_members_audit IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM conversation_members_audit) THEN
        RAISE EXCEPTION 'refusing to drop conversation_members_audit: it holds evidence of deleted members'
            USING HINT = 'Copy the rows elsewhere and empty the table first, if you mean it.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP TABLE conversation_members_audit;
