\set c random(0, :conversations - 1)
SELECT user_id, role, last_read_at
FROM conversation_members
WHERE conversation_id = md5('conversation ' || :c)::uuid;
