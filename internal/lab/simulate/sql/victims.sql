-- Living users who never read, those with the most rows first, and how many they have.
SELECT
    m.user_id,
    count(*) AS row_count
FROM public.conversation_members AS m
JOIN public.simulated_users AS s ON s.user_id = m.user_id
WHERE s.is_alive
    AND s.reads_every IS NULL
GROUP BY m.user_id
ORDER BY row_count DESC, m.user_id
