-- name: EffectList :many
-- What the migrator has chosen for counts and owners; no row: nobody has.
-- Locks: ACCESS SHARE on effects. Index: none. Rows: two at most.
SELECT e.name, e.choice, e.set_at, e.set_by
FROM orphan_cleaner.effects AS e
ORDER BY e.name;

-- name: EffectSet :exec
-- Chooses. For the owner of the schema.
-- Locks: ROW EXCLUSIVE on effects. Index: effects_pkey. Rows: one.
INSERT INTO orphan_cleaner.effects AS e (name, choice)
VALUES (@name, @choice)
ON CONFLICT (name) DO UPDATE
SET choice = excluded.choice,
    set_at = now(),
    set_by = session_user;

-- name: EffectCounterSample :one
-- Of a sample of conversations: how many have a member_count that is not the number of their members, and by how many;
-- and whether there is such a column.
-- Locks: ACCESS SHARE on conversations and conversation_members. Index: conversations_pkey, conversation_members_pkey. Rows: the conversations given, and at
-- most 10,001 members of each.
SELECT s.conversations::bigint AS conversations, s.wrong::bigint AS wrong, s.too_high::bigint AS too_high, s.too_low::bigint AS too_low,
    s.largest::bigint AS largest,
    EXISTS (
        SELECT
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = to_regclass('public.conversations') AND a.attname = 'member_count' AND NOT a.attisdropped
    )::boolean AS is_there
FROM orphan_cleaner.counter_sample(@most::integer) AS s;

-- name: EffectShadowKeys :one
-- Which foreign keys onto the shadow table users delete rows with it, other than members.
-- Locks: none beyond the catalog.
SELECT coalesce(string_agg(k.conrelid::regclass || ' by ' || k.conname, ', ' ORDER BY k.conrelid::regclass::text, k.conname), '')::text AS cascades
FROM pg_catalog.pg_constraint AS k
WHERE k.confrelid = to_regclass('public.users')
    AND k.contype = 'f'
    AND k.conparentid = 0
    AND k.confdeltype = 'c';
