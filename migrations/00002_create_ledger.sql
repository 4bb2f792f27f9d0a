-- Why:      the ledger says who is missing, and since when without a break. Beside it: staging of the open run, how far
--           the checking is, the sums of each hour, and what people decide: holds, with the functions that place and
--           lift them, approvals and restores.
-- Locks:    none on messaging-service's tables. At work, placing and lifting a hold wait for the chunks in flight, 5 s at most.
-- Duration: milliseconds.
-- Rollback: drops the ledger: every clock starts anew after the next up. Refused while a hold is in force
--           or a restore is recorded.

-- +goose Up
SET LOCAL lock_timeout = '3s';

CREATE TABLE orphan_cleaner.candidates (
    user_id uuid NOT NULL,
    first_missing_at timestamptz NOT NULL,
    last_missing_at timestamptz NOT NULL,
    last_missing_run bigint NOT NULL,
    sightings bigint NOT NULL DEFAULT 1,
    evidence text NOT NULL,
    approved_run bigint,
    blocked_since timestamptz,
    blocked_by jsonb,
    CONSTRAINT candidates_pkey PRIMARY KEY (user_id),
    CONSTRAINT candidates_order_check CHECK (first_missing_at <= last_missing_at),
    CONSTRAINT candidates_evidence_check CHECK (evidence IN ('sightings', 'shadow', 'activity'))
)
-- Every run touches every candidate: room for HOT updates.
WITH (fillfactor = 70);
CREATE INDEX candidates_blocked ON orphan_cleaner.candidates (blocked_since) WHERE blocked_since IS NOT NULL;

COMMENT ON TABLE orphan_cleaner.candidates IS 'The ledger: missing users, their retention clock running.';
COMMENT ON COLUMN orphan_cleaner.candidates.user_id IS 'A user of auth-service.';
COMMENT ON COLUMN orphan_cleaner.candidates.first_missing_at IS 'Start of the retention clock.';
COMMENT ON COLUMN orphan_cleaner.candidates.last_missing_at IS 'The last run that found the user missing; a gap longer than max-gap restarts the clock.';
COMMENT ON COLUMN orphan_cleaner.candidates.last_missing_run IS 'The run of last_missing_at; only users missing in the run itself are due.';
COMMENT ON COLUMN orphan_cleaner.candidates.sightings IS 'In how many runs the user was missing since the clock started.';
COMMENT ON COLUMN orphan_cleaner.candidates.approved_run IS 'The refused run by whose approval the user entered: counts in no share and no window.';
COMMENT ON COLUMN orphan_cleaner.candidates.evidence IS 'What dates the clock: sightings of ours, deleted_at of the shadow table users, or activity of the user that came later.';
COMMENT ON COLUMN orphan_cleaner.candidates.blocked_since IS 'Since when something in the database has refused to delete the rows, run after run; null: nothing does.';
COMMENT ON COLUMN orphan_cleaner.candidates.blocked_by IS 'How many rows are blocked, and what the server said in the last such run: sqlstate, constraint, table, message, detail.';

-- Counts per target stand in arrays, and this is their order.
CREATE VIEW orphan_cleaner.targets_in_order AS
SELECT (pg_catalog.row_number() OVER (ORDER BY t.ordinal))::integer AS n, t.name, t.retention, t.limits
FROM orphan_cleaner.targets AS t;

COMMENT ON VIEW orphan_cleaner.targets_in_order IS 'The targets, numbered from 1 on in the order of the sweep.';

CREATE UNLOGGED TABLE orphan_cleaner.sightings (
    run_id bigint NOT NULL,
    user_id uuid NOT NULL,
    verdict text NOT NULL,
    clock_start timestamptz,
    evidence text,
    is_new boolean,
    is_approved boolean,
    is_restarted boolean,
    is_active boolean,
    is_due boolean,
    rows_due bigint [],
    rows_young bigint [],
    rows_held bigint [],
    CONSTRAINT sightings_pkey PRIMARY KEY (run_id, user_id),
    CONSTRAINT sightings_verdict_check CHECK (verdict IN ('missing', 'unknown'))
);

