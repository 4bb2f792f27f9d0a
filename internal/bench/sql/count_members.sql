SELECT count(*) FROM conversation_members
