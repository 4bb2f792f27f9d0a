-- Why:      giving members back and taking them again, by whole rows whatever columns messaging-service
--           has by then. A statement that sqlc compiled could only name the columns of today.
-- Locks:    ACCESS SHARE on conversation_members and conversations, while the functions are checked. At
--           work, per chunk: ROW EXCLUSIVE on conversation_members and our tables; the
--           conversations of restored members FOR KEY SHARE, by their foreign key.
-- Duration: milliseconds.
-- Rollback: drops the functions; `restore` stops working.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_same_member(member jsonb, backup jsonb)
RETURNS boolean
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Over the columns that both have: one that was added or dropped since is no difference.
    SELECT NOT EXISTS (
        SELECT
        FROM jsonb_each(backup) AS b
        WHERE member ? b.key
            AND member -> b.key IS DISTINCT FROM b.value
    )
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_restore_plan(
    of_run bigint,
    of_users uuid [],
    of_conversations uuid [],
    since timestamptz,
    until timestamptz
)
RETURNS TABLE (conversation_id uuid, user_id uuid, deleted_run bigint, backed_up_at timestamptz, verdict text)
LANGUAGE sql
STABLE
-- The runner looks back with it, and may not read conversations.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH reach AS (
        -- Backups of a run are not older than the run, but for a clock that went back meanwhile: older
        -- partitions need not be read.
        SELECT greatest(
            coalesce(since, '-infinity'),
            coalesce((SELECT r.started_at - interval '1 day' FROM public.orphan_runs AS r WHERE r.run_id = of_run), '-infinity')
        ) AS since
    ),
    events AS (
        SELECT
            b.conversation_id,
            b.user_id,
            b.run_id AS deleted_run,
            b.backed_up_at AS happened_at,
            true AS is_backup,
            b AS row_deleted,
            (of_run IS NULL OR b.run_id = of_run)
            AND (since IS NULL OR b.backed_up_at >= since)
            AND (until IS NULL OR b.backed_up_at < until) AS is_chosen
        FROM public.conversation_members_backup AS b
        WHERE b.backed_up_at >= (SELECT reach.since FROM reach)
            -- A subquery is hashed, an array would be searched from its beginning for each row.
            AND (of_users IS NULL OR b.user_id IN (SELECT unnest(of_users)))
            AND (of_conversations IS NULL OR b.conversation_id IN (SELECT unnest(of_conversations)))
            -- Emptied on request of the law: nobody is left to give back to.
            AND b.user_id IS NOT NULL
            AND b.conversation_id IS NOT NULL
        UNION ALL
        -- Deletes by others: who was given back and left since must stay away.
        SELECT a.conversation_id, a.user_id, NULL, a.deleted_at, false, NULL, false
        FROM public.conversation_members_audit AS a
        WHERE a.run_id IS NULL
            AND a.deleted_at >= (SELECT reach.since FROM reach)
            AND (of_users IS NULL OR a.user_id IN (SELECT unnest(of_users)))
            AND (of_conversations IS NULL OR a.conversation_id IN (SELECT unnest(of_conversations)))
    ),
    -- One sort, and no join between large sets: nobody keeps statistics for it.
    newest AS (
        -- Of a member that was deleted more than once, the last row counts; it is
        -- given back if any of its deletions was chosen.
        SELECT DISTINCT ON (e.user_id, e.conversation_id)
            e.conversation_id,
            e.user_id,
            e.deleted_run,
            e.happened_at AS backed_up_at,
            e.is_backup,
            e.row_deleted,
            bool_or(e.is_chosen) OVER events_of_member AS is_chosen,
            coalesce(max(e.happened_at) FILTER (WHERE NOT e.is_backup) OVER events_of_member > e.happened_at, false) AS has_left
        FROM events AS e
        WINDOW events_of_member AS (PARTITION BY e.user_id, e.conversation_id)
        ORDER BY e.user_id, e.conversation_id, e.is_backup DESC, e.happened_at DESC, e.deleted_run DESC
    )
    SELECT
        n.conversation_id,
        n.user_id,
        n.deleted_run,
        n.backed_up_at,
        CASE
            WHEN c.is_there IS NULL THEN 'conversation_gone'
            WHEN m.is_same THEN 'there'
            WHEN m.is_same IS NOT NULL THEN 'there_differs'
            WHEN n.has_left THEN 'left_since'
            ELSE 'restore'
        END
    FROM newest AS n
    -- One lookup a row, whatever the planner believes: without statistics it would read whole tables.
    LEFT JOIN LATERAL (
        SELECT true AS is_there
        FROM public.conversations AS x
        WHERE x.id = n.conversation_id
        LIMIT 1
    ) AS c ON true
    LEFT JOIN LATERAL (
        SELECT public.orphan_same_member(to_jsonb(x), to_jsonb(n.row_deleted) - '{backed_up_at,run_id}'::text []) AS is_same
        FROM public.conversation_members AS x
        WHERE x.conversation_id = n.conversation_id AND x.user_id = n.user_id
        LIMIT 1
    ) AS m ON true
    WHERE n.is_chosen
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_restore_chunk(
    restore_run bigint,
    day date,
    first_page bigint,
    pages integer,
    hold interval
)
RETURNS bigint
LANGUAGE plpgsql
-- With public, for triggers of messaging-service that fire in here and qualify nothing.
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    columns text;
    -- What only one of the two tables has, and a comparison leaves out.
    members_own text [];
    backups_own text [];
    given bigint;
    marked bigint;
    differing bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM public.orphan_runs WHERE run_id = restore_run AND state = 'running' AND kind = 'restore') THEN
        RAISE EXCEPTION 'run % is not an open restore', restore_run USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- By name, from the catalog. A column that conversation_members has gained
    -- since gets its default; one that it has lost stays in the backup.
    SELECT
        string_agg(quote_ident(m.attname), ', ' ORDER BY m.attnum)
            FILTER (WHERE b.attname IS NOT NULL AND m.attgenerated = ''),
        coalesce(array_agg(m.attname::text) FILTER (WHERE b.attname IS NULL), '{}'),
        coalesce(array_agg(b.attname::text) FILTER (WHERE m.attname IS NULL), '{}')
    INTO columns, members_own, backups_own
    FROM (
        SELECT attname, attnum, attgenerated
        FROM pg_attribute
        WHERE attrelid = 'public.conversation_members'::regclass AND attnum > 0 AND NOT attisdropped
    ) AS m
    FULL JOIN (
        SELECT attname
        FROM pg_attribute
        WHERE attrelid = 'public.conversation_members_backup'::regclass AND attnum > 0 AND NOT attisdropped
    ) AS b ON b.attname = m.attname;
    EXECUTE format($statement$
        WITH page AS (
            SELECT b.*
            FROM public.conversation_members_backup AS b
            CROSS JOIN LATERAL (
                -- One lookup a row: without statistics the planner would read the pages once for each row of the list.
                SELECT
                FROM public.orphan_restores AS r
                WHERE r.run_id = $1 AND r.user_id = b.user_id AND r.conversation_id = b.conversation_id
                    AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
                    AND r.state = 'planned'
                LIMIT 1
            ) AS planned
            WHERE b.backed_up_at >= $2 AND b.backed_up_at < $3
                AND b.ctid >= $4 AND b.ctid < $5
                AND EXISTS (SELECT FROM public.conversations AS c WHERE c.id = b.conversation_id)
                -- Nor anybody who joined again and left since the plan was made.
                AND NOT EXISTS (
                    SELECT
                    FROM public.conversation_members_audit AS a
                    WHERE a.run_id IS NULL
                        AND a.deleted_at >= (SELECT o.started_at - interval '1 minute' FROM public.orphan_runs AS o WHERE o.run_id = $1)
                        AND a.deleted_at > b.backed_up_at
                        AND a.user_id = b.user_id
                        AND a.conversation_id = b.conversation_id
                )
            -- Always in one order: two writers cannot deadlock.
            ORDER BY b.user_id, b.conversation_id
        ),
        given AS (
            INSERT INTO public.conversation_members AS m (%1$s) OVERRIDING SYSTEM VALUE
            SELECT %1$s FROM page
            -- A row that is there is newer, and stays as it is.
            ON CONFLICT DO NOTHING
            RETURNING m.user_id, m.conversation_id, to_jsonb(m) - $7 AS given_back
        ),
        marked AS (
            UPDATE public.orphan_restores AS r
            SET state = 'restored'
            FROM given AS g
            WHERE r.run_id = $1 AND r.user_id = g.user_id AND r.conversation_id = g.conversation_id
            RETURNING r.user_id
        ),
        held AS (
            INSERT INTO public.orphan_holds (user_id, reason, until, run_id)
            SELECT DISTINCT g.user_id, 'given back by run ' || $1, now() + $6, $1
            FROM given AS g
            ON CONFLICT (run_id, user_id) WHERE run_id IS NOT NULL DO NOTHING
        )
        SELECT
            (SELECT count(*) FROM given),
            (SELECT count(*) FROM marked),
            (
                -- A hash of each row: the planner has no idea how many there are.
                SELECT count(*)
                FROM (
                    SELECT g.given_back FROM given AS g
                    EXCEPT
                    SELECT to_jsonb(p) - $8 FROM page AS p
                ) AS other
            )
        $statement$, columns)
    INTO given, marked, differing
    USING restore_run, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC',
        format('(%s,0)', first_page)::tid, format('(%s,0)', first_page + pages)::tid, hold, members_own, backups_own;
    IF given <> marked OR differing > 0 THEN
        RAISE EXCEPTION 'restore proof failed: % given back, % recorded, % other than they were', given, marked, differing
            USING HINT = 'Does a trigger on conversation_members change rows on their way in?';
    END IF;
    RETURN given;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_restore_chunks(of_run bigint, in_state text, pages integer)
