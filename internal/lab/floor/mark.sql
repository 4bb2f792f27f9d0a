UPDATE public.conversation_members
SET deleted_at = now()
WHERE user_id = ANY ($1::uuid [])
    AND deleted_at IS NULL
