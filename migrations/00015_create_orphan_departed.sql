-- Why:      the users who left the ledger, to be asked about again now and then: one who is alive again,
--           while what a run deleted is still in the backup, must be noticed.
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: drops the list; nobody is asked about again. No member and no backup is touched.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE orphan_departed (
    user_id uuid NOT NULL,
    departed_at timestamptz NOT NULL DEFAULT now(),
    checked_at timestamptz,
    alive_at timestamptz,
    CONSTRAINT orphan_departed_pkey PRIMARY KEY (user_id)
)
-- Each check updates a row in place.
WITH (fillfactor = 70);

-- Whoever was not asked about for the longest time comes first.
CREATE INDEX orphan_departed_turn ON orphan_departed ((coalesce(checked_at, departed_at)), user_id);
-- As good as always empty.
CREATE INDEX orphan_departed_alive ON orphan_departed (user_id) WHERE alive_at IS NOT NULL;

COMMENT ON TABLE orphan_departed IS 'Users who left the ledger and are asked about again, oldest first, while their backups exist.';
COMMENT ON COLUMN orphan_departed.user_id IS 'A user of auth-service.';
COMMENT ON COLUMN orphan_departed.departed_at IS 'When the user left the ledger: the last member went, or the user came back.';
COMMENT ON COLUMN orphan_departed.checked_at IS 'Last correct answer about the user since.';
COMMENT ON COLUMN orphan_departed.alive_at IS 'Since when the user is known to be alive again while deleted members are in the backup; null: still missing. A restore takes the row away.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP TABLE orphan_departed;
