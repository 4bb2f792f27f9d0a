-- name: SettingsForTransaction :exec
-- Opens every transaction: bounds its waiting, and sets what it depends on, whatever role, database or a pooled
-- session say. All of it is local to the transaction, so that a pooler may hand the session on.
-- No JIT: compiling costs more than any of our statements runs.
-- Locks: none.
SELECT
    set_config('statement_timeout', @statement_timeout::text, true),
    set_config('lock_timeout', @lock_timeout::text, true),
    set_config('idle_in_transaction_session_timeout', @idle_timeout::text, true),
    set_config('search_path', 'pg_catalog, pg_temp', true),
    set_config('row_security', 'off', true),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true),
    set_config('TimeZone', 'UTC', true),
    set_config('DateStyle', 'ISO, MDY', true),
    set_config('IntervalStyle', 'postgres', true),
    set_config('jit', 'off', true);

-- name: SnapshotOldest :one
-- The oldest transaction that runs right now: a row version that is older was not changed since. Taken before users
-- are checked a second time.
-- Locks: none.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS checked_from;

-- name: ReplicationLag :one
-- By how many seconds the standby that lags most replays behind; 0 without one. A role without pg_monitor sees none.
-- Locks: none.
SELECT coalesce(max(extract(EPOCH FROM s.replay_lag)), 0)::float8 AS seconds
FROM pg_catalog.pg_stat_replication AS s;
