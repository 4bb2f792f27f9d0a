-- $1 hours pass, and it is hour $2: those who are watched read if they live, whatever auth-service says of them.
UPDATE public.conversation_members AS m
SET joined_at = m.joined_at - make_interval(hours => $2::integer - s.as_of),
    last_read_at = CASE
        WHEN s.is_alive AND s.reads_every IS NOT NULL THEN now() - make_interval(hours => ($2::integer + s.reads_shift) % s.reads_every, secs => 1)
        WHEN s.lingers THEN now() - make_interval(hours => $1::integer, mins => -30)
        ELSE m.last_read_at - make_interval(hours => $1::integer)
    END
FROM public.simulated_users AS s
WHERE s.user_id = m.user_id
    AND s.is_watched
