-- $1 users die within the last $2 hours, having read a message just before; of one in twenty the session reads on for a while.
WITH dead AS (
    UPDATE public.simulated_users AS s
    SET is_alive = false,
        is_watched = true,
        lingers = s.reads_shift % 20 = 0
    WHERE s.user_id = ANY ($1::uuid [])
    RETURNING s.user_id, s.reads_every, s.reads_shift
)
UPDATE public.conversation_members AS m
SET last_read_at = now() - make_interval(mins => d.reads_shift % (60 * $2::integer))
FROM dead AS d
WHERE m.user_id = d.user_id
    AND d.reads_every IS NOT NULL
