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
-- Has a chunk, or the page of users before it, planned by keys in their order, whatever the statistics say:
-- ledger and staging were filled a moment ago, and nobody has analyzed them since. Local to the transaction.
-- Locks: none.
SELECT
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true);
