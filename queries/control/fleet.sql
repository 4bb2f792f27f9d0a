-- name: FleetAnswer :many
-- The range of a run in which a user id is, and what auth-service said of its users; where it is not done, or by the clock is not done yet, its age in seconds is infinite.
-- Locks: ACCESS SHARE. Index: ranges_pkey. Rows: one at most.
SELECT
    g.first_id, g.last_id, g.checked, g.missing,
    (CASE WHEN g.asked_at <= clock_timestamp() THEN extract(EPOCH FROM clock_timestamp() - g.asked_at) ELSE 'infinity' END)::float8 AS age
FROM orphan_cleaner_fleet.ranges AS g
WHERE g.fleet_run = @fleet_run::bigint AND g.first_id <= @user_id::uuid
ORDER BY g.first_id DESC
LIMIT 1;

-- name: FleetApproved :many
-- Reports of the refused run that an approval of this run covers, and of all approvals used within 35 days: what was found
-- by them counts in no window.
-- Locks: ACCESS SHARE. Index: shards_pkey. Rows: the shards of each approved run.
SELECT
    s.shard,
    s.verified::jsonb AS verified,
    (a.fleet_run = r.approved_run AND (a.used_at IS NULL OR a.used_by = r.fleet_run))::boolean AS is_open,
    coalesce(floor(extract(EPOCH FROM now() - a.used_at) / 86400), 0)::integer AS days_ago
FROM orphan_cleaner_fleet.runs AS r
JOIN orphan_cleaner_fleet.approvals AS a ON a.fleet_run = r.approved_run OR a.used_at > now() - interval '35 days'
JOIN orphan_cleaner_fleet.shards AS s ON s.fleet_run = a.fleet_run AND s.verified IS NOT NULL
WHERE r.fleet_run = @fleet_run::bigint;

-- name: FleetApprove :one
-- Approves a refused run.
-- Locks: the row of the approval. Index: approvals_pkey. Rows: one.
SELECT orphan_cleaner_fleet.approve(@fleet_run::bigint, @by_whom::text, @lasting::interval)::timestamptz AS expires_at;

-- name: FleetApprovals :many
-- The approvals that a run may use.
-- Locks: ACCESS SHARE. Index: none; there are few. Rows: those.
SELECT a.fleet_run, a.approved_by, a.expires_at
FROM orphan_cleaner_fleet.approvals AS a
WHERE a.used_at IS NULL AND a.revoked_at IS NULL AND a.expires_at > now()
ORDER BY a.fleet_run;

-- name: FleetApprovalRevoke :one
-- Revokes an approval that no run has used; 0 where there is none.
-- Locks: the rows of the open run and of the approval. Index: runs_one_open, approvals_pkey. Rows: one of each at most.
SELECT coalesce(orphan_cleaner_fleet.revoke_approval(@fleet_run::bigint, @by_whom::text), 0)::bigint AS fleet_run;

-- name: FleetPause :exec
-- Pauses the fleet; unique violation where it is.
-- Locks: none but its row. Index: pauses_one_open. Rows: one.
SELECT orphan_cleaner_fleet.pause(@by_whom::text, @reason::text);

-- name: FleetPaused :many
-- The pause in force.
-- Locks: ACCESS SHARE. Index: pauses_one_open. Rows: one at most.
SELECT p.paused_by, p.paused_at, p.reason FROM orphan_cleaner_fleet.pauses AS p WHERE p.resumed_at IS NULL;

-- name: FleetRangeDone :one
-- Keeps the answers of a range up to an id; false where it is done already. OC001 where the run is not open.
-- Locks: the row of the run. Index: ranges_pkey. Rows: one.
SELECT orphan_cleaner_fleet.range_done(
    @fleet_run::bigint, @first_id::uuid, @through_id::uuid, @checked::bytea, @missing::uuid [], @took::interval
)::boolean AS is_kept;

-- name: FleetRangesAdd :exec
-- Adds ranges whose users are to be checked. OC001 where the run is not open.
-- Locks: the row of the run. Index: ranges_pkey. Rows: as many as are added.
SELECT orphan_cleaner_fleet.ranges_add(@fleet_run::bigint, @first_ids::uuid [], @last_ids::uuid []);

