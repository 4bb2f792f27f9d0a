SELECT id::text
FROM users
WHERE deleted_at < now() - interval '31 days'
