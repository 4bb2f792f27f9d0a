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
-- Has a page of the ledger planned by keys in their order, whatever the statistics say: ledger and staging
-- were filled a moment ago, and nobody has analyzed them since. Local to the transaction.
-- Locks: none.
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true);

-- name: SettingsForChunk :exec
-- Has a chunk find its rows by keys and visit each page of the table once, whatever the statistics say: user
-- by user it would come to a page again and again, and PostgreSQL would tidy it up each time. Local to the transaction.
-- Locks: none.
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('enable_nestloop', 'off', true),
    set_config('enable_mergejoin', 'off', true);

-- name: NeighbourActivity :one
-- How many transactions this database has seen, ours and everybody's; up to a second late.
-- Locks: none.
SELECT (s.xact_commit + s.xact_rollback)::bigint AS transactions
FROM pg_catalog.pg_stat_database AS s
WHERE s.datname = current_database();
