-- Why:      one switch that stops every runner everywhere before its next transaction.
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: refused while a pause is in force: dropping it would let runs go on.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE orphan_pauses (
    pause_id bigint GENERATED ALWAYS AS IDENTITY,
    reason text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    paused_by text NOT NULL DEFAULT session_user,
    resumed_at timestamptz,
    resumed_by text,
    CONSTRAINT orphan_pauses_pkey PRIMARY KEY (pause_id),
    CONSTRAINT orphan_pauses_reason_check CHECK (btrim(reason) <> '')
);

-- One pause in force is enough; a second one would outlive the first resume.
CREATE UNIQUE INDEX orphan_pauses_one_in_force ON orphan_pauses ((resumed_at IS NULL)) WHERE resumed_at IS NULL;

COMMENT ON TABLE orphan_pauses IS 'While a row has no resumed_at, no run starts and none goes on.';
COMMENT ON COLUMN orphan_pauses.pause_id IS 'Names the pause.';
COMMENT ON COLUMN orphan_pauses.reason IS 'Why, for whoever wonders.';
COMMENT ON COLUMN orphan_pauses.paused_at IS 'When it began.';
COMMENT ON COLUMN orphan_pauses.paused_by IS 'The database role that paused.';
COMMENT ON COLUMN orphan_pauses.resumed_at IS 'When it ended; null: in force.';
COMMENT ON COLUMN orphan_pauses.resumed_by IS 'The database role that resumed.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE orphan_pauses IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM orphan_pauses WHERE resumed_at IS NULL) THEN
        RAISE EXCEPTION 'refusing to drop orphan_pauses: a pause is in force'
            USING HINT = 'Run: orphan-cleaner resume';
    END IF;
END
$$;
-- +goose StatementEnd

DROP TABLE orphan_pauses;