COMMENT ON TABLE orphan_cleaner.sightings IS 'Staging of the open run: missing and unknown users, and what they mean. Unlogged: a crash empties it, and the run notices.';
COMMENT ON COLUMN orphan_cleaner.sightings.run_id IS 'The run that checked.';
COMMENT ON COLUMN orphan_cleaner.sightings.user_id IS 'The user checked.';
COMMENT ON COLUMN orphan_cleaner.sightings.verdict IS 'missing: not in a valid response; unknown: no valid response.';
COMMENT ON COLUMN orphan_cleaner.sightings.clock_start IS 'Start of the retention clock as the ledger will have it.';
COMMENT ON COLUMN orphan_cleaner.sightings.evidence IS 'As in candidates.';
COMMENT ON COLUMN orphan_cleaner.sightings.is_new IS 'Not in the ledger yet.';
COMMENT ON COLUMN orphan_cleaner.sightings.is_approved IS 'Covered by the approval that the run goes by.';
COMMENT ON COLUMN orphan_cleaner.sightings.is_restarted IS 'In the ledger, with a clock that starts later now.';
COMMENT ON COLUMN orphan_cleaner.sightings.is_active IS 'Active within the last day: likely alive.';
COMMENT ON COLUMN orphan_cleaner.sightings.is_due IS 'Missing for longer than the retention, not on hold, covered by the approval where there is one.';
COMMENT ON COLUMN orphan_cleaner.sightings.rows_due IS 'Rows that the sweep may delete, by target in order; null, as in the next two: none.';
COMMENT ON COLUMN orphan_cleaner.sightings.rows_young IS 'Rows of a due user younger than the retention, likewise.';
COMMENT ON COLUMN orphan_cleaner.sightings.rows_held IS 'Rows of a user past the retention that a hold keeps, likewise.';

CREATE TABLE orphan_cleaner.run_targets (
    run_id bigint NOT NULL,
    target text NOT NULL,
    rows_total bigint NOT NULL DEFAULT 0,
    rows_due bigint NOT NULL DEFAULT 0,
    rows_approved bigint NOT NULL DEFAULT 0,
    rows_deleted bigint NOT NULL DEFAULT 0,
    rows_kept_young bigint NOT NULL DEFAULT 0,
    rows_held bigint NOT NULL DEFAULT 0,
    rows_changed bigint NOT NULL DEFAULT 0,
    rows_blocked bigint NOT NULL DEFAULT 0,
    CONSTRAINT run_targets_pkey PRIMARY KEY (run_id, target),
    CONSTRAINT run_targets_run_id_fkey FOREIGN KEY (run_id) REFERENCES orphan_cleaner.runs (run_id) ON DELETE CASCADE
)
-- Each chunk updates the rows of its run in place.
WITH (fillfactor = 50);

COMMENT ON TABLE orphan_cleaner.run_targets IS 'What a run did with each target; of conversation_members the columns members_* of runs say the same.';
COMMENT ON COLUMN orphan_cleaner.run_targets.run_id IS 'The run.';
COMMENT ON COLUMN orphan_cleaner.run_targets.target IS 'Its name in the registry.';
COMMENT ON COLUMN orphan_cleaner.run_targets.rows_total IS 'Rows of the table when the run was judged, an estimate where it is large.';
COMMENT ON COLUMN orphan_cleaner.run_targets.rows_due IS 'Rows of due users that the sweep may delete, as judged.';
COMMENT ON COLUMN orphan_cleaner.run_targets.rows_approved IS 'Those of rows_due that an approval covers.';
COMMENT ON COLUMN orphan_cleaner.run_targets.rows_deleted IS 'Rows deleted; written in the transaction of each delete.';
COMMENT ON COLUMN orphan_cleaner.run_targets.rows_kept_young IS 'Rows of due users younger than the retention.';
COMMENT ON COLUMN orphan_cleaner.run_targets.rows_held IS 'Rows kept because of a hold.';
COMMENT ON COLUMN orphan_cleaner.run_targets.rows_changed IS 'Rows judged due and kept or gone by the time of the delete.';
COMMENT ON COLUMN orphan_cleaner.run_targets.rows_blocked IS 'Rows of blocked users.';

