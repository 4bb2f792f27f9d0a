-- name: SettingsApply :exec
-- Opens every transaction: bounds its waiting, and sets what it depends on, whatever role, database or a pooled
-- session say. All of it is local to the transaction, so that a pooler may hand the session on; only migrate, which has
-- a session of its own, sets it for the session, where NO TRANSACTION migrations need it.
-- The role is left as it is: ALTER ROLE … SET role is how a login with NOINHERIT is made one of ours.
-- No JIT: compiling costs more than any of our statements runs. Work_mem: a chunk fits into 16 MB, and needs no
-- temporary file that a temp_file_limit could refuse.
-- Every name is qualified, types but for keywords too: until it has run, the search_path is somebody else's.
-- Locks: none.
SELECT
    pg_catalog.set_config('statement_timeout', @statement_timeout::varchar, @is_local::boolean),
    pg_catalog.set_config('lock_timeout', @lock_timeout::varchar, @is_local::boolean),
    pg_catalog.set_config('idle_in_transaction_session_timeout', @idle_timeout::varchar, @is_local::boolean),
    -- Of PostgreSQL 17 and newer.
    CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL THEN pg_catalog.set_config('transaction_timeout', '0', @is_local::boolean) END,
    -- Of the minor versions since August 2024: with 'view', ours could not be read.
    CASE WHEN pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL THEN pg_catalog.set_config('restrict_nonsystem_relation_kind', '', @is_local::boolean) END,
    pg_catalog.set_config('default_transaction_read_only', 'off', @is_local::boolean),
    pg_catalog.set_config('default_transaction_isolation', 'read committed', @is_local::boolean),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', @is_local::boolean),
    pg_catalog.set_config('row_security', 'off', @is_local::boolean),
    pg_catalog.set_config('synchronous_commit', CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off' THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END, @is_local::boolean),
    pg_catalog.set_config('client_encoding', 'UTF8', @is_local::boolean),
    pg_catalog.set_config('standard_conforming_strings', 'on', @is_local::boolean),
    pg_catalog.set_config('TimeZone', 'UTC', @is_local::boolean),
    pg_catalog.set_config('DateStyle', 'ISO, MDY', @is_local::boolean),
    pg_catalog.set_config('IntervalStyle', 'postgres', @is_local::boolean),
    -- Rows are compared as text, which must not round.
    pg_catalog.set_config('extra_float_digits', '1', @is_local::boolean),
    pg_catalog.set_config('bytea_output', 'hex', @is_local::boolean),
    pg_catalog.set_config('plan_cache_mode', 'auto', @is_local::boolean),
    pg_catalog.set_config('work_mem', greatest(pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) OPERATOR(pg_catalog./) 1024, 16384)::varchar, @is_local::boolean),
    -- An index of a large table is sorted in temporary files. Only who may, can.
    CASE WHEN NOT @is_local::boolean AND pg_catalog.has_parameter_privilege('temp_file_limit', 'SET') THEN pg_catalog.set_config('temp_file_limit', '-1', false) END,
    pg_catalog.set_config('jit', 'off', @is_local::boolean);

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
