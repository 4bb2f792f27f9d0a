-- name: UserTargets :many
-- The targets in the order of the sweep, which is that of counts in arrays.
-- Locks: ACCESS SHARE on targets. Index: none needed: a few rows. Rows: the targets.
SELECT t.name
FROM orphan_cleaner.targets_in_order AS t
ORDER BY t.n;

-- name: UserPage :one
-- The next distinct user ids of a target from one on, in order, and how many rows they have. As one array: a row for each
-- of 5,000 users costs both sides more than finding them.
-- Locks: ACCESS SHARE on the target.
-- Index: conversation_members_user_id, in order, mostly index-only. Rows: the rows of max_users users.
SELECT p.user_ids::uuid [] AS users, p.row_count::bigint AS rows
FROM orphan_cleaner.target_page(@target::text, @from_user::uuid, @max_users::bigint) AS p;

-- name: UserCanaries :many
-- Users who were alive in every run so far: with rows older than a month, no candidates; spread over all ids and, of
-- members, over those who read messages and who do not, and over old and new ones. An auth-service that misses many of
-- them is wrong.
-- Locks: ACCESS SHARE on the targets, candidates and unknowns.
-- Index: conversation_members_user_id, candidates_pkey. Rows: 20 for each of the users.
SELECT DISTINCT c.user_id::uuid AS user_id
FROM orphan_cleaner.target_canaries(@users::integer) AS c (user_id);

-- name: RunCanaries :many
-- The same for a run: none before ten runs have succeeded, so that nobody was found alive only once.
-- Locks: ACCESS SHARE on runs, the targets, candidates and unknowns.
-- Index: runs_succeeded backwards, conversation_members_user_id, candidates_pkey. Rows: ten runs, 20 for each of the users.
SELECT DISTINCT c.user_id::uuid AS user_id
FROM orphan_cleaner.target_canaries(@users::integer) AS c (user_id)
WHERE (
    SELECT count(*)
    FROM (SELECT FROM orphan_cleaner.runs AS r WHERE r.kind = 'clean' AND r.state = 'succeeded' ORDER BY r.run_id DESC LIMIT 10) AS earlier
) = 10;
