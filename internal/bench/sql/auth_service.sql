-- auth-service's own table, with the same users: what a foreign table can see.
CREATE TABLE users (
    id uuid NOT NULL,
    username text NOT NULL,
    deleted_at timestamptz,
    CONSTRAINT users_pkey PRIMARY KEY (id)
);

INSERT INTO users (id, username, deleted_at)
SELECT
    md5('user ' || n)::uuid,
    'user' || n,
    CASE WHEN n < current_setting('bench.dead')::integer THEN now() - interval '31 days' END
FROM generate_series(0, current_setting('bench.users')::integer - 1) AS n;
