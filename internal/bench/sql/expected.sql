-- The members that must be left, and a sum over them that knows every column and no order.
SELECT
    count(*) AS members,
    coalesce(sum(hashtextextended(m::text, 0)), 0)::text AS fingerprint
FROM conversation_members AS m
JOIN users AS u ON u.id = m.user_id
WHERE u.deleted_at IS NULL
