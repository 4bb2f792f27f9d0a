\set c random(0, :conversations - 1)
\set u random(:dead, :users - 1)
DELETE FROM conversation_members
WHERE conversation_id = md5('conversation ' || :c)::uuid
    AND user_id = md5('user ' || :u)::uuid;
