SELECT md5('user ' || n)::uuid::text
FROM generate_series(0, $1::integer - 1) AS n
