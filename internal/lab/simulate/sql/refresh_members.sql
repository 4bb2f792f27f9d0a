-- It is hour $1 for those who are not watched, too: a run that chooses canaries looks at some. What is older than a hundred
-- days is old enough.
UPDATE public.conversation_members AS m
SET joined_at = m.joined_at - make_interval(hours => $1::integer - s.as_of),
    last_read_at = now() - make_interval(hours => ($1::integer + s.reads_shift) % s.reads_every, secs => 1)
FROM public.simulated_users AS s
WHERE s.user_id = m.user_id
    AND NOT s.is_watched
    AND (m.joined_at > now() - interval '100 days' OR s.reads_every IS NOT NULL)
