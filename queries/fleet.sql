-- name: HourDays :many
-- What the hours say of each day, by target, '' for users, 24 hours back from now, for the sums of a fleet: 36 days, as far back as a breaker looks.
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
