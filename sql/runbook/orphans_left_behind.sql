-- What:    runbook 4.3: members whose user was deleted longer ago than the retention, by the shadow table
--          users, and why each is still there. All of them in "the next run deletes it" is fine; see
--          the last column for the rest.
-- Locks:   ACCESS SHARE on users, conversation_members and our tables.
-- Time:    reads users whole, members by the index on user_id: 1 s a million users.
-- As:      whoever may read users: orphan_cleaner_migrator, after SET ROLE orphan_cleaner_owner or not,
--          and the owner of messaging-service's tables.
-- Example: psql "$DATABASE_URL" -v retention='30 days' -f sql/runbook/orphans_left_behind.sql

\set ON_ERROR_STOP on
\if :{?retention}
\else
    \set retention '30 days'
\endif
BEGIN READ ONLY;
SET LOCAL statement_timeout = '5min';

WITH left_behind AS (
    SELECT
        cm.user_id,
        CASE
            WHEN EXISTS (
                SELECT
                FROM orphan_cleaner.holds_in_force AS h
                WHERE h.user_id = cm.user_id OR h.conversation_id = cm.conversation_id
            ) THEN 'a hold keeps it'
            WHEN c.user_id IS NULL THEN 'never found missing'
            WHEN c.last_missing_run < last.run_id THEN 'not missing, or unknown, in the last run'
            WHEN c.first_missing_at > now() - :'retention'::interval THEN 'its clock has not run out'
            WHEN coalesce(cm.joined_at >= now() - :'retention'::interval, true) THEN 'the member itself is young'
            ELSE 'the next run deletes it'
        END AS why
    FROM public.conversation_members AS cm
    JOIN public.users AS u ON u.id = cm.user_id
    LEFT JOIN orphan_cleaner.candidates AS c ON c.user_id = cm.user_id
    CROSS JOIN (
        SELECT max(run_id) AS run_id FROM orphan_cleaner.runs WHERE kind = 'clean' AND state IN ('succeeded', 'incomplete')
    ) AS last
    WHERE u.deleted_at < now() - :'retention'::interval
)
SELECT
    why,
    count(*) AS members,
    count(DISTINCT user_id) AS users,
    CASE why
        WHEN 'a hold keeps it' THEN 'orphan-cleaner hold list'
        WHEN 'never found missing' THEN 'no run has judged it yet, or auth-service still returns the user: ask it by grpcurl (runbook 4.3)'
        WHEN 'not missing, or unknown, in the last run' THEN 'orphan-cleaner status: users unknown? else auth-service returns the user again'
        WHEN 'its clock has not run out' THEN 'the shadow said so later, or a gap longer than max-gap started it anew: backlog.sql'
        WHEN 'the member itself is young' THEN 'somebody joined on behalf of a deleted user: find out which service writes that'
        ELSE 'orphan-cleaner run, unless runs are paused or refused: orphan-cleaner status'
    END AS what_to_do,
    (min(user_id::text))::uuid AS for_example
FROM left_behind
GROUP BY why
ORDER BY members DESC;
COMMIT;
