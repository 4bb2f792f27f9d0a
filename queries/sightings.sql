-- name: SightingStage :execrows
-- Stages users of this run as missing or unknown, while the run is open.
-- Locks: ROW EXCLUSIVE on orphan_sightings. Index: orphan_sightings_pkey. Rows: as many as given.
INSERT INTO orphan_sightings (run_id, user_id, verdict)
SELECT r.run_id, u.user_id, @verdict
FROM unnest(@user_ids::uuid []) AS u (user_id)
JOIN orphan_runs AS r ON r.run_id = @run_id AND r.state = 'running'
    -- Staged before, by an attempt whose answer was lost.
ON CONFLICT (run_id, user_id) DO NOTHING;

-- name: SightingAssess :one
-- What these missing users mean for the run, before anything is written: how
-- many are new, due, and what the sweep would delete and keep. Reads only.
-- Locks: ACCESS SHARE on conversation_members and our tables.
-- With an approval (approved_run, else 0) only its set is due, and its set is not counted as unexpected.
-- Index: conversation_members_user_id; ledger and refusals by their keys, or whole where they are small.
-- Rows: the users given and their members.
WITH clocks AS (
    SELECT
        u.user_id,
        c.user_id IS NULL AS is_new,
        orphan_clock_start(c.first_missing_at, c.last_missing_at, e.deleted_at, @max_gap::interval)
            <= now() - @retention::interval AS is_old,
        EXISTS (
            SELECT
            FROM orphan_holds_in_force AS h
            WHERE h.user_id = u.user_id
        ) AS is_held,
        f.user_id IS NOT NULL AS is_foreseen,
        coalesce(f.is_due, false) AS is_approved
    FROM unnest(@user_ids::uuid []) AS u (user_id)
    LEFT JOIN orphan_refusals AS f ON f.run_id = @approved_run::bigint AND f.user_id = u.user_id
    LEFT JOIN orphan_candidates AS c ON c.user_id = u.user_id
    LEFT JOIN orphan_shadow_evidence(@user_ids::uuid []) AS e ON e.user_id = u.user_id
),
old_members AS (
    SELECT
        k.user_id,
        k.is_approved,
        m.conversation_id,
        coalesce(m.joined_at < now() - @retention::interval, false) AS is_old,
        k.is_held OR EXISTS (
            SELECT
            FROM orphan_holds_in_force AS h
            WHERE h.conversation_id = m.conversation_id
        ) AS is_held
    FROM clocks AS k
    JOIN conversation_members AS m ON m.user_id = k.user_id
    WHERE k.is_old
)
SELECT
    (SELECT count(*) FROM clocks WHERE is_new)::bigint AS users_new,
    (SELECT count(*) FROM clocks WHERE is_new AND NOT is_foreseen)::bigint AS users_new_unforeseen,
    -- Who read a message within a day is expected to be alive. Not EXISTS, which
    -- may be planned as one read of all members: nothing indexes last_read_at.
    (
        SELECT count(*)
        FROM clocks AS k
        WHERE (
            SELECT max(m.last_read_at)
            FROM conversation_members AS m
            WHERE m.user_id = k.user_id
        ) > now() - interval '1 day'
    )::bigint AS users_recently_active,
    (SELECT count(*) FROM clocks WHERE is_old AND NOT is_held AND (is_approved OR @approved_run::bigint = 0))::bigint AS users_due,
    (SELECT count(*) FROM old_members WHERE is_old AND NOT is_held AND (is_approved OR @approved_run::bigint = 0))::bigint AS members_due,
    (SELECT count(*) FROM old_members WHERE is_old AND NOT is_held AND NOT is_approved)::bigint AS members_due_unapproved,
    (SELECT count(*) FROM old_members WHERE NOT is_old AND NOT is_held)::bigint AS members_kept_young,
    (SELECT count(*) FROM old_members WHERE is_held)::bigint AS members_held;

-- name: SightingCount :one
-- What is staged for this run: an unlogged table forgets after a crash, and the run must notice.
-- Locks: ACCESS SHARE on orphan_sightings. Index: none: staging holds little but this run. Rows: the run's.
SELECT
    count(*) FILTER (WHERE verdict = 'missing') AS missing,
    count(*) FILTER (WHERE verdict = 'unknown') AS unknown
FROM orphan_sightings
WHERE run_id = @run_id;

-- name: SightingDrop :execrows
-- Empties staging of this run and of any before it.
-- Locks: ROW EXCLUSIVE on orphan_sightings. Index: none: staging holds little but this run. Rows: the run's.
DELETE FROM orphan_sightings
WHERE run_id <= @run_id;
