-- Why:      bringing deleted members back by whole rows, whatever columns messaging-service has by then, as restore_plan
--           says (00004); settling the rechecks of their users; and the revert of a restore, which is judged as a run is, and
--           deletes.
-- Locks:    none here. At work, per chunk: ROW EXCLUSIVE on conversation_members and our tables; the conversations of
--           restored members FOR KEY SHARE, by their foreign key.
-- Duration: milliseconds.
-- Printed:  the functions conversation_members_*, by the templates of internal/printer, as those of any target.
-- Rollback: drops the functions; `restore` stops working.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.owners_return(of_restore bigint, users uuid [], conversations uuid [])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    undone record;
    changed bigint;
    successors uuid [] := ARRAY(SELECT p.conversation_id FROM orphan_cleaner.promotions AS p WHERE p.undone_by_run IS NULL AND p.conversation_id = ANY (conversations));
BEGIN
    IF cardinality(successors) = 0 THEN
        RETURN;
    END IF;
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    FOR undone IN
        UPDATE orphan_cleaner.promotions AS p SET undone_by_run = of_restore, undone_at = now()
        FROM unnest(users, conversations) AS u (user_id, conversation_id)
        JOIN public.conversation_members AS o ON o.user_id = u.user_id AND o.conversation_id = u.conversation_id AND o.role = 'owner'
        JOIN orphan_cleaner.restores AS r ON r.run_id = of_restore AND r.user_id = u.user_id AND r.conversation_id = u.conversation_id
        WHERE p.conversation_id = u.conversation_id AND p.undone_by_run IS NULL
            AND u.conversation_id = ANY (successors)
            -- Its deleted owner is back; or was before, and now the successor, who was deleted in turn, is back as an owner.
            AND (p.run_id = r.deleted_run OR p.undone_at IS NOT NULL AND p.user_id = u.user_id)
        RETURNING p.run_id, p.conversation_id, p.user_id, p.role_before
    LOOP
        -- Unless somebody has changed it since. By a literal: the column may be of an enum.
        EXECUTE format('UPDATE public.conversation_members SET role = %L WHERE conversation_id = $1 AND user_id = $2 AND role = ''owner''', undone.role_before)
        USING undone.conversation_id, undone.user_id;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed = 0 THEN
            -- No event tells of it; who is away is waited for.
            PERFORM FROM public.conversation_members AS m WHERE m.conversation_id = undone.conversation_id AND m.user_id = undone.user_id;
            UPDATE orphan_cleaner.promotions AS p
            SET undone_by_run = CASE WHEN FOUND THEN of_restore END, undone_at = CASE WHEN NOT FOUND THEN now() END
            WHERE p.run_id = undone.run_id AND p.conversation_id = undone.conversation_id AND p.user_id = undone.user_id;
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION orphan_cleaner.restore_store(
    of_restore bigint, of_token uuid,
    of_run bigint, of_users uuid [], of_conversations uuid [], since timestamptz, until timestamptz, of_targets text []
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
        FROM orphan_cleaner.restore_plan(of_run, of_users, of_conversations, since, until, of_targets) AS p
    ),
    stored AS (
        INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, target, row_key, deleted_run, backed_up_at)
        SELECT of_restore, p.user_id, p.conversation_id, p.target, p.row_key, p.deleted_run, p.backed_up_at
        FROM plan AS p
        WHERE p.verdict = 'restore'
        -- Stored before, by an attempt whose answer was lost.
        ON CONFLICT DO NOTHING
    )
    SELECT p.verdict, count(*), count(DISTINCT p.user_id)
    FROM plan AS p
    GROUP BY p.verdict;
