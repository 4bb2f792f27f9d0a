DELETE FROM conversation_members
WHERE user_id = $1
