-- Why:      a restore is a run of its own: what it gave back, where each row came from, and which
--           holds keep it from going again. Without this list it could not be reverted.
-- Locks:    none on messaging-service's tables. ACCESS EXCLUSIVE on orphan_runs and orphan_holds, which
--           only runs and holds use, for milliseconds.
-- Duration: milliseconds.
-- Rollback: refused while a restore is recorded; the list is evidence.

-- +goose Up
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_runs
    ADD COLUMN members_restored bigint NOT NULL DEFAULT 0;

COMMENT ON COLUMN orphan_runs.members_restored IS 'Members given back by a restore; written in the same transaction as each.';

CREATE TABLE orphan_restores (
    run_id bigint NOT NULL,
    user_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    deleted_run bigint NOT NULL,
    backed_up_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'planned',
    reverted_by_run bigint,
    CONSTRAINT orphan_restores_pkey PRIMARY KEY (run_id, user_id, conversation_id),
    CONSTRAINT orphan_restores_run_id_fkey FOREIGN KEY (run_id) REFERENCES orphan_runs (run_id),
    CONSTRAINT orphan_restores_reverted_by_run_fkey FOREIGN KEY (reverted_by_run) REFERENCES orphan_runs (run_id),
    CONSTRAINT orphan_restores_state_check CHECK (state IN ('planned', 'restored', 'reverted')),
    CONSTRAINT orphan_restores_reverted_check CHECK ((state = 'reverted') = (reverted_by_run IS NOT NULL))
);

COMMENT ON TABLE orphan_restores IS 'The members that restores gave back: the audit of a restore, and what its revert goes by.';
COMMENT ON COLUMN orphan_restores.run_id IS 'The restore, a row of orphan_runs.';
COMMENT ON COLUMN orphan_restores.user_id IS 'As in the backup.';
COMMENT ON COLUMN orphan_restores.conversation_id IS 'As in the backup.';
COMMENT ON COLUMN orphan_restores.deleted_run IS 'The run that deleted the member: with backed_up_at and the two ids it names the backup row.';
COMMENT ON COLUMN orphan_restores.backed_up_at IS 'As in the backup.';
COMMENT ON COLUMN orphan_restores.state IS 'planned: not given back (yet; or it was back when its turn came); restored: given back; reverted: and taken again.';
COMMENT ON COLUMN orphan_restores.reverted_by_run IS 'The run that took it again.';

ALTER TABLE orphan_holds
    ADD COLUMN run_id bigint,
    ADD CONSTRAINT orphan_holds_run_id_fkey FOREIGN KEY (run_id) REFERENCES orphan_runs (run_id);

COMMENT ON COLUMN orphan_holds.run_id IS 'The restore that placed it, so that the next run does not take its members again; null: placed by hand.';

-- One hold a user and restore, however many chunks its members come back in.
CREATE UNIQUE INDEX orphan_holds_run_id_user_id ON orphan_holds (run_id, user_id) WHERE run_id IS NOT NULL;

CREATE OR REPLACE VIEW orphan_holds_in_force AS
SELECT hold_id, user_id, conversation_id, reason, created_at, created_by, until, run_id
FROM orphan_holds
WHERE lifted_at IS NULL
    AND (until IS NULL OR until > now());

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE orphan_restores IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM orphan_restores) THEN
        RAISE EXCEPTION 'refusing to drop orphan_restores: it records members that were given back'
            USING HINT = 'Copy the rows elsewhere and empty the table first, if you mean it.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP VIEW orphan_holds_in_force;
CREATE VIEW orphan_holds_in_force AS
SELECT hold_id, user_id, conversation_id, reason, created_at, created_by, until
FROM orphan_holds
WHERE lifted_at IS NULL
    AND (until IS NULL OR until > now());
COMMENT ON VIEW orphan_holds_in_force IS 'The holds that count right now: not lifted, not expired.';
DROP INDEX orphan_holds_run_id_user_id;
ALTER TABLE orphan_holds DROP COLUMN run_id;
DROP TABLE orphan_restores;
ALTER TABLE orphan_runs DROP COLUMN members_restored;