CREATE TABLE orphan_cleaner.coverage (
    is_only boolean NOT NULL DEFAULT true,
    cursor_id uuid,
    cycle_run_id bigint NOT NULL,
    previous_run_id bigint,
    run_id bigint NOT NULL,
    checked_at timestamptz NOT NULL,
    users bigint NOT NULL,
    users_so_far bigint NOT NULL,
    CONSTRAINT coverage_pkey PRIMARY KEY (is_only),
    CONSTRAINT coverage_only_check CHECK (is_only)
);

COMMENT ON TABLE orphan_cleaner.coverage IS 'How far checking has come: one row. Runs go through the user ids in order, cycle after cycle; with --check-every a run checks a part of a cycle.';
COMMENT ON COLUMN orphan_cleaner.coverage.is_only IS 'Always true: there is one row.';
COMMENT ON COLUMN orphan_cleaner.coverage.cursor_id IS 'The last user id checked in this cycle; null: the cycle is complete.';
COMMENT ON COLUMN orphan_cleaner.coverage.cycle_run_id IS 'The run that began this cycle.';
COMMENT ON COLUMN orphan_cleaner.coverage.previous_run_id IS 'The run that began the last complete cycle; null: not every user was checked yet.';
COMMENT ON COLUMN orphan_cleaner.coverage.run_id IS 'The last judged run.';
COMMENT ON COLUMN orphan_cleaner.coverage.checked_at IS 'When the last judged run began.';
COMMENT ON COLUMN orphan_cleaner.coverage.users IS 'Users of the last complete cycle, or so far while there is none.';
COMMENT ON COLUMN orphan_cleaner.coverage.users_so_far IS 'Users of this cycle, up to the cursor.';

CREATE TABLE orphan_cleaner.unknowns (
    user_id uuid NOT NULL,
    unknown_since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT unknowns_pkey PRIMARY KEY (user_id)
);

COMMENT ON TABLE orphan_cleaner.unknowns IS 'Users of whom the last run that checked them had no valid response: the next run checks them again.';
COMMENT ON COLUMN orphan_cleaner.unknowns.user_id IS 'A user of auth-service.';
COMMENT ON COLUMN orphan_cleaner.unknowns.unknown_since IS 'The last valid response was no earlier than this: the start of the complete cycle before; if there is none, the first run without a valid response.';

CREATE TABLE orphan_cleaner.hours (
    hour timestamptz NOT NULL,
    target text NOT NULL DEFAULT '',
    users bigint NOT NULL DEFAULT 0,
    users_new bigint NOT NULL DEFAULT 0,
    rows_total bigint NOT NULL DEFAULT 0,
    rows_deleted bigint NOT NULL DEFAULT 0,
    rows_approved bigint NOT NULL DEFAULT 0,
    CONSTRAINT hours_pkey PRIMARY KEY (hour, target)
)
-- Each chunk updates the row of its hour in place.
WITH (fillfactor = 50);

COMMENT ON TABLE orphan_cleaner.hours IS 'Sums of each hour in which a run was judged: what the breakers over a day, a week and a month compare.';
COMMENT ON COLUMN orphan_cleaner.hours.hour IS 'Start of the hour.';
COMMENT ON COLUMN orphan_cleaner.hours.target IS 'Whose rows these are; empty: what is about users.';
COMMENT ON COLUMN orphan_cleaner.hours.users IS 'Users with rows as the last run of the hour knew them.';
COMMENT ON COLUMN orphan_cleaner.hours.users_new IS 'Newly missing users, without those that an approval covered.';
COMMENT ON COLUMN orphan_cleaner.hours.rows_total IS 'Rows of the table when the first run of the hour was judged.';
COMMENT ON COLUMN orphan_cleaner.hours.rows_deleted IS 'Rows deleted, without those that an approval covered.';
COMMENT ON COLUMN orphan_cleaner.hours.rows_approved IS 'Rows deleted that an approval covered.';

