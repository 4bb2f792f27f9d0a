SELECT id
FROM users
WHERE deleted_at IS NULL
