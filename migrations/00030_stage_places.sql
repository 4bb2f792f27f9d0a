-- Why:      who is due, and where the members lie that would go, is known once a missing user has been assessed; the
--           sweep read both a second time, a sixth of its time. Staging keeps them until then.
-- Locks:    ACCESS EXCLUSIVE on orphan_sightings, which is ours and empty between runs; ACCESS SHARE on
--           conversation_members, for a moment, while the body is checked.
-- Duration: milliseconds.
-- After:    sql/roles.sql, as after each migration: the function is a new one, and the runner may not call it before.
-- Rollback: drops the columns; staging is worth nothing between runs. The function as it was.

-- +goose Up
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_sightings
    ADD COLUMN is_due boolean,
    ADD COLUMN is_leaving boolean,
    ADD COLUMN places tid [];

COMMENT ON COLUMN orphan_sightings.is_due IS 'Whether the user was due when it was staged; the sweep asks once more.';
COMMENT ON COLUMN orphan_sightings.is_leaving IS 'Whether all members of a due user would go: it leaves the ledger with the last of them.';
COMMENT ON COLUMN orphan_sightings.places IS 'Where the members of a due user lay that would go; null: they were more than a thousand.';

-- It returns other columns.
DROP FUNCTION orphan_assess(uuid [], interval, interval, bigint);

-- +goose StatementBegin
CREATE FUNCTION orphan_assess(user_ids uuid [], retention interval, max_gap interval, approved_run bigint)
RETURNS TABLE (
    user_id uuid,
    shadow_deleted_at timestamptz,
    is_new boolean,
    is_foreseen boolean,
    is_due boolean,
    is_recently_active boolean,
    members_due bigint,
    members_kept_young bigint,
    members_held bigint,
    places tid [],
    is_leaving boolean
)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
-- By keys and all users at once, whatever the statistics say: ledger and staging were filled a moment ago.
SET enable_seqscan = off
SET enable_indexscan = off
SET enable_nestloop = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
-- For the places of thousands of users at once.
SET work_mem = '32MB'
AS $$
    SELECT
        k.user_id,
        k.shadow_deleted_at,
        k.is_new,
        k.foreseen_due IS NOT NULL,
        k.is_due,
        -- Who read a message within a day is expected to be alive.
        coalesce(m.last_read_at > now() - interval '1 day', false),
        CASE WHEN k.is_due THEN coalesce(m.old, 0) ELSE 0 END,
        CASE WHEN k.is_old AND NOT k.is_held THEN coalesce(m.young, 0) ELSE 0 END,
        CASE WHEN NOT k.is_old THEN 0 WHEN k.is_held THEN coalesce(m.members, 0) ELSE coalesce(m.members - m.old - m.young, 0) END,
        -- Of whom has more, the sweep looks them up piece by piece.
        CASE WHEN k.is_due AND coalesce(m.old, 0) <= 1000 THEN coalesce(m.places, '{}') END,
        k.is_due AND coalesce(m.old = m.members, true)
    FROM (
        SELECT
            c.*,
            c.is_old AND NOT c.is_held AND (approved_run = 0 OR coalesce(c.foreseen_due, false)) AS is_due
        FROM (
            SELECT
                u.user_id,
                e.deleted_at AS shadow_deleted_at,
                c.user_id IS NULL AS is_new,
                -- One by one, but only where a run goes by an approval: the set may be much larger than this one.
                CASE
                    WHEN approved_run <> 0 THEN (
                        SELECT f.is_due
                        FROM public.orphan_refusals AS f
                        WHERE f.run_id = approved_run AND f.user_id = u.user_id
                    )
                END AS foreseen_due,
                public.orphan_clock_start(c.first_missing_at, c.last_missing_at, e.deleted_at, max_gap)
                    <= now() - retention AS is_old,
                u.user_id IN (
                    SELECT h.user_id
                    FROM public.orphan_holds_in_force AS h
                    WHERE h.user_id IS NOT NULL
                ) AS is_held
            FROM unnest(user_ids) AS u (user_id)
            LEFT JOIN public.orphan_candidates AS c ON c.user_id = u.user_id AND c.user_id = ANY (user_ids)
            LEFT JOIN public.orphan_shadow_evidence(user_ids) AS e ON e.user_id = u.user_id
            -- Worked out once for each user, and not for each figure that goes by it.
            OFFSET 0
        ) AS c
    ) AS k
    LEFT JOIN (
        SELECT
            o.user_id,
            count(*) AS members,
            count(*) FILTER (WHERE o.is_old AND NOT o.is_held) AS old,
            count(*) FILTER (WHERE NOT o.is_old AND NOT o.is_held) AS young,
            max(o.last_read_at) AS last_read_at,
            array_agg(o.place) FILTER (WHERE o.is_old AND NOT o.is_held) AS places
        FROM (
            SELECT
                m.user_id,
                coalesce(m.joined_at < now() - retention, false) AS is_old,
                -- IN, which is hashed once, and not EXISTS, which would be looked up for each member.
                m.conversation_id IN (
                    SELECT h.conversation_id
                    FROM public.orphan_holds_in_force AS h
                    WHERE h.conversation_id IS NOT NULL
                ) AS is_held,
                m.last_read_at,
                m.ctid AS place
            FROM public.conversation_members AS m
            WHERE m.user_id = ANY (user_ids)
                -- Worked out once for each member, and not for each count.
            OFFSET 0
        ) AS o
        GROUP BY o.user_id
    ) AS m ON m.user_id = k.user_id
