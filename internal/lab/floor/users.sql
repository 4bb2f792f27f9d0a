SELECT DISTINCT user_id
FROM public.conversation_members
