-- Why:      a refused run leaves the set of users it found due; an approval lets that set, and only
--           that set, go once.
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: drops approvals; refused runs must be run again to be approved.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE orphan_refusals (
    run_id bigint NOT NULL,
    user_id uuid NOT NULL,
    is_due boolean NOT NULL,
    CONSTRAINT orphan_refusals_pkey PRIMARY KEY (run_id, user_id),
    CONSTRAINT orphan_refusals_run_id_fkey FOREIGN KEY (run_id) REFERENCES orphan_runs (run_id)
);

COMMENT ON TABLE orphan_refusals IS 'The users that a refused run found due or newly missing: what an approval of that run is about.';
COMMENT ON COLUMN orphan_refusals.run_id IS 'The refused run.';
COMMENT ON COLUMN orphan_refusals.user_id IS 'A user it found due or newly missing.';
COMMENT ON COLUMN orphan_refusals.is_due IS 'Due: the approved run deletes this user''s members. Otherwise newly missing: it only enters the ledger.';

CREATE TABLE orphan_approvals (
    approval_id bigint GENERATED ALWAYS AS IDENTITY,
    run_id bigint NOT NULL,
    approved_at timestamptz NOT NULL DEFAULT now(),
    approved_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    used_by_run bigint,
    revoked_at timestamptz,
    revoked_by text,
    CONSTRAINT orphan_approvals_pkey PRIMARY KEY (approval_id),
    CONSTRAINT orphan_approvals_run_id_fkey FOREIGN KEY (run_id) REFERENCES orphan_runs (run_id),
    CONSTRAINT orphan_approvals_used_by_run_fkey FOREIGN KEY (used_by_run) REFERENCES orphan_runs (run_id),
    CONSTRAINT orphan_approvals_expires_check CHECK (expires_at > approved_at),
    CONSTRAINT orphan_approvals_used_check CHECK ((used_at IS NULL) = (used_by_run IS NULL))
);

CREATE UNIQUE INDEX orphan_approvals_one_open
    ON orphan_approvals (run_id)
    WHERE used_at IS NULL AND revoked_at IS NULL;

COMMENT ON TABLE orphan_approvals IS 'Who let the due users of a refused run go, until when, and which run used it.';
COMMENT ON COLUMN orphan_approvals.approval_id IS 'Names the approval.';
COMMENT ON COLUMN orphan_approvals.run_id IS 'The refused run; its users are in orphan_refusals.';
COMMENT ON COLUMN orphan_approvals.approved_at IS 'When it was given.';
COMMENT ON COLUMN orphan_approvals.approved_by IS 'Who gave it: operating-system user and database role.';
COMMENT ON COLUMN orphan_approvals.expires_at IS 'From when on it is void.';
COMMENT ON COLUMN orphan_approvals.used_at IS 'When a run used it; it works once.';
COMMENT ON COLUMN orphan_approvals.used_by_run IS 'The run that used it.';
COMMENT ON COLUMN orphan_approvals.revoked_at IS 'When it was taken back.';
COMMENT ON COLUMN orphan_approvals.revoked_by IS 'Who took it back.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP TABLE orphan_approvals;
DROP TABLE orphan_refusals;