END
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_restore_chunk(
    of_restore bigint,
    of_token uuid,
    day date,
    first_page bigint,
    pages integer,
    of_users uuid [],
    hold interval
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- As in conversation_members_delete.
SET lock_timeout = '500ms'
SET jit = off
AS $$
-- Whatever columns the table has, these names are the variables.
#variable_conflict use_variable
DECLARE
    run orphan_cleaner.runs := orphan_cleaner.run_open(of_restore, of_token, 'restore');
    restored bigint;
    marked bigint;
    differing bigint;
    counted jsonb;
    users uuid [];
    conversations uuid [];
    day_begin timestamptz := day::timestamp AT TIME ZONE 'UTC';
    day_end timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    first_place tid := format('(%s,0)', first_page)::tid;
    end_place tid := format('(%s,0)', first_page + pages)::tid;
    planned_at timestamptz := run.started_at - interval '1 minute';
BEGIN
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    EXECUTE format($statement$
    WITH page AS (
        SELECT b.*
        FROM public.conversation_members_backup AS b
        CROSS JOIN LATERAL (
            SELECT
            FROM orphan_cleaner.restores AS r
            WHERE r.run_id = $1 AND r.user_id = b.user_id AND r.conversation_id = b.conversation_id
                AND r.target = 'conversation_members' AND r.row_key = ''
                AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
                AND r.state = 'planned'
            LIMIT 1
        ) AS planned
        WHERE b.backed_up_at >= $2 AND b.backed_up_at < $3
            AND b.ctid >= $4 AND b.ctid < $5
            AND b.user_id IN (SELECT unnest($8))
            AND EXISTS (SELECT FROM public.conversations AS c WHERE c.id = b.conversation_id)
            -- Nor what was made again and deleted since the plan was made.
            AND NOT EXISTS (
                SELECT
                FROM public.conversation_members_audit AS a
                WHERE a.run_id IS NULL
                    AND a.deleted_at >= $6
                    AND a.deleted_at > b.backed_up_at
                    AND a.conversation_id = b.conversation_id AND a.user_id = b.user_id
            )
        -- Always in one order: two writers cannot deadlock.
        ORDER BY b.conversation_id, b.user_id
    ),
    restored_rows AS (
        INSERT INTO public.conversation_members AS m (%1$s) OVERRIDING SYSTEM VALUE
        SELECT %1$s FROM page AS p
        -- Once, before the first row.
        WHERE CASE WHEN EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.choice = 'trigger')
            THEN (SELECT orphan_cleaner.conversations_lock(array_agg(o.conversation_id)) FROM page AS o) ELSE true END
        -- A row that is there is newer, and stays as it is.
        ON CONFLICT DO NOTHING
        RETURNING m.user_id, m.conversation_id, ROW(%2$s)::text AS row_restored, m.conversation_id::text AS k1
    ),
    marked_rows AS (
        UPDATE orphan_cleaner.restores AS r
        SET state = 'restored'
        -- One look for each row: without statistics the planner would read the whole list for each chunk.
        WHERE r.ctid = ANY (ARRAY(
            SELECT o.ctid
            FROM restored_rows AS g
            CROSS JOIN LATERAL (
                SELECT l.ctid
                FROM orphan_cleaner.restores AS l
                WHERE l.run_id = $1 AND l.user_id = g.user_id AND l.conversation_id = g.conversation_id
                    AND l.target = 'conversation_members' AND l.row_key = ''
                LIMIT 1
            ) AS o
        ))
        RETURNING r.user_id
    ),
    held AS (
        INSERT INTO orphan_cleaner.holds (user_id, reason, until, run_id)
        SELECT DISTINCT g.user_id, 'restored by run ' || $1::text, now() + $7, $1
        FROM restored_rows AS g
        ON CONFLICT (run_id, user_id) WHERE run_id IS NOT NULL DO NOTHING
    )
    SELECT
        (SELECT count(*) FROM restored_rows),
        (SELECT count(*) FROM marked_rows),
        (
            SELECT count(*)
            FROM (
                SELECT g.row_restored FROM restored_rows AS g
                EXCEPT
                SELECT ROW(%3$s)::text FROM page AS p
            ) AS other
        ),
        (SELECT jsonb_agg(jsonb_build_array(k.k1, k.n)) FROM (SELECT g.k1, count(*) AS n FROM restored_rows AS g GROUP BY g.k1) AS k),
        (SELECT array_agg(g.user_id ORDER BY g.user_id, g.conversation_id) FROM restored_rows AS g),
        (SELECT array_agg(g.conversation_id ORDER BY g.user_id, g.conversation_id) FROM restored_rows AS g)
    $statement$,
        orphan_cleaner.members_columns('@', ', '), orphan_cleaner.members_columns('m.@::text', ', '), orphan_cleaner.members_columns('p.@::text', ', '))
    INTO restored, marked, differing, counted, users, conversations
    USING of_restore, day_begin, day_end, first_place, end_place, planned_at, hold, of_users;
    -- As in conversation_members_delete.
    SET CONSTRAINTS ALL IMMEDIATE;
    IF restored <> marked OR differing > 0 THEN
        RAISE EXCEPTION 'restore proof failed: % restored, % recorded, % other than they were', restored, marked, differing
            USING ERRCODE = 'OC005', HINT = 'Does a trigger on conversation_members change rows on their way in? Run: orphan-cleaner check';
    END IF;
    PERFORM orphan_cleaner.owners_return(of_restore, users, conversations);
    PERFORM orphan_cleaner.conversation_members_counts(counted, 1);
    UPDATE orphan_cleaner.runs AS r
    SET members_restored = r.members_restored + restored, heartbeat_at = clock_timestamp()
    WHERE r.run_id = of_restore;
    RETURN restored;
