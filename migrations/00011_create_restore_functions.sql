-- Why:      bringing deleted members back by whole rows, whatever columns messaging-service has by then; and noticing users
--           who are alive again while their backups exist.
-- Locks:    none here. At work, per chunk: ROW EXCLUSIVE on conversation_members and our tables; the conversations of
--           restored members FOR KEY SHARE, by their foreign key.
-- Duration: milliseconds.
-- Rollback: drops the functions; `restore` stops working.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.members_columns(form text, separator text)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The columns that members and backup both have, by name; generated ones are computed anew, and compared by nobody.
    SELECT string_agg(replace(form, '@', quote_ident(m.attname)), separator ORDER BY m.attnum)
    FROM pg_attribute AS m
    JOIN pg_attribute AS b
        ON b.attrelid = 'public.conversation_members_backup'::regclass
        AND b.attname = m.attname
        AND NOT b.attisdropped
    WHERE m.attrelid = 'public.conversation_members'::regclass
        AND m.attnum > 0
        AND NOT m.attisdropped
        AND m.attgenerated = ''
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.restore_plan(
    of_run bigint,
    of_users uuid [],
    of_conversations uuid [],
    since timestamptz,
    until timestamptz
)
RETURNS TABLE (conversation_id uuid, user_id uuid, deleted_run bigint, backed_up_at timestamptz, verdict text)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
AS $$
BEGIN
    RETURN QUERY EXECUTE format($statement$
        WITH events AS (
            SELECT
                orphan_b.conversation_id,
                orphan_b.user_id,
                orphan_b.run_id AS deleted_run,
                orphan_b.backed_up_at AS happened_at,
                true AS is_backup,
                ROW(%1$s)::text AS row_deleted,
                ($1 IS NULL OR orphan_b.run_id = $1)
                AND ($4 IS NULL OR orphan_b.backed_up_at >= $4)
                AND ($5 IS NULL OR orphan_b.backed_up_at < $5) AS is_chosen
            FROM public.conversation_members_backup AS orphan_b
            WHERE orphan_b.backed_up_at >= $6
                -- A subquery is hashed, an array would be searched from its beginning for each row.
                AND ($2 IS NULL OR orphan_b.user_id IN (SELECT unnest($2)))
                AND ($3 IS NULL OR orphan_b.conversation_id IN (SELECT unnest($3)))
                -- Emptied on request of the law: there is nobody left to restore.
                AND orphan_b.user_id IS NOT NULL
                AND orphan_b.conversation_id IS NOT NULL
            UNION ALL
            -- Deletes by others: who was restored and left since must stay away.
            SELECT a.conversation_id, a.user_id, NULL, a.deleted_at, false, NULL, false
            FROM public.conversation_members_audit AS a
            WHERE a.run_id IS NULL
                AND a.deleted_at >= $6
                AND ($2 IS NULL OR a.user_id IN (SELECT unnest($2)))
                AND ($3 IS NULL OR a.conversation_id IN (SELECT unnest($3)))
        ),
        -- One sort, and no join between large sets: nobody keeps statistics for it.
        newest AS (
            -- Of a member that was deleted more than once, the last row counts; it is restored if any of its deletions
            -- was chosen.
            SELECT DISTINCT ON (e.user_id, e.conversation_id)
                e.conversation_id,
                e.user_id,
                e.deleted_run,
                e.happened_at AS backed_up_at,
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
                WHEN x.is_same THEN 'there'
                WHEN x.is_same IS NOT NULL THEN 'there_differs'
                WHEN n.has_left THEN 'left_since'
                ELSE 'restore'
            END
        FROM newest AS n
        -- One lookup a row, whatever the planner believes: without statistics it would read whole tables.
        LEFT JOIN LATERAL (
            SELECT true AS is_there FROM public.conversations AS g WHERE g.id = n.conversation_id LIMIT 1
        ) AS c ON true
        LEFT JOIN LATERAL (
            SELECT ROW(%2$s)::text = n.row_deleted AS is_same
            FROM public.conversation_members AS orphan_m
            WHERE orphan_m.conversation_id = n.conversation_id AND orphan_m.user_id = n.user_id
            LIMIT 1
        ) AS x ON true
        WHERE n.is_chosen
        $statement$,
        orphan_cleaner.members_columns('orphan_b.@::text', ', '), orphan_cleaner.members_columns('orphan_m.@::text', ', '))
    USING of_run, of_users, of_conversations, since, until,
        -- Backups of a run are not older than the run, but for a clock that went back meanwhile.
        greatest(
            coalesce(since, '-infinity'),
            coalesce((SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = of_run), '-infinity')
        );
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.restore_store(
    of_restore bigint,
    of_token uuid,
    of_run bigint,
    of_users uuid [],
    of_conversations uuid [],
    since timestamptz,
    until timestamptz
)
RETURNS TABLE (verdict text, members bigint, users bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
SET jit = off
AS $$
BEGIN
    PERFORM orphan_cleaner.run_open(of_restore, of_token, 'restore');
    RETURN QUERY
    WITH plan AS MATERIALIZED (
        SELECT p.*
        FROM orphan_cleaner.restore_plan(of_run, of_users, of_conversations, since, until) AS p
    ),
    stored AS (
        INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at)
        SELECT of_restore, p.user_id, p.conversation_id, p.deleted_run, p.backed_up_at
        FROM plan AS p
        WHERE p.verdict = 'restore'
        -- Stored before, by an attempt whose answer was lost.
        ON CONFLICT (run_id, user_id, conversation_id) DO NOTHING
    )
    SELECT p.verdict, count(*), count(DISTINCT p.user_id)
    FROM plan AS p
    GROUP BY p.verdict;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.restore_chunks(of_restore bigint, in_state text, pages integer)
RETURNS TABLE (day date, first_page bigint, members bigint, user_ids uuid [])
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    -- A row stays on its page unless somebody rewrites the partition: the caller looks again at the end.
    SELECT
        (b.backed_up_at AT TIME ZONE 'UTC')::date,
        (b.ctid::text::point)[0]::bigint / pages * pages,
        count(*),
        array_agg(DISTINCT b.user_id)
    FROM public.conversation_members_backup AS b
    CROSS JOIN LATERAL (
        -- One lookup a row: without statistics the planner would read the list once for each row.
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = of_restore AND r.user_id = b.user_id AND r.conversation_id = b.conversation_id
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = in_state
        LIMIT 1
    ) AS listed
    WHERE b.backed_up_at >= (SELECT min(o.backed_up_at) FROM orphan_cleaner.restores AS o WHERE o.run_id = of_restore)
    GROUP BY 1, 2
    ORDER BY 1, 2
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.restore_chunk(
    of_restore bigint,
    of_token uuid,
    day date,
    first_page bigint,
    pages integer,
    hold interval
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET lock_timeout = '2s'
SET jit = off
AS $$
DECLARE
    run orphan_cleaner.runs := orphan_cleaner.run_open(of_restore, of_token, 'restore');
    statement text := format($statement$
        WITH page AS (
            SELECT orphan_b.*
            FROM public.conversation_members_backup AS orphan_b
            CROSS JOIN LATERAL (
                SELECT
                FROM orphan_cleaner.restores AS r
                WHERE r.run_id = $1 AND r.user_id = orphan_b.user_id AND r.conversation_id = orphan_b.conversation_id
                    AND r.deleted_run = orphan_b.run_id AND r.backed_up_at = orphan_b.backed_up_at
                    AND r.state = 'planned'
                LIMIT 1
            ) AS planned
            WHERE orphan_b.backed_up_at >= $2 AND orphan_b.backed_up_at < $3
                AND orphan_b.ctid >= $4 AND orphan_b.ctid < $5
                AND EXISTS (SELECT FROM public.conversations AS c WHERE c.id = orphan_b.conversation_id)
                -- Nor anybody who joined again and left since the plan was made.
                AND NOT EXISTS (
                    SELECT
                    FROM public.conversation_members_audit AS a
                    WHERE a.run_id IS NULL
                        AND a.deleted_at >= $7
                        AND a.deleted_at > orphan_b.backed_up_at
                        AND a.user_id = orphan_b.user_id
                        AND a.conversation_id = orphan_b.conversation_id
                )
            -- Always in one order: two writers cannot deadlock.
            ORDER BY orphan_b.user_id, orphan_b.conversation_id
        ),
        restored AS (
            INSERT INTO public.conversation_members AS orphan_m (%1$s) OVERRIDING SYSTEM VALUE
            SELECT %1$s FROM page
            -- A row that is there is newer, and stays as it is.
            ON CONFLICT DO NOTHING
            RETURNING orphan_m.user_id, orphan_m.conversation_id, ROW(%2$s)::text AS row_restored
        ),
        marked AS (
            UPDATE orphan_cleaner.restores AS r
            SET state = 'restored'
            FROM restored AS g
            WHERE r.run_id = $1 AND r.user_id = g.user_id AND r.conversation_id = g.conversation_id
            RETURNING r.user_id
        ),
        held AS (
            INSERT INTO orphan_cleaner.holds (user_id, reason, until, run_id)
            SELECT DISTINCT g.user_id, 'restored by run ' || $1, now() + $6, $1
            FROM restored AS g
            ON CONFLICT (run_id, user_id) WHERE run_id IS NOT NULL DO NOTHING
        )
        SELECT
            (SELECT count(*) FROM restored),
            (SELECT count(*) FROM marked),
            (
                SELECT count(*)
                FROM (
                    SELECT g.row_restored FROM restored AS g
                    EXCEPT
                    SELECT ROW(%3$s)::text FROM page AS orphan_p
                ) AS other
            )
        $statement$,
        orphan_cleaner.members_columns('@', ', '), orphan_cleaner.members_columns('orphan_m.@::text', ', '),
        orphan_cleaner.members_columns('orphan_p.@::text', ', '));
    restored bigint;
    marked bigint;
    differing bigint;
BEGIN
    -- Triggers of messaging-service fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    EXECUTE statement
    INTO restored, marked, differing
    USING of_restore, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC',
        format('(%s,0)', first_page)::tid, format('(%s,0)', first_page + pages)::tid, hold, run.started_at - interval '1 minute';
    IF restored <> marked OR differing > 0 THEN
        RAISE EXCEPTION 'restore proof failed: % restored, % recorded, % other than they were', restored, marked, differing
            USING ERRCODE = 'OC005', HINT = 'Does a trigger on conversation_members change rows on their way in? Run: orphan-cleaner check';
    END IF;
    UPDATE orphan_cleaner.runs AS r
    SET members_restored = r.members_restored + restored,
        heartbeat_at = clock_timestamp()
    WHERE r.run_id = of_restore;
    RETURN restored;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.recheck_write(of_run bigint, of_token uuid, alive uuid [], missing uuid [], reached uuid)
RETURNS TABLE (user_id uuid, members bigint)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
#variable_conflict use_column
BEGIN
    PERFORM orphan_cleaner.run_open(of_run, of_token, 'clean');
    UPDATE orphan_cleaner.runs AS r SET rechecked_through = reached WHERE r.run_id = of_run;
    UPDATE orphan_cleaner.rechecks AS d SET checked_at = now(), alive_at = NULL WHERE d.user_id = ANY (missing);
    IF cardinality(alive) > 0 THEN
        -- Alive, and what was deleted can be restored.
        RETURN QUERY
        UPDATE orphan_cleaner.rechecks AS d
        SET checked_at = now(),
            alive_at = coalesce(d.alive_at, now())
        FROM (
            SELECT p.user_id, count(*) AS members
            FROM orphan_cleaner.restore_plan(NULL, alive, NULL, NULL, NULL) AS p
            WHERE p.verdict = 'restore'
            GROUP BY p.user_id
        ) AS l
        WHERE d.user_id = l.user_id
        RETURNING d.user_id, l.members;
        -- The others need no recheck any more.
        DELETE FROM orphan_cleaner.rechecks AS d
        WHERE d.user_id = ANY (alive)
            AND d.checked_at IS DISTINCT FROM now();
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.recheck_settle(of_restore bigint, of_token uuid)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
DECLARE
    restored uuid [];
    unfinished uuid [];
BEGIN
    PERFORM orphan_cleaner.run_open(of_restore, of_token, 'restore');
    SELECT array_agg(DISTINCT r.user_id) INTO restored
    FROM orphan_cleaner.restores AS r
    WHERE r.run_id = of_restore AND r.state = 'restored';
    -- One who is alive stays on the list while more of what was deleted could be restored.
    SELECT array_agg(DISTINCT p.user_id) INTO unfinished
    FROM orphan_cleaner.restore_plan(NULL, ARRAY(
        SELECT d.user_id FROM orphan_cleaner.rechecks AS d WHERE d.alive_at IS NOT NULL AND d.user_id = ANY (restored)
    ), NULL, NULL, NULL) AS p
    WHERE p.verdict = 'restore';
    DELETE FROM orphan_cleaner.rechecks AS d
    WHERE d.user_id = ANY (restored)
        AND d.user_id <> ALL (coalesce(unfinished, '{}'));
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION orphan_cleaner.members_columns(text, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_cleaner.restore_plan(bigint, uuid [], uuid [], timestamptz, timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_cleaner.restore_store(bigint, uuid, bigint, uuid [], uuid [], timestamptz, timestamptz) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_cleaner.restore_chunks(bigint, text, integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_cleaner.restore_chunk(bigint, uuid, date, bigint, integer, interval) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_cleaner.recheck_write(bigint, uuid, uuid [], uuid [], uuid) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION orphan_cleaner.recheck_settle(bigint, uuid) FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.members_columns(text, text) IS
    'The columns that conversation_members and its backup share, each written in a form with @ for the name. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.restore_plan(bigint, uuid [], uuid [], timestamptz, timestamptz) IS
    'What a restore of this run, these users, conversations and span would do with each member: restore, there, there_differs, conversation_gone, left_since. A null chooses all.';
COMMENT ON FUNCTION orphan_cleaner.restore_store(bigint, uuid, bigint, uuid [], uuid [], timestamptz, timestamptz) IS
    'Writes down which members a restore brings back; returns what becomes of all that were chosen, by verdict.';
COMMENT ON FUNCTION orphan_cleaner.restore_chunks(bigint, text, integer) IS
    'Where the backup rows of a restore are: the chunks of that many pages that hold one, by UTC day, with their users.';
COMMENT ON FUNCTION orphan_cleaner.restore_chunk(bigint, uuid, date, bigint, integer, interval) IS
    'Restores the planned members on some pages of the backup of a day, places holds on their users, returns how many.';
COMMENT ON FUNCTION orphan_cleaner.recheck_write(bigint, uuid, uuid [], uuid [], uuid) IS
    'Writes down what rechecks found; returns users who are alive again while their deleted rows can be restored.';
COMMENT ON FUNCTION orphan_cleaner.recheck_settle(bigint, uuid) IS
    'Takes users whose rows a restore brought back off the list of rechecks.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION orphan_cleaner.recheck_settle(bigint, uuid);
DROP FUNCTION orphan_cleaner.recheck_write(bigint, uuid, uuid [], uuid [], uuid);
DROP FUNCTION orphan_cleaner.restore_chunk(bigint, uuid, date, bigint, integer, interval);
DROP FUNCTION orphan_cleaner.restore_chunks(bigint, text, integer);
DROP FUNCTION orphan_cleaner.restore_store(bigint, uuid, bigint, uuid [], uuid [], timestamptz, timestamptz);
DROP FUNCTION orphan_cleaner.restore_plan(bigint, uuid [], uuid [], timestamptz, timestamptz);
DROP FUNCTION orphan_cleaner.members_columns(text, text);
