-- Why:      which users were asked about when, by ranges of their ids. With --check-every a run asks about
--           a share of the users: this says whose turn it is, how many there are, and how long ago
--           everybody was asked.
-- Locks:    none on messaging-service's tables. SHARE ROW EXCLUSIVE on orphan_runs, for milliseconds; a run that is
--           open waits for it.
-- Duration: milliseconds.
-- Rollback: drops the table; after the next up the first run asks about everybody. Nothing is deleted by that.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE orphan_coverage (
    from_user uuid NOT NULL,
    checked_at timestamptz,
    run_id bigint,
    users bigint NOT NULL,
    is_unknown boolean NOT NULL,
    CONSTRAINT orphan_coverage_pkey PRIMARY KEY (from_user),
    CONSTRAINT orphan_coverage_run_id_fkey FOREIGN KEY (run_id) REFERENCES orphan_runs (run_id),
    CONSTRAINT orphan_coverage_users_check CHECK (users >= 0),
    CONSTRAINT orphan_coverage_checked_check CHECK ((checked_at IS NULL) = (run_id IS NULL))
);

COMMENT ON TABLE orphan_coverage IS 'Ranges of user ids and when each was last checked: from from_user up to the next row''s, the last one to the end. Below the first row nobody was ever checked.';
COMMENT ON COLUMN orphan_coverage.from_user IS 'Where the range begins: a point among the ids, not necessarily a user.';
COMMENT ON COLUMN orphan_coverage.checked_at IS 'Start of the last run that had a correct answer about every user of the range; null: none had.';
COMMENT ON COLUMN orphan_coverage.run_id IS 'That run.';
COMMENT ON COLUMN orphan_coverage.users IS 'How many users the range held when it was last asked about; of a range that was split since, what is left of them.';
COMMENT ON COLUMN orphan_coverage.is_unknown IS 'The last run that asked had no correct answer about these users: the next one asks again, whoever''s turn it is.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP TABLE orphan_coverage;
