-- Auth-service leaves out $1 from now on.
UPDATE public.simulated_users AS s
SET is_watched = true
WHERE s.user_id = ANY ($1::uuid [])
    AND NOT s.is_watched
