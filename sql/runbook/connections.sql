-- What:    runbook 4.2, 7.2 and 10.2: how many connections there are, of whom and in which state, how
--          many are left, and whether max_connections is enough for all pools at their largest.
-- Locks:   none.
-- Time:    milliseconds.
-- As:      anybody; a member of pg_read_all_stats sees the states of other people's connections too.
-- Example: psql "$DATABASE_URL" -v pods=3 -v per_pod=20 -v others=60 -f sql/runbook/connections.sql
--          pods and per_pod: messaging-service's replicas and its DATABASE_MAX_CONNECTIONS (3, 20);
--          others: what else may connect here, auth-service's 2 × 30 where it shares the server (60).
--          orphan-cleaner adds its own DATABASE_MAX_CONNECTIONS, 8, and one for migrate or psql.

\set ON_ERROR_STOP on
\if :{?pods}
\else
    \set pods 3
\endif
\if :{?per_pod}
\else
    \set per_pod 20
\endif
\if :{?others}
\else
    \set others 60
\endif
BEGIN READ ONLY;
SET LOCAL statement_timeout = '30s';

\echo '== Connections by application and state'
SELECT coalesce(nullif(application_name, ''), '(none)') AS application, datname AS database, coalesce(state, '(not shown)') AS state,
    count(*) AS connections, max(now() - state_change) AS longest_in_that_state
FROM pg_stat_activity
WHERE backend_type = 'client backend'
GROUP BY 1, 2, 3
ORDER BY connections DESC, 1, 2, 3;

\echo '== Room'
SELECT
    s.max_connections, s.reserved, u.used, s.max_connections - s.reserved - u.used AS free,
    n.needed AS needed_by_all_pools,
    CASE
        WHEN n.needed <= s.max_connections - s.reserved THEN 'enough'
        ELSE 'too few: raise max_connections to ' || (n.needed + s.reserved)::text || ' or more, or put PgBouncer in between'
    END AS max_connections_is
FROM (
    SELECT
        current_setting('max_connections')::integer AS max_connections,
        current_setting('superuser_reserved_connections')::integer
        + coalesce(current_setting('reserved_connections', true)::integer, 0) AS reserved
) AS s
CROSS JOIN (SELECT count(*) AS used FROM pg_stat_activity WHERE backend_type = 'client backend') AS u
CROSS JOIN (SELECT :pods * :per_pod + :others + 8 + 1 AS needed) AS n;
COMMIT;
