-- Why:      the ledger: who is missing, and since when without a break.
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: drops the ledger; every clock starts anew after the next up. Nothing is deleted early by that.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE orphan_candidates (
    user_id uuid NOT NULL,
    first_missing_at timestamptz NOT NULL,
    last_missing_at timestamptz NOT NULL,
    last_missing_run bigint NOT NULL,
    sightings bigint NOT NULL DEFAULT 1,
    evidence text NOT NULL,
    CONSTRAINT orphan_candidates_pkey PRIMARY KEY (user_id),
    CONSTRAINT orphan_candidates_last_missing_run_fkey
        FOREIGN KEY (last_missing_run) REFERENCES orphan_runs (run_id),
    CONSTRAINT orphan_candidates_order_check CHECK (first_missing_at <= last_missing_at),
    CONSTRAINT orphan_candidates_evidence_check CHECK (evidence IN ('sightings', 'shadow'))
)
-- Every run touches every candidate: room for HOT updates.
WITH (fillfactor = 70);

COMMENT ON TABLE orphan_candidates IS 'The ledger: users that auth-service left out, their retention clock running.';
COMMENT ON COLUMN orphan_candidates.user_id IS 'A user of auth-service, referenced by conversation_members.';
COMMENT ON COLUMN orphan_candidates.first_missing_at IS 'Start of the retention clock.';
COMMENT ON COLUMN orphan_candidates.last_missing_at IS 'Last run that found the user missing; a gap longer than max-gap starts the clock anew.';
COMMENT ON COLUMN orphan_candidates.last_missing_run IS 'The run of last_missing_at; only users missing in the run itself are due.';
COMMENT ON COLUMN orphan_candidates.sightings IS 'In how many runs the user was missing since the clock started.';
COMMENT ON COLUMN orphan_candidates.evidence IS 'What the clock rests on: sightings of ours, or deleted_at of the shadow table users.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP TABLE orphan_candidates;
