-- Timestamps of all users, or of those who are watched, are those of hour $1.
UPDATE public.simulated_users AS s
SET as_of = $1::integer
WHERE s.as_of <> $1::integer
    AND (s.is_watched OR $2::boolean)