CREATE TABLE orphan_cleaner.holds (
    hold_id bigint GENERATED ALWAYS AS IDENTITY,
    user_id uuid,
    conversation_id uuid,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL DEFAULT session_user,
    until timestamptz,
    lifted_at timestamptz,
    lifted_by text,
    run_id bigint,
    CONSTRAINT holds_pkey PRIMARY KEY (hold_id),
    CONSTRAINT holds_subject_check CHECK (pg_catalog.num_nonnulls(user_id, conversation_id) = 1),
    CONSTRAINT holds_reason_check CHECK (pg_catalog.btrim(reason) <> '')
);

CREATE INDEX holds_user_id ON orphan_cleaner.holds (user_id) WHERE lifted_at IS NULL;
CREATE INDEX holds_conversation_id ON orphan_cleaner.holds (conversation_id) WHERE lifted_at IS NULL;
-- One hold for a user and restore, however many chunks its rows come back in.
CREATE UNIQUE INDEX holds_run_id_user_id ON orphan_cleaner.holds (run_id, user_id) WHERE run_id IS NOT NULL;

COMMENT ON TABLE orphan_cleaner.holds IS 'What is never cleaned: users or conversations, each with a reason. Lifted holds stay as history.';
COMMENT ON COLUMN orphan_cleaner.holds.hold_id IS 'Names the hold in `hold remove`.';
COMMENT ON COLUMN orphan_cleaner.holds.user_id IS 'No row of this user is deleted.';
COMMENT ON COLUMN orphan_cleaner.holds.conversation_id IS 'No member of this conversation is deleted.';
COMMENT ON COLUMN orphan_cleaner.holds.reason IS 'Why, for the reader of the list.';
COMMENT ON COLUMN orphan_cleaner.holds.created_at IS 'When the hold was placed.';
COMMENT ON COLUMN orphan_cleaner.holds.created_by IS 'The database role that placed it.';
COMMENT ON COLUMN orphan_cleaner.holds.until IS 'When it expires by itself; null: never.';
COMMENT ON COLUMN orphan_cleaner.holds.lifted_at IS 'When it was lifted by hand.';
COMMENT ON COLUMN orphan_cleaner.holds.lifted_by IS 'The database role that lifted it.';
COMMENT ON COLUMN orphan_cleaner.holds.run_id IS 'The restore that placed it, so that the next run does not delete the same rows; null: placed by hand.';

CREATE VIEW orphan_cleaner.holds_in_force AS
SELECT h.hold_id, h.user_id, h.conversation_id, h.reason, h.created_at, h.created_by, h.until, h.run_id
FROM orphan_cleaner.holds AS h
WHERE h.lifted_at IS NULL
    AND (h.until IS NULL OR h.until > pg_catalog.now());

COMMENT ON VIEW orphan_cleaner.holds_in_force IS 'The holds that count right now: not lifted, not expired.';

CREATE TABLE orphan_cleaner.refusals (
    run_id bigint NOT NULL,
    user_id uuid NOT NULL,
    is_due boolean NOT NULL,
    CONSTRAINT refusals_pkey PRIMARY KEY (run_id, user_id),
    CONSTRAINT refusals_run_id_fkey FOREIGN KEY (run_id) REFERENCES orphan_cleaner.runs (run_id)
);

COMMENT ON TABLE orphan_cleaner.refusals IS 'The users that a refused run found due or newly missing: what an approval of that run covers.';
COMMENT ON COLUMN orphan_cleaner.refusals.run_id IS 'The refused run.';
COMMENT ON COLUMN orphan_cleaner.refusals.user_id IS 'A user it found due or newly missing.';
COMMENT ON COLUMN orphan_cleaner.refusals.is_due IS 'Due: the approved run deletes this user''s rows. Otherwise newly missing: it only enters the ledger.';

