-- $1 users, $2 how often each reads (0: never), $3 shift, $4 rows of each, $5 conversations, $6 days since they joined,
-- $7 the hour that it is.
WITH users AS (
    INSERT INTO public.simulated_users (user_id, reads_every, reads_shift, as_of)
    SELECT u.user_id, nullif(u.reads_every, 0), u.reads_shift, $7::integer
    FROM unnest($1::uuid [], $2::integer [], $3::integer []) AS u (user_id, reads_every, reads_shift)
)
INSERT INTO public.conversation_members (conversation_id, user_id, joined_at)
SELECT
    md5('conversation ' || ((hashtextextended(u.user_id::text, 0) & 1073741823) + n * greatest($5 / u.row_count, 1)) % $5)::uuid,
    u.user_id,
    now() - make_interval(days => $6)
FROM unnest($1::uuid [], $4::integer []) AS u (user_id, row_count)
CROSS JOIN LATERAL generate_series(1, u.row_count) AS n
ON CONFLICT DO NOTHING
