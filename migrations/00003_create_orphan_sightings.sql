-- Why:      staging between VERIFY and JUDGE: the ledger is written only once a run is judged.
--           Unlogged: it is worth nothing after a crash, and a run notices when it lost rows.
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: drops staging; nothing is lost.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE UNLOGGED TABLE orphan_sightings (
    run_id bigint NOT NULL,
    user_id uuid NOT NULL,
    verdict text NOT NULL,
    CONSTRAINT orphan_sightings_pkey PRIMARY KEY (run_id, user_id),
    CONSTRAINT orphan_sightings_verdict_check CHECK (verdict IN ('missing', 'unknown'))
);

COMMENT ON TABLE orphan_sightings IS 'Staging of one run: users missing or unknown. Emptied at the end of each run.';
COMMENT ON COLUMN orphan_sightings.run_id IS 'The run that asked.';
COMMENT ON COLUMN orphan_sightings.user_id IS 'The user asked about.';
COMMENT ON COLUMN orphan_sightings.verdict IS 'missing: left out of a correct answer; unknown: no correct answer.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP TABLE orphan_sightings;
