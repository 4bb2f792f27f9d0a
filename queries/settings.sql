-- name: SettingsForBulk :exec
-- Bounds a transaction that reads or merges in bulk, local to it. No JIT: compiling costs more than any
-- of these statements runs, most of all while the planner has no statistics.
-- Locks: none.
SELECT
    set_config('jit', 'off', true),
    set_config('lock_timeout', @lock_timeout::text, true),
    set_config('idle_in_transaction_session_timeout', @statement_timeout::text, true),
    set_config('statement_timeout', @statement_timeout::text, true);

-- name: SettingsForKeys :exec
-- Has a page of staging planned by keys in their order, whatever the statistics say: ledger and staging
-- were filled a moment ago, and nobody has analyzed them since. Local to the transaction.
-- Locks: none.
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true);

-- name: SettingsForMerge :exec
-- Has the ledger and staging joined whole, whatever the statistics say: nobody has analyzed what was staged a
-- moment ago. Local to the transaction.
-- Locks: none.
SELECT
    set_config('enable_nestloop', 'off', true),
    set_config('enable_mergejoin', 'off', true);

-- name: SettingsForPlaces :exec
-- Has the members of a group found by their users, each page of the table visited once, and sorted in memory
-- (15 MB for the most that are read at once). Local to the transaction.
-- Locks: none.
SELECT
    set_config('work_mem', '24MB', true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_indexscan', 'off', true),
    set_config('enable_tidscan', 'off', true);

-- name: SettingsForChunk :exec
-- Has a chunk find its rows by their places and its users by their keys, whatever the statistics say, and COMMIT
-- without waiting for the disk, or for a standby: what is deleted, its audit, its backup and the run's count come
-- together or not at all, and the end of the run waits for all of it. A run that goes on after a crash of the server
-- sees by its count what is lost. Local to the transaction.
-- Locks: none.
SELECT
    set_config('synchronous_commit', 'off', true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_indexscan', 'off', true),
    set_config('enable_nestloop', 'off', true),
    set_config('enable_mergejoin', 'off', true);

-- name: NeighbourActivity :one
-- How many transactions this database has seen, ours and everybody's; up to a second late.
-- Locks: none.
SELECT (s.xact_commit + s.xact_rollback)::bigint AS transactions
FROM pg_catalog.pg_stat_database AS s
WHERE s.datname = current_database();
