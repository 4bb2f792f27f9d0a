-- A made-up messaging-service; demo.conversations and demo.members say how large.
INSERT INTO conversations (name)
SELECT 'conversation ' || n
FROM generate_series(1, current_setting('demo.conversations')::integer) AS n;

-- Five members a user, or fewer where there are not five conversations.
CREATE TEMPORARY TABLE demo_size ON COMMIT DROP AS
SELECT
    current_setting('demo.members')::integer AS members,
    current_setting('demo.conversations')::integer AS conversations,
    least(5, current_setting('demo.conversations')::integer) AS per_user;

INSERT INTO users (id, username, created_at, deleted_at)
SELECT
    gen_random_uuid(),
    'user' || n,
    now() - interval '400 days',
    CASE
        -- a thirtieth: deleted 31 days ago or longer
        WHEN n <= members / 30 / per_user THEN now() - interval '31 days' - make_interval(hours => n % 1000)
        -- and a fiftieth lately
        WHEN n <= members / 30 / per_user + members / 50 / per_user THEN now() - make_interval(days => n % 28)
    END
FROM demo_size, generate_series(1, ceil(members::numeric / per_user)::integer) AS n;

WITH numbered_users AS (
    SELECT id, row_number() OVER (ORDER BY deleted_at, id) - 1 AS n
    FROM users
),
numbered_conversations AS (
    SELECT id, row_number() OVER (ORDER BY id) - 1 AS n
    FROM conversations
)
INSERT INTO conversation_members (conversation_id, user_id, role, joined_at, last_read_at)
SELECT
    c.id,
    u.id,
    CASE WHEN m < s.conversations THEN 'owner' ELSE 'member' END,
    now() - interval '60 days' - make_interval(hours => m % 5000),
    CASE WHEN m % 3 = 0 THEN now() - interval '45 days' END
FROM demo_size AS s
CROSS JOIN generate_series(0, s.members - 1) AS m
JOIN numbered_users AS u ON u.n = m / s.per_user
JOIN numbered_conversations AS c
    ON c.n = (m / s.per_user + (m % s.per_user) * greatest(s.conversations / s.per_user, 1)) % s.conversations;

UPDATE conversations AS c
SET member_count = m.members
FROM (
    SELECT conversation_id, count(*) AS members
    FROM conversation_members
    GROUP BY conversation_id
) AS m
WHERE m.conversation_id = c.id;