CREATE TABLE orphan_cleaner.approvals (
    approval_id bigint GENERATED ALWAYS AS IDENTITY,
    run_id bigint NOT NULL,
    approved_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    approved_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    used_by_run bigint,
    revoked_at timestamptz,
    revoked_by text,
    CONSTRAINT approvals_pkey PRIMARY KEY (approval_id),
    CONSTRAINT approvals_run_id_fkey FOREIGN KEY (run_id) REFERENCES orphan_cleaner.runs (run_id),
    CONSTRAINT approvals_used_by_run_fkey FOREIGN KEY (used_by_run) REFERENCES orphan_cleaner.runs (run_id),
    CONSTRAINT approvals_expires_check CHECK (expires_at > approved_at),
    CONSTRAINT approvals_used_check CHECK ((used_at IS NULL) = (used_by_run IS NULL))
);

CREATE UNIQUE INDEX approvals_one_open ON orphan_cleaner.approvals (run_id) WHERE used_at IS NULL AND revoked_at IS NULL;

COMMENT ON TABLE orphan_cleaner.approvals IS 'Who approved what a refused run found, until when, and which run used it.';
COMMENT ON COLUMN orphan_cleaner.approvals.approval_id IS 'Names the approval.';
COMMENT ON COLUMN orphan_cleaner.approvals.run_id IS 'The refused run; its users are in refusals.';
COMMENT ON COLUMN orphan_cleaner.approvals.approved_at IS 'When it was given.';
COMMENT ON COLUMN orphan_cleaner.approvals.approved_by IS 'Who gave it: operating-system user and database role.';
COMMENT ON COLUMN orphan_cleaner.approvals.expires_at IS 'From when on no run uses it.';
COMMENT ON COLUMN orphan_cleaner.approvals.used_at IS 'When a run used it; it works once.';
COMMENT ON COLUMN orphan_cleaner.approvals.used_by_run IS 'The run that used it.';
COMMENT ON COLUMN orphan_cleaner.approvals.revoked_at IS 'When it was revoked.';
COMMENT ON COLUMN orphan_cleaner.approvals.revoked_by IS 'Who revoked it.';

CREATE TABLE orphan_cleaner.restores (
    run_id bigint NOT NULL,
    user_id uuid NOT NULL,
    conversation_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    target text NOT NULL DEFAULT 'conversation_members',
    row_key text NOT NULL DEFAULT '',
    deleted_run bigint NOT NULL,
    backed_up_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'planned',
    reverted_by_run bigint,
    CONSTRAINT restores_pkey PRIMARY KEY (run_id, user_id, conversation_id, target, row_key),
    CONSTRAINT restores_run_id_fkey FOREIGN KEY (run_id) REFERENCES orphan_cleaner.runs (run_id),
    CONSTRAINT restores_reverted_by_run_fkey FOREIGN KEY (reverted_by_run) REFERENCES orphan_cleaner.runs (run_id),
    CONSTRAINT restores_state_check CHECK (state IN ('planned', 'restored', 'reverted')),
    CONSTRAINT restores_reverted_check CHECK ((state = 'reverted') = (reverted_by_run IS NOT NULL))
);

COMMENT ON TABLE orphan_cleaner.restores IS 'The rows that restores brought back: the audit of a restore, and what its revert goes by.';
COMMENT ON COLUMN orphan_cleaner.restores.run_id IS 'The restore, a row of runs.';
COMMENT ON COLUMN orphan_cleaner.restores.user_id IS 'As in the backup.';
COMMENT ON COLUMN orphan_cleaner.restores.conversation_id IS 'As in the backup of a member; zeros for a row of another target.';
COMMENT ON COLUMN orphan_cleaner.restores.target IS 'Whose row it is.';
COMMENT ON COLUMN orphan_cleaner.restores.row_key IS 'Its key, as text, for a row of another target than conversation_members.';
COMMENT ON COLUMN orphan_cleaner.restores.deleted_run IS 'The run that deleted the row: with backed_up_at, the user and the key it names the backup row.';
COMMENT ON COLUMN orphan_cleaner.restores.backed_up_at IS 'As in the backup.';
COMMENT ON COLUMN orphan_cleaner.restores.state IS 'planned: not restored (yet; or it was there when its chunk came); restored; reverted: deleted once more.';
COMMENT ON COLUMN orphan_cleaner.restores.reverted_by_run IS 'The run that reverted it.';

