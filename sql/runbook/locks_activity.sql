-- What:    runbook 4.2 and 4.3: who works on messaging-service's and our tables, who waits for whom, and
--          which transactions have been open for long; slow statements, where pg_stat_statements is
--          there (the runbook's total_time is called total_exec_time since PostgreSQL 13).
-- Locks:   none.
-- Time:    milliseconds.
-- As:      a member of pg_read_all_stats or pg_monitor, to see other people's statements.
-- Example: psql "$DATABASE_URL" -v longer='30 seconds' -f sql/runbook/locks_activity.sql
--          longer is from when on a transaction is long (30 seconds). To end a statement:
--          SELECT pg_cancel_backend(PID); to end its session: SELECT pg_terminate_backend(PID).

\set ON_ERROR_STOP on
\if :{?longer}
\else
    \set longer '30 seconds'
\endif
BEGIN READ ONLY;
SET LOCAL statement_timeout = '30s';

\echo '== Locks on conversation_members, conversations and our tables'
SELECT
    l.pid, a.usename AS role, a.application_name AS application, l.relation::regclass AS "table",
    l.mode, l.granted, a.state, now() - a.xact_start AS in_transaction_for, left(a.query, 60) AS query
FROM pg_locks AS l
JOIN pg_class AS c ON c.oid = l.relation
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND c.relkind IN ('r', 'p')
    AND (c.relname IN ('conversations', 'conversation_members') OR c.relname LIKE 'conversation\_members\_%' OR c.relnamespace = to_regnamespace('orphan_cleaner'))
    AND l.pid <> pg_backend_pid()
ORDER BY l.granted, a.xact_start, l.pid, l.relation::regclass::text;

\echo '== Who waits for whom'
SELECT
    waiter.pid AS waits, waiter.application_name AS application, now() - waiter.state_change AS waits_for,
    waiter.wait_event, holder.pid AS for_pid, holder.application_name AS for_application, holder.state AS for_state,
    now() - holder.xact_start AS for_in_transaction_for, left(waiter.query, 60) AS query, left(holder.query, 60) AS for_query
FROM pg_stat_activity AS waiter
CROSS JOIN LATERAL unnest(pg_blocking_pids(waiter.pid)) AS blocking (pid)
JOIN pg_stat_activity AS holder ON holder.pid = blocking.pid
WHERE waiter.datname = current_database()
ORDER BY waiter.state_change;

\echo '== Transactions open for longer than' :longer
SELECT pid, usename AS role, application_name AS application, state, now() - xact_start AS in_transaction_for,
    wait_event_type, wait_event, left(query, 60) AS query
FROM pg_stat_activity
WHERE datname = current_database()
    AND pid <> pg_backend_pid()
    AND xact_start < now() - :'longer'::interval
ORDER BY xact_start;

\echo '== Statements at work on conversation_members'
SELECT pid, usename AS role, state, now() - query_start AS for_time, left(query, 100) AS query
FROM pg_stat_activity
WHERE state = 'active'
    AND query LIKE '%conversation_members%'
    AND pid <> pg_backend_pid()
ORDER BY query_start;

SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements') AS has_statements
\gset
\if :has_statements
    \echo '== Statements on conversation_members that took the most time, milliseconds'
    SELECT calls, round(total_exec_time::numeric) AS total, round(mean_exec_time::numeric, 2) AS mean,
        round(max_exec_time::numeric) AS max, rows, left(regexp_replace(query, '\s+', ' ', 'g'), 100) AS query
    FROM pg_stat_statements
    WHERE query LIKE '%conversation_members%'
        AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY total_exec_time DESC
    LIMIT 10;
\endif
COMMIT;