-- name: FleetRangesOpen :one
-- How many ranges of a run are not done.
-- Locks: ACCESS SHARE. Index: ranges_pkey. Rows: the ranges of the run.
SELECT count(*) FROM orphan_cleaner_fleet.ranges AS g WHERE g.fleet_run = @fleet_run::bigint AND g.asked_at IS NULL;

-- name: FleetResume :one
-- Ends the pause; 0 where there is none.
-- Locks: its row. Index: pauses_one_open. Rows: one at most.
SELECT coalesce(orphan_cleaner_fleet.resume(@by_whom::text), 0)::bigint AS pause_id;

-- name: FleetRunBegin :one
-- Begins a run; OC003 while another is open, OC002 while the fleet is paused, OC013 where the clock is behind an earlier run, OC014 where the control database is of another fleet.
-- Locks: SHARE ROW EXCLUSIVE on runs, 3 s at most. Index: runs_one_open. Rows: one, and one for each shard.
SELECT orphan_cleaner_fleet.run_begin(@shards::text [], @host::text, @give_up::interval)::bigint AS fleet_run;

-- name: FleetRunEnd :exec
-- Ends a run; OC001 where it is not open.
-- Locks: its row. Index: runs_pkey. Rows: one.
SELECT orphan_cleaner_fleet.run_end(@fleet_run::bigint, @state::text, sqlc.narg('breaker')::text, sqlc.narg('error')::text, @sums::jsonb);

-- name: FleetRunOpen :many
-- The open run.
-- Locks: ACCESS SHARE. Index: runs_one_open. Rows: one at most.
SELECT r.fleet_run FROM orphan_cleaner_fleet.runs AS r WHERE r.state = 'running';

-- name: FleetRunState :one
-- A run.
-- Locks: ACCESS SHARE. Index: runs_pkey. Rows: one.
SELECT
    r.fleet_run, r.state, r.started_at, r.waves, r.host, r.breaker, coalesce(r.error, '')::text AS error, r.sums::jsonb AS sums, r.approved_run,
    extract(EPOCH FROM coalesce(r.finished_at, now()) - r.started_at)::float8 AS seconds,
    extract(EPOCH FROM now() - r.progressed_at)::float8 AS idle
FROM orphan_cleaner_fleet.runs AS r
WHERE r.fleet_run = @fleet_run::bigint;

-- name: FleetRuns :many
-- The last runs, newest first.
-- Locks: ACCESS SHARE. Index: runs_pkey. Rows: as asked.
SELECT
    r.fleet_run, r.state, r.started_at, r.waves, r.breaker, coalesce(r.error, '')::text AS error,
    extract(EPOCH FROM coalesce(r.finished_at, now()) - r.started_at)::float8 AS seconds
FROM orphan_cleaner_fleet.runs AS r
ORDER BY r.fleet_run DESC
LIMIT @most::integer;

-- name: FleetShards :many
-- What the shards of a run found and did, in the order of fleet.yaml.
-- Locks: ACCESS SHARE. Index: shards_pkey. Rows: the shards.
SELECT s.shard, s.wave, s.verified::jsonb AS verified, s.swept::jsonb AS swept
FROM orphan_cleaner_fleet.shards AS s
WHERE s.fleet_run = @fleet_run::bigint
ORDER BY s.ordinal;

-- name: FleetShardDone :one
-- Keeps the report of a shard; returns whether all of the pass or wave are done. OC001 where the run is not open.
-- Locks: the row of the run. Index: shards_pkey. Rows: the shards of the run.
SELECT orphan_cleaner_fleet.shard_done(@fleet_run::bigint, @shard::text, @is_sweep::boolean, @report::jsonb)::boolean AS is_last;

-- name: FleetTakeCalls :one
-- Takes a bundle of calls; returns in how many seconds the first may be made.
-- Locks: the row of the budget. Index: budget_pkey. Rows: one.
SELECT orphan_cleaner_fleet.take_calls(@wanted::bigint, @per_second::float8)::float8 AS starts_in;

-- name: FleetWaveBegin :exec
-- Begins the next wave; OC008 where it is begun already, or where the approval by which it was judged is revoked.
-- Locks: the row of the run. Index: shards_pkey. Rows: the shards of the wave.
SELECT orphan_cleaner_fleet.wave_begin(@fleet_run::bigint, @wave::bigint, @shards::text [], @sums::jsonb, sqlc.narg('by_approval')::bigint);
