-- name: MemberUserPage :one
-- The next distinct user ids from one on, in order, and how many members they have. As one array: a row for each of
-- 5,000 users costs both sides more than finding them.
-- Locks: ACCESS SHARE on conversation_members.
-- Index: conversation_members_user_id, in order, mostly index-only. Rows: the members of max_users users.
SELECT p.user_ids::uuid [] AS users, p.row_count::bigint AS members
FROM orphan_cleaner.conversation_members_page(@from_user::uuid, @max_users::bigint) AS p;

-- name: MemberCanaries :many
-- Users who were alive in every run so far: members for longer than a month, no candidates; spread over all ids, over
-- those who read messages and who do not, and over old and new members. An auth-service that misses many of them is wrong.
-- Locks: ACCESS SHARE on conversation_members, candidates and unknowns.
-- Index: conversation_members_user_id, candidates_pkey. Rows: 20 for each of the users.
SELECT c.user_id::uuid AS user_id
FROM orphan_cleaner.conversation_members_canaries(@users::integer) AS c (user_id);

-- name: RunCanaries :many
-- The same for a run: none before ten runs have succeeded, so that nobody was found alive only once.
-- Locks: ACCESS SHARE on runs, conversation_members, candidates and unknowns.
-- Index: runs_succeeded backwards, conversation_members_user_id, candidates_pkey. Rows: ten runs, 20 for each of the users.
SELECT c.user_id::uuid AS user_id
FROM orphan_cleaner.conversation_members_canaries(@users::integer) AS c (user_id)
WHERE (
    SELECT count(*)
    FROM (SELECT FROM orphan_cleaner.runs AS r WHERE r.kind = 'clean' AND r.state = 'succeeded' ORDER BY r.run_id DESC LIMIT 10) AS earlier
) = 10;