END
$$;

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
    ), NULL, NULL, NULL, NULL) AS p
    WHERE p.verdict = 'restore';
    DELETE FROM orphan_cleaner.rechecks AS d
    WHERE d.user_id = ANY (restored)
        AND d.user_id <> ALL (coalesce(unfinished, '{}'));
END
$$;

CREATE FUNCTION orphan_cleaner.revert_judge(
    of_revert bigint,
    of_token uuid,
    reverted_run bigint,
    missing uuid [],
    report jsonb
)
RETURNS TABLE (breaker text, message text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET lock_timeout = '3s'
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    run orphan_cleaner.runs := orphan_cleaner.run_open(of_revert, of_token, 'restore');
    active bigint;
BEGIN
    IF run.judged_at IS NOT NULL THEN
        -- By this very call, whose answer was lost.
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT count(*) INTO active
    FROM orphan_cleaner.target_facts(missing, interval '0') AS f
    WHERE f.active_at > now() - interval '1 day';
    SELECT b.breaker, b.message INTO breaker, message
    FROM orphan_cleaner.breakers(run.settings, report || jsonb_build_object(
        'users_new', 0, 'candidates', 0, 'users_active', active, 'targets', (
            SELECT jsonb_object_agg(t.name, jsonb_build_object('rows_due', d.rows_due, 'rows_total', orphan_cleaner.target_total(t.name, d.rows_due, cardinality(missing))))
            FROM orphan_cleaner.targets AS t
            CROSS JOIN LATERAL (
                SELECT count(*) AS rows_due
                FROM orphan_cleaner.restores AS r
                WHERE r.run_id = reverted_run
                    AND r.target = t.name
                    AND r.state = 'restored'
                    AND r.user_id = ANY (ARRAY(SELECT unnest(missing)))
            ) AS d
        )
    )) AS b
    WHERE b.is_tripped
    LIMIT 1;
    IF breaker IS NULL THEN
        -- Who was missing: the second check has to find the same.
        INSERT INTO orphan_cleaner.sightings (run_id, user_id, verdict)
        SELECT DISTINCT of_revert, u.user_id, 'missing'
        FROM unnest(missing) AS u (user_id)
        ON CONFLICT (run_id, user_id) DO NOTHING;
        UPDATE orphan_cleaner.runs AS r SET judged_at = now() WHERE r.run_id = of_revert;
    END IF;
    RETURN NEXT;
END
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_revert_chunk(
    run orphan_cleaner.runs,
    reverted_run bigint,
    day date,
    first_page bigint,
    pages integer,
    of_users uuid [],
    checked_from xid8
)
RETURNS TABLE (rows_chosen bigint, rows_deleted bigint, user_ids uuid [])
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- As in conversation_members_delete.
SET lock_timeout = '500ms'
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    -- As in conversation_members_delete.
    first_xid bigint := checked_from::text::bigint;
    window_size bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - first_xid + 1000000;
    chosen tid [];
    keys uuid [];
    day_begin timestamptz := day::timestamp AT TIME ZONE 'UTC';
    day_end timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    first_place tid := format('(%s,0)', first_page)::tid;
    end_place tid := format('(%s,0)', first_page + pages)::tid;
    counted jsonb;
BEGIN
    EXECUTE format($statement$
    SELECT coalesce(array_agg(m.ctid), '{}')
    FROM public.conversation_members_backup AS b
    CROSS JOIN LATERAL (
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = $1 AND r.user_id = b.user_id AND r.conversation_id = b.conversation_id
            AND r.target = 'conversation_members' AND r.row_key = ''
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = 'restored'
        LIMIT 1
    ) AS listed
    JOIN public.conversation_members AS m ON m.conversation_id = b.conversation_id AND m.user_id = b.user_id
    WHERE b.backed_up_at >= $2 AND b.backed_up_at < $3
        AND b.ctid >= $4 AND b.ctid < $5
        -- Missing when the run was judged, and just again.
        AND b.user_id = ANY ($6)
        AND EXISTS (SELECT FROM orphan_cleaner.sightings AS s WHERE s.run_id = $9 AND s.user_id = b.user_id OFFSET 0)
        -- As it was restored: a row that was used since is somebody's.
        AND ROW(%1$s)::text = ROW(%2$s)::text
        AND (m.xmin::text::bigint - $7 %% 4294967296 + 4294967296) %% 4294967296 >= $8
        AND NOT EXISTS (
            SELECT
            FROM (
                SELECT u.run_id FROM orphan_cleaner.holds_in_force AS u WHERE u.user_id = b.user_id
                UNION ALL
                -- Not OR: by statistics of no hold all of them are read for each row.
                SELECT c.run_id FROM orphan_cleaner.holds_in_force AS c WHERE c.conversation_id = b.conversation_id
            ) AS h
            -- Another restore's hold is about the rows that it restored itself.
            WHERE h.run_id IS NULL
                OR h.run_id <> $1
                AND EXISTS (
                    SELECT
                    FROM orphan_cleaner.restores AS o
                    WHERE o.run_id = h.run_id AND o.user_id = b.user_id AND o.conversation_id = b.conversation_id
                        AND o.target = 'conversation_members' AND o.row_key = ''
                        AND o.state = 'restored'
                    -- Looked up, and not hashed from the whole list, for each row.
                    OFFSET 0
                )
        )
    $statement$, orphan_cleaner.members_columns('m.@::text', ', '), orphan_cleaner.members_columns('b.@::text', ', '))
    INTO chosen
    USING reverted_run, day_begin, day_end, first_place, end_place, of_users, first_xid, window_size, run.run_id;
    chosen := orphan_cleaner.conversation_members_leave(chosen);
    SELECT array_agg(m.user_id), array_agg(m.conversation_id) INTO user_ids, keys
    FROM public.conversation_members AS m
    WHERE m.ctid = ANY (chosen);
    rows_chosen := cardinality(chosen)::bigint;
    -- Read before: all of these rows are deleted, or it rolls back.
    SELECT jsonb_agg(jsonb_build_array(k.k1, k.n)) INTO counted
    FROM (
        SELECT m.conversation_id::text AS k1, count(*) AS n
        FROM public.conversation_members AS m
        WHERE m.ctid = ANY (chosen)
            AND EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.name = 'counter' AND e.choice = 'on')
        GROUP BY m.conversation_id
    ) AS k;
    PERFORM set_config('orphan_cleaner.target', 'conversation_members', true);
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    DELETE FROM public.conversation_members AS m
    WHERE m.ctid = ANY (chosen)
        AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 >= window_size;
    GET DIAGNOSTICS rows_deleted = ROW_COUNT;
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM set_config('orphan_cleaner.target', '', true);
    UPDATE orphan_cleaner.restores AS r
    SET state = 'reverted',
        reverted_by_run = run.run_id
    -- Each looked up by its key, and not hashed from the whole restore for each chunk.
    WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid
        FROM unnest(user_ids, keys) AS d (user_id, conversation_id)
        CROSS JOIN LATERAL (
            SELECT l.ctid
            FROM orphan_cleaner.restores AS l
            WHERE l.run_id = reverted_run AND l.user_id = d.user_id AND l.conversation_id = d.conversation_id
                AND l.target = 'conversation_members' AND l.row_key = ''
            LIMIT 1
        ) AS o
    ));
    PERFORM orphan_cleaner.conversation_members_counts(counted, -1);
    RETURN NEXT;
