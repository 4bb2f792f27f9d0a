-- The members that must be left, and a sum over them that knows every column and no order.
SELECT
    count(*) AS members,
    coalesce(sum(hashtextextended(m::text, 0)), 0)::text AS fingerprint
FROM public.conversation_members AS m
WHERE NOT EXISTS (
    SELECT
    FROM generate_series(0, $1::integer - 1) AS n
    WHERE md5('user ' || n)::uuid = m.user_id
)