$$;
-- +goose StatementEnd


REVOKE EXECUTE ON FUNCTION orphan_assess(uuid [], interval, interval, bigint) FROM PUBLIC;

COMMENT ON FUNCTION orphan_assess(uuid [], interval, interval, bigint) IS
    'What missing users mean for a run: who is new, due or held, how many of their members would go or stay, and where they lie.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

ALTER TABLE orphan_sightings
    DROP COLUMN is_due,
    DROP COLUMN is_leaving,
    DROP COLUMN places;

DROP FUNCTION orphan_assess(uuid [], interval, interval, bigint);

-- +goose StatementBegin
CREATE FUNCTION orphan_assess(user_ids uuid [], retention interval, max_gap interval, approved_run bigint)
RETURNS TABLE (
    user_id uuid,
    shadow_deleted_at timestamptz,
    is_new boolean,
    is_foreseen boolean,
    is_due boolean,
    is_recently_active boolean,
    members bigint,
    members_due bigint,
    members_kept_young bigint,
    members_held bigint
)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
-- By keys and all users at once, whatever the statistics say: ledger and staging were filled a moment ago.
SET enable_seqscan = off
SET enable_indexscan = off
SET enable_nestloop = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
AS $$
    SELECT
        k.user_id,
        k.shadow_deleted_at,
        k.is_new,
        k.foreseen_due IS NOT NULL,
        k.is_due,
        -- Who read a message within a day is expected to be alive.
        coalesce(m.last_read_at > now() - interval '1 day', false),
        coalesce(m.members, 0),
        CASE WHEN k.is_due THEN coalesce(m.old, 0) ELSE 0 END,
        CASE WHEN k.is_old AND NOT k.is_held THEN coalesce(m.young, 0) ELSE 0 END,
        CASE WHEN NOT k.is_old THEN 0 WHEN k.is_held THEN coalesce(m.members, 0) ELSE coalesce(m.members - m.old - m.young, 0) END
    FROM (
        SELECT
            c.*,
            c.is_old AND NOT c.is_held AND (approved_run = 0 OR coalesce(c.foreseen_due, false)) AS is_due
        FROM (
            SELECT
                u.user_id,
                e.deleted_at AS shadow_deleted_at,
                c.user_id IS NULL AS is_new,
                -- One by one, but only where a run goes by an approval: the set may be much larger than this one.
                CASE
                    WHEN approved_run <> 0 THEN (
                        SELECT f.is_due
                        FROM public.orphan_refusals AS f
                        WHERE f.run_id = approved_run AND f.user_id = u.user_id
                    )
                END AS foreseen_due,
                public.orphan_clock_start(c.first_missing_at, c.last_missing_at, e.deleted_at, max_gap)
                    <= now() - retention AS is_old,
                u.user_id IN (
                    SELECT h.user_id
                    FROM public.orphan_holds_in_force AS h
                    WHERE h.user_id IS NOT NULL
                ) AS is_held
            FROM unnest(user_ids) AS u (user_id)
            LEFT JOIN public.orphan_candidates AS c ON c.user_id = u.user_id AND c.user_id = ANY (user_ids)
            LEFT JOIN public.orphan_shadow_evidence(user_ids) AS e ON e.user_id = u.user_id
            -- Worked out once for each user, and not for each figure that goes by it.
            OFFSET 0
        ) AS c
    ) AS k
    LEFT JOIN (
        SELECT
            o.user_id,
            count(*) AS members,
            count(*) FILTER (WHERE o.is_old AND NOT o.is_held) AS old,
            count(*) FILTER (WHERE NOT o.is_old AND NOT o.is_held) AS young,
            max(o.last_read_at) AS last_read_at
        FROM (
            SELECT
                m.user_id,
                coalesce(m.joined_at < now() - retention, false) AS is_old,
                -- IN, which is hashed once, and not EXISTS, which would be looked up for each member.
                m.conversation_id IN (
                    SELECT h.conversation_id
                    FROM public.orphan_holds_in_force AS h
                    WHERE h.conversation_id IS NOT NULL
                ) AS is_held,
                m.last_read_at
            FROM public.conversation_members AS m
            WHERE m.user_id = ANY (user_ids)
                -- Worked out once for each member, and not for each count.
            OFFSET 0
        ) AS o
        GROUP BY o.user_id
    ) AS m ON m.user_id = k.user_id
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION orphan_assess(uuid [], interval, interval, bigint) FROM PUBLIC;

COMMENT ON FUNCTION orphan_assess(uuid [], interval, interval, bigint) IS
    'What missing users mean for a run: who is new, due or held, and how many of their members would go or stay.';