END
$$;

CREATE FUNCTION orphan_cleaner.revert_chunk(
    of_revert bigint,
    of_token uuid,
    reverted_run bigint,
    day date,
    first_page bigint,
    pages integer,
    of_users uuid [],
    checked_from xid8,
    of_target text
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
    run orphan_cleaner.runs;
    reverted record;
    chosen bigint;
    deleted bigint := 0;
    users uuid [];
BEGIN
    -- It deletes what a restore brought back: that takes the rights to do both.
    IF NOT has_function_privilege(session_user, 'orphan_cleaner.sweep_chunk(bigint, uuid, uuid [], xid8, bigint)', 'EXECUTE')
        OR NOT has_function_privilege(session_user, 'orphan_cleaner.restore_chunk(bigint, uuid, date, bigint, integer, uuid[], interval, text)', 'EXECUTE')
    THEN
        RAISE EXCEPTION 'role % may not revert a restore', session_user
            USING ERRCODE = 'insufficient_privilege', HINT = 'GRANT orphan_cleaner_runner, orphan_cleaner_restorer TO it';
    END IF;
    run := orphan_cleaner.chunk_open(of_revert, of_token, 'restore', checked_from);
    FOR reverted IN SELECT t.n, t.name FROM orphan_cleaner.targets_in_order AS t WHERE t.name = of_target LOOP
        PERFORM set_config('orphan_cleaner.run_token', run.token::text, true),
            set_config('orphan_cleaner.audited', '0', true),
            set_config('orphan_cleaner.backed_up', '0', true);
        EXECUTE format('SELECT c.rows_chosen, c.rows_deleted, c.user_ids FROM orphan_cleaner.%I($1, $2, $3, $4, $5, $6, $7) AS c', reverted.name || '_revert_chunk')
        INTO chosen, deleted, users
        USING run, reverted_run, day, first_page, pages, of_users, checked_from;
        PERFORM set_config('orphan_cleaner.run_token', '', true);
        IF deleted <> chosen OR current_setting('orphan_cleaner.audited') <> deleted::text
            OR current_setting('orphan_cleaner.backed_up') <> deleted::text
        THEN
            RAISE EXCEPTION 'revert proof failed: % chosen, % deleted, % audited, % backed up; rolled back',
                chosen, deleted, current_setting('orphan_cleaner.audited'), current_setting('orphan_cleaner.backed_up')
                USING ERRCODE = 'OC006', HINT = 'Run: orphan-cleaner check';
        END IF;
        INSERT INTO orphan_cleaner.rechecks AS o (user_id)
        SELECT DISTINCT d.user_id FROM unnest(users) AS d (user_id)
        ON CONFLICT (user_id) DO UPDATE
        SET deleted_at = now(), checked_at = NULL, alive_at = NULL;
        -- Without a delete it makes no day that could be a usual one.
        INSERT INTO orphan_cleaner.hours AS h (hour, target, rows_deleted)
        SELECT date_trunc('hour', now()), reverted.name, deleted WHERE deleted > 0
        ON CONFLICT (hour, target) DO UPDATE
        SET rows_deleted = h.rows_deleted + excluded.rows_deleted;
        PERFORM orphan_cleaner.run_count(of_revert, array_fill(0::bigint, ARRAY[reverted.n - 1]) || deleted);
    END LOOP;
    RETURN deleted;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.owners_return IS 'Takes promotions back whose deleted owner a restore brought back. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.restore_store IS 'Records which rows a restore brings back; returns what becomes of all that were chosen, by verdict.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_restore_chunk IS 'Restores the planned rows of these users on some pages of the backup of a day, places holds on their users, returns how many. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.recheck_settle IS 'Takes users whose rows a restore brought back off the list of rechecks.';
COMMENT ON FUNCTION orphan_cleaner.revert_judge IS 'Judges a revert as a run is judged: names the breaker that refuses it, or admits the missing users to deletion.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_revert_chunk IS 'Deletes rows of a restore once more, as far as they are unchanged and of these users. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.revert_chunk IS 'Deletes restored rows of one target once more, and proves that as many were audited and backed up; returns how many.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION
    orphan_cleaner.revert_chunk, orphan_cleaner.conversation_members_revert_chunk, orphan_cleaner.revert_judge, orphan_cleaner.recheck_settle,
    orphan_cleaner.conversation_members_restore_chunk, orphan_cleaner.restore_store, orphan_cleaner.owners_return;
