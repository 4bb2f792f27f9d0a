DELETE FROM public.conversation_members
WHERE user_id = ANY ($1::uuid [])
