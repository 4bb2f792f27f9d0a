-- Half of those who are due went earlier, and have read nothing since: their posts, which are kept longer, are due, too.
WITH early AS (
    UPDATE users
    SET deleted_at = deleted_at - interval '60 days'
    WHERE deleted_at < now() - interval '31 days' AND username ~ '[02468]$'
    RETURNING id
)
UPDATE conversation_members AS m
SET last_read_at = NULL
FROM early AS e
WHERE m.user_id = e.id
