-- name: PartitionVerdicts :many
-- Every partition of backup and audit, oldest backup first, and why it is kept: empty means that prune drops it.
-- Locks: ACCESS SHARE on the tables of ours. Index: none. Rows: the partitions; while holds are in
-- force the backups past the restore window are read.
SELECT
    v.parent::text AS parent,
    v.partition_name::text AS partition_name,
    v.lower_bound::timestamptz AS lower_bound,
    v.upper_bound::timestamptz AS upper_bound,
    v.rows_estimate::bigint AS rows_estimate,
    v.bytes::bigint AS bytes,
    v.is_expired::boolean AS is_expired,
    coalesce(v.kept_because, '')::text AS kept_because
FROM orphan_cleaner.prune_look(@restore_window::interval, @audit_window::interval) AS v
    -- Not the DEFAULT partition, nor one without an end.
WHERE v.upper_bound IS NOT NULL;

-- name: PartitionDrop :one
-- Drops one partition that is past its window; returns why not, or nothing.
-- Locks: SHARE on holds; ACCESS EXCLUSIVE on the partition, the audit's DEFAULT one and, for about
-- a millisecond, the parent; each waits 300 ms at most. Index: none. Rows: none.
SELECT coalesce(
    orphan_cleaner.prune_drop(@partition_name::text, @restore_window::interval, @audit_window::interval), ''
)::text AS kept_because;

-- name: PartitionRows :one
-- Deletes what only describes evidence that is gone, at most max_rows of each kind.
-- Locks: ROW EXCLUSIVE on refusals, rechecks and restores. Index: rechecks_deleted_at; refusals and restores may be read whole.
-- Rows: three times max_rows.
SELECT p.refusals::bigint AS refusals, p.rechecks::bigint AS rechecks, p.restores::bigint AS restores
FROM orphan_cleaner.prune_rows(@refusal_window::interval, @audit_window::interval, @max_rows::bigint) AS p;
