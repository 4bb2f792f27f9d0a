DELETE FROM conversation_members AS m
WHERE NOT EXISTS (
    SELECT
    FROM auth_users AS u
    WHERE u.id = m.user_id AND u.deleted_at IS NULL
)
