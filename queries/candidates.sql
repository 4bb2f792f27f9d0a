-- name: CandidateMerge :one
-- Merges this run's sightings into the ledger: new candidates start their clock,
-- a candidate not seen for longer than max_gap starts it anew, users who are alive
-- again leave, to be asked about again later. Unknown users stay as they are. Follows SettingsForMerge.
-- Locks: ROW EXCLUSIVE on orphan_candidates and orphan_departed; no lock on conversation_members but ACCESS SHARE.
-- Index: orphan_departed_pkey, conversation_members_user_id; staging and the ledger are read whole.
-- Rows: as many as are missing or came back.
WITH open_run AS (
    SELECT o.run_id
    FROM orphan_runs AS o
    WHERE o.run_id = @run_id AND o.state = 'running'
),
missing AS MATERIALIZED (
    SELECT s.user_id, s.shadow_deleted_at, r.run_id
    FROM open_run AS r
    JOIN orphan_sightings AS s ON s.run_id = r.run_id AND s.verdict = 'missing'
),
known AS (
    UPDATE orphan_candidates AS c
    SET first_missing_at = orphan_clock_start(c.first_missing_at, c.last_missing_at, s.shadow_deleted_at, @max_gap::interval),
        last_missing_at = now(),
        last_missing_run = s.run_id,
        sightings = CASE
            WHEN c.last_missing_run = s.run_id THEN c.sightings
            WHEN c.last_missing_at >= now() - @max_gap::interval THEN c.sightings + 1
            ELSE 1
        END,
        evidence = CASE
            WHEN s.shadow_deleted_at < orphan_clock_start(
                c.first_missing_at, c.last_missing_at, NULL, @max_gap::interval
            ) THEN 'shadow'
            WHEN c.last_missing_at >= now() - @max_gap::interval THEN c.evidence
            ELSE 'sightings'
        END
    FROM missing AS s
    WHERE c.user_id = s.user_id
    RETURNING c.user_id
),
-- Two statements and not ON CONFLICT, which takes twice as long: nobody else adds to the ledger while the
-- run's row is locked.
added AS (
    INSERT INTO orphan_candidates (user_id, first_missing_at, last_missing_at, last_missing_run, evidence)
    SELECT
        s.user_id,
        orphan_clock_start(NULL, NULL, s.shadow_deleted_at, @max_gap::interval),
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

-- name: CandidateForget :execrows
-- Takes users out of the ledger, and lists them to be asked about again: certain where they are alive again
-- at the second asking, or where each of their members went; else those without a member left. (Who joined
-- meanwhile is too young to go, and makes its user a candidate anew.) Nobody leaves while the run's count is behind
-- members_deleted: a crash of the server took chunks back. Follows SettingsForChunk.
-- Locks: ROW EXCLUSIVE on orphan_candidates and orphan_departed.
-- Index: orphan_candidates_pkey, orphan_departed_pkey, conversation_members_user_id.
-- Rows: as many as given.
WITH forgotten AS (
    DELETE FROM orphan_candidates AS c
    WHERE c.user_id = ANY (ARRAY(SELECT unnest(@user_ids::uuid [])))
        AND EXISTS (
            SELECT
            FROM orphan_runs AS r
            WHERE r.run_id = @run_id AND r.state = 'running' AND r.members_deleted >= @members_deleted::bigint
        )
        AND (
            @certain::boolean
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
        AND d.user_id = ANY (ARRAY(SELECT unnest(@user_ids::uuid [])))
    RETURNING d.user_id
)
INSERT INTO orphan_departed (user_id)
SELECT f.user_id
FROM forgotten AS f
WHERE NOT EXISTS (SELECT FROM listed AS l WHERE l.user_id = f.user_id);

-- name: CandidateBacklog :many
-- Candidates by the day their retention ends; the first row holds what is due already.
-- Locks: ACCESS SHARE on orphan_candidates and conversation_members.
-- Index: conversation_members_user_id. Rows: the whole ledger and its members.
SELECT
    greatest((c.first_missing_at + @retention::interval) AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')::date::text AS due_on,
    (c.first_missing_at + @retention::interval <= now())::boolean AS is_due,
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
LIMIT @max_rows;
