-- How many posts have another count of likes or comments than there are.
SELECT count(*)
FROM public.posts AS p
LEFT JOIN (SELECT l.post_id, count(*) AS n FROM public.likes AS l GROUP BY l.post_id) AS l ON l.post_id = p.id
LEFT JOIN (SELECT c.post_id, count(*) AS n FROM public.comments AS c GROUP BY c.post_id) AS c ON c.post_id = p.id
WHERE p.likes <> coalesce(l.n, 0) OR p.comments <> coalesce(c.n, 0)