CREATE TABLE orphan_cleaner.effects (
    name text NOT NULL,
    choice text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    set_by text NOT NULL DEFAULT session_user,
    CONSTRAINT effects_pkey PRIMARY KEY (name),
    CONSTRAINT effects_choice_check CHECK (
        name = 'counter' AND choice IN ('on', 'trigger', 'unread') OR name = 'owners' AND choice IN ('report', 'keep', 'promote')
    )
);

COMMENT ON TABLE orphan_cleaner.effects IS 'What a delete and a restore do beside the member: a choice of the migrator for each. No row: nobody has chosen.';
COMMENT ON COLUMN orphan_cleaner.effects.name IS 'counter: conversations.member_count; owners: the last owner of a conversation.';
COMMENT ON COLUMN orphan_cleaner.effects.choice IS 'Of counter: on, trigger (one of messaging-service keeps it), unread; of owners: report, keep, promote.';
COMMENT ON COLUMN orphan_cleaner.effects.set_at IS 'When it was chosen.';
COMMENT ON COLUMN orphan_cleaner.effects.set_by IS 'The database role that chose.';

CREATE TABLE orphan_cleaner.promotions (
    run_id bigint NOT NULL,
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role_before text NOT NULL,
    promoted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    undone_by_run bigint,
    undone_at timestamptz,
    CONSTRAINT promotions_pkey PRIMARY KEY (run_id, conversation_id, user_id)
);
CREATE INDEX promotions_conversation_id ON orphan_cleaner.promotions (conversation_id) WHERE undone_by_run IS NULL;
CREATE INDEX promotions_undone_by_run ON orphan_cleaner.promotions (undone_by_run) WHERE undone_by_run IS NOT NULL;

COMMENT ON TABLE orphan_cleaner.promotions IS 'Members who became owner because a run deleted the last one.';
COMMENT ON COLUMN orphan_cleaner.promotions.run_id IS 'That run.';
COMMENT ON COLUMN orphan_cleaner.promotions.conversation_id IS 'The conversation.';
COMMENT ON COLUMN orphan_cleaner.promotions.user_id IS 'The new owner.';
COMMENT ON COLUMN orphan_cleaner.promotions.role_before IS 'What the member was, and is again when the deleted owner is restored.';
COMMENT ON COLUMN orphan_cleaner.promotions.promoted_at IS 'Start of the deleting transaction.';
COMMENT ON COLUMN orphan_cleaner.promotions.undone_by_run IS 'The restore that took it back; null: none has, or the successor is away.';
COMMENT ON COLUMN orphan_cleaner.promotions.undone_at IS 'When that was, or when the deleted owner was back and the successor away; null: no restore has, or the successor was no owner any more.';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.hold_add(of_user uuid, of_conversation uuid, why text, ends_at timestamptz, lasting interval)
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- It waits for the chunks in flight, no longer.
SET lock_timeout = '5s'
AS $$
    -- No row when it would be over already.
    INSERT INTO orphan_cleaner.holds (user_id, conversation_id, reason, until)
    SELECT of_user, of_conversation, why, e.ends_at
    FROM (SELECT coalesce(hold_add.ends_at, now() + lasting) AS ends_at) AS e
    WHERE e.ends_at IS NULL
        OR e.ends_at > now()
    RETURNING hold_id
$$;

CREATE FUNCTION orphan_cleaner.hold_lift(of_hold bigint, of_restore bigint, restored_too boolean)
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
-- Of a restore of a ninth of all restored rows the whole list was read, 650 blocks and not 140.
SET enable_seqscan = off
AS $$
    -- One hold by its id; or those of a restore, but for users whose rows it restored and that are not reverted.
    WITH lifted AS (
        UPDATE orphan_cleaner.holds AS h
        SET lifted_at = now(),
            lifted_by = session_user
        WHERE h.lifted_at IS NULL
            AND h.hold_id = ANY (ARRAY(
                -- Not OR, which from 18 on is no longer planned by two indexes.
                SELECT of_hold
                UNION ALL
                SELECT o.hold_id
                FROM orphan_cleaner.holds AS o
                WHERE o.run_id = of_restore
                    AND (restored_too OR o.user_id NOT IN (
                        SELECT r.user_id FROM orphan_cleaner.restores AS r WHERE r.run_id = of_restore AND r.state = 'restored'
                    ))
            ))
        RETURNING h.hold_id
    )
    SELECT count(*) FROM lifted
