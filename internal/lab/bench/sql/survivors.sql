-- The members that are left, and the same sum over them as in expected.sql.
SELECT
    count(*) AS members,
    coalesce(sum(hashtextextended(m::text, 0)), 0)::text AS fingerprint
FROM public.conversation_members AS m
