-- Rows of living users that the last run deleted.
SELECT count(*)
FROM public.conversation_members_backup AS b
JOIN public.simulated_users AS s ON s.user_id = b.user_id
WHERE s.is_alive
