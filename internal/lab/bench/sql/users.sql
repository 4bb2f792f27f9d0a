-- auth-service's own table, where it is asked by SQL.
CREATE TABLE users (
    id uuid PRIMARY KEY,
    username text NOT NULL,
    email text NOT NULL,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);

INSERT INTO users (id, username, email, password_hash)
SELECT
    md5('user ' || n)::uuid,
    'user' || n,
    'user' || n || '@example.com',
    repeat('x', 60)
FROM generate_series(current_setting('bench.dead')::integer, current_setting('bench.users')::integer - 1) AS n;
