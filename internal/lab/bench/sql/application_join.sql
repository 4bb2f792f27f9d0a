\set c random(0, :conversations - 1)
\set u random(:dead, :users - 1)
INSERT INTO conversation_members (conversation_id, user_id)
VALUES (md5('conversation ' || :c)::uuid, md5('user ' || :u)::uuid)
ON CONFLICT DO NOTHING;
