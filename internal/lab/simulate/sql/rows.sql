SELECT count(*) FROM public.conversation_members
