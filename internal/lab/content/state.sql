-- What is in each table: rows that are not done yet, all of them and those of these users, and two sums that know every column and
-- no order, over all rows and over those of other users; and what runs audited and backed up.
WITH rows (target, user_id, is_open, text) AS (
    SELECT 'likes', m.user_id, true, m::text FROM public.likes AS m
    UNION ALL
    SELECT 'bookmarks', m.user_id, true, m::text FROM public.bookmarks AS m
    UNION ALL
    SELECT 'shares', m.user_id, true, m::text FROM public.shares AS m
    UNION ALL
    SELECT 'comments', m.user_id, true, m::text FROM public.comments AS m
    UNION ALL
    SELECT 'posts', m.user_id, m.deleted_at IS NULL, m::text FROM public.posts AS m
),
evidence (target, audited, backed_up) AS (
    SELECT 'likes', count(*), (SELECT count(*) FROM orphan_cleaner.likes_backup) FROM orphan_cleaner.likes_audit
    UNION ALL
    SELECT 'bookmarks', count(*), (SELECT count(*) FROM orphan_cleaner.bookmarks_backup) FROM orphan_cleaner.bookmarks_audit
    UNION ALL
    SELECT 'shares', count(*), (SELECT count(*) FROM orphan_cleaner.shares_backup) FROM orphan_cleaner.shares_audit
    UNION ALL
    SELECT 'comments', count(*), (SELECT count(*) FROM orphan_cleaner.comments_backup) FROM orphan_cleaner.comments_audit
    UNION ALL
    SELECT 'posts', count(*), (SELECT count(*) FROM orphan_cleaner.posts_backup) FROM orphan_cleaner.posts_audit
)
SELECT
    r.target,
    count(*) FILTER (WHERE r.is_open) AS open,
    count(*) FILTER (WHERE r.is_open AND r.user_id = ANY ($1::uuid [])) AS of_users,
    coalesce(sum(hashtextextended(r.text, 0)), 0)::text AS all_rows,
    coalesce(sum(hashtextextended(r.text, 0)) FILTER (WHERE r.user_id <> ALL ($1::uuid [])), 0)::text AS of_others,
    e.audited,
    e.backed_up
FROM rows AS r
JOIN evidence AS e USING (target)
JOIN orphan_cleaner.targets AS t ON t.name = r.target
GROUP BY r.target, e.audited, e.backed_up, t.ordinal
ORDER BY t.ordinal
