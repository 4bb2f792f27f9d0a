-- Written by tools/scripts/explain.sh from queries/, for explain.sql. Do not edit: `make generate`.

-- Approves the stored set of a refused run.
-- Fails on orphan_approvals_one_open while the run has an approval that is open.
-- Locks: ROW EXCLUSIVE on orphan_approvals. Index: orphan_runs_pkey. Rows: one.
PREPARE "ApprovalGive" AS
INSERT INTO orphan_approvals (run_id, approved_by, expires_at)
SELECT r.run_id, $1::text || ' (' || session_user || ')', now() + $2::interval
FROM orphan_runs AS r
WHERE r.run_id = $3
    AND r.state = 'refused'
RETURNING approval_id, expires_at;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ApprovalGive, these values
EXPLAIN (:options) EXECUTE "ApprovalGive" (:approved_by, :lasting, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ApprovalGive, any values
EXPLAIN (:options) EXECUTE "ApprovalGive" (:approved_by, :lasting, :run_id);

-- Takes the open approvals of a run back, expired ones too.
-- Locks: ROW EXCLUSIVE on orphan_approvals. Index: orphan_approvals_one_open. Rows: one.
PREPARE "ApprovalRevoke" AS
UPDATE orphan_approvals
SET revoked_at = now(),
    revoked_by = $1::text || ' (' || session_user || ')'
WHERE run_id = $2
    AND used_at IS NULL
    AND revoked_at IS NULL;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ApprovalRevoke, these values
EXPLAIN (:options) EXECUTE "ApprovalRevoke" (:revoked_by, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ApprovalRevoke, any values
EXPLAIN (:options) EXECUTE "ApprovalRevoke" (:revoked_by, :run_id);

-- The approvals that a run may use, oldest first.
-- Locks: ACCESS SHARE on orphan_approvals. Index: orphan_approvals_one_open. Rows: a few.
PREPARE "ApprovalOpen" AS
SELECT approval_id, run_id, approved_by, approved_at, expires_at
FROM orphan_approvals
WHERE used_at IS NULL
    AND revoked_at IS NULL
    AND expires_at > now()
ORDER BY approval_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ApprovalOpen, these values
EXPLAIN (:options) EXECUTE "ApprovalOpen";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ApprovalOpen, any values
EXPLAIN (:options) EXECUTE "ApprovalOpen";

-- Uses an approval up, in the transaction that writes the ledger.
-- Locks: ROW EXCLUSIVE on orphan_approvals. Index: orphan_approvals_pkey. Rows: one.
PREPARE "ApprovalUse" AS
UPDATE orphan_approvals
SET used_at = now(),
    used_by_run = $1::bigint
WHERE approval_id = $2
    -- Again by the same run: its COMMIT went through and the answer was lost.
    AND (used_at IS NULL OR used_by_run = $1::bigint)
    AND revoked_at IS NULL
    AND expires_at > now();
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ApprovalUse, these values
EXPLAIN (:options) EXECUTE "ApprovalUse" (:run_id, :approval_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ApprovalUse, any values
EXPLAIN (:options) EXECUTE "ApprovalUse" (:run_id, :approval_id);

-- Merges this run's sightings into the ledger: new candidates start their clock,
-- a candidate not seen for longer than max_gap starts it anew, users who are alive
-- again leave, to be asked about again later. Unknown users stay as they are. Follows SettingsForMerge.
-- Locks: ROW EXCLUSIVE on orphan_candidates and orphan_departed; no lock on conversation_members but ACCESS SHARE.
-- Index: orphan_departed_pkey, conversation_members_user_id; staging and the ledger are read whole.
-- Rows: as many as are missing or came back.
-- Two statements and not ON CONFLICT, which takes twice as long: nobody else adds to the ledger while the
-- run's row is locked.
PREPARE "CandidateMerge" AS
WITH open_run AS (
    SELECT o.run_id
    FROM orphan_runs AS o
    WHERE o.run_id = $1 AND o.state = 'running'
),
missing AS MATERIALIZED (
    SELECT s.user_id, s.shadow_deleted_at, r.run_id
    FROM open_run AS r
    JOIN orphan_sightings AS s ON s.run_id = r.run_id AND s.verdict = 'missing'
),
known AS (
    UPDATE orphan_candidates AS c
    SET first_missing_at = orphan_clock_start(c.first_missing_at, c.last_missing_at, s.shadow_deleted_at, $2::interval),
        last_missing_at = now(),
        last_missing_run = s.run_id,
        sightings = CASE
            WHEN c.last_missing_run = s.run_id THEN c.sightings
            WHEN c.last_missing_at >= now() - $2::interval THEN c.sightings + 1
            ELSE 1
        END,
        evidence = CASE
            WHEN s.shadow_deleted_at < orphan_clock_start(
                c.first_missing_at, c.last_missing_at, NULL, $2::interval
            ) THEN 'shadow'
            WHEN c.last_missing_at >= now() - $2::interval THEN c.evidence
            ELSE 'sightings'
        END
    FROM missing AS s
    WHERE c.user_id = s.user_id
    RETURNING c.user_id
),
added AS (
    INSERT INTO orphan_candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
    SELECT
        s.user_id,
        orphan_clock_start(NULL, NULL, s.shadow_deleted_at, $2::interval),
        now(),
        s.run_id,
        CASE WHEN s.shadow_deleted_at < now() THEN 'shadow' ELSE 'sightings' END
    FROM missing AS s
    WHERE NOT EXISTS (
        SELECT
        FROM orphan_candidates AS c
        WHERE c.user_id = s.user_id
    )
    RETURNING user_id
),
gone_from_ledger AS (
    DELETE FROM orphan_candidates AS c
    USING open_run AS r
    WHERE NOT EXISTS (
        SELECT
        FROM orphan_sightings AS s
        WHERE s.run_id = r.run_id AND s.user_id = c.user_id
    )
    RETURNING c.user_id
),
departed AS (
    INSERT INTO orphan_departed AS d (user_id)
    SELECT g.user_id
    FROM gone_from_ledger AS g
    ON CONFLICT (user_id) DO UPDATE
    SET departed_at = now(), checked_at = NULL
)
SELECT
    (SELECT count(*) FROM open_run)::bigint AS open_runs,
    ((SELECT count(*) FROM known) + (SELECT count(*) FROM added))::bigint AS missing,
    -- A candidate whose last member went otherwise leaves too, but did not return. Looked up one by one: a join
    -- would be planned as a read of the whole table.
    (
        SELECT count((SELECT 1 FROM conversation_members AS m WHERE m.user_id = g.user_id LIMIT 1))
        FROM gone_from_ledger AS g
    )::bigint AS returned;
SAVEPOINT planned;
:settings_for_merge
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CandidateMerge, these values
EXPLAIN (:options) EXECUTE "CandidateMerge" (:run_id, :max_gap);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CandidateMerge, any values
EXPLAIN (:options) EXECUTE "CandidateMerge" (:run_id, :max_gap);
ROLLBACK TO SAVEPOINT planned;

-- Takes users out of the ledger, and lists them to be asked about again: certain where they are alive again
-- at the second asking, or where each of their members went; else those without a member left. (Who joined
-- meanwhile is too young to go, and makes its user a candidate anew.) Nobody leaves while the run's count is behind
-- members_deleted: a crash of the server took chunks back. Follows SettingsForChunk.
-- Locks: ROW EXCLUSIVE on orphan_candidates and orphan_departed.
-- Index: orphan_candidates_pkey, orphan_departed_pkey, conversation_members_user_id.
-- Rows: as many as given.
PREPARE "CandidateForget" AS
WITH forgotten AS (
    DELETE FROM orphan_candidates AS c
    WHERE c.user_id = ANY (ARRAY(SELECT unnest($1::uuid [])))
        AND EXISTS (
            SELECT
            FROM orphan_runs AS r
            WHERE r.run_id = $2 AND r.state = 'running' AND r.members_deleted >= $3::bigint
        )
        AND (
            $4::boolean
            OR NOT EXISTS (SELECT FROM conversation_members AS m WHERE m.user_id = c.user_id)
        )
    RETURNING c.user_id
),
listed AS (
    -- Two steps and not ON CONFLICT, which writes each row twice: as good as nobody is on the list already, and nobody
    -- else adds to it while a run is open.
    UPDATE orphan_departed AS d
    SET departed_at = now(), checked_at = NULL
    FROM forgotten AS f
    WHERE d.user_id = f.user_id
        -- By the key; the join alone would be planned as a read of the whole list.
        AND d.user_id = ANY (ARRAY(SELECT unnest($1::uuid [])))
    RETURNING d.user_id
)
INSERT INTO orphan_departed (user_id)
SELECT f.user_id
FROM forgotten AS f
WHERE NOT EXISTS (SELECT FROM listed AS l WHERE l.user_id = f.user_id);
SAVEPOINT planned;
:settings_for_chunk
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CandidateForget, these values
EXPLAIN (:options) EXECUTE "CandidateForget" (:user_ids, :run_id, :members_deleted, :certain);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CandidateForget, any values
EXPLAIN (:options) EXECUTE "CandidateForget" (:user_ids, :run_id, :members_deleted, :certain);
ROLLBACK TO SAVEPOINT planned;

-- Candidates by the day their retention ends; the first row holds what is due already.
-- Locks: ACCESS SHARE on orphan_candidates and conversation_members.
-- Index: conversation_members_user_id. Rows: the whole ledger and its members.
PREPARE "CandidateBacklog" AS
SELECT
    greatest((c.first_missing_at + $1::interval) AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')::date::text AS due_on,
    (c.first_missing_at + $1::interval <= now())::boolean AS is_due,
    count(*) AS users,
    sum(m.members)::bigint AS members
FROM orphan_candidates AS c
    -- User by user, by the index: a join may well be planned as a scan of the table.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM conversation_members AS m
    WHERE m.user_id = c.user_id
) AS m
GROUP BY 1, 2
ORDER BY 1, 2 DESC
LIMIT $2;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CandidateBacklog, these values
EXPLAIN (:options) EXECUTE "CandidateBacklog" (:retention, :max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CandidateBacklog, any values
EXPLAIN (:options) EXECUTE "CandidateBacklog" (:retention, :max_rows);

-- Whom a run asks about: ranges of user ids from from_user up to, and without, until_user (zeros: the end), of
-- each at most max_users (0: all). With since as the time from the run that checked last to now, the rest
-- of check_every is shared out so that the next run, and one more if it is missed, still come in time:
--   due   is a range that no run checked yet, that is unknown, or whose turn (check_every - 2 * since) is
--         over: whole, however much it has grown;
--   pace  is since / turn of all users, in whole batches: what due ranges leave of it goes to the ranges
--         checked longest ago. It spreads what would be due at once over the time until then.
-- A turn no longer than since makes everybody due; so does check_every 0.
-- Locks: ACCESS SHARE on orphan_coverage. Index: none: all is read.
-- Rows: as many as there are runs in check_every, or so; two more for each batch that was void.
PREPARE "CoverageShare" AS
WITH ranges AS (
    SELECT
        c.from_user,
        lead(c.from_user) OVER (ORDER BY c.from_user) AS until_user,
        c.users,
        c.is_unknown,
        extract(EPOCH FROM now() - c.checked_at) AS age
    FROM (
        SELECT from_user, checked_at, users, is_unknown
        FROM orphan_coverage
        UNION ALL
        -- Below the first row nobody was ever checked.
        SELECT '00000000-0000-0000-0000-000000000000', NULL, 0, false
        WHERE NOT EXISTS (SELECT FROM orphan_coverage WHERE from_user = '00000000-0000-0000-0000-000000000000')
    ) AS c
),
known AS (
    SELECT
        greatest(min(age), 0) AS since,
        -- In seconds: an interval with days in it would be longer or shorter by DST.
        extract(EPOCH FROM $1::interval) - 2 * greatest(min(age), 0) AS turn,
        sum(users) AS users
    FROM ranges
),
turns AS (
    SELECT
        r.from_user,
        r.until_user,
        r.users,
        r.age,
        r.is_unknown OR coalesce(k.turn <= k.since OR r.age >= k.turn, true) AS is_due,
        k.users AS all_users,
        CASE WHEN k.turn > 0 THEN greatest(ceil(k.users * k.since / k.turn / $2::bigint), 1) * $2::bigint END AS pace
    FROM ranges AS r
    CROSS JOIN known AS k
),
queue AS (
    SELECT
        t.from_user,
        t.until_user,
        t.users,
        t.is_due,
        t.all_users,
        t.pace - coalesce(
            sum(t.users) OVER (ORDER BY t.is_due DESC, t.age DESC, t.from_user ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
        ) AS room
    FROM turns AS t
)
SELECT
    q.from_user::uuid AS from_user,
    coalesce(q.until_user, '00000000-0000-0000-0000-000000000000')::uuid AS until_user,
    CASE WHEN q.is_due THEN 0 ELSE q.room END::bigint AS max_users,
    q.users::bigint AS users,
    q.all_users::bigint AS all_users
FROM queue AS q
WHERE q.is_due
    OR q.room > 0
ORDER BY q.from_user;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CoverageShare, these values
EXPLAIN (:options) EXECUTE "CoverageShare" (:check_every, :batch_size);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CoverageShare, any values
EXPLAIN (:options) EXECUTE "CoverageShare" (:check_every, :batch_size);

-- Writes down what a run has asked about, part by part in the order of ids: checked now, or as before, because
-- no correct answer came (unknown) or because it was not its turn. The parts take the place of the rows they cover.
-- An until_user of nothing but zeros is the end.
-- Locks: ROW EXCLUSIVE on orphan_coverage; ROW SHARE on orphan_runs, for the foreign key.
-- Index: orphan_coverage_pkey, or none: all of it is small. Rows: as many as parts are given, mostly two or three.
PREPARE "CoverageWrite" AS
WITH parts AS (
    SELECT
        p.from_user,
        nullif(p.until_user, '00000000-0000-0000-0000-000000000000') AS until_user,
        p.users,
        p.is_checked,
        p.is_unknown,
        r.run_id,
        r.started_at
    FROM (
        SELECT
            unnest($1::uuid [])::uuid AS from_user,
            unnest($2::uuid [])::uuid AS until_user,
            unnest($3::bigint [])::bigint AS users,
            unnest($4::boolean [])::boolean AS is_checked,
            unnest($5::boolean [])::boolean AS is_unknown
    ) AS p
    JOIN orphan_runs AS r ON r.run_id = $6 AND r.state = 'running'
),
covered AS (
    DELETE FROM orphan_coverage AS c
    USING parts AS p
    WHERE c.from_user > p.from_user
        AND (c.from_user < p.until_user OR p.until_user IS NULL)
)
INSERT INTO orphan_coverage AS c (from_user, checked_at, run_id, users, is_unknown)
SELECT
    p.from_user,
    -- When the run began: no user of it was asked about before.
    CASE WHEN p.is_checked THEN p.started_at ELSE o.checked_at END,
    CASE WHEN p.is_checked THEN p.run_id ELSE o.run_id END,
    p.users,
    p.is_unknown
FROM parts AS p
LEFT JOIN LATERAL (
    SELECT b.checked_at, b.run_id
    FROM orphan_coverage AS b
    WHERE b.from_user <= p.from_user
    ORDER BY b.from_user DESC
    LIMIT 1
) AS o ON true
ON CONFLICT (from_user) DO UPDATE
SET checked_at = excluded.checked_at,
    run_id = excluded.run_id,
    users = excluded.users,
    is_unknown = excluded.is_unknown;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CoverageWrite, these values
EXPLAIN (:options) EXECUTE "CoverageWrite" (:from_users, :until_users, :users, :are_checked, :are_unknown, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CoverageWrite, any values
EXPLAIN (:options) EXECUTE "CoverageWrite" (:from_users, :until_users, :users, :are_checked, :are_unknown, :run_id);

-- How far the checking is; no row before the first: whether every user has been asked about, and when the run
-- began since which that is so; how many users there are, of how many the last run knew, and of how many it did not.
-- Locks: ACCESS SHARE on orphan_coverage. Index: none: all is read. Rows: one.
PREPARE "CoverageState" AS
SELECT
    (bool_and(c.checked_at IS NOT NULL) AND bool_or(c.from_user = '00000000-0000-0000-0000-000000000000'))::boolean AS is_whole,
    coalesce(min(c.checked_at), now())::timestamptz AS checked_since,
    coalesce(l.checked_at, now())::timestamptz AS checked_last,
    sum(c.users)::bigint AS users,
    coalesce(sum(c.users) FILTER (WHERE c.checked_at = l.checked_at), 0)::bigint AS users_last,
    coalesce(sum(c.users) FILTER (WHERE c.is_unknown), 0)::bigint AS users_unknown
FROM orphan_coverage AS c
CROSS JOIN (SELECT max(checked_at) AS checked_at FROM orphan_coverage) AS l
GROUP BY l.checked_at;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CoverageState, these values
EXPLAIN (:options) EXECUTE "CoverageState";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CoverageState, any values
EXPLAIN (:options) EXECUTE "CoverageState";

-- The next candidates from from_user on, with the number of their members.
-- Locks: ACCESS SHARE on orphan_candidates and conversation_members.
-- Index: orphan_candidates_pkey, in order; conversation_members_user_id, mostly index-only. Rows: max_users and their members.
PREPARE "CandidateMemberPage" AS
SELECT c.user_id, m.members
FROM orphan_candidates AS c
    -- User by user, by the index: a join may well be planned as a scan of the table.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM conversation_members AS m
    WHERE m.user_id = c.user_id
) AS m
WHERE c.user_id >= $1
    AND c.user_id <= $2
ORDER BY c.user_id
LIMIT $3::bigint;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == CandidateMemberPage, these values
EXPLAIN (:options) EXECUTE "CandidateMemberPage" (:from_user, :through_user, :max_users);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == CandidateMemberPage, any values
EXPLAIN (:options) EXECUTE "CandidateMemberPage" (:from_user, :through_user, :max_users);

-- The users to be asked about again in this run: in the order of ids, behind those of the last run that asked; after
-- the last one from the first one on.
-- Locks: ACCESS SHARE on orphan_departed and orphan_runs. Index: orphan_departed_pkey, in order; runs are read back to the
-- last one that asked, or whole. Rows: twice max_users.
PREPARE "DepartedPage" AS
WITH last_one AS (
    SELECT coalesce(
        (
            SELECT r.asked_again_through
            FROM orphan_runs AS r
            WHERE r.asked_again_through IS NOT NULL
            ORDER BY r.run_id DESC
            LIMIT 1
        ), '00000000-0000-0000-0000-000000000000'
    ) AS user_id
)
SELECT t.user_id
FROM (
    (
        SELECT d.user_id, 1 AS turn
        FROM orphan_departed AS d
        WHERE d.user_id > (SELECT l.user_id FROM last_one AS l)
        ORDER BY d.user_id
        LIMIT $1::bigint
    )
    UNION ALL
    (
        SELECT d.user_id, 2 AS turn
        FROM orphan_departed AS d
        WHERE d.user_id <= (SELECT l.user_id FROM last_one AS l)
        ORDER BY d.user_id
        LIMIT $1::bigint
    )
) AS t
ORDER BY t.turn, t.user_id
LIMIT $1::bigint;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == DepartedPage, these values
EXPLAIN (:options) EXECUTE "DepartedPage" (:max_users);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == DepartedPage, any values
EXPLAIN (:options) EXECUTE "DepartedPage" (:max_users);

-- Writes down what the answers said about departed users, and with whom the next run goes on. Of those who are
-- alive again it returns who lost members that can be given back; the others need not be asked about any more.
-- Locks: ROW EXCLUSIVE on orphan_departed and orphan_runs; ACCESS SHARE on the backup, where somebody is alive.
-- Index: orphan_departed_pkey, orphan_runs_pkey. Rows: as many as given; all backups, read once, where somebody is alive.
PREPARE "DepartedCheck" AS
WITH losses AS MATERIALIZED (
    SELECT p.user_id::uuid AS user_id, count(*) AS members
    FROM orphan_restore_plan(NULL, $1::uuid [], NULL, NULL, NULL) AS p
    WHERE p.verdict = 'restore'
        AND cardinality($1::uuid []) > 0
    GROUP BY p.user_id
),
still_missing AS (
    UPDATE orphan_departed AS d
    SET checked_at = now(),
        alive_at = NULL
    WHERE d.user_id = ANY ($2::uuid [])
),
resurrected AS (
    UPDATE orphan_departed AS d
    SET checked_at = now(),
        alive_at = coalesce(d.alive_at, now())
    FROM losses AS l
    WHERE d.user_id = l.user_id
    RETURNING d.user_id, l.members
),
settled AS (
    DELETE FROM orphan_departed AS d
    WHERE d.user_id = ANY ($1::uuid [])
        AND NOT EXISTS (SELECT FROM losses AS l WHERE l.user_id = d.user_id)
),
place AS (
    UPDATE orphan_runs AS o
    SET asked_again_through = $3::uuid
    WHERE o.run_id = $4
        AND o.state = 'running'
)
SELECT r.user_id, r.members::bigint AS members
FROM resurrected AS r
ORDER BY r.user_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == DepartedCheck, these values
EXPLAIN (:options) EXECUTE "DepartedCheck" (:alive_uuid, :missing, :asked_through, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == DepartedCheck, any values
EXPLAIN (:options) EXECUTE "DepartedCheck" (:alive_uuid, :missing, :asked_through, :run_id);

-- The users who are alive again and whose members can be given back, as last seen.
-- Locks: ACCESS SHARE on orphan_departed. Index: orphan_departed_alive. Rows: as good as none.
PREPARE "DepartedAlive" AS
SELECT user_id, alive_at::timestamptz AS alive_at
FROM orphan_departed
WHERE alive_at IS NOT NULL
ORDER BY user_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == DepartedAlive, these values
EXPLAIN (:options) EXECUTE "DepartedAlive";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == DepartedAlive, any values
EXPLAIN (:options) EXECUTE "DepartedAlive";

-- Forgets departed users who left before the oldest backup that is still there, max_rows at a time.
-- Locks: ROW EXCLUSIVE on orphan_departed. Index: none: the list is read whole, by a daily job. Rows: max_rows.
PREPARE "DepartedPrune" AS
DELETE FROM orphan_departed AS d
USING (
    SELECT o.user_id
    FROM orphan_departed AS o
    WHERE o.departed_at < (
            SELECT min(coalesce(p.lower_bound, '-infinity'))
            FROM orphan_partitions() AS p
            WHERE p.parent = 'conversation_members_backup'
        )
        AND o.alive_at IS NULL
    LIMIT $1::bigint
) AS old
WHERE d.user_id = old.user_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == DepartedPrune, these values
EXPLAIN (:options) EXECUTE "DepartedPrune" (:max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == DepartedPrune, any values
EXPLAIN (:options) EXECUTE "DepartedPrune" (:max_rows);

-- Takes users whose members a restore gave back off the list: every run asks about them again. One who is
-- alive stays on it while more of what was deleted could be given back.
-- Locks: ROW EXCLUSIVE on orphan_departed; ACCESS SHARE on the backup, where somebody is alive.
-- Index: orphan_restores_pkey, orphan_departed_pkey or orphan_departed_alive. Rows: the users of the restore; all backups,
-- read once, where somebody is alive.
PREPARE "DepartedSettle" AS
WITH restored AS MATERIALIZED (
    SELECT DISTINCT r.user_id
    FROM orphan_restores AS r
    WHERE r.run_id = $1
        AND r.state = 'restored'
),
alive AS MATERIALIZED (
    SELECT array_agg(d.user_id) AS users
    FROM orphan_departed AS d
    WHERE d.alive_at IS NOT NULL
        AND d.user_id IN (SELECT x.user_id FROM restored AS x)
),
unfinished AS MATERIALIZED (
    SELECT DISTINCT p.user_id::uuid AS user_id
    FROM alive AS a
    CROSS JOIN LATERAL orphan_restore_plan(NULL, a.users, NULL, NULL, NULL) AS p
    WHERE a.users IS NOT NULL
        AND p.verdict = 'restore'
)
DELETE FROM orphan_departed AS d
WHERE d.user_id IN (SELECT x.user_id FROM restored AS x)
    AND NOT EXISTS (SELECT FROM unfinished AS u WHERE u.user_id = d.user_id);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == DepartedSettle, these values
EXPLAIN (:options) EXECUTE "DepartedSettle" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == DepartedSettle, any values
EXPLAIN (:options) EXECUTE "DepartedSettle" (:run_id);

-- Places a hold on a user or a conversation; no row when it would be over already.
-- Locks: ROW EXCLUSIVE on orphan_holds. Index: none. Rows: one.
PREPARE "HoldAdd" AS
INSERT INTO orphan_holds (user_id, conversation_id, reason, until)
SELECT
    $1::uuid,
    $2::uuid,
    $3::text,
    ends.at
FROM (SELECT coalesce($4::timestamptz, now() + $5::interval) AS at) AS ends
WHERE ends.at IS NULL
    OR ends.at > now()
RETURNING hold_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == HoldAdd, these values
EXPLAIN (:options) EXECUTE "HoldAdd" (:user_id, :conversation_id, :reason, :until, :lasting);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == HoldAdd, any values
EXPLAIN (:options) EXECUTE "HoldAdd" (:user_id, :conversation_id, :reason, :until, :lasting);

-- The holds in force, with the members they keep: each that was placed by hand, and those of a restore as one.
-- Locks: ACCESS SHARE. Index: conversation_members_user_id, conversation_members_pkey. Rows: the holds and their members.
PREPARE "HoldList" AS
SELECT
    h.hold_id, h.user_id, h.conversation_id, NULL::bigint AS run_id, h.reason, h.created_at, h.created_by, h.until,
    ((
        SELECT count(*)
        FROM conversation_members AS m
        WHERE m.user_id = h.user_id
    ) + (
        SELECT count(*)
        FROM conversation_members AS m
        WHERE m.conversation_id = h.conversation_id
    ))::bigint AS members,
    (h.user_id IS NOT NULL)::integer::bigint AS users
FROM orphan_holds_in_force AS h
WHERE h.run_id IS NULL
UNION ALL
SELECT
    min(h.hold_id), NULL, NULL, h.run_id, min(h.reason), min(h.created_at), min(h.created_by), max(h.until),
    sum((
        SELECT count(*)
        FROM conversation_members AS m
        WHERE m.user_id = h.user_id
    ))::bigint,
    count(*)
FROM orphan_holds_in_force AS h
WHERE h.run_id IS NOT NULL
GROUP BY h.run_id
ORDER BY 1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == HoldList, these values
EXPLAIN (:options) EXECUTE "HoldList";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == HoldList, any values
EXPLAIN (:options) EXECUTE "HoldList";

-- Lifts a hold; its row stays as history.
-- Locks: ROW EXCLUSIVE on orphan_holds. Index: orphan_holds_pkey. Rows: one.
PREPARE "HoldRemove" AS
UPDATE orphan_holds
SET lifted_at = now(),
    lifted_by = session_user
WHERE hold_id = $1
    AND lifted_at IS NULL;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == HoldRemove, these values
EXPLAIN (:options) EXECUTE "HoldRemove" (:hold_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == HoldRemove, any values
EXPLAIN (:options) EXECUTE "HoldRemove" (:hold_id);

-- Lifts the holds that a restore placed, but for users whose members it gave back and that are not reverted, unless all is said.
-- Locks: ROW EXCLUSIVE on orphan_holds. Index: orphan_holds_run_id_user_id, orphan_restores_pkey. Rows: the users of the restore.
PREPARE "HoldRemoveOfRun" AS
UPDATE orphan_holds AS h
SET lifted_at = now(),
    lifted_by = session_user
WHERE h.run_id = $1::bigint
    AND h.lifted_at IS NULL
    AND (
        $2::boolean
        OR NOT EXISTS (
            SELECT
            FROM orphan_restores AS r
            WHERE r.run_id = $1::bigint AND r.user_id = h.user_id AND r.state = 'restored'
        )
    );
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == HoldRemoveOfRun, these values
EXPLAIN (:options) EXECUTE "HoldRemoveOfRun" (:run_id, :every_boolean);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == HoldRemoveOfRun, any values
EXPLAIN (:options) EXECUTE "HoldRemoveOfRun" (:run_id, :every_boolean);

-- The next distinct user ids from from_user on, in order, and how many members they have. As one array: a row
-- for each of 5,000 users costs both sides more than finding them.
-- Locks: ACCESS SHARE on conversation_members.
-- Index: conversation_members_user_id, in order, mostly index-only. Rows: the members of max_users users.
PREPARE "MemberUserPage" AS
SELECT
    coalesce(array_agg(u.user_id), '{}')::uuid [] AS users,
    coalesce(sum(u.members), 0)::bigint AS members
FROM (
    SELECT user_id, count(*) AS members
    FROM conversation_members
    WHERE user_id >= $1
        AND user_id <= $2
    GROUP BY user_id
    ORDER BY user_id
    LIMIT $3::bigint
) AS u;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MemberUserPage, these values
EXPLAIN (:options) EXECUTE "MemberUserPage" (:from_user, :through_user, :max_users);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MemberUserPage, any values
EXPLAIN (:options) EXECUTE "MemberUserPage" (:from_user, :through_user, :max_users);

-- How many users and members there are; asked only when a run looks like being refused.
-- Locks: ACCESS SHARE on conversation_members.
-- Index: conversation_members_user_id, mostly index-only. Rows: all members.
PREPARE "MemberTotals" AS
SELECT
    count(*)::bigint AS users,
    coalesce(sum(u.members), 0)::bigint AS members
FROM (
    SELECT count(*) AS members
    FROM conversation_members
    GROUP BY user_id
) AS u;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MemberTotals, these values
EXPLAIN (:options) EXECUTE "MemberTotals";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MemberTotals, any values
EXPLAIN (:options) EXECUTE "MemberTotals";

-- Where the members of these users lie behind a place of the table, in its order: what the sweep cuts its
-- chunks from. Members of any age, on hold or not: whether one may go decides MemberDeleteDue. Follows SettingsForPlaces.
-- Locks: ACCESS SHARE on conversation_members. Index: conversation_members_user_id. Rows: max_members.
PREPARE "MemberPlaces" AS
SELECT
    m.ctid::tid AS place,
    m.user_id
FROM conversation_members AS m
    -- A subquery, so that the planner does not weigh thousands of users one by one.
WHERE m.user_id = ANY (ARRAY(SELECT unnest($1::uuid [])))
    AND m.ctid > $2::tid
ORDER BY place
LIMIT $3::bigint;
SAVEPOINT planned;
:settings_for_places
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MemberPlaces, these values
EXPLAIN (:options) EXECUTE "MemberPlaces" (:user_ids, :after, :max_members);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MemberPlaces, any values
EXPLAIN (:options) EXECUTE "MemberPlaces" (:user_ids, :after, :max_members);
ROLLBACK TO SAVEPOINT planned;

-- Deletes members of users whom auth-service has just again left out. A place says where to look and no more:
-- every condition is stated once more here, whatever the runner believes, and whoever lies there. A row that was
-- changed since lies elsewhere, and stays. Follows SettingsForChunk.
-- Locks: ROW EXCLUSIVE on conversation_members, the rows that go, as they lie in the table. Chunks of one run
-- have no row in common; a deadlock with the application is its victim, and repeated.
-- Index: orphan_candidates_pkey; the members by their places. Rows: the places given, each page read once.
PREPARE "MemberDeleteDue" AS
DELETE FROM conversation_members AS m
USING (
    SELECT l.user_id, l.first_missing_at, least(l.last_missing_at, now()) - $1::interval AS horizon
    FROM orphan_candidates AS l
    -- A subquery, so that the planner does not weigh thousands of users one by one, and hashes these few.
    WHERE l.user_id = ANY (ARRAY(SELECT unnest($2::uuid [])))
        -- Missing in this very run.
        AND l.last_missing_run = $3
    -- The horizon is worked out once for each user, and not for each member.
    OFFSET 0
) AS c
WHERE m.user_id = c.user_id
    AND m.ctid = ANY ($4::tid [])
    -- The run is open, and this session's triggers fire.
    AND EXISTS (
        SELECT
        FROM orphan_runs AS r
        WHERE r.run_id = $3 AND r.state = 'running'
    )
    AND current_setting('session_replication_role') = 'origin'
    -- Missing for longer than the retention. By the time at which the ledger was written: the clock may have
    -- jumped forward since.
    AND c.first_missing_at <= c.horizon
    -- A young member of a missing user means that something is wrong.
    AND m.joined_at < c.horizon
    AND NOT EXISTS (
        SELECT
        FROM orphan_holds_in_force AS h
        WHERE h.user_id = c.user_id
    )
    -- NOT IN is hashed once, NOT EXISTS would be looked up for each member. It is never null here.
    AND m.conversation_id NOT IN (
        SELECT h.conversation_id
        FROM orphan_holds_in_force AS h
        WHERE h.conversation_id IS NOT NULL
    )
    -- With an approval, nobody but those it names.
    AND (
        $5::bigint = 0
        OR EXISTS (
            SELECT
            FROM orphan_refusals AS f
            WHERE f.run_id = $5::bigint AND f.user_id = c.user_id AND f.is_due
        )
    );
SAVEPOINT planned;
:settings_for_chunk
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MemberDeleteDue, these values
EXPLAIN (:options) EXECUTE "MemberDeleteDue" (:retention, :user_ids, :run_id, :places, :approved_run);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MemberDeleteDue, any values
EXPLAIN (:options) EXECUTE "MemberDeleteDue" (:retention, :user_ids, :run_id, :places, :approved_run);
ROLLBACK TO SAVEPOINT planned;

-- Opens a chunk: bounds its waiting and names its run to the audit trigger. All
-- of it is local to the transaction, so that a pooler may hand the session on.
-- Returns the session's replication_role: in another than origin a chunk would choose nobody.
-- Locks: an advisory lock of our own, shared by all chunks, until the transaction ends; see ChunkSettle. Index: none.
PREPARE "ChunkSettings" AS
SELECT
    set_config('jit', 'off', true) AS jit,
    set_config('lock_timeout', $1::text, true) AS lock_timeout,
    set_config('statement_timeout', $2::text, true) AS statement_timeout,
    set_config('idle_in_transaction_session_timeout', $2::text, true) AS idle_timeout,
    set_config('orphan_cleaner.run_id', ($3::bigint)::text, true) AS run_id,
    set_config('orphan_cleaner.audited', '0', true) AS audited,
    set_config('orphan_cleaner.backed_up', '0', true) AS backed_up,
    current_setting('session_replication_role')::text AS replication_role,
    pg_advisory_xact_lock_shared(hashtextextended('orphan_cleaner_chunk', 0))::text AS in_flight;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ChunkSettings, these values
EXPLAIN (:options) EXECUTE "ChunkSettings" (:lock_timeout, :statement_timeout, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ChunkSettings, any values
EXPLAIN (:options) EXECUTE "ChunkSettings" (:lock_timeout, :statement_timeout, :run_id);

-- Waits for the chunks in flight: they may have been planned before a hold or a pause was committed that
-- this follows, every later chunk sees it. Chunks that come meanwhile wait behind it.
-- Locks: the advisory lock that chunks share, alone, for a moment. Index: none.
PREPARE "ChunkSettle" AS
SELECT pg_advisory_xact_lock(hashtextextended('orphan_cleaner_chunk', 0));
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ChunkSettle, these values
EXPLAIN (:options) EXECUTE "ChunkSettle";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ChunkSettle, any values
EXPLAIN (:options) EXECUTE "ChunkSettle";

-- What the audit trigger reported of this transaction, for the count proof.
-- Locks: none.
PREPARE "ChunkProof" AS
SELECT
    coalesce(nullif(current_setting('orphan_cleaner.audited', true), ''), '-1')::bigint AS audited,
    coalesce(nullif(current_setting('orphan_cleaner.backed_up', true), ''), '-1')::bigint AS backed_up;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ChunkProof, these values
EXPLAIN (:options) EXECUTE "ChunkProof";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ChunkProof, any values
EXPLAIN (:options) EXECUTE "ChunkProof";

-- What every runner's metrics say alike: the runs, the ledger's size, the switches. Counts no member.
-- Locks: ACCESS SHARE on our tables.
-- Index: orphan_runs_pkey, orphan_departed_alive, orphan_pauses_one_in_force; runs, ledger and coverage are read whole.
-- Rows: all runs, some ten thousand a year; the ledger, one row per missing user; a few of the rest.
PREPARE "MetricsState" AS
SELECT
    r.last_success::float8 AS last_success,
    r.last_attempt::float8 AS last_attempt,
    r.members_deleted::bigint AS members_deleted,
    r.members_restored::bigint AS members_restored,
    r.batch_calls::bigint AS batch_calls,
    r.run_open::boolean AS run_open,
    coalesce(f.users_checked, 0)::bigint AS users_checked,
    coalesce(f.users_unknown, 0)::bigint AS users_unknown,
    coalesce(f.members_held, 0)::bigint AS members_held,
    coalesce(f.members_kept_young, 0)::bigint AS members_kept_young,
    coalesce(t.breaker, '')::text AS tripped,
    (
        SELECT CASE
            -- Some were never asked about.
            WHEN NOT coalesce(bool_or(v.from_user = '00000000-0000-0000-0000-000000000000') AND bool_and(v.checked_at IS NOT NULL), false) THEN 0
            ELSE extract(EPOCH FROM min(v.checked_at))
        END
        FROM orphan_coverage AS v
    )::float8 AS everybody_checked,
    (SELECT count(*) FROM orphan_candidates)::bigint AS candidate_users,
    (SELECT count(*) FROM orphan_departed WHERE alive_at IS NOT NULL)::bigint AS resurrected_users,
    (p.paused_at IS NOT NULL)::boolean AS paused,
    coalesce(extract(EPOCH FROM now() - p.paused_at), 0)::float8 AS pause_age
FROM (
    SELECT
        coalesce(extract(EPOCH FROM max(finished_at) FILTER (WHERE kind = 'clean' AND state = 'succeeded')), 0) AS last_success,
        coalesce(extract(EPOCH FROM max(started_at) FILTER (WHERE kind = 'clean')), 0) AS last_attempt,
        coalesce(sum(members_deleted), 0) AS members_deleted,
        coalesce(sum(members_restored), 0) AS members_restored,
        coalesce(sum(batch_calls), 0) AS batch_calls,
        coalesce(bool_or(state = 'running'), false) AS run_open
    FROM orphan_runs
) AS r
LEFT JOIN LATERAL (
    SELECT users_checked, users_unknown, members_held, members_kept_young
    FROM orphan_runs
    WHERE kind = 'clean'
        AND state NOT IN ('running', 'abandoned')
    ORDER BY run_id DESC
    LIMIT 1
) AS f ON true
LEFT JOIN LATERAL (
    -- Until it is settled: a refused run counts as long as no later one succeeded.
    SELECT CASE WHEN judged.state = 'refused' THEN judged.breaker END AS breaker
    FROM orphan_runs AS judged
    WHERE judged.kind = 'clean'
        AND judged.state IN ('refused', 'succeeded')
    ORDER BY judged.run_id DESC
    LIMIT 1
) AS t ON true
LEFT JOIN orphan_pauses AS p ON p.resumed_at IS NULL;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsState, these values
EXPLAIN (:options) EXECUTE "MetricsState";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsState, any values
EXPLAIN (:options) EXECUTE "MetricsState";

-- How many runs of each kind ended in each state, those that never happened too.
-- Locks: ACCESS SHARE on orphan_runs. Index: none. Rows: all runs.
PREPARE "MetricsRuns" AS
SELECT
    k.kind::text AS kind,
    s.state::text AS state,
    count(r.run_id) AS runs
FROM unnest(ARRAY['clean', 'restore']) AS k (kind)
CROSS JOIN unnest(ARRAY['succeeded', 'incomplete', 'refused', 'failed', 'abandoned']) AS s (state)
LEFT JOIN orphan_runs AS r ON r.kind = k.kind AND r.state = s.state
GROUP BY k.kind, s.state
ORDER BY k.kind, s.state;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsRuns, these values
EXPLAIN (:options) EXECUTE "MetricsRuns";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsRuns, any values
EXPLAIN (:options) EXECUTE "MetricsRuns";

-- For how many days after today each partitioned table has its partitions, without a gap; -1: not even for today.
-- Looks 62 days ahead.
-- Locks: none beyond the catalog. Rows: 130.
PREPARE "MetricsPartitions" AS
SELECT
    t.parent::text AS table_name,
    (coalesce(min(d.ahead) FILTER (WHERE i.inhrelid IS NULL), 63) - 1)::bigint AS days_ahead
FROM (
    SELECT 'conversation_members_audit' AS parent, 'YYYYMM' AS pattern
    UNION ALL
    SELECT 'conversation_members_backup', 'YYYYMMDD'
) AS t
CROSS JOIN generate_series(0, 62) AS d (ahead)
LEFT JOIN pg_catalog.pg_inherits AS i
    ON i.inhparent = to_regclass('public.' || t.parent)
    AND i.inhrelid = to_regclass(
        'public.' || t.parent || '_' || to_char((now() AT TIME ZONE 'UTC') + make_interval(days => d.ahead), t.pattern)
    )
GROUP BY t.parent
ORDER BY t.parent;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsPartitions, these values
EXPLAIN (:options) EXECUTE "MetricsPartitions";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsPartitions, any values
EXPLAIN (:options) EXECUTE "MetricsPartitions";

-- What a run would delete now: members older than the retention, whose user's clock is past it, and
-- no hold on either. The audit's DEFAULT partition is counted up to 100,000 rows.
-- Locks: ACCESS SHARE on conversation_members and our tables.
-- Index: conversation_members_user_id. Rows: the ledger, and the members of due users.
PREPARE "MetricsDue" AS
SELECT
    count(*)::bigint AS due_users,
    coalesce(sum(m.members), 0)::bigint AS due_members,
    coalesce(extract(EPOCH FROM now() - (min(c.first_missing_at) + $1::interval)), 0)::float8 AS oldest_due_age,
    (
        SELECT count(*)
        FROM (SELECT FROM conversation_members_audit_default LIMIT 100000) AS rows_there
    )::bigint AS audit_default_rows
FROM orphan_candidates AS c
    -- User by user, by the index: a join may well be planned as a scan of the table.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM conversation_members AS m
    WHERE m.user_id = c.user_id
        AND m.joined_at < now() - $1::interval
        AND NOT EXISTS (
            SELECT
            FROM orphan_holds_in_force AS h
            WHERE h.conversation_id = m.conversation_id
        )
) AS m
WHERE c.first_missing_at <= now() - $1::interval
    AND NOT EXISTS (
        SELECT
        FROM orphan_holds_in_force AS h
        WHERE h.user_id = c.user_id
    )
    AND m.members > 0;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsDue, these values
EXPLAIN (:options) EXECUTE "MetricsDue" (:retention);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsDue, any values
EXPLAIN (:options) EXECUTE "MetricsDue" (:retention);

-- The members of all candidates, due or not.
-- Locks: ACCESS SHARE on conversation_members and orphan_candidates.
-- Index: conversation_members_user_id. Rows: the ledger and its members, never the whole table.
PREPARE "MetricsCandidateMembers" AS
SELECT coalesce(sum(m.members), 0)::bigint AS members
FROM orphan_candidates AS c
    -- User by user, by the index.
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM conversation_members AS m
    WHERE m.user_id = c.user_id
) AS m;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == MetricsCandidateMembers, these values
EXPLAIN (:options) EXECUTE "MetricsCandidateMembers";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == MetricsCandidateMembers, any values
EXPLAIN (:options) EXECUTE "MetricsCandidateMembers";

-- Every partition of backup and audit, oldest backup first, and why it is kept: empty means that prune drops it.
-- Locks: ACCESS SHARE on the tables of ours. Index: none. Rows: the partitions; while holds are in
-- force the backups past the restore window are read.
PREPARE "PartitionVerdicts" AS
SELECT
    v.parent::text AS parent,
    v.partition_name::text AS partition_name,
    v.lower_bound::timestamptz AS lower_bound,
    v.upper_bound::timestamptz AS upper_bound,
    v.rows_estimate::bigint AS rows_estimate,
    v.bytes::bigint AS bytes,
    v.is_expired::boolean AS is_expired,
    coalesce(v.kept_because, '')::text AS kept_because
FROM orphan_partition_verdicts($1::interval, $2::interval) AS v
    -- Not the DEFAULT partition, nor one without an end.
WHERE v.upper_bound IS NOT NULL;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PartitionVerdicts, these values
EXPLAIN (:options) EXECUTE "PartitionVerdicts" (:restore_window, :audit_window);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PartitionVerdicts, any values
EXPLAIN (:options) EXECUTE "PartitionVerdicts" (:restore_window, :audit_window);

-- Drops one partition that is past its window; returns why not, or nothing.
-- Locks: SHARE on orphan_holds; ACCESS EXCLUSIVE on the partition, the audit's DEFAULT one and, for about
-- a millisecond, the parent; each waits 300 ms at most. Index: none. Rows: none.
PREPARE "PartitionDrop" AS
SELECT coalesce(
    orphan_drop_partition($1::text, $2::interval, $3::interval), ''
)::text AS kept_because;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PartitionDrop, these values
EXPLAIN (:options) EXECUTE "PartitionDrop" (:partition_name, :restore_window, :audit_window);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PartitionDrop, any values
EXPLAIN (:options) EXECUTE "PartitionDrop" (:partition_name, :restore_window, :audit_window);

-- Pauses all runs. Fails on orphan_pauses_one_in_force when they are paused already.
-- Locks: ROW EXCLUSIVE on orphan_pauses. Index: none. Rows: one.
PREPARE "PauseBegin" AS
INSERT INTO orphan_pauses (reason)
VALUES ($1)
RETURNING pause_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PauseBegin, these values
EXPLAIN (:options) EXECUTE "PauseBegin" (:reason);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PauseBegin, any values
EXPLAIN (:options) EXECUTE "PauseBegin" (:reason);

-- Lets runs go on.
-- Locks: ROW EXCLUSIVE on orphan_pauses. Index: orphan_pauses_one_in_force. Rows: at most one.
PREPARE "PauseEnd" AS
UPDATE orphan_pauses
SET resumed_at = now(),
    resumed_by = session_user
WHERE resumed_at IS NULL;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PauseEnd, these values
EXPLAIN (:options) EXECUTE "PauseEnd";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PauseEnd, any values
EXPLAIN (:options) EXECUTE "PauseEnd";

-- The pause in force, if there is one.
-- Locks: ACCESS SHARE on orphan_pauses. Index: orphan_pauses_one_in_force. Rows: at most one.
PREPARE "PauseInForce" AS
SELECT reason, paused_at, paused_by
FROM orphan_pauses
WHERE resumed_at IS NULL;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PauseInForce, these values
EXPLAIN (:options) EXECUTE "PauseInForce";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PauseInForce, any values
EXPLAIN (:options) EXECUTE "PauseInForce";

-- What the server is and how this session stands in it.
-- Locks: none.
PREPARE "PreflightServer" AS
SELECT
    current_setting('server_version_num')::integer AS version_num,
    current_setting('server_version')::text AS version,
    pg_is_in_recovery()::boolean AS in_recovery,
    current_setting('transaction_read_only')::text AS read_only,
    current_setting('session_replication_role')::text AS replication_role,
    current_database()::text AS database_name,
    session_user::text AS role_name,
    now()::timestamptz AS database_time;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightServer, these values
EXPLAIN (:options) EXECUTE "PreflightServer";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightServer, any values
EXPLAIN (:options) EXECUTE "PreflightServer";

-- Which of the tables and functions are there, and the grants on them.
-- Locks: none beyond the catalog.
PREPARE "PreflightObjects" AS
SELECT
    (to_regclass('public.conversation_members') IS NOT NULL)::boolean AS has_members,
    (to_regclass('public.goose_db_version') IS NOT NULL)::boolean AS has_goose,
    -- What the migrations made and somebody dropped since.
    coalesce((
        SELECT string_agg(ours.object_name, ', ')
        FROM unnest(ARRAY[
            'orphan_runs', 'orphan_candidates', 'orphan_sightings', 'orphan_holds', 'orphan_holds_in_force',
            'orphan_pauses', 'orphan_refusals', 'orphan_approvals', 'conversation_members_audit',
            'conversation_members_audit_default', 'conversation_members_backup',
            'orphan_restores', 'orphan_departed', 'orphan_coverage'
        ]) AS ours (object_name)
        WHERE to_regclass('public.' || ours.object_name) IS NULL
    ), '')::text AS objects_missing,
    coalesce((
        SELECT string_agg(missing.grant_name, ', ')
        FROM (
            SELECT need.privilege || ' on ' || need.relation AS grant_name
            FROM (
                VALUES
                    ('conversation_members', 'DELETE'),
                    ('orphan_runs', 'SELECT'), ('orphan_runs', 'INSERT'), ('orphan_runs', 'UPDATE'),
                    ('orphan_candidates', 'SELECT'), ('orphan_candidates', 'INSERT'),
                    ('orphan_candidates', 'UPDATE'), ('orphan_candidates', 'DELETE'),
                    ('orphan_sightings', 'SELECT'), ('orphan_sightings', 'INSERT'),
                    ('orphan_sightings', 'DELETE'),
                    ('orphan_holds_in_force', 'SELECT'),
                    ('orphan_pauses', 'SELECT'),
                    ('orphan_refusals', 'SELECT'), ('orphan_refusals', 'INSERT'),
                    ('orphan_approvals', 'SELECT'),
                    ('orphan_departed', 'SELECT'), ('orphan_departed', 'INSERT'),
                    ('orphan_departed', 'UPDATE'), ('orphan_departed', 'DELETE'),
                    ('orphan_coverage', 'SELECT'), ('orphan_coverage', 'INSERT'),
                    ('orphan_coverage', 'UPDATE'), ('orphan_coverage', 'DELETE'),
                    ('goose_db_version', 'SELECT')
            ) AS need (relation, privilege)
            WHERE to_regclass('public.' || need.relation) IS NOT NULL
                AND NOT has_table_privilege(to_regclass('public.' || need.relation), need.privilege)
            UNION ALL
            -- Of tables that hold what a run need not read or write: the columns that it must.
            SELECT need.privilege || ' (' || a.attname || ') on ' || need.relation
            FROM (
                VALUES
                    ('conversation_members', 'SELECT', ARRAY['ctid', 'conversation_id', 'user_id', 'joined_at', 'last_read_at']),
                    ('orphan_approvals', 'UPDATE', ARRAY['used_at', 'used_by_run']),
                    ('orphan_restores', 'SELECT', ARRAY['run_id', 'conversation_id', 'state']),
                    ('conversation_members_audit', 'SELECT', ARRAY['conversation_id', 'run_id', 'deleted_at']),
                    ('conversation_members_audit_default', 'SELECT', ARRAY['run_id']),
                    ('conversation_members_backup', 'SELECT', ARRAY['run_id', 'backed_up_at'])
            ) AS need (relation, privilege, columns)
            JOIN pg_catalog.pg_attribute AS a
                ON a.attrelid = to_regclass('public.' || need.relation)
                AND a.attname = ANY (need.columns)
                AND NOT a.attisdropped
            WHERE NOT has_column_privilege(a.attrelid, a.attnum, need.privilege)
            UNION ALL
            -- A revert locks the rows that go FOR UPDATE, which wants UPDATE on a column, whichever: on the most harmless one.
            (
                SELECT 'UPDATE (' || a.attname || ') on conversation_members'
                FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = to_regclass('public.conversation_members')
                    AND a.attnum > 0
                    AND NOT a.attisdropped
                    AND NOT has_any_column_privilege(a.attrelid, 'UPDATE')
                ORDER BY a.attname <> 'last_read_at', a.attnum DESC
                LIMIT 1
            )
            UNION ALL
            SELECT 'EXECUTE on ' || p.proname
            FROM pg_catalog.pg_proc AS p
            WHERE p.pronamespace = 'public'::regnamespace
                AND p.proname IN ('orphan_ensure_partitions', 'orphan_clock_start', 'orphan_shadow_evidence', 'orphan_assess', 'orphan_restore_plan')
                AND NOT has_function_privilege(p.oid, 'EXECUTE')
        ) AS missing
    ), '')::text AS grants_missing;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightObjects, these values
EXPLAIN (:options) EXECUTE "PreflightObjects";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightObjects, any values
EXPLAIN (:options) EXECUTE "PreflightObjects";

-- The version of the newest migration that is applied.
-- Locks: ACCESS SHARE on goose_db_version. Index: none. Rows: a dozen or two.
PREPARE "PreflightVersion" AS
SELECT coalesce(max(version_id), 0)::bigint AS version
FROM (
    SELECT DISTINCT ON (version_id) version_id, is_applied
    FROM goose_db_version
    ORDER BY version_id, id DESC
) AS newest
WHERE is_applied;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightVersion, these values
EXPLAIN (:options) EXECUTE "PreflightVersion";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightVersion, any values
EXPLAIN (:options) EXECUTE "PreflightVersion";

-- The audit trigger, the truncate trigger, and the index.
-- Locks: none beyond the catalog.
PREPARE "PreflightTable" AS
SELECT
    coalesce((
        SELECT t.tgenabled::text
        FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid = to_regclass('public.conversation_members')
            AND t.tgname = 'conversation_members_audit_delete'
    ), 'missing')::text AS audit_trigger,
    coalesce((
        SELECT t.tgenabled::text
        FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid = to_regclass('public.conversation_members')
            AND t.tgname = 'conversation_members_refuse_truncate'
    ), 'missing')::text AS truncate_trigger,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = to_regclass('public.conversation_members')
            AND i.indisvalid
            AND i.indpred IS NULL
            AND a.attname = 'user_id'
    )::boolean AS has_index;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightTable, these values
EXPLAIN (:options) EXECUTE "PreflightTable";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightTable, any values
EXPLAIN (:options) EXECUTE "PreflightTable";

-- Makes types come out with their schema for the rest of the transaction, so that a statement that is
-- printed means the same wherever it is run.
-- Locks: none.
PREPARE "PreflightQualify" AS
SELECT set_config('search_path', 'pg_catalog', true);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightQualify, these values
EXPLAIN (:options) EXECUTE "PreflightQualify";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightQualify, any values
EXPLAIN (:options) EXECUTE "PreflightQualify";

-- How the backup's columns differ from those of conversation_members, each with the statement that brings
-- the backup along (up), the one that takes it back (down), and the condition on a row of the backup under
-- which either would lose a value (up_loses, down_loses). Where up is empty no statement helps.
-- Collations, defaults, identities, NOT NULL and whether a column is generated do not count: the backup
-- holds values. A new column that is never null, or generated, gets values in the older backups, too, as it
-- did in the members that stayed, or these could not be given back; up_settle makes it a plain one again.
-- Locks: none beyond the catalog. Rows: the columns that differ, in the order in which to run them.
PREPARE "PreflightDrift" AS
WITH RECURSIVE unwrapped AS (
    SELECT
        a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod,
        a.atttypid AS base_id, a.atttypmod AS base_mod
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid IN (
            to_regclass('public.conversation_members'), to_regclass('public.conversation_members_backup')
        )
        AND a.attnum > 0
        AND NOT a.attisdropped
    UNION ALL
    SELECT u.attrelid, u.attnum, u.attname, u.atttypid, u.atttypmod, d.typbasetype, d.typtypmod
    FROM unwrapped AS u
    JOIN pg_catalog.pg_type AS d ON d.oid = u.base_id AND d.typtype = 'd'
),
columns AS (
    SELECT
        u.attrelid, u.attname, u.atttypid, u.atttypmod, u.base_id, u.base_mod,
        format_type(u.atttypid, u.atttypmod) AS declared,
        -- A domain is stored as its base type: its constraints would refuse old rows of the backup, and
        -- the NULLs of those that were there before the column.
        format_type(u.base_id, u.base_mod) AS stored,
        t.typcategory,
        a.attgenerated <> '' AS is_generated,
        a.attidentity <> '' AS is_identity,
        a.attnotnull OR o.typnotnull AS is_required,
        coalesce(
            pg_get_expr(d.adbin, d.adrelid),
            pg_get_expr(o.typdefaultbin, 0),
            CASE WHEN a.attidentity <> '' THEN format(
                'nextval(%L::regclass)', pg_get_serial_sequence('public.conversation_members', a.attname::text)
            ) END
        ) AS expression
    FROM unwrapped AS u
    JOIN pg_catalog.pg_type AS t ON t.oid = u.base_id AND t.typtype <> 'd'
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = u.attrelid AND a.attnum = u.attnum
    JOIN pg_catalog.pg_type AS o ON o.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
),
pairs AS (
    SELECT
        coalesce(m.attname, b.attname) AS attname,
        m.attname IS NOT NULL AS in_members,
        b.attname IS NOT NULL AS in_backup,
        m.declared AS members_type,
        b.declared AS backup_type,
        m.stored AS new_type,
        m.expression,
        coalesce(m.is_identity, false) AS is_identity,
        CASE
            WHEN m.is_generated THEN 'EXPRESSION'
            WHEN m.is_required AND m.expression IS NOT NULL THEN 'DEFAULT'
            ELSE ''
        END AS filled_by,
        -- No data is thrown away: the column steps aside, under the first such name that is free.
        (
            SELECT free.new_name
            FROM (
                SELECT n, ('retired_' || CASE n WHEN 1 THEN '' ELSE n || '_' END || coalesce(m.attname, b.attname))::name AS new_name
                FROM generate_series(1, 1000) AS n
            ) AS free
            WHERE NOT EXISTS (SELECT FROM columns AS taken WHERE taken.attname = free.new_name)
            ORDER BY free.n
            LIMIT 1
        ) AS retired_name,
        -- An explicit cast where there is one; by way of text otherwise.
        CASE WHEN m.base_id = b.base_id OR 'S' IN (m.typcategory, b.typcategory) OR EXISTS (
            SELECT FROM pg_catalog.pg_cast AS c WHERE c.castsource = b.base_id AND c.casttarget = m.base_id
        ) THEN '::' ELSE '::text::' END AS up_cast,
        CASE WHEN m.base_id = b.base_id OR 'S' IN (m.typcategory, b.typcategory) OR EXISTS (
            SELECT FROM pg_catalog.pg_cast AS c WHERE c.castsource = m.base_id AND c.casttarget = b.base_id
        ) THEN '::' ELSE '::text::' END AS down_cast,
        CASE
            WHEN m.attname IN ('backed_up_at', 'run_id') THEN 'clash'
            -- What the queries and the trigger themselves read.
            WHEN coalesce(m.attname, b.attname) IN ('conversation_id', 'user_id', 'joined_at', 'role')
                AND (m.attname IS NULL OR b.attname IS NOT NULL AND m.attname <> 'role') THEN 'needed'
            WHEN b.attname IS NULL THEN 'gained'
            WHEN m.attname IS NULL THEN 'lost'
            ELSE 'retyped'
        END AS kind
    FROM (SELECT * FROM columns WHERE attrelid = to_regclass('public.conversation_members')) AS m
    FULL JOIN (SELECT * FROM columns WHERE attrelid = to_regclass('public.conversation_members_backup')) AS b
        ON b.attname = m.attname
    WHERE CASE
        WHEN b.attname IS NULL THEN true
        -- The backup's own, and those that were retired before.
        WHEN m.attname IS NULL THEN b.attname NOT IN ('backed_up_at', 'run_id') AND NOT starts_with(b.attname, 'retired_')
        WHEN m.attname IN ('backed_up_at', 'run_id') THEN true
        ELSE (b.atttypid, b.atttypmod) NOT IN ((m.atttypid, m.atttypmod), (m.base_id, m.base_mod))
    END
)
SELECT
    p.kind::text AS kind,
    p.attname::text AS column_name,
    coalesce(p.members_type, '')::text AS members_type,
    coalesce(p.backup_type, '')::text AS backup_type,
    CASE p.kind
        WHEN 'gained' THEN format('ALTER TABLE public.conversation_members_backup ADD COLUMN %I %s', p.attname, p.new_type)
            || CASE p.filled_by
                WHEN 'EXPRESSION' THEN ' GENERATED ALWAYS AS (' || p.expression || ') STORED'
                WHEN 'DEFAULT' THEN ' DEFAULT ' || p.expression
                ELSE ''
            END
        WHEN 'lost' THEN format('ALTER TABLE public.conversation_members_backup RENAME COLUMN %I TO %I', p.attname, p.retired_name)
        WHEN 'retyped' THEN format(
            'ALTER TABLE public.conversation_members_backup ALTER COLUMN %1$I TYPE %2$s USING %1$I%3$s%2$s',
            p.attname, p.new_type, p.up_cast
        )
        ELSE ''
    END::text AS up,
    CASE
        WHEN p.kind = 'gained' AND p.filled_by <> ''
            THEN format('ALTER TABLE public.conversation_members_backup ALTER COLUMN %I DROP %s', p.attname, p.filled_by)
        ELSE ''
    END::text AS up_settle,
    CASE p.kind
        WHEN 'gained' THEN format('ALTER TABLE public.conversation_members_backup DROP COLUMN %I', p.attname)
        WHEN 'lost' THEN format('ALTER TABLE public.conversation_members_backup RENAME COLUMN %I TO %I', p.retired_name, p.attname)
        WHEN 'retyped' THEN format(
            'ALTER TABLE public.conversation_members_backup ALTER COLUMN %1$I TYPE %2$s USING %1$I%3$s%2$s',
            p.attname, p.backup_type, p.down_cast
        )
        ELSE ''
    END::text AS down,
    CASE p.kind
        -- There and back: an explicit cast truncates and rounds without a word.
        WHEN 'retyped' THEN format(
            '%1$I%2$s%3$s%4$s%5$s::text IS DISTINCT FROM %1$I::text',
            p.attname, p.up_cast, p.new_type, p.down_cast, p.backup_type
        )
        ELSE ''
    END::text AS up_loses,
    CASE p.kind
        WHEN 'gained' THEN CASE
            WHEN p.filled_by = 'EXPRESSION' THEN ''
            -- What is the default comes back as it.
            WHEN p.filled_by = 'DEFAULT' AND NOT p.is_identity THEN format('%I::text IS DISTINCT FROM (%s)::text', p.attname, p.expression)
            ELSE format('%I IS NOT NULL', p.attname)
        END
        WHEN 'retyped' THEN format(
            '%1$I%2$s%3$s%4$s%5$s::text IS DISTINCT FROM %1$I::text',
            p.attname, p.down_cast, p.backup_type, p.up_cast, p.new_type
        )
        ELSE ''
    END::text AS down_loses,
    -- Literals for the text of a refusal: the name, and for a new type what keeps the old values as they are.
    quote_literal(p.attname)::text AS quoted_name,
    quote_literal(format(
        'ALTER TABLE public.conversation_members_backup RENAME COLUMN %1$I TO %2$I;'
        ' ALTER TABLE public.conversation_members_backup ADD COLUMN %1$I %3$s',
        p.attname, p.retired_name, p.new_type
    ))::text AS quoted_instead
FROM pairs AS p
    -- Who steps aside does so first, who follows others last.
ORDER BY array_position(ARRAY['clash', 'needed', 'lost', 'retyped', 'gained'], p.kind), p.filled_by = 'EXPRESSION', p.attname;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightDrift, these values
EXPLAIN (:options) EXECUTE "PreflightDrift";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightDrift, any values
EXPLAIN (:options) EXECUTE "PreflightDrift";

-- Makes the partitions of today and the next days where they are not there yet.
-- Locks: SHARE UPDATE EXCLUSIVE on the parents when it makes one, under a lock_timeout of 3 s. Index: none.
PREPARE "PartitionEnsure" AS
SELECT orphan_ensure_partitions($1::integer)::integer AS made;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PartitionEnsure, these values
EXPLAIN (:options) EXECUTE "PartitionEnsure" (:days_ahead);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PartitionEnsure, any values
EXPLAIN (:options) EXECUTE "PartitionEnsure" (:days_ahead);

-- Whether today's and tomorrow's backup partitions and this month's audit partition are attached,
-- and whether the audit's DEFAULT partition caught rows.
-- Locks: ACCESS SHARE on the audit's DEFAULT partition. Index: none. Rows: one of it at most.
PREPARE "PartitionsThere" AS
SELECT
    bool_or(p.name = 'conversation_members_backup_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'))::boolean AS today,
    bool_or(p.name = 'conversation_members_backup_' || to_char((now() + interval '1 day') AT TIME ZONE 'UTC', 'YYYYMMDD'))::boolean AS tomorrow,
    bool_or(p.name = 'conversation_members_audit_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMM'))::boolean AS month,
    EXISTS (SELECT FROM conversation_members_audit_default)::boolean AS default_in_use
FROM (
    SELECT c.relname::text AS name
    FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent IN (
        to_regclass('public.conversation_members_backup'), to_regclass('public.conversation_members_audit')
    )
) AS p;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PartitionsThere, these values
EXPLAIN (:options) EXECUTE "PartitionsThere";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PartitionsThere, any values
EXPLAIN (:options) EXECUTE "PartitionsThere";

-- How many connections there may be, and how many there are. A limit of -1 is none.
-- Locks: none beyond the catalog.
PREPARE "PreflightConnections" AS
SELECT
    current_setting('max_connections')::integer AS max_connections,
    (
        current_setting('superuser_reserved_connections')::integer
        + coalesce(current_setting('reserved_connections', true)::integer, 0)
    )::integer AS reserved,
    (SELECT sum(s.numbackends) FROM pg_catalog.pg_stat_database AS s)::integer AS used,
    (
        SELECT count(*)
        FROM pg_catalog.pg_stat_activity AS a
        WHERE a.application_name = $1::text
            AND a.usename = session_user
    )::integer AS ours,
    (SELECT r.rolconnlimit FROM pg_catalog.pg_roles AS r WHERE r.rolname = session_user)::integer AS role_limit,
    (SELECT d.datconnlimit FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())::integer AS database_limit;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == PreflightConnections, these values
EXPLAIN (:options) EXECUTE "PreflightConnections" (:application_name);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == PreflightConnections, any values
EXPLAIN (:options) EXECUTE "PreflightConnections" (:application_name);

-- Keeps the users that a refused run found due or newly missing: what an approval of it is about.
-- Locks: ROW EXCLUSIVE on orphan_refusals. Index: none: staging and the ledger are read whole. Rows: the missing users.
PREPARE "RefusalStore" AS
INSERT INTO orphan_refusals (run_id, user_id, is_due)
SELECT s.run_id, s.user_id, k.is_due
FROM orphan_sightings AS s
LEFT JOIN orphan_candidates AS c ON c.user_id = s.user_id
CROSS JOIN LATERAL (
    SELECT orphan_clock_start(c.first_missing_at, c.last_missing_at, s.shadow_deleted_at, $1::interval)
        <= now() - $2::interval AS is_due
) AS k
WHERE s.run_id = $3
    AND s.verdict = 'missing'
    AND (k.is_due OR c.user_id IS NULL);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RefusalStore, these values
EXPLAIN (:options) EXECUTE "RefusalStore" (:max_gap, :retention, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RefusalStore, any values
EXPLAIN (:options) EXECUTE "RefusalStore" (:max_gap, :retention, :run_id);

-- The last refused run, unless a later run succeeded.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey, backwards. Rows: at most one.
PREPARE "RefusalUnsettled" AS
SELECT r.run_id, r.breaker, r.error, r.finished_at
FROM orphan_runs AS r
WHERE r.state = 'refused'
    AND NOT EXISTS (
        SELECT
        FROM orphan_runs AS later
        WHERE later.run_id > r.run_id AND later.state = 'succeeded'
    )
ORDER BY r.run_id DESC
LIMIT 1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RefusalUnsettled, these values
EXPLAIN (:options) EXECUTE "RefusalUnsettled";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RefusalUnsettled, any values
EXPLAIN (:options) EXECUTE "RefusalUnsettled";

-- What approving a refused run would let go.
-- Locks: ACCESS SHARE on conversation_members. Index: orphan_refusals_pkey, conversation_members_user_id.
-- Rows: the members of the due users.
PREPARE "RefusalSummary" AS
SELECT
    r.state,
    r.breaker,
    (SELECT count(*) FROM orphan_refusals AS f WHERE f.run_id = r.run_id AND f.is_due)::bigint AS users_due,
    (SELECT count(*) FROM orphan_refusals AS f WHERE f.run_id = r.run_id AND NOT f.is_due)::bigint AS users_new,
    m.members::bigint AS members,
    m.conversations::bigint AS conversations
FROM orphan_runs AS r
CROSS JOIN LATERAL (
    SELECT count(*) AS members, count(DISTINCT m.conversation_id) AS conversations
    FROM orphan_refusals AS f
        -- User by user, by the index: a join may well be planned as a scan of the table.
    CROSS JOIN LATERAL (
        SELECT i.conversation_id
        FROM conversation_members AS i
        WHERE i.user_id = f.user_id
        OFFSET 0
    ) AS m
    WHERE f.run_id = r.run_id AND f.is_due
) AS m
WHERE r.run_id = $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RefusalSummary, these values
EXPLAIN (:options) EXECUTE "RefusalSummary" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RefusalSummary, any values
EXPLAIN (:options) EXECUTE "RefusalSummary" (:run_id);

-- The users of a refused run with the most members.
-- Locks: ACCESS SHARE on conversation_members. Index: orphan_refusals_pkey, conversation_members_user_id. Rows: the members of the due users.
PREPARE "RefusalLargest" AS
SELECT f.user_id, m.members
FROM orphan_refusals AS f
CROSS JOIN LATERAL (
    SELECT count(*) AS members
    FROM conversation_members AS i
    WHERE i.user_id = f.user_id
) AS m
WHERE f.run_id = $1
    AND f.is_due
    AND m.members > 0
ORDER BY m.members DESC, f.user_id
LIMIT 10;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RefusalLargest, these values
EXPLAIN (:options) EXECUTE "RefusalLargest" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RefusalLargest, any values
EXPLAIN (:options) EXECUTE "RefusalLargest" (:run_id);

-- Forgets the users of refused runs that nobody will approve any more, max_rows at a time.
-- Locks: ROW EXCLUSIVE on orphan_refusals. Index: orphan_refusals_pkey. Rows: max_rows.
PREPARE "RefusalPrune" AS
DELETE FROM orphan_refusals AS f
USING (
    SELECT o.run_id, o.user_id
    FROM orphan_refusals AS o
    JOIN orphan_runs AS r ON r.run_id = o.run_id
    WHERE r.finished_at < now() - $1::interval
        -- An approval that a run may still use, or is using.
        AND NOT EXISTS (
            SELECT
            FROM orphan_approvals AS a
            LEFT JOIN orphan_runs AS u ON u.run_id = a.used_by_run
            WHERE a.run_id = o.run_id
                AND a.revoked_at IS NULL
                AND (a.used_at IS NULL AND a.expires_at > now() OR u.state = 'running')
        )
    ORDER BY o.run_id, o.user_id
    LIMIT $2::bigint
) AS old
WHERE f.run_id = old.run_id
    AND f.user_id = old.user_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RefusalPrune, these values
EXPLAIN (:options) EXECUTE "RefusalPrune" (:keep, :max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RefusalPrune, any values
EXPLAIN (:options) EXECUTE "RefusalPrune" (:keep, :max_rows);

-- The last whole month, UTC, and the moment until which there is something to report.
-- Locks: none.
PREPARE "ReportRange" AS
SELECT
    ((date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month') AT TIME ZONE 'UTC')::timestamptz AS since,
    (date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')::timestamptz AS until,
    now()::timestamptz AS database_time;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ReportRange, these values
EXPLAIN (:options) EXECUTE "ReportRange";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ReportRange, any values
EXPLAIN (:options) EXECUTE "ReportRange";

-- What the runs that began in a span did, by UTC day of their beginning; the last row, without a day, is
-- the whole span. Percentiles come from the sum of the histograms, each by the upper bound of its
-- element: at most 19 % too high, never too low.
-- Locks: ACCESS SHARE on orphan_runs. Index: none. Rows: all runs, some ten thousand a year.
PREPARE "ReportDays" AS
WITH span AS (
    SELECT $1::timestamptz AS since, $2::timestamptz AS until
),
begun AS (
    SELECT
        (r.started_at AT TIME ZONE 'UTC')::date AS day,
        r.run_id, r.kind, r.state, r.users_checked, r.batch_calls, r.members_deleted, r.members_restored,
        r.members_held, r.members_kept_young, r.call_ms_buckets, r.call_ms_max
    FROM span AS s
    JOIN orphan_runs AS r ON r.started_at >= s.since AND r.started_at < s.until
),
listed AS (
    -- A day without a run is worth a line, a day to come is not.
    SELECT d::date AS day
    FROM span AS s
    CROSS JOIN LATERAL generate_series(
        date_trunc('day', s.since AT TIME ZONE 'UTC'),
        least(s.until - interval '1 microsecond', now()) AT TIME ZONE 'UTC',
        interval '1 day'
    ) AS d
    UNION ALL
    SELECT NULL
),
counted AS (
    SELECT
        b.day,
        count(*) FILTER (WHERE b.kind = 'clean') AS runs,
        count(*) FILTER (WHERE b.kind = 'clean' AND b.state = 'refused') AS refused,
        count(*) FILTER (WHERE b.kind = 'clean' AND b.state = 'incomplete') AS incomplete,
        count(*) FILTER (WHERE b.kind = 'clean' AND b.state IN ('failed', 'abandoned')) AS failed,
        sum(b.users_checked) FILTER (WHERE b.kind = 'clean') AS users_checked,
        sum(b.batch_calls) FILTER (WHERE b.kind = 'clean') AS batch_calls,
        sum(b.members_deleted) FILTER (WHERE b.kind = 'clean') AS members_deleted,
        sum(b.members_restored) AS members_restored,
        max(b.call_ms_max) AS slowest_ms
    FROM begun AS b
    GROUP BY GROUPING SETS ((b.day), ())
),
kept AS (
    -- Not a sum: every run finds the same members again.
    SELECT DISTINCT ON (g.day) g.day, g.members_held, g.members_kept_young
    FROM (
        SELECT b.day, b.run_id, b.members_held, b.members_kept_young
        FROM begun AS b
        WHERE b.kind = 'clean' AND b.state IN ('succeeded', 'incomplete', 'refused')
        UNION ALL
        SELECT NULL, b.run_id, b.members_held, b.members_kept_young
        FROM begun AS b
        WHERE b.kind = 'clean' AND b.state IN ('succeeded', 'incomplete', 'refused')
    ) AS g
    ORDER BY g.day, g.run_id DESC
),
elements AS (
    SELECT b.day, e.element, sum(e.calls) AS calls
    FROM begun AS b
    CROSS JOIN LATERAL unnest(b.call_ms_buckets) WITH ORDINALITY AS e (calls, element)
    GROUP BY GROUPING SETS ((b.day, e.element), (e.element))
),
ranked AS (
    SELECT
        e.day,
        e.element,
        sum(e.calls) OVER (PARTITION BY e.day ORDER BY e.element) AS calls_up_to,
        sum(e.calls) OVER (PARTITION BY e.day) AS calls
    FROM elements AS e
),
percentiles AS (
    SELECT
        k.day,
        min(k.element) FILTER (WHERE k.calls_up_to >= 0.50 * k.calls) AS p50,
        min(k.element) FILTER (WHERE k.calls_up_to >= 0.99 * k.calls) AS p99
    FROM ranked AS k
    WHERE k.calls > 0
    GROUP BY k.day
)
SELECT
    coalesce(to_char(l.day, 'YYYY-MM-DD'), '')::text AS day,
    coalesce(c.runs, 0)::bigint AS runs,
    coalesce(c.refused, 0)::bigint AS refused,
    coalesce(c.incomplete, 0)::bigint AS incomplete,
    coalesce(c.failed, 0)::bigint AS failed,
    coalesce(c.users_checked, 0)::bigint AS users_checked,
    coalesce(c.batch_calls, 0)::bigint AS batch_calls,
    coalesce(c.members_deleted, 0)::bigint AS members_deleted,
    coalesce(c.members_restored, 0)::bigint AS members_restored,
    coalesce(k.members_held, 0)::bigint AS members_held,
    coalesce(k.members_kept_young, 0)::bigint AS members_kept_young,
    coalesce(c.slowest_ms, 0)::float8 AS slowest_ms,
    -- The last element has no bound of its own.
    coalesce(CASE WHEN p.p50 > 60 THEN c.slowest_ms ELSE least(power(2, (p.p50 - 1) / 4.0), c.slowest_ms) END, 0)::float8 AS p50_ms,
    coalesce(CASE WHEN p.p99 > 60 THEN c.slowest_ms ELSE least(power(2, (p.p99 - 1) / 4.0), c.slowest_ms) END, 0)::float8 AS p99_ms
FROM listed AS l
LEFT JOIN counted AS c ON c.day IS NOT DISTINCT FROM l.day
LEFT JOIN kept AS k ON k.day IS NOT DISTINCT FROM l.day
LEFT JOIN percentiles AS p ON p.day IS NOT DISTINCT FROM l.day
ORDER BY l.day NULLS LAST;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ReportDays, these values
EXPLAIN (:options) EXECUTE "ReportDays" (:since, :until);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ReportDays, any values
EXPLAIN (:options) EXECUTE "ReportDays" (:since, :until);

-- Which conversations the runs that began in a span took members from or gave them back to, by the size
-- that each had before the span: members who had joined by then and are there, or have been deleted since.
-- Locks: ACCESS SHARE on conversation_members, orphan_runs, orphan_restores and the audit.
-- Index: conversation_members_audit_deleted_at (BRIN), conversation_members_pkey; orphan_restores is read whole.
-- Rows: the audit from the span on, and the members of the conversations touched.
PREPARE "ReportSizes" AS
WITH begun AS (
    SELECT r.run_id, r.kind
    FROM orphan_runs AS r
    WHERE r.started_at >= $1::timestamptz
        AND r.started_at < $2::timestamptz
),
touched AS (
    SELECT t.conversation_id, sum(t.deleted) AS deleted, sum(t.restored) AS restored
    FROM (
        SELECT a.conversation_id, count(*) AS deleted, 0 AS restored
        FROM conversation_members_audit AS a
        JOIN begun AS b ON b.run_id = a.run_id AND b.kind = 'clean'
        WHERE a.deleted_at >= $1::timestamptz
        GROUP BY a.conversation_id
        UNION ALL
        SELECT o.conversation_id, 0, count(*)
        FROM orphan_restores AS o
        JOIN begun AS b ON b.run_id = o.run_id
        WHERE o.state IN ('restored', 'reverted')
        GROUP BY o.conversation_id
    ) AS t
    GROUP BY t.conversation_id
),
sized AS (
    SELECT t.conversation_id, t.deleted, t.restored, count(DISTINCT b.user_id) AS size
    FROM touched AS t
    LEFT JOIN (
        SELECT m.conversation_id, m.user_id
        FROM touched AS n
        JOIN conversation_members AS m ON m.conversation_id = n.conversation_id
        WHERE m.joined_at < $1::timestamptz
        UNION ALL
        SELECT a.conversation_id, a.user_id
        FROM touched AS n
        JOIN conversation_members_audit AS a ON a.conversation_id = n.conversation_id
        WHERE a.deleted_at >= $1::timestamptz
            AND a.joined_at < $1::timestamptz
    ) AS b ON b.conversation_id = t.conversation_id
    GROUP BY t.conversation_id, t.deleted, t.restored
),
classes AS (
    -- 0: nobody had joined before the span.
    SELECT 1 AS ordinal, '0' AS name, 0 AS smallest, 0 AS largest
    UNION ALL SELECT 2, '1-2', 1, 2
    UNION ALL SELECT 3, '3-10', 3, 10
    UNION ALL SELECT 4, '11-100', 11, 100
    UNION ALL SELECT 5, '101-1000', 101, 1000
    UNION ALL SELECT 6, '>1000', 1001, 2147483647
)
SELECT
    c.name::text AS size,
    count(s.conversation_id)::bigint AS conversations,
    coalesce(sum(s.deleted), 0)::bigint AS members_deleted,
    coalesce(sum(s.restored), 0)::bigint AS members_restored
FROM classes AS c
LEFT JOIN sized AS s ON s.size BETWEEN c.smallest AND c.largest
GROUP BY c.ordinal, c.name
HAVING c.ordinal > 1 OR count(s.conversation_id) > 0
ORDER BY c.ordinal;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == ReportSizes, these values
EXPLAIN (:options) EXECUTE "ReportSizes" (:since, :until);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == ReportSizes, any values
EXPLAIN (:options) EXECUTE "ReportSizes" (:since, :until);

-- What a restore would do with the members that were chosen, by the run that deleted them and the UTC day.
-- Locks: ACCESS SHARE on conversation_members, conversations and our tables.
-- Index: conversation_members_pkey, conversations_pkey. Rows: the backups from the run or the span on, read once.
PREPARE "RestorePreview" AS
WITH chosen AS (
    SELECT
        $1::bigint AS of_run,
        $2::uuid [] AS of_users,
        $3::uuid [] AS of_conversations,
        $4::timestamptz AS since,
        $5::timestamptz AS until
)
SELECT
    p.deleted_run::bigint AS deleted_run,
    to_char(p.backed_up_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')::text AS day,
    count(*) FILTER (WHERE p.verdict = 'restore') AS restore,
    count(DISTINCT p.user_id) FILTER (WHERE p.verdict = 'restore') AS users,
    count(DISTINCT p.conversation_id) FILTER (WHERE p.verdict = 'restore') AS conversations,
    count(*) FILTER (WHERE p.verdict = 'there') AS there,
    count(*) FILTER (WHERE p.verdict = 'there_differs') AS there_differs,
    count(*) FILTER (WHERE p.verdict = 'conversation_gone') AS conversation_gone,
    count(*) FILTER (WHERE p.verdict = 'left_since') AS left_since
FROM chosen AS w
CROSS JOIN LATERAL orphan_restore_plan(w.of_run, w.of_users, w.of_conversations, w.since, w.until) AS p
GROUP BY 1, 2
ORDER BY 1, 2;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestorePreview, these values
EXPLAIN (:options) EXECUTE "RestorePreview" (:of_run, :of_users, :of_conversations, :since, :until);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestorePreview, any values
EXPLAIN (:options) EXECUTE "RestorePreview" (:of_run, :of_users, :of_conversations, :since, :until);

-- Writes down which members a restore gives back, and counts what becomes of the others.
-- Locks: ROW EXCLUSIVE on orphan_restores; ACCESS SHARE on conversation_members and conversations.
-- Index: orphan_runs_pkey, conversation_members_pkey, conversations_pkey. Rows: the backups from the run or the span on, read once.
PREPARE "RestoreStore" AS
WITH chosen AS (
    SELECT
        $1::bigint AS of_run,
        $2::uuid [] AS of_users,
        $3::uuid [] AS of_conversations,
        $4::timestamptz AS since,
        $5::timestamptz AS until
),
plan AS MATERIALIZED (
    SELECT
        p.conversation_id::uuid AS conversation_id,
        p.user_id::uuid AS user_id,
        p.deleted_run::bigint AS deleted_run,
        p.backed_up_at::timestamptz AS backed_up_at,
        p.verdict::text AS verdict
    FROM chosen AS w
    CROSS JOIN LATERAL orphan_restore_plan(w.of_run, w.of_users, w.of_conversations, w.since, w.until) AS p
),
stored AS (
    INSERT INTO orphan_restores (run_id, user_id, conversation_id, deleted_run, backed_up_at)
    SELECT r.run_id, p.user_id, p.conversation_id, p.deleted_run, p.backed_up_at
    FROM plan AS p
    JOIN orphan_runs AS r ON r.run_id = $6 AND r.state = 'running' AND r.kind = 'restore'
    WHERE p.verdict = 'restore'
    -- Stored before, by an attempt whose answer was lost.
    ON CONFLICT (run_id, user_id, conversation_id) DO NOTHING
)
SELECT
    count(*) FILTER (WHERE p.verdict = 'restore') AS restore,
    count(DISTINCT p.user_id) FILTER (WHERE p.verdict = 'restore') AS users,
    count(*) FILTER (WHERE p.verdict = 'there') AS there,
    count(*) FILTER (WHERE p.verdict = 'there_differs') AS there_differs,
    count(*) FILTER (WHERE p.verdict = 'conversation_gone') AS conversation_gone,
    count(*) FILTER (WHERE p.verdict = 'left_since') AS left_since
FROM plan AS p;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreStore, these values
EXPLAIN (:options) EXECUTE "RestoreStore" (:of_run, :of_users, :of_conversations, :since, :until, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreStore, any values
EXPLAIN (:options) EXECUTE "RestoreStore" (:of_run, :of_users, :of_conversations, :since, :until, :run_id);

-- Where the backup rows of a restore lie: the chunks of so many pages that hold one, by UTC day.
-- Locks: ACCESS SHARE on the backup. Index: orphan_restores_pkey. Rows: the backups from the oldest row of the restore on, read once.
PREPARE "RestoreChunks" AS
SELECT c.day::text AS day, c.first_page::bigint AS first_page, c.members::bigint AS members
FROM orphan_restore_chunks($1::bigint, $2::text, $3::integer) AS c;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreChunks, these values
EXPLAIN (:options) EXECUTE "RestoreChunks" (:run_id, :state, :pages);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreChunks, any values
EXPLAIN (:options) EXECUTE "RestoreChunks" (:run_id, :state, :pages);

-- Gives back the planned members on some pages of the backup of a day; returns how many.
-- Locks: ROW EXCLUSIVE on conversation_members and our tables; the conversations FOR KEY SHARE, by their foreign key.
-- Index: orphan_restores_pkey; a TID range of the backup. Rows: those on the pages, some thousand at most.
PREPARE "RestoreChunk" AS
SELECT orphan_restore_chunk(
    $1::bigint, ($2::text)::date, $3::bigint, $4::integer, $5::interval
)::bigint AS restored;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreChunk, these values
EXPLAIN (:options) EXECUTE "RestoreChunk" (:run_id, :day, :first_page, :pages, :hold);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreChunk, any values
EXPLAIN (:options) EXECUTE "RestoreChunk" (:run_id, :day, :first_page, :pages, :hold);

-- Counts members given back on the run's row, in the transaction that gave them back.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
PREPARE "RunRestored" AS
UPDATE orphan_runs
SET members_restored = members_restored + $1::bigint
WHERE run_id = $2
    AND state = 'running';
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunRestored, these values
EXPLAIN (:options) EXECUTE "RunRestored" (:restored, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunRestored, any values
EXPLAIN (:options) EXECUTE "RunRestored" (:restored, :run_id);

-- What became of the members of a restore.
-- Locks: ACCESS SHARE on orphan_restores. Index: orphan_restores_pkey. Rows: those of the restore.
PREPARE "RestoreSummary" AS
SELECT
    r.kind,
    r.state,
    r.members_restored,
    r.members_deleted,
    g.planned::bigint AS planned,
    g.restored::bigint AS restored,
    g.users::bigint AS users,
    g.reverted::bigint AS reverted
FROM orphan_runs AS r
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE g.state = 'planned') AS planned,
        count(*) FILTER (WHERE g.state = 'restored') AS restored,
        count(DISTINCT g.user_id) FILTER (WHERE g.state = 'restored') AS users,
        count(*) FILTER (WHERE g.state = 'reverted') AS reverted
    FROM orphan_restores AS g
    WHERE g.run_id = r.run_id
) AS g
WHERE r.run_id = $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreSummary, these values
EXPLAIN (:options) EXECUTE "RestoreSummary" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreSummary, any values
EXPLAIN (:options) EXECUTE "RestoreSummary" (:run_id);

-- How many members of a restore's list could still be given back: not there, and their conversation is.
-- Locks: ACCESS SHARE on conversation_members and conversations.
-- Index: orphan_restores_pkey, conversation_members_pkey, conversations_pkey. Rows: those of the restore.
PREPARE "RestoreLeft" AS
SELECT count(*) AS members
FROM orphan_restores AS r
    -- One lookup a row: only few are left of a list.
CROSS JOIN LATERAL (
    SELECT c.id
    FROM conversations AS c
    WHERE c.id = r.conversation_id
    LIMIT 1
) AS c
LEFT JOIN LATERAL (
    SELECT m.user_id
    FROM conversation_members AS m
    WHERE m.conversation_id = r.conversation_id AND m.user_id = r.user_id
    LIMIT 1
) AS m ON true
WHERE r.run_id = $1
    AND r.state = 'planned'
    AND m.user_id IS NULL
    -- Who joined again and left since stays away.
    AND NOT EXISTS (
        SELECT
        FROM conversation_members_audit AS a
        JOIN orphan_runs AS o ON o.run_id = r.run_id
        WHERE a.run_id IS NULL
            AND a.deleted_at >= o.started_at - interval '1 minute'
            AND a.deleted_at > r.backed_up_at
            AND a.user_id = r.user_id
            AND a.conversation_id = r.conversation_id
    );
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreLeft, these values
EXPLAIN (:options) EXECUTE "RestoreLeft" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreLeft, any values
EXPLAIN (:options) EXECUTE "RestoreLeft" (:run_id);

-- The users whose members a restore gave back, on some pages of the backup of a day.
-- Locks: ACCESS SHARE on the backup and orphan_restores. Index: orphan_restores_pkey; a TID range of the backup.
-- Rows: those on the pages.
PREPARE "RestoreUsers" AS
SELECT u.user_id::uuid AS user_id
FROM orphan_restore_users($1::bigint, ($2::text)::date, $3::bigint, $4::integer) AS u;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestoreUsers, these values
EXPLAIN (:options) EXECUTE "RestoreUsers" (:run_id, :day, :first_page, :pages);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestoreUsers, any values
EXPLAIN (:options) EXECUTE "RestoreUsers" (:run_id, :day, :first_page, :pages);

-- Takes members of a restore again: unchanged since, on no other hold, of users whom auth-service has just left out.
-- Locks: ROW EXCLUSIVE on conversation_members, the rows that go, and on our tables.
-- Index: orphan_restores_pkey, conversation_members_pkey; a TID range of the backup. Rows: those on the pages.
PREPARE "RevertChunk" AS
SELECT orphan_revert_chunk(
    $1::bigint, $2::bigint, ($3::text)::date, $4::bigint, $5::integer, $6::uuid []
)::bigint AS deleted;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RevertChunk, these values
EXPLAIN (:options) EXECUTE "RevertChunk" (:run_id, :reverted_run, :day, :first_page, :pages, :user_ids);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RevertChunk, any values
EXPLAIN (:options) EXECUTE "RevertChunk" (:run_id, :reverted_run, :day, :first_page, :pages, :user_ids);

-- Forgets which members old restores gave back, once neither a revert could go by it nor the audit of the
-- time is kept, max_rows at a time. The restores themselves stay in orphan_runs.
-- Locks: ROW EXCLUSIVE on orphan_restores. Index: orphan_restores_pkey. Rows: max_rows.
PREPARE "RestorePrune" AS
DELETE FROM orphan_restores AS g
USING (
    SELECT o.run_id, o.user_id, o.conversation_id
    FROM orphan_runs AS r
    JOIN orphan_restores AS o ON o.run_id = r.run_id
    WHERE r.kind = 'restore'
        AND r.finished_at < now() - $1::interval
        AND o.backed_up_at < (
            SELECT min(coalesce(p.lower_bound, '-infinity'))
            FROM orphan_partitions() AS p
            WHERE p.parent = 'conversation_members_backup'
        )
    LIMIT $2::bigint
) AS old
WHERE g.run_id = old.run_id
    AND g.user_id = old.user_id
    AND g.conversation_id = old.conversation_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RestorePrune, these values
EXPLAIN (:options) EXECUTE "RestorePrune" (:keep, :max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RestorePrune, any values
EXPLAIN (:options) EXECUTE "RestorePrune" (:keep, :max_rows);

-- Lets runners decide one after the other whether a run is due: RunBegin, as the next statement of
-- the transaction, sees what the one before has begun.
-- Locks: an advisory lock of our own, until the transaction ends. Index: none.
PREPARE "RunTurn" AS
SELECT pg_advisory_xact_lock(hashtextextended('orphan_cleaner_begin', 0));
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunTurn, these values
EXPLAIN (:options) EXECUTE "RunTurn";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunTurn, any values
EXPLAIN (:options) EXECUTE "RunTurn";

-- Opens a run, and in the same statement gives up a run whose heartbeat stopped
-- for longer than its own lease. Fails on orphan_runs_one_open while another
-- run is open. With an interval (every) it returns no row unless a run is due; see RunSchedule.
-- Locks: ROW EXCLUSIVE on orphan_runs. ChunkSettle comes before it: no chunk of the run it gives up is in flight.
-- Index: orphan_runs_one_open. Rows: one or two.
PREPARE "RunBegin" AS
WITH abandoned AS (
    UPDATE orphan_runs
    SET state = 'abandoned',
        finished_at = now(),
        error = 'no heartbeat for longer than its lease'
    WHERE state = 'running'
        AND heartbeat_at + lease < now()
    RETURNING run_id
)
INSERT INTO orphan_runs (kind, phase, started_at, heartbeat_at, lease, host, version, settings, scheduled_for)
SELECT
    -- Not now(): the transaction may have waited for its turn, and began before
    -- the run did that it waited for.
    $1, $2, statement_timestamp(), statement_timestamp(), $3, $4, $5, $6,
    CASE
        WHEN $7::interval IS NULL THEN NULL
        WHEN l.next_at IS NULL OR l.started_at > statement_timestamp() THEN statement_timestamp()
        -- Late by whole intervals: skip those, keep the beat.
        ELSE l.next_at + floor(
            extract(EPOCH FROM statement_timestamp() - l.next_at) / extract(EPOCH FROM $7::interval)
        )::float8 * $7::interval
    END
    -- Reading the CTE here makes it run before the row is inserted.
FROM (SELECT count(*) FROM abandoned) AS given_up
LEFT JOIN LATERAL (
    SELECT a.started_at, coalesce(a.scheduled_for, a.started_at) + $7::interval AS next_at
    FROM orphan_runs AS a
    WHERE a.kind = 'clean'
        AND a.state <> 'abandoned'
        AND a.run_id NOT IN (SELECT g.run_id FROM abandoned AS g)
    ORDER BY a.run_id DESC
    LIMIT 1
) AS l ON true
WHERE $7::interval IS NULL
    OR l.next_at IS NULL
    OR l.next_at <= statement_timestamp()
    -- The clock went back: the run says so, by its breaker.
    OR l.started_at > statement_timestamp()
RETURNING run_id, started_at;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunBegin, these values
EXPLAIN (:options) EXECUTE "RunBegin" (:kind, :phase, :lease, :host, :version, :settings, :every_interval);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunBegin, any values
EXPLAIN (:options) EXECUTE "RunBegin" (:kind, :phase, :lease, :host, :version, :settings, :every_interval);

-- When the next run is due, as RunBegin decides it: an interval after the last attempt was, of
-- whichever runner, unless that attempt was given up. Seconds; 0 or less: now.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey, backwards; orphan_runs_one_open. Rows: a few.
PREPARE "RunSchedule" AS
SELECT
    coalesce(
        CASE
            WHEN l.started_at > now() THEN 0
            ELSE extract(EPOCH FROM l.next_at - now())
        END, 0
    )::float8 AS due_in,
    (o.run_id IS NOT NULL)::boolean AS run_open,
    -- When the open run may be given up, unless it shows a sign of life.
    coalesce(extract(EPOCH FROM o.heartbeat_at + o.lease - now()), 0)::float8 AS lapses_in,
    EXISTS (SELECT FROM orphan_pauses AS p WHERE p.resumed_at IS NULL)::boolean AS paused
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT a.started_at, coalesce(a.scheduled_for, a.started_at) + $1::interval AS next_at
    FROM orphan_runs AS a
    WHERE a.kind = 'clean'
        AND a.state <> 'abandoned'
        AND NOT (a.state = 'running' AND a.heartbeat_at + a.lease < now())
    ORDER BY a.run_id DESC
    LIMIT 1
) AS l ON true
LEFT JOIN orphan_runs AS o ON o.state = 'running';
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunSchedule, these values
EXPLAIN (:options) EXECUTE "RunSchedule" (:every_interval);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunSchedule, any values
EXPLAIN (:options) EXECUTE "RunSchedule" (:every_interval);

-- The open run, if there is one.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_one_open. Rows: at most one.
PREPARE "RunOpen" AS
SELECT run_id, kind, phase, host, started_at, heartbeat_at,
    (heartbeat_at + lease < now())::boolean AS lapsed
FROM orphan_runs
WHERE state = 'running';
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunOpen, these values
EXPLAIN (:options) EXECUTE "RunOpen";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunOpen, any values
EXPLAIN (:options) EXECUTE "RunOpen";

-- Database time, and whether it is past every moment that a run has recorded.
-- Locks: ACCESS SHARE on orphan_runs. Index: none. Rows: all runs, some ten thousand a year.
PREPARE "RunClock" AS
SELECT now()::timestamptz AS database_time,
    (coalesce(max(greatest(heartbeat_at, finished_at)), '-infinity') <= now())::boolean AS runs_forward
FROM orphan_runs
WHERE run_id <> $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunClock, these values
EXPLAIN (:options) EXECUTE "RunClock" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunClock, any values
EXPLAIN (:options) EXECUTE "RunClock" (:run_id);

-- The fence: proves that the run is still open, and keeps it so. In a chunk's transaction it comes
-- last: it locks the row for the COMMIT alone, and nobody takes the run over in between.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
PREPARE "RunHeartbeat" AS
UPDATE orphan_runs
SET heartbeat_at = clock_timestamp(),
    phase = $1,
    members_deleted = members_deleted + $2::bigint
WHERE run_id = $3
    AND state = 'running'
RETURNING EXISTS (SELECT FROM orphan_pauses AS p WHERE p.resumed_at IS NULL) AS paused;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunHeartbeat, these values
EXPLAIN (:options) EXECUTE "RunHeartbeat" (:phase, :deleted, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunHeartbeat, any values
EXPLAIN (:options) EXECUTE "RunHeartbeat" (:phase, :deleted, :run_id);

-- Writes down what the run has found so far. Its COMMIT does not wait for the disk: that is done while the run is
-- proved, and its end waits for all of it.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
PREPARE "RunFacts" AS
UPDATE orphan_runs
SET heartbeat_at = clock_timestamp(),
    users_checked = $1,
    users_missing = $2,
    users_unknown = $3,
    users_new = $4,
    users_returned = $5,
    users_due = $6,
    members_total = $7,
    members_due = $8,
    members_kept_young = $9,
    members_held = $10,
    batch_calls = $11,
    chunks_left = $12,
    call_ms_buckets = $13,
    call_ms_max = $14
WHERE run_id = $15
    AND state = 'running'
RETURNING set_config('synchronous_commit', 'off', true);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunFacts, these values
EXPLAIN (:options) EXECUTE "RunFacts" (:users_checked, :users_missing, :users_unknown, :users_new, :users_returned, :users_due, :members_total, :members_due, :members_kept_young, :members_held, :batch_calls, :chunks_left, :call_ms_buckets, :call_ms_max, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunFacts, any values
EXPLAIN (:options) EXECUTE "RunFacts" (:users_checked, :users_missing, :users_unknown, :users_new, :users_returned, :users_due, :members_total, :members_due, :members_kept_young, :members_held, :batch_calls, :chunks_left, :call_ms_buckets, :call_ms_max, :run_id);

-- In how many conversations a run deleted members, from the audit, or gave them back, from the list of the restore.
-- Locks: ACCESS SHARE on orphan_runs and both tables.
-- Index: conversation_members_audit_deleted_at (BRIN); orphan_restores_pkey. Rows: what was deleted since the run began.
PREPARE "RunConversations" AS
SELECT count(*) AS conversations
    -- UNION, each conversation once: hashed, where count(DISTINCT) would sort.
FROM (
    SELECT a.conversation_id
    FROM conversation_members_audit AS a
    WHERE a.run_id = $1::bigint
        AND a.deleted_at >= (SELECT r.started_at FROM orphan_runs AS r WHERE r.run_id = $1::bigint)
    UNION
    SELECT g.conversation_id
    FROM orphan_restores AS g
    WHERE g.run_id = $1::bigint
        AND g.state <> 'planned'
) AS touched;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunConversations, these values
EXPLAIN (:options) EXECUTE "RunConversations" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunConversations, any values
EXPLAIN (:options) EXECUTE "RunConversations" (:run_id);

-- Ends a run: state, reason, and what RunConversations counted.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
PREPARE "RunFinish" AS
UPDATE orphan_runs AS r
SET state = $1,
    phase = $2,
    heartbeat_at = clock_timestamp(),
    finished_at = clock_timestamp(),
    breaker = $3,
    error = $4,
    conversations = $5
WHERE r.run_id = $6
    -- Ended so before: by this very run, whose answer was lost. Nobody else writes that state.
    AND r.state IN ('running', $1)
RETURNING r.members_deleted, r.members_restored, r.started_at, r.finished_at;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunFinish, these values
EXPLAIN (:options) EXECUTE "RunFinish" (:state, :phase, :breaker, :error, :conversations, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunFinish, any values
EXPLAIN (:options) EXECUTE "RunFinish" (:state, :phase, :breaker, :error, :conversations, :run_id);

-- Records a run that failed its preflight, so that `status` shows it.
-- Locks: ROW EXCLUSIVE on orphan_runs. Index: none. Rows: one.
PREPARE "RunRecordFailure" AS
INSERT INTO orphan_runs (kind, state, phase, finished_at, lease, host, version, settings, error)
VALUES ($1, 'failed', 'preflight', clock_timestamp(), $2, $3, $4, $5, $6)
RETURNING run_id;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunRecordFailure, these values
EXPLAIN (:options) EXECUTE "RunRecordFailure" (:kind, :lease, :host, :version, :settings, :error);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunRecordFailure, any values
EXPLAIN (:options) EXECUTE "RunRecordFailure" (:kind, :lease, :host, :version, :settings, :error);

-- Ends a scheduled run whose preflight failed. Reads nothing else: what failed may be a grant.
-- Locks: ROW EXCLUSIVE on orphan_runs, the row of the run. Index: orphan_runs_pkey or orphan_runs_one_open. Rows: one.
PREPARE "RunFailPreflight" AS
UPDATE orphan_runs
SET state = 'failed',
    heartbeat_at = clock_timestamp(),
    finished_at = clock_timestamp(),
    error = $1
WHERE run_id = $2
    AND state = 'running';
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunFailPreflight, these values
EXPLAIN (:options) EXECUTE "RunFailPreflight" (:error, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunFailPreflight, any values
EXPLAIN (:options) EXECUTE "RunFailPreflight" (:error, :run_id);

-- The count proof of a whole run: its audit rows and its backup rows.
-- Locks: ACCESS SHARE on both tables.
-- Index: conversation_members_audit_deleted_at (BRIN); the backup is read from the day of the run on.
PREPARE "RunProof" AS
SELECT
    (
        SELECT count(*)
        FROM conversation_members_audit AS a
        WHERE a.run_id = $1::bigint AND a.deleted_at >= $2::timestamptz
    )::bigint AS audited,
    (
        SELECT count(*)
        FROM conversation_members_backup AS b
        WHERE b.run_id = $1::bigint AND b.backed_up_at >= $2::timestamptz
    )::bigint AS backed_up;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunProof, these values
EXPLAIN (:options) EXECUTE "RunProof" (:run_id, :started_at);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunProof, any values
EXPLAIN (:options) EXECUTE "RunProof" (:run_id, :started_at);

-- The last runs, newest first.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey, backwards. Rows: as asked.
PREPARE "RunRecent" AS
SELECT run_id, kind, state, phase, started_at, finished_at, host, users_checked, users_missing,
    users_unknown, users_due, members_due, members_deleted, members_restored, members_kept_young, members_held,
    conversations, batch_calls, breaker, error,
    extract(EPOCH FROM coalesce(finished_at, now()) - started_at)::float8 AS seconds
FROM orphan_runs
ORDER BY run_id DESC
LIMIT $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunRecent, these values
EXPLAIN (:options) EXECUTE "RunRecent" (:max_rows);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunRecent, any values
EXPLAIN (:options) EXECUTE "RunRecent" (:max_rows);

-- What the open run's own row says it deleted, written in the transactions of its chunks.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey. Rows: one.
PREPARE "RunDeleted" AS
SELECT members_deleted, started_at
FROM orphan_runs
WHERE run_id = $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunDeleted, these values
EXPLAIN (:options) EXECUTE "RunDeleted" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunDeleted, any values
EXPLAIN (:options) EXECUTE "RunDeleted" (:run_id);

-- What runs used to delete: the median of the last 20 that succeeded.
-- Locks: ACCESS SHARE on orphan_runs. Index: orphan_runs_pkey, backwards. Rows: a few dozen.
PREPARE "RunHistory" AS
SELECT
    count(*) AS runs,
    coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY recent.members_deleted), 0)::float8 AS median
FROM (
    SELECT members_deleted
    FROM orphan_runs
    WHERE kind = 'clean'
        AND state = 'succeeded'
    ORDER BY run_id DESC
    LIMIT 20
) AS recent;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == RunHistory, these values
EXPLAIN (:options) EXECUTE "RunHistory";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == RunHistory, any values
EXPLAIN (:options) EXECUTE "RunHistory";

-- Bounds a transaction that reads or merges in bulk, local to it. No JIT: compiling costs more than any
-- of these statements runs, most of all while the planner has no statistics.
-- Locks: none.
PREPARE "SettingsForBulk" AS
SELECT
    set_config('jit', 'off', true),
    set_config('lock_timeout', $1::text, true),
    set_config('idle_in_transaction_session_timeout', $2::text, true),
    set_config('statement_timeout', $2::text, true);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SettingsForBulk, these values
EXPLAIN (:options) EXECUTE "SettingsForBulk" (:lock_timeout, :statement_timeout);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SettingsForBulk, any values
EXPLAIN (:options) EXECUTE "SettingsForBulk" (:lock_timeout, :statement_timeout);

-- Has a page of staging planned by keys in their order, whatever the statistics say: ledger and staging
-- were filled a moment ago, and nobody has analyzed them since. Local to the transaction.
-- Locks: none.
PREPARE "SettingsForKeys" AS
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SettingsForKeys, these values
EXPLAIN (:options) EXECUTE "SettingsForKeys";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SettingsForKeys, any values
EXPLAIN (:options) EXECUTE "SettingsForKeys";

-- Has the ledger and staging joined whole, whatever the statistics say: nobody has analyzed what was staged a
-- moment ago. Local to the transaction.
-- Locks: none.
PREPARE "SettingsForMerge" AS
SELECT
    set_config('enable_nestloop', 'off', true),
    set_config('enable_mergejoin', 'off', true);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SettingsForMerge, these values
EXPLAIN (:options) EXECUTE "SettingsForMerge";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SettingsForMerge, any values
EXPLAIN (:options) EXECUTE "SettingsForMerge";

-- Has the members of a group found by their users, each page of the table visited once, and sorted in memory
-- (15 MB for the most that are read at once). Local to the transaction.
-- Locks: none.
PREPARE "SettingsForPlaces" AS
SELECT
    set_config('work_mem', '24MB', true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_indexscan', 'off', true),
    set_config('enable_tidscan', 'off', true);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SettingsForPlaces, these values
EXPLAIN (:options) EXECUTE "SettingsForPlaces";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SettingsForPlaces, any values
EXPLAIN (:options) EXECUTE "SettingsForPlaces";

-- Has a chunk find its rows by their places and its users by their keys, whatever the statistics say, and COMMIT
-- without waiting for the disk, or for a standby: what is deleted, its audit, its backup and the run's count come
-- together or not at all, and the end of the run waits for all of it. A run that goes on after a crash of the server
-- sees by its count what is lost. Local to the transaction.
-- Locks: none.
PREPARE "SettingsForChunk" AS
SELECT
    set_config('synchronous_commit', 'off', true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_indexscan', 'off', true),
    set_config('enable_nestloop', 'off', true),
    set_config('enable_mergejoin', 'off', true);
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SettingsForChunk, these values
EXPLAIN (:options) EXECUTE "SettingsForChunk";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SettingsForChunk, any values
EXPLAIN (:options) EXECUTE "SettingsForChunk";

-- How many transactions this database has seen, ours and everybody's; up to a second late.
-- Locks: none.
PREPARE "NeighbourActivity" AS
SELECT (s.xact_commit + s.xact_rollback)::bigint AS transactions
FROM pg_catalog.pg_stat_database AS s
WHERE s.datname = current_database();
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == NeighbourActivity, these values
EXPLAIN (:options) EXECUTE "NeighbourActivity";
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == NeighbourActivity, any values
EXPLAIN (:options) EXECUTE "NeighbourActivity";

-- Stages users of this run as unknown, while the run is open.
-- Locks: ROW EXCLUSIVE on orphan_sightings. Index: orphan_sightings_pkey. Rows: as many as given.
PREPARE "SightingStageUnknown" AS
INSERT INTO orphan_sightings (run_id, user_id, verdict)
SELECT r.run_id, u.user_id, 'unknown'
FROM unnest($1::uuid []) AS u (user_id)
JOIN orphan_runs AS r ON r.run_id = $2 AND r.state = 'running'
    -- Staged before, by an attempt whose answer was lost.
ON CONFLICT (run_id, user_id) DO NOTHING;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SightingStageUnknown, these values
EXPLAIN (:options) EXECUTE "SightingStageUnknown" (:user_ids, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SightingStageUnknown, any values
EXPLAIN (:options) EXECUTE "SightingStageUnknown" (:user_ids, :run_id);

-- Stages users of this run as missing, while the run is open, with what orphan_assess() found out about
-- them; all of them or none. Returns what SightingAssess does.
-- Locks: ROW EXCLUSIVE on orphan_sightings, ACCESS SHARE on conversation_members and our other tables.
-- Index: conversation_members_user_id, orphan_sightings_pkey; ledger and refusals by their keys, or whole where they are small.
-- Rows: the users given and their members.
PREPARE "SightingStageMissing" AS
WITH assessed AS MATERIALIZED (
    SELECT
        a.user_id::uuid AS user_id,
        a.shadow_deleted_at::timestamptz AS shadow_deleted_at,
        a.is_new::boolean AS is_new,
        a.is_foreseen::boolean AS is_foreseen,
        a.is_due::boolean AS is_due,
        a.is_recently_active::boolean AS is_recently_active,
        a.members_due::bigint AS members_due,
        a.members_kept_young::bigint AS members_kept_young,
        a.members_held::bigint AS members_held,
        a.places::tid [] AS places,
        a.is_leaving::boolean AS is_leaving
    FROM orphan_assess($1::uuid [], $2::interval, $3::interval, $4::bigint) AS a
),
staged AS (
    INSERT INTO orphan_sightings (run_id, user_id, verdict, shadow_deleted_at, is_due, is_leaving, places)
    SELECT r.run_id, a.user_id, 'missing', a.shadow_deleted_at, a.is_due, a.is_leaving, a.places
    FROM assessed AS a
    JOIN orphan_runs AS r ON r.run_id = $5 AND r.state = 'running'
    WHERE NOT EXISTS (
        -- Staged before, by an attempt whose answer was lost. One look: ON CONFLICT takes twice as long.
        SELECT
        FROM orphan_sightings AS s
        WHERE s.run_id = $5 AND s.user_id = ($1::uuid [])[1]
    )
    -- Rows in the order of the ids take half as long to go into an index: here, and with what is made of them,
    -- the ledger and the list of the departed.
    ORDER BY a.user_id
)
SELECT
    count(*) FILTER (WHERE a.is_new)::bigint AS users_new,
    count(*) FILTER (WHERE a.is_new AND NOT a.is_foreseen)::bigint AS users_new_unforeseen,
    count(*) FILTER (WHERE a.is_recently_active)::bigint AS users_recently_active,
    count(*) FILTER (WHERE a.is_due)::bigint AS users_due,
    coalesce(sum(a.members_due), 0)::bigint AS members_due,
    coalesce(sum(a.members_kept_young), 0)::bigint AS members_kept_young,
    coalesce(sum(a.members_held), 0)::bigint AS members_held
FROM assessed AS a;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SightingStageMissing, these values
EXPLAIN (:options) EXECUTE "SightingStageMissing" (:user_ids, :retention, :max_gap, :approved_run, :run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SightingStageMissing, any values
EXPLAIN (:options) EXECUTE "SightingStageMissing" (:user_ids, :retention, :max_gap, :approved_run, :run_id);

-- What these missing users mean for the run, before anything is written: how many are new, due, and what
-- the sweep would delete and keep. Reads only: what a dry run does in place of SightingStageMissing.
-- Locks: ACCESS SHARE on conversation_members and our tables.
-- Index: conversation_members_user_id; ledger and refusals by their keys, or whole where they are small.
-- Rows: the users given and their members.
PREPARE "SightingAssess" AS
SELECT
    count(*) FILTER (WHERE a.is_new)::bigint AS users_new,
    count(*) FILTER (WHERE a.is_new AND NOT a.is_foreseen)::bigint AS users_new_unforeseen,
    count(*) FILTER (WHERE a.is_recently_active)::bigint AS users_recently_active,
    count(*) FILTER (WHERE a.is_due)::bigint AS users_due,
    coalesce(sum(a.members_due), 0)::bigint AS members_due,
    coalesce(sum(a.members_kept_young), 0)::bigint AS members_kept_young,
    coalesce(sum(a.members_held), 0)::bigint AS members_held
FROM orphan_assess($1::uuid [], $2::interval, $3::interval, $4::bigint) AS a;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SightingAssess, these values
EXPLAIN (:options) EXECUTE "SightingAssess" (:user_ids, :retention, :max_gap, :approved_run);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SightingAssess, any values
EXPLAIN (:options) EXECUTE "SightingAssess" (:user_ids, :retention, :max_gap, :approved_run);

-- The next due users of this run, from from_user on, and where their members lay when they were staged (null: it
-- keeps no more than a thousand places). There are max_users of them, or as many as have max_members places
-- together, and the last one may have more. Whether they are due still, MemberDeleteDue decides. Follows SettingsForKeys.
-- Locks: ACCESS SHARE on orphan_sightings. Index: orphan_sightings_pkey, in order. Rows: max_users.
PREPARE "SightingDuePage" AS
SELECT
    p.user_id,
    p.places,
    p.is_leaving::boolean AS is_leaving
FROM (
    SELECT
        s.user_id,
        s.places,
        s.is_leaving,
        coalesce(sum(cardinality(s.places)) OVER (ORDER BY s.user_id ROWS UNBOUNDED PRECEDING), 0)
        - coalesce(cardinality(s.places), 0) AS places_before
    FROM (
        SELECT user_id, places, is_leaving
        FROM orphan_sightings
        WHERE run_id = $1
            AND user_id >= $2
            AND is_due
        ORDER BY user_id
        LIMIT $3::bigint
    ) AS s
) AS p
WHERE p.places_before < $4::bigint
ORDER BY p.user_id;
SAVEPOINT planned;
:settings_for_keys
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SightingDuePage, these values
EXPLAIN (:options) EXECUTE "SightingDuePage" (:run_id, :from_user, :max_users, :max_members);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SightingDuePage, any values
EXPLAIN (:options) EXECUTE "SightingDuePage" (:run_id, :from_user, :max_users, :max_members);
ROLLBACK TO SAVEPOINT planned;

-- What is staged for this run: an unlogged table forgets after a crash, and the run must notice.
-- Locks: ACCESS SHARE on orphan_sightings. Index: none: staging holds little but this run. Rows: the run's.
PREPARE "SightingCount" AS
SELECT
    count(*) FILTER (WHERE verdict = 'missing') AS missing,
    count(*) FILTER (WHERE verdict = 'unknown') AS unknown
FROM orphan_sightings
WHERE run_id = $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SightingCount, these values
EXPLAIN (:options) EXECUTE "SightingCount" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SightingCount, any values
EXPLAIN (:options) EXECUTE "SightingCount" (:run_id);

-- Empties staging of this run and of any before it.
-- Locks: ROW EXCLUSIVE on orphan_sightings. Index: none: staging holds little but this run. Rows: the run's.
PREPARE "SightingDrop" AS
DELETE FROM orphan_sightings
WHERE run_id <= $1;
SET LOCAL plan_cache_mode = force_custom_plan;
\echo == SightingDrop, these values
EXPLAIN (:options) EXECUTE "SightingDrop" (:run_id);
SET LOCAL plan_cache_mode = force_generic_plan;
\echo == SightingDrop, any values
EXPLAIN (:options) EXECUTE "SightingDrop" (:run_id);
