-- $1 hours pass, and it is hour $2: the living read, whatever auth-service says of them. What is older than a hundred
-- days is old enough.
UPDATE public.conversation_members AS m
SET joined_at = m.joined_at - make_interval(hours => $1::integer),
    last_read_at = CASE
        WHEN s.is_alive AND s.reads_every IS NOT NULL THEN now() - make_interval(hours => ($2::integer + s.reads_shift) % s.reads_every, secs => 1)
        WHEN s.lingers THEN now() - make_interval(hours => $1::integer, mins => -30)
        ELSE m.last_read_at - make_interval(hours => $1::integer)
    END
FROM public.simulated_users AS s
WHERE s.user_id = m.user_id
    AND (m.joined_at > now() - interval '100 days' OR m.last_read_at IS NOT NULL OR s.reads_every IS NOT NULL);

