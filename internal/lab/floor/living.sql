SELECT id::text
FROM users
WHERE id = ANY ($1::uuid [])
    AND deleted_at IS NULL
