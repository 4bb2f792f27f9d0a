INSERT INTO public.conversations (id)
SELECT md5('conversation ' || n)::uuid
FROM generate_series(0, $1::integer - 1) AS n;
