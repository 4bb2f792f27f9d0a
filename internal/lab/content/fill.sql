-- Rows of each user of the shadow table: content.rows in each table, old enough for any retention. Ids are md5 sums, so that the
-- rows of a user lie anywhere in a table. Each user likes and comments on the own posts.
WITH made AS (
    SELECT
        md5('post ' || n || ' of ' || u.id)::uuid AS id,
        u.id AS user_id,
        now() - interval '100 days' - make_interval(hours => n) AS created_at
    FROM public.users AS u, generate_series(1, current_setting('content.rows')::integer) AS n
),
posts AS (
    INSERT INTO public.posts (id, user_id, body, created_at, likes, comments) SELECT m.id, m.user_id, 'a post', m.created_at, 1, 1 FROM made AS m
),
comments AS (
    INSERT INTO public.comments (id, post_id, user_id, body, created_at) SELECT m.id, m.id, m.user_id, 'a comment', m.created_at FROM made AS m
),
likes AS (
    INSERT INTO public.likes (post_id, user_id, created_at) SELECT m.id, m.user_id, m.created_at FROM made AS m
),
bookmarks AS (
    INSERT INTO public.bookmarks (post_id, user_id, created_at) SELECT m.id, m.user_id, m.created_at FROM made AS m
)
INSERT INTO public.shares (post_id, user_id, created_at) SELECT m.id, m.user_id, m.created_at FROM made AS m
