-- Made-up data: bench.conversations, bench.members and bench.users say how much of it.
-- Ids are md5 sums, so that rows of dead users lie anywhere in the table.

-- Before our triggers are there, and without a look-up per row by the foreign key.
SET LOCAL session_replication_role = 'replica';

INSERT INTO conversations (id, name)
SELECT md5('conversation ' || n)::uuid, 'conversation ' || n
FROM generate_series(0, current_setting('bench.conversations')::integer - 1) AS n;

-- The shadow table knows nothing of who is dead: only auth-service does. Every member is older than the retention.
INSERT INTO users (id, username, created_at)
SELECT
    md5('user ' || n)::uuid,
    'user' || n,
    now() - interval '400 days'
FROM generate_series(0, current_setting('bench.users')::integer - 1) AS n;

WITH size AS (
    SELECT
        current_setting('bench.conversations')::bigint AS conversations,
        current_setting('bench.members')::bigint AS members,
        current_setting('bench.users')::bigint AS users
),
-- Member m is the (m / users)th membership of user m % users. Strides keep a
-- user's conversations apart.
member AS (
    SELECT
        m,
        m % s.users AS user_number,
        (m % s.users + (m / s.users) * greatest(s.conversations / ceil(s.members::numeric / s.users)::bigint, 1))
            % s.conversations AS conversation_number
    FROM size AS s, generate_series(0, s.members - 1) AS m
)
INSERT INTO conversation_members (conversation_id, user_id, role, joined_at, last_read_at)
SELECT
    md5('conversation ' || conversation_number)::uuid,
    md5('user ' || user_number)::uuid,
    'member',
    now() - interval '60 days' - make_interval(hours => (m % 5000)::integer),
    CASE WHEN m % 3 = 0 THEN now() - interval '45 days' END
FROM member
-- The order of the primary key, so that even ten million rows load in a minute.
ORDER BY 1, 2;