RETURNS TABLE (day date, first_page bigint, members bigint)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A row stays on its page unless somebody rewrites the partition: the caller looks again at the end.
    SELECT
        (b.backed_up_at AT TIME ZONE 'UTC')::date,
        (b.ctid::text::point)[0]::bigint / pages * pages,
        count(*)
    FROM public.conversation_members_backup AS b
    CROSS JOIN LATERAL (
        SELECT
        FROM public.orphan_restores AS r
        WHERE r.run_id = of_run AND r.user_id = b.user_id AND r.conversation_id = b.conversation_id
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = in_state
        LIMIT 1
    ) AS listed
    WHERE b.backed_up_at >= (SELECT min(o.backed_up_at) FROM public.orphan_restores AS o WHERE o.run_id = of_run)
    GROUP BY 1, 2
    ORDER BY 1, 2
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_restore_users(of_run bigint, day date, first_page bigint, pages integer)
RETURNS TABLE (user_id uuid)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT b.user_id
    FROM public.conversation_members_backup AS b
    CROSS JOIN LATERAL (
        SELECT
        FROM public.orphan_restores AS r
        WHERE r.run_id = of_run AND r.user_id = b.user_id AND r.conversation_id = b.conversation_id
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = 'restored'
        LIMIT 1
    ) AS listed
    WHERE b.backed_up_at >= day::timestamp AT TIME ZONE 'UTC'
        AND b.backed_up_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
        AND b.ctid >= format('(%s,0)', first_page)::tid
        AND b.ctid < format('(%s,0)', first_page + pages)::tid
    ORDER BY 1
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_revert_chunk(
    revert_run bigint,
    reverted_run bigint,
    day date,
    first_page bigint,
    pages integer,
    of_users uuid []
)
RETURNS bigint
LANGUAGE plpgsql
-- With public, for triggers of messaging-service that fire in here and qualify nothing.
SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    chosen bigint;
    deleted bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM public.orphan_runs WHERE run_id = revert_run AND state = 'running' AND kind = 'restore') THEN
        RAISE EXCEPTION 'run % is not an open restore', revert_run USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    WITH doomed AS (
        SELECT m.conversation_id, m.user_id
        FROM public.conversation_members_backup AS b
        CROSS JOIN LATERAL (
            SELECT
            FROM public.orphan_restores AS r
            WHERE r.run_id = reverted_run AND r.user_id = b.user_id AND r.conversation_id = b.conversation_id
                AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
                AND r.state = 'restored'
            LIMIT 1
        ) AS listed
        JOIN public.conversation_members AS m ON m.conversation_id = b.conversation_id AND m.user_id = b.user_id
        WHERE b.backed_up_at >= day::timestamp AT TIME ZONE 'UTC'
            AND b.backed_up_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
            AND b.ctid >= format('(%s,0)', first_page)::tid
            AND b.ctid < format('(%s,0)', first_page + pages)::tid
            AND current_setting('session_replication_role') = 'origin'
            -- Whom auth-service has just left out, and nobody else.
            AND m.user_id = ANY (of_users)
            -- As it was given back: a row that was used since is somebody's.
            AND public.orphan_same_member(to_jsonb(m), to_jsonb(b) - '{backed_up_at,run_id}'::text [])
            AND NOT EXISTS (
                SELECT
                FROM public.orphan_holds_in_force AS h
                WHERE (h.user_id = m.user_id OR h.conversation_id = m.conversation_id)
                    -- Another restore's hold is about the members that it gave back itself.
                    AND (
                        h.run_id IS NULL
                        OR h.run_id <> reverted_run
                        AND EXISTS (
                            SELECT
                            FROM public.orphan_restores AS o
                            WHERE o.run_id = h.run_id AND o.user_id = m.user_id
                                AND o.conversation_id = m.conversation_id AND o.state = 'restored'
                        )
                    )
            )
        ORDER BY m.user_id, m.conversation_id
        FOR UPDATE OF m
    ),
    gone AS (
        DELETE FROM public.conversation_members AS m
        USING doomed AS d
        WHERE m.conversation_id = d.conversation_id
            AND m.user_id = d.user_id
        RETURNING m.conversation_id, m.user_id
    ),
    marked AS (
        UPDATE public.orphan_restores AS r
        SET state = 'reverted',
            reverted_by_run = revert_run
        FROM gone AS g
        WHERE r.run_id = reverted_run AND r.user_id = g.user_id AND r.conversation_id = g.conversation_id
        RETURNING r.user_id
    ),
    departed AS (
        INSERT INTO public.orphan_departed AS o (user_id)
        SELECT DISTINCT g.user_id
        FROM gone AS g
        ON CONFLICT (user_id) DO UPDATE
        SET departed_at = now(), checked_at = NULL, alive_at = NULL
    )
    SELECT (SELECT count(*) FROM doomed), (SELECT count(*) FROM marked) INTO chosen, deleted;
    IF chosen <> deleted THEN
        RAISE EXCEPTION 'revert proof failed: % chosen, % taken again', chosen, deleted;
    END IF;
    RETURN deleted;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION orphan_same_member(jsonb, jsonb) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_restore_plan(bigint, uuid [], uuid [], timestamptz, timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_restore_chunk(bigint, date, bigint, integer, interval) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_restore_chunks(bigint, text, integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_restore_users(bigint, date, bigint, integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_revert_chunk(bigint, bigint, date, bigint, integer, uuid []) FROM PUBLIC;

COMMENT ON FUNCTION orphan_same_member(jsonb, jsonb) IS
    'Whether a member equals a backed-up row over the columns that both have.';
COMMENT ON FUNCTION orphan_restore_plan(bigint, uuid [], uuid [], timestamptz, timestamptz) IS
    'What a restore of this run, these users, conversations and span would do with each member: restore, there, there_differs, conversation_gone, left_since. A null chooses all.';
COMMENT ON FUNCTION orphan_restore_chunk(bigint, date, bigint, integer, interval) IS
    'Gives back the planned members on some pages of the backup of a day, holds their users, returns how many. Runs with the rights of its caller.';
COMMENT ON FUNCTION orphan_restore_chunks(bigint, text, integer) IS
    'Where the backup rows of a restore lie: the chunks of that many pages that hold one, by UTC day.';
COMMENT ON FUNCTION orphan_restore_users(bigint, date, bigint, integer) IS
    'The users whose members a restore gave back from some pages of the backup of a day.';
COMMENT ON FUNCTION orphan_revert_chunk(bigint, bigint, date, bigint, integer, uuid []) IS
    'Takes members of a restore again, as far as they are unchanged and of these users; returns how many. Runs with the rights of its caller.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION orphan_revert_chunk(bigint, bigint, date, bigint, integer, uuid []);
DROP FUNCTION orphan_restore_users(bigint, date, bigint, integer);
DROP FUNCTION orphan_restore_chunks(bigint, text, integer);
DROP FUNCTION orphan_restore_chunk(bigint, date, bigint, integer, interval);
DROP FUNCTION orphan_restore_plan(bigint, uuid [], uuid [], timestamptz, timestamptz);
DROP FUNCTION orphan_same_member(jsonb, jsonb);
