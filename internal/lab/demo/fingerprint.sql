SELECT md5(string_agg(m::text, '' ORDER BY m.conversation_id, m.user_id))
FROM public.conversation_members AS m
