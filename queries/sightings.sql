-- name: SightingStageUnknown :execrows
-- Stages users of this run as unknown, while the run is open.
-- Locks: ROW EXCLUSIVE on orphan_sightings. Index: orphan_sightings_pkey. Rows: as many as given.
INSERT INTO orphan_sightings (run_id, user_id, verdict)
SELECT r.run_id, u.user_id, 'unknown'
FROM unnest(@user_ids::uuid []) AS u (user_id)
JOIN orphan_runs AS r ON r.run_id = @run_id AND r.state = 'running'
    -- Staged before, by an attempt whose answer was lost.
ON CONFLICT (run_id, user_id) DO NOTHING;

-- name: SightingStageMissing :one
-- Stages users of this run as missing, while the run is open, with what orphan_assess() found out about
-- them; all of them or none. Returns what SightingAssess does.
-- Locks: ROW EXCLUSIVE on orphan_sightings, ACCESS SHARE on conversation_members and our other tables.
-- Index: conversation_members_user_id, orphan_sightings_pkey; ledger and refusals by their keys, or whole where they are small.
-- Rows: the users given and their members.
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
    FROM orphan_assess(@user_ids::uuid [], @retention::interval, @max_gap::interval, @approved_run::bigint) AS a
),
staged AS (
    INSERT INTO orphan_sightings (run_id, user_id, verdict, shadow_deleted_at, is_due, is_leaving, places)
    SELECT r.run_id, a.user_id, 'missing', a.shadow_deleted_at, a.is_due, a.is_leaving, a.places
    FROM assessed AS a
    JOIN orphan_runs AS r ON r.run_id = @run_id AND r.state = 'running'
    WHERE NOT EXISTS (
        -- Staged before, by an attempt whose answer was lost. One look: ON CONFLICT takes twice as long.
        SELECT
        FROM orphan_sightings AS s
        WHERE s.run_id = @run_id AND s.user_id = (@user_ids::uuid [])[1]
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

-- name: SightingAssess :one
-- What these missing users mean for the run, before anything is written: how many are new, due, and what
-- the sweep would delete and keep. Reads only: what a dry run does in place of SightingStageMissing.
-- Locks: ACCESS SHARE on conversation_members and our tables.
-- Index: conversation_members_user_id; ledger and refusals by their keys, or whole where they are small.
-- Rows: the users given and their members.
SELECT
    count(*) FILTER (WHERE a.is_new)::bigint AS users_new,
    count(*) FILTER (WHERE a.is_new AND NOT a.is_foreseen)::bigint AS users_new_unforeseen,
    count(*) FILTER (WHERE a.is_recently_active)::bigint AS users_recently_active,
    count(*) FILTER (WHERE a.is_due)::bigint AS users_due,
    coalesce(sum(a.members_due), 0)::bigint AS members_due,
    coalesce(sum(a.members_kept_young), 0)::bigint AS members_kept_young,
    coalesce(sum(a.members_held), 0)::bigint AS members_held
FROM orphan_assess(@user_ids::uuid [], @retention::interval, @max_gap::interval, @approved_run::bigint) AS a;

-- name: SightingDuePage :many
-- The next due users of this run, from from_user on, and where their members lay when they were staged (null: it
-- keeps no more than a thousand places). There are max_users of them, or as many as have max_members places
-- together, and the last one may have more. Whether they are due still, MemberDeleteDue decides. Follows SettingsForKeys.
-- Locks: ACCESS SHARE on orphan_sightings. Index: orphan_sightings_pkey, in order. Rows: max_users.
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
        WHERE run_id = @run_id
            AND user_id >= @from_user
            AND is_due
        ORDER BY user_id
        LIMIT @max_users::bigint
    ) AS s
) AS p
WHERE p.places_before < @max_members::bigint
ORDER BY p.user_id;

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
