-- Why:      one row per cycle: who runs, how far it is, what it did and why it stopped.
--           The row is also the lock (one open run) and the fence (its id).
-- Locks:    none on messaging-service's tables.
-- Duration: milliseconds.
-- Rollback: refused while a run is recorded; the history is evidence.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE orphan_runs (
    run_id bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    state text NOT NULL DEFAULT 'running',
    phase text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    lease interval NOT NULL,
    host text NOT NULL,
    version text NOT NULL,
    settings jsonb NOT NULL,
    users_checked bigint NOT NULL DEFAULT 0,
    users_missing bigint NOT NULL DEFAULT 0,
    users_unknown bigint NOT NULL DEFAULT 0,
    users_new bigint NOT NULL DEFAULT 0,
    users_returned bigint NOT NULL DEFAULT 0,
    users_due bigint NOT NULL DEFAULT 0,
    members_total bigint NOT NULL DEFAULT 0,
    members_due bigint NOT NULL DEFAULT 0,
    members_deleted bigint NOT NULL DEFAULT 0,
    members_kept_young bigint NOT NULL DEFAULT 0,
    members_held bigint NOT NULL DEFAULT 0,
    conversations bigint NOT NULL DEFAULT 0,
    batch_calls bigint NOT NULL DEFAULT 0,
    chunks_left bigint NOT NULL DEFAULT 0,
    breaker text,
    error text,
    CONSTRAINT orphan_runs_pkey PRIMARY KEY (run_id),
    CONSTRAINT orphan_runs_kind_check CHECK (kind IN ('clean', 'restore')),
    CONSTRAINT orphan_runs_state_check CHECK (
        state IN ('running', 'succeeded', 'incomplete', 'refused', 'failed', 'abandoned')
    ),
    CONSTRAINT orphan_runs_phase_check CHECK (
        phase IN ('preflight', 'verify', 'judge', 'sweep', 'restore', 'finish')
    ),
    CONSTRAINT orphan_runs_finished_check CHECK ((state = 'running') = (finished_at IS NULL))
);

-- One open run, whoever starts it and from wherever. No session lock: it would
-- be stranded by a pooler in transaction mode.
CREATE UNIQUE INDEX orphan_runs_one_open ON orphan_runs (state) WHERE state = 'running';

COMMENT ON TABLE orphan_runs IS 'One row per cycle of orphan-cleaner; the open one is the lock and the fence.';
COMMENT ON COLUMN orphan_runs.run_id IS 'The fencing token: every later write of the run requires that this row is still open.';
COMMENT ON COLUMN orphan_runs.kind IS 'clean: delete orphans; restore: bring members back.';
COMMENT ON COLUMN orphan_runs.state IS 'running (open), succeeded, incomplete (users or chunks left over), refused (a breaker), failed, abandoned (its heartbeat stopped).';
COMMENT ON COLUMN orphan_runs.phase IS 'The step it is in, or ended in.';
COMMENT ON COLUMN orphan_runs.started_at IS 'Database time of the first write.';
COMMENT ON COLUMN orphan_runs.heartbeat_at IS 'Last sign of life, database time.';
COMMENT ON COLUMN orphan_runs.finished_at IS 'When the run left the state running.';
COMMENT ON COLUMN orphan_runs.lease IS 'A run silent for longer than this may be taken over.';
COMMENT ON COLUMN orphan_runs.host IS 'host:pid of the runner.';
COMMENT ON COLUMN orphan_runs.version IS 'Version of orphan-cleaner.';
COMMENT ON COLUMN orphan_runs.settings IS 'The settings in force, without secrets.';
COMMENT ON COLUMN orphan_runs.users_checked IS 'Users with a correct answer, living or missing.';
COMMENT ON COLUMN orphan_runs.users_missing IS 'Users whom auth-service left out of a correct answer.';
COMMENT ON COLUMN orphan_runs.users_unknown IS 'Users without a correct answer: never touched.';
COMMENT ON COLUMN orphan_runs.users_new IS 'Missing users that were not in the ledger before.';
COMMENT ON COLUMN orphan_runs.users_returned IS 'Candidates who are alive again and left the ledger.';
COMMENT ON COLUMN orphan_runs.users_due IS 'Users missing for longer than the retention and not on hold.';
COMMENT ON COLUMN orphan_runs.members_total IS 'Rows of conversation_members seen by the scan.';
COMMENT ON COLUMN orphan_runs.members_due IS 'Members of due users that the sweep may delete, as judged.';
COMMENT ON COLUMN orphan_runs.members_deleted IS 'Members deleted; written in the same transaction as each delete.';
COMMENT ON COLUMN orphan_runs.members_kept_young IS 'Members of due users kept because the member itself is younger than the retention.';
COMMENT ON COLUMN orphan_runs.members_held IS 'Members kept because of a hold.';
COMMENT ON COLUMN orphan_runs.conversations IS 'Distinct conversations that lost a member.';
COMMENT ON COLUMN orphan_runs.batch_calls IS 'Batches of up to 100 users that were asked about (a retried batch counts once).';
COMMENT ON COLUMN orphan_runs.chunks_left IS 'Chunks left for the next run after bounded retries.';
COMMENT ON COLUMN orphan_runs.breaker IS 'Name of the breaker that refused the run.';
COMMENT ON COLUMN orphan_runs.error IS 'Why the run did not succeed, in one line.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE orphan_runs IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM orphan_runs WHERE members_deleted > 0) THEN
        RAISE EXCEPTION 'refusing to drop orphan_runs: it records runs that deleted members'
            USING HINT = 'Copy the table elsewhere and empty it first, if you mean it.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP TABLE orphan_runs;
