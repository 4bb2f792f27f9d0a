-- The shadow table knows when these users were deleted: $2 days ago and more.
INSERT INTO public.users (id, username, created_at, deleted_at)
SELECT u.user_id, 'user', now() - interval '900 days', now() - make_interval(days => $2::integer, mins => u.n::integer)
FROM unnest($1::uuid []) WITH ORDINALITY AS u (user_id, n)
