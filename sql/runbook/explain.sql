-- What:    the plan of every query of the program on this database and its statistics: once for values
--          from it, as the program binds them, and once for any value, as a plan that is kept would be.
--          Nothing is executed. The values are those of the last clean run, with 1,000 users of the ledger,
--          as many as a group of the sweep. What goes on inside a function is not shown: LOAD
--          'auto_explain' shows it, with auto_explain.log_nested_statements.
-- Locks:   ACCESS SHARE on the tables; ROW EXCLUSIVE on those that a query writes, for the time of planning.
-- Time:    a second.
-- As:      orphan_cleaner_runner sees the plans of its own queries; a superuser all.
-- Example: psql "$DATABASE_URL" -v options='COSTS on, SETTINGS on' -f sql/runbook/explain.sql
--          options are those of EXPLAIN. The queries are in explain_queries.sql, written from queries/;
--          each has the index that it counts on in its header. A Seq Scan on conversation_members where
--          the header names an index wants attention: is the index valid, was the table analyzed?

\set ON_ERROR_STOP on
\if :{?options}
\else
    \set options 'COSTS on, SETTINGS on'
\endif
BEGIN READ ONLY;
SET LOCAL statement_timeout = '60s';
-- As the program sets it.
SET LOCAL jit = off;

-- SQL literals, named like the parameters of the queries.
WITH run AS (
    SELECT coalesce(max(run_id), 0) AS run_id FROM orphan_cleaner.runs WHERE kind = 'clean' AND state IN ('succeeded', 'incomplete')
),
some_users AS (
    (SELECT user_id FROM orphan_cleaner.candidates ORDER BY user_id LIMIT 1000)
    UNION ALL
    -- Where the ledger is empty, some that are members.
    (
        SELECT user_id
        FROM public.conversation_members
        WHERE NOT EXISTS (SELECT FROM orphan_cleaner.candidates)
        ORDER BY user_id
        LIMIT 1000
    )
),
users AS (
    SELECT coalesce(array_agg(user_id), '{}') AS ids FROM some_users
)
SELECT
    quote_literal(run.run_id) AS run_id,
    quote_literal(coalesce((SELECT max(r.run_id) FROM orphan_cleaner.runs AS r WHERE r.state = 'refused'), 0)) AS approved_run,
    quote_literal(coalesce((SELECT max(r.run_id) FROM orphan_cleaner.runs AS r WHERE r.kind = 'restore'), 0)) AS reverted_run,
    quote_literal(users.ids) AS user_ids,
    quote_literal(users.ids[1:100]) AS missing,
    quote_literal(users.ids[1:1]) AS alive,
    quote_literal(coalesce(users.ids[1], '00000000-0000-0000-0000-000000000000')) AS from_user,
    quote_nullable(users.ids[1]) AS user_id
FROM run, users
\gset
\set application_name '\'orphan-cleaner\''
\set after '\'00000000-0000-0000-0000-000000000000\''
\set approved_by '\'explain\''
\set audit_window '\'400 days\''
\set breaker NULL
\set checked_from 'pg_snapshot_xmin(pg_current_snapshot())::text'
\set choice '\'on\''
\set condition '\'true\''
\set conversation_id NULL
\set counts '\'{}\''
\set day 'CURRENT_DATE::text'
\set days_ahead 7
\set delivered 0
\set due_members 1000
\set error NULL
\set every '\'1 hour\''
\set facts '\'{}\''
\set first_page 0
\set from_run 0
\set history NULL
\set hold '\'30 days\''
\set hold_id 1
\set host '\'explain\''
\set idle_timeout '\'2000\''
\set is_blocked false
\set is_local true
\set is_revert false
\set key_columns '\'{conversation_id,user_id}\''
\set kind '\'clean\''
\set last_conversation NULL
\set last_kind NULL
\set last_user NULL
\set lasting '\'1 day\''
\set lease '\'1 minute\''
\set lock_timeout '\'2000\''
\set max_gap '\'7 days\''
\set max_rows 2000
\set max_users 5000
\set most 1000
\set name '\'retention\''
\set of_conversations NULL
\set of_run :run_id
\set of_users NULL
\set of_targets NULL
\set pages 64
\set partition_name '\'conversation_members_backup_20200101\''
\set phase '\'sweep\''
\set plan '\'[]\''
\set reached '\'00000000-0000-0000-0000-000000000000\''
\set reason '\'explain\''
\set refusal_window '\'30 days\''
\set report '\'{}\''
\set restore_run 0
\set restore_window '\'90 days\''
\set restored_too false
\set retention '\'30 days\''
\set revoked_by '\'explain\''
\set set_columns '\'{is_muted}\''
\set set_expressions '\'{true}\''
\set settings '\'{}\''
\set since 'now() - interval \'1 day\''
\set sink '\'redis\''
\set span '\'1 day\''
\set spans 30
\set target '\'conversation_members\''
\set state '\'succeeded\''
\set statement_timeout '\'30000\''
\set table_name '\'conversation_members\''
\set user_column '\'user_id\''
\set verbs '\'{page,delete}\''
\set table_schema '\'public\''
\set ticket '\'00000000-0000-0000-0000-000000000000\''
\set token '\'00000000-0000-0000-0000-000000000000\''
\set unknown 'ARRAY[]::uuid []'
\set users 20
\set until 'now()'
\set value 1
\set version '\'explain\''

\ir explain_queries.sql
DEALLOCATE ALL;
COMMIT;
