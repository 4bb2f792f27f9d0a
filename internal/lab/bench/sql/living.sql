SELECT md5('user ' || n)::uuid AS id
FROM generate_series(current_setting('bench.dead')::integer, current_setting('bench.users')::integer - 1) AS n