$$;

CREATE FUNCTION orphan_cleaner.approve(of_run bigint, by_whom text, lasting interval)
RETURNS TABLE (approval_id bigint, expires_at timestamptz)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
#variable_conflict use_column
DECLARE
    refused record;
BEGIN
    SELECT r.state, r.breaker INTO refused FROM orphan_cleaner.runs AS r WHERE r.run_id = of_run AND r.kind = 'clean';
    IF NOT FOUND OR refused.state <> 'refused' THEN
        RAISE EXCEPTION 'run % was not refused: there is nothing to approve', of_run USING ERRCODE = 'OC011', HINT = 'Run: orphan-cleaner status';
    END IF;
    IF refused.breaker IN ('clock', 'canary-alive', 'canary-dead', 'recently-active') THEN
        RAISE EXCEPTION 'run % was refused by %: what doubts auth-service or the clock cannot be approved', of_run, refused.breaker
            USING ERRCODE = 'OC011', HINT = 'Correct the cause, then run: orphan-cleaner run';
    END IF;
    RETURN QUERY
    INSERT INTO orphan_cleaner.approvals AS a (run_id, approved_by, expires_at)
    VALUES (of_run, by_whom || ' (' || session_user || ')', now() + lasting)
    RETURNING a.approval_id, a.expires_at;
END
$$;

CREATE FUNCTION orphan_cleaner.revoke_approval(of_run bigint, by_whom text)
RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
    UPDATE orphan_cleaner.approvals AS a
    SET revoked_at = now(),
        revoked_by = by_whom || ' (' || session_user || ')'
    WHERE a.run_id = of_run
        AND a.used_at IS NULL
        AND a.revoked_at IS NULL
    RETURNING a.approval_id
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.hold_add IS 'Places a hold on a user or a conversation, until a moment, for a while or for good; null when it would be over already.';
COMMENT ON FUNCTION orphan_cleaner.hold_lift IS 'Lifts a hold, or those of a restore; returns how many. The rows stay as history.';
COMMENT ON FUNCTION orphan_cleaner.approve IS 'Approves what a refused run found, once, for a while. For the owner of the schema.';
COMMENT ON FUNCTION orphan_cleaner.revoke_approval IS 'Revokes the open approval of a run; null when there is none. For the owner of the schema.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE orphan_cleaner.holds, orphan_cleaner.restores IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM orphan_cleaner.holds_in_force) THEN
        RAISE EXCEPTION 'refusing to drop orphan_cleaner.holds: holds are in force'
            USING HINT = 'Lift them first: orphan-cleaner hold list; orphan-cleaner hold remove ID';
    END IF;
    IF EXISTS (SELECT FROM orphan_cleaner.restores) THEN
        RAISE EXCEPTION 'refusing to drop orphan_cleaner.restores: it records members that were restored'
            USING HINT = 'Copy the rows elsewhere and empty the table first, if you mean it.';
    END IF;
END
$$;
-- +goose StatementEnd

DROP FUNCTION orphan_cleaner.revoke_approval, orphan_cleaner.approve, orphan_cleaner.hold_lift, orphan_cleaner.hold_add;
DROP VIEW orphan_cleaner.holds_in_force, orphan_cleaner.targets_in_order;
DROP TABLE
    orphan_cleaner.promotions, orphan_cleaner.effects, orphan_cleaner.restores, orphan_cleaner.approvals, orphan_cleaner.refusals, orphan_cleaner.holds, orphan_cleaner.hours,
    orphan_cleaner.unknowns, orphan_cleaner.coverage, orphan_cleaner.run_targets, orphan_cleaner.sightings, orphan_cleaner.candidates;
