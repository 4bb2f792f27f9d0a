-- name: HourDays :many
-- The sums of each day, counted in 24 hours back from now, by target, '' for users. A fleet adds them up: 60 days, further back than a breaker looks.
-- Locks: ACCESS SHARE on hours. Index: none; hours is read whole. Rows: an hour each of the audit's window.
SELECT
    h.target,
    floor(extract(EPOCH FROM now() - h.hour) / 86400)::integer AS days_ago,
    sum(h.users_new)::bigint AS users_new,
    coalesce((array_agg(h.rows_total ORDER BY h.hour) FILTER (WHERE h.rows_total > 0))[1], 0)::bigint AS rows_total,
    sum(h.rows_deleted)::bigint AS rows_deleted
FROM orphan_cleaner.hours AS h
WHERE h.hour > now() - interval '60 days'
GROUP BY 1, 2
ORDER BY 1, 2;

-- name: ShardIdentity :one
-- Which database this is (the same on its standbys and on copies of its server), and since when its server has run: together
-- they show whether two names are one database. By its oid: a name may be another database's by now.
-- Locks: none.
SELECT
    (s.system_identifier::text || '/' || (SELECT d.oid::text FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()))::text AS database,
    pg_postmaster_start_time()::timestamptz AS server_since
FROM pg_catalog.pg_control_system() AS s;
