-- The oldest open transaction of one program in one database, and the longest wait for a lock that it holds; seconds.
-- The locks are read only where somebody waits: reading them all keeps everybody from them for a moment.
SELECT
    coalesce(extract(EPOCH FROM max(clock_timestamp() - a.xact_start)), 0)::float8 AS longest_transaction,
    coalesce((
        SELECT extract(EPOCH FROM max(clock_timestamp() - (
            SELECT min(l.waitstart)
            FROM pg_locks AS l
            WHERE l.pid = w.pid AND NOT l.granted
        )))
        FROM pg_stat_activity AS w
        WHERE w.wait_event_type = 'Lock'
            AND EXISTS (
                SELECT
                FROM unnest(pg_blocking_pids(w.pid)) AS b (pid)
                JOIN pg_stat_activity AS s ON s.pid = b.pid
                WHERE s.datname = $1 AND s.application_name = $2
            )
    ), 0)::float8 AS longest_wait
FROM pg_stat_activity AS a
WHERE a.datname = $1
    AND a.application_name = $2
    AND a.state <> 'idle'
