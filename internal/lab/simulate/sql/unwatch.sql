-- Dead, and no row is left.
UPDATE public.simulated_users AS s
SET is_watched = false
WHERE s.is_watched
    AND NOT s.is_alive
    AND NOT EXISTS (SELECT FROM public.conversation_members AS m WHERE m.user_id = s.user_id)
