-- Why:      users and conversations that are never cleaned until the hold is lifted or expires.
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: refused while a hold is in force: dropping it would let members go.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE orphan_holds (
    hold_id bigint GENERATED ALWAYS AS IDENTITY,
    user_id uuid,
    conversation_id uuid,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT session_user,
    until timestamptz,
    lifted_at timestamptz,
    lifted_by text,
    CONSTRAINT orphan_holds_pkey PRIMARY KEY (hold_id),
    CONSTRAINT orphan_holds_subject_check CHECK (num_nonnulls(user_id, conversation_id) = 1),
    CONSTRAINT orphan_holds_reason_check CHECK (btrim(reason) <> '')
);

CREATE INDEX orphan_holds_user_id ON orphan_holds (user_id) WHERE lifted_at IS NULL;
CREATE INDEX orphan_holds_conversation_id ON orphan_holds (conversation_id) WHERE lifted_at IS NULL;

COMMENT ON TABLE orphan_holds IS 'What is never cleaned: users or conversations, each with a reason. Lifted holds stay as history.';
COMMENT ON COLUMN orphan_holds.hold_id IS 'Names the hold in `hold remove`.';
COMMENT ON COLUMN orphan_holds.user_id IS 'No member of this user is deleted.';
COMMENT ON COLUMN orphan_holds.conversation_id IS 'No member of this conversation is deleted.';
COMMENT ON COLUMN orphan_holds.reason IS 'Why, for whoever reads the list.';
COMMENT ON COLUMN orphan_holds.created_at IS 'When the hold was placed.';
COMMENT ON COLUMN orphan_holds.created_by IS 'The database role that placed it.';
COMMENT ON COLUMN orphan_holds.until IS 'When it expires by itself; null: never.';
COMMENT ON COLUMN orphan_holds.lifted_at IS 'When it was lifted by hand.';
COMMENT ON COLUMN orphan_holds.lifted_by IS 'The database role that lifted it.';

CREATE VIEW orphan_holds_in_force AS
SELECT hold_id, user_id, conversation_id, reason, created_at, created_by, until
FROM orphan_holds
WHERE lifted_at IS NULL
    AND (until IS NULL OR until > now());

COMMENT ON VIEW orphan_holds_in_force IS 'The holds that count right now: not lifted, not expired.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE orphan_holds IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM orphan_holds_in_force) THEN
        RAISE EXCEPTION 'refusing to drop orphan_holds: holds are in force'
            USING HINT = 'Lift them first: UPDATE orphan_holds SET lifted_at = now(), lifted_by = session_user WHERE lifted_at IS NULL;';
    END IF;
END
$$;
-- +goose StatementEnd

DROP VIEW orphan_holds_in_force;
DROP TABLE orphan_holds;
