-- Why:      the deletes: those of a run, chunk by chunk, and those of a revert, which deletes what a restore brought back.
-- Locks:    ACCESS SHARE on conversation_members, while bodies are checked. At work, per chunk: ROW EXCLUSIVE on conversation_members, SHARE on holds and pauses. Placing a hold
--           and pausing wait for the chunks in flight, and every chunk after them sees it.
-- Duration: milliseconds.
-- Rollback: drops the functions; runs refuse to start.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.members_at_stake(user_ids uuid [], horizon timestamptz)
RETURNS bigint []
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET enable_seqscan = off
SET jit = off
AS $$
    WITH due AS MATERIALIZED (
        SELECT m.conversation_id, bool_or(m.role = 'owner') AS has_owner, array_agg(m.user_id) AS users
        FROM (SELECT NULL AS role) AS absent
        CROSS JOIN LATERAL (
            SELECT o.conversation_id, o.user_id, role::text AS role
            FROM public.conversation_members AS o
            WHERE o.user_id = ANY (ARRAY(SELECT unnest($1)))
                AND o.joined_at < $2
                AND o.conversation_id NOT IN (
                    SELECT h.conversation_id FROM orphan_cleaner.holds_in_force AS h WHERE h.conversation_id IS NOT NULL
                )
        ) AS m
        GROUP BY m.conversation_id
    )
    SELECT ARRAY[
        count(*) FILTER (WHERE s.loses_owner AND s.has_others AND NOT c.stays),
        count(*) FILTER (WHERE s.loses_owner AND c.stays),
        count(*) FILTER (WHERE NOT s.has_others AND NOT (s.loses_owner AND c.stays))
    ]
    FROM (SELECT EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.choice = 'keep') AS stays) AS c
    CROSS JOIN due AS d
    CROSS JOIN LATERAL (
        SELECT
            EXISTS (
                SELECT FROM public.conversation_members AS o WHERE o.conversation_id = d.conversation_id AND o.user_id <> ALL (d.users)
            ) AS has_others,
            d.has_owner AND NOT EXISTS (
                SELECT
                FROM (SELECT NULL AS role) AS absent
                CROSS JOIN LATERAL (
                    SELECT role::text AS role
                    FROM public.conversation_members AS o
                    WHERE o.conversation_id = d.conversation_id AND o.user_id <> ALL (d.users)
                ) AS m
                WHERE m.role = 'owner'
            ) AS loses_owner
    ) AS s
$$;

CREATE FUNCTION orphan_cleaner.chunk_open(of_run bigint, of_token uuid, of_kind text, checked_from xid8)
RETURNS orphan_cleaner.runs
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    run orphan_cleaner.runs;
BEGIN
    -- A run is given up, and a hold or pause is placed, before this chunk or after it.
    LOCK TABLE orphan_cleaner.runs IN ROW EXCLUSIVE MODE;
    LOCK TABLE orphan_cleaner.holds, orphan_cleaner.pauses IN SHARE MODE;
    run := orphan_cleaner.run_open(of_run, of_token, of_kind);
    IF run.judged_at IS NULL THEN
        RAISE EXCEPTION 'run % is not judged: it may delete nothing', of_run USING ERRCODE = 'OC008';
    END IF;
    IF EXISTS (SELECT FROM orphan_cleaner.pauses AS p WHERE p.resumed_at IS NULL) THEN
        RAISE EXCEPTION 'runs are paused' USING ERRCODE = 'OC002', HINT = 'Run: orphan-cleaner resume';
    END IF;
    IF checked_from IS NULL OR checked_from > pg_snapshot_xmax(pg_current_snapshot()) THEN
        RAISE EXCEPTION 'the snapshot % is not of this server''s past', checked_from USING ERRCODE = 'OC007';
    END IF;
    IF current_setting('session_replication_role') <> 'origin' THEN
        RAISE EXCEPTION 'session_replication_role is %: foreign keys and triggers would not fire', current_setting('session_replication_role')
            USING ERRCODE = 'OC007', HINT = 'Run: orphan-cleaner check';
    END IF;
    RETURN run;
END
$$;

CREATE FUNCTION orphan_cleaner.sweep_rows(
    run orphan_cleaner.runs,
    user_ids uuid [],
    checked_from xid8,
    max_rows bigint
)
RETURNS TABLE (rows_deleted bigint, is_whole boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('orphan_cleaner.run_token', run.token::text, true),
        set_config('orphan_cleaner.audited', '0', true),
        set_config('orphan_cleaner.backed_up', '0', true);
    SELECT d.rows_deleted, d.is_whole INTO rows_deleted, is_whole
    -- By the time at which the ledger was written: the clock may have jumped forward since.
    FROM orphan_cleaner.conversation_members_delete(
        user_ids,
        least(run.judged_at, now()) - make_interval(secs => (run.settings ->> 'retention')::double precision),
        checked_from,
        max_rows
    ) AS d;
    PERFORM set_config('orphan_cleaner.run_token', '', true);
    IF current_setting('orphan_cleaner.audited') <> rows_deleted::text OR current_setting('orphan_cleaner.backed_up') <> rows_deleted::text THEN
        RAISE EXCEPTION 'count proof failed: % deleted, % audited, % backed up; rolled back',
            rows_deleted, current_setting('orphan_cleaner.audited'), current_setting('orphan_cleaner.backed_up')
            USING ERRCODE = 'OC005', HINT = 'Run: orphan-cleaner check';
    END IF;
    RETURN NEXT;
END
$$;

CREATE FUNCTION orphan_cleaner.sweep_chunk(
    of_run bigint,
    of_token uuid,
    user_ids uuid [],
    checked_from xid8,
    max_rows bigint
)
RETURNS TABLE (rows_deleted bigint, is_whole boolean)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
-- By keys, whatever the statistics say of a ledger that was written a moment ago.
SET enable_seqscan = off
SET enable_nestloop = off
SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    run orphan_cleaner.runs := orphan_cleaner.chunk_open(of_run, of_token, 'clean', checked_from);
    due uuid [];
    due_approved uuid [];
    approved record;
    judged record;
BEGIN
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 1000000 THEN
        RAISE EXCEPTION 'a chunk has between 1 and 1,000,000 rows, not %', max_rows USING ERRCODE = 'OC007';
    END IF;
    SELECT
        array_agg(c.user_id ORDER BY c.user_id) FILTER (WHERE c.approved_run IS NULL AND f.user_id IS NULL),
        array_agg(c.user_id ORDER BY c.user_id) FILTER (WHERE c.approved_run IS NOT NULL OR f.user_id IS NOT NULL)
    INTO due, due_approved
    FROM orphan_cleaner.candidates AS c
    LEFT JOIN orphan_cleaner.refusals AS f
        ON f.run_id = run.approved_run
        AND f.user_id = c.user_id
        AND f.is_due
    WHERE c.user_id = ANY (ARRAY(SELECT unnest(user_ids)))
        -- Missing in this very run, and for longer than the retention.
        AND c.last_missing_run = of_run
        AND c.first_missing_at <= least(run.judged_at, now()) - make_interval(secs => (run.settings ->> 'retention')::double precision)
        AND NOT EXISTS (SELECT FROM orphan_cleaner.holds_in_force AS h WHERE h.user_id = c.user_id)
        -- With an approval, nobody but those it covers.
        AND (run.approved_run IS NULL OR f.user_id IS NOT NULL);
    SELECT * INTO judged FROM orphan_cleaner.sweep_rows(run, due, checked_from, max_rows);
    SELECT * INTO approved FROM orphan_cleaner.sweep_rows(run, due_approved, checked_from, max_rows);
    rows_deleted := judged.rows_deleted + approved.rows_deleted;
    is_whole := judged.is_whole AND approved.is_whole;
    IF is_whole THEN
        due := due || due_approved;
        PERFORM orphan_cleaner.candidates_leave(ARRAY(
            SELECT u.user_id
            FROM unnest(due) AS u (user_id)
            EXCEPT
            SELECT h.user_id
            FROM orphan_cleaner.conversation_members_holders(due) AS h (user_id)
        ));
    END IF;
    -- Last, so that chunks of several connections wait for each other only until COMMIT.
    INSERT INTO orphan_cleaner.hours AS h (hour, rows_deleted, rows_approved)
    VALUES (date_trunc('hour', now()), judged.rows_deleted, approved.rows_deleted)
    ON CONFLICT (hour) DO UPDATE
    SET rows_deleted = h.rows_deleted + excluded.rows_deleted,
        rows_approved = h.rows_approved + excluded.rows_approved;
    UPDATE orphan_cleaner.runs AS r
    SET heartbeat_at = clock_timestamp(),
        members_deleted = r.members_deleted + sweep_chunk.rows_deleted
    WHERE r.run_id = of_run;
    RETURN NEXT;
END
$$;

CREATE FUNCTION orphan_cleaner.sweep_returned(of_run bigint, of_token uuid, user_ids uuid [])
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
BEGIN
    PERFORM orphan_cleaner.run_open(of_run, of_token, 'clean');
    PERFORM orphan_cleaner.candidates_leave(user_ids);
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
    checked_from xid8
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET lock_timeout = '2s'
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    run orphan_cleaner.runs;
    -- As in conversation_members_delete.
    first_xid bigint := checked_from::text::bigint;
    window_size bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - first_xid + 1000000;
    chosen tid [];
    users uuid [];
    conversations uuid [];
    deleted bigint;
BEGIN
    -- It deletes what a restore brought back: that takes the rights to do both.
    IF NOT has_function_privilege(session_user, 'orphan_cleaner.sweep_chunk(bigint, uuid, uuid [], xid8, bigint)', 'EXECUTE')
        OR NOT has_function_privilege(session_user, 'orphan_cleaner.restore_chunk(bigint, uuid, date, bigint, integer, interval)', 'EXECUTE')
    THEN
        RAISE EXCEPTION 'role % may not revert a restore', session_user
            USING ERRCODE = 'insufficient_privilege', HINT = 'GRANT orphan_cleaner_runner, orphan_cleaner_restorer TO it';
    END IF;
    run := orphan_cleaner.chunk_open(of_revert, of_token, 'restore', checked_from);
    EXECUTE format($statement$
        SELECT coalesce(array_agg(orphan_m.ctid), '{}')
        FROM public.conversation_members_backup AS orphan_b
        CROSS JOIN LATERAL (
            SELECT
            FROM orphan_cleaner.restores AS r
            WHERE r.run_id = $1 AND r.user_id = orphan_b.user_id AND r.conversation_id = orphan_b.conversation_id
                AND r.deleted_run = orphan_b.run_id AND r.backed_up_at = orphan_b.backed_up_at
                AND r.state = 'restored'
            LIMIT 1
        ) AS listed
        JOIN public.conversation_members AS orphan_m
            ON orphan_m.conversation_id = orphan_b.conversation_id
            AND orphan_m.user_id = orphan_b.user_id
        WHERE orphan_b.backed_up_at >= $2 AND orphan_b.backed_up_at < $3
            AND orphan_b.ctid >= $4 AND orphan_b.ctid < $5
            -- Missing when the run was judged, and just again.
            AND orphan_m.user_id = ANY ($6)
            AND EXISTS (SELECT FROM orphan_cleaner.sightings AS s WHERE s.run_id = $9 AND s.user_id = orphan_m.user_id)
            -- As it was restored: a row that was used since is somebody's.
            AND ROW(%1$s)::text = ROW(%2$s)::text
            AND (orphan_m.xmin::text::bigint - $7 %% 4294967296 + 4294967296) %% 4294967296 >= $8
            AND NOT EXISTS (
                SELECT
                FROM (
                    -- Not OR: by statistics of no hold all of them are read for each row.
                    SELECT u.run_id FROM orphan_cleaner.holds_in_force AS u WHERE u.user_id = orphan_m.user_id
                    UNION ALL
                    SELECT c.run_id FROM orphan_cleaner.holds_in_force AS c WHERE c.conversation_id = orphan_m.conversation_id
                ) AS h
                -- Another restore's hold is about the members that it restored itself.
                WHERE h.run_id IS NULL
                    OR h.run_id <> $1
                    AND EXISTS (
                        SELECT
                        FROM orphan_cleaner.restores AS o
                        WHERE o.run_id = h.run_id AND o.user_id = orphan_m.user_id
                            AND o.conversation_id = orphan_m.conversation_id AND o.state = 'restored'
                        -- Looked up, and not hashed from the whole list, for each row.
                        OFFSET 0
                    )
            )
        $statement$,
        orphan_cleaner.members_columns('orphan_m.@::text', ', '), orphan_cleaner.members_columns('orphan_b.@::text', ', '))
    INTO chosen
    USING reverted_run, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC',
        format('(%s,0)', first_page)::tid, format('(%s,0)', first_page + pages)::tid, of_users, first_xid, window_size, of_revert;
    PERFORM set_config('orphan_cleaner.run_token', run.token::text, true),
        set_config('orphan_cleaner.audited', '0', true),
        set_config('orphan_cleaner.backed_up', '0', true),
        -- Triggers of messaging-service fire in here, and may qualify nothing.
        set_config('search_path', 'pg_catalog, public, pg_temp', true);
    chosen := orphan_cleaner.conversation_members_leave(chosen);
    SELECT array_agg(m.user_id), array_agg(m.conversation_id) INTO users, conversations
    FROM public.conversation_members AS m
    WHERE m.ctid = ANY (chosen);
    DELETE FROM public.conversation_members AS m
    WHERE m.ctid = ANY (chosen);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM set_config('orphan_cleaner.run_token', '', true);
    IF deleted <> cardinality(chosen) OR current_setting('orphan_cleaner.audited') <> deleted::text
        OR current_setting('orphan_cleaner.backed_up') <> deleted::text
    THEN
        RAISE EXCEPTION 'revert proof failed: % chosen, % deleted, % audited, % backed up; rolled back',
            cardinality(chosen), deleted, current_setting('orphan_cleaner.audited'), current_setting('orphan_cleaner.backed_up')
            USING ERRCODE = 'OC006', HINT = 'Run: orphan-cleaner check';
    END IF;
    PERFORM orphan_cleaner.conversations_count(conversations, -1);
    UPDATE orphan_cleaner.restores AS r
    SET state = 'reverted',
        reverted_by_run = of_revert
    FROM unnest(users, conversations) AS d (user_id, conversation_id)
    WHERE r.run_id = reverted_run
        AND r.user_id = d.user_id
        AND r.conversation_id = d.conversation_id;
    INSERT INTO orphan_cleaner.rechecks AS o (user_id)
    SELECT DISTINCT d.user_id
    FROM unnest(users) AS d (user_id)
    ON CONFLICT (user_id) DO UPDATE
    SET deleted_at = now(), checked_at = NULL, alive_at = NULL;
    -- Without a delete it makes no day that could be a usual one.
    INSERT INTO orphan_cleaner.hours AS h (hour, rows_deleted)
    SELECT date_trunc('hour', now()), deleted
    WHERE deleted > 0
    ON CONFLICT (hour) DO UPDATE
    SET rows_deleted = h.rows_deleted + excluded.rows_deleted;
    UPDATE orphan_cleaner.runs AS r
    SET members_deleted = r.members_deleted + deleted,
        heartbeat_at = clock_timestamp()
    WHERE r.run_id = of_revert;
    RETURN deleted;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.members_at_stake IS 'With the rows of these users older than the horizon: how many conversations lose their last owner, how many keep that one by choice, and how many lose their last member.';
COMMENT ON FUNCTION orphan_cleaner.chunk_open IS 'What every chunk that deletes begins with: its locks, and that its run is open, judged and not paused, and triggers fire. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.sweep_rows IS 'Deletes rows of users and proves that as many were audited and backed up. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.sweep_chunk IS 'One chunk: deletes at most max_rows rows of due users whom auth-service has just again left out, unchanged since checked_from.';
COMMENT ON FUNCTION orphan_cleaner.sweep_returned IS 'Takes users out of the ledger who are alive after all.';
COMMENT ON FUNCTION orphan_cleaner.revert_chunk IS 'Deletes members of a restore once more, as far as they are unchanged and of these users; returns how many.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION
    orphan_cleaner.revert_chunk, orphan_cleaner.sweep_returned, orphan_cleaner.sweep_chunk, orphan_cleaner.sweep_rows,
    orphan_cleaner.chunk_open, orphan_cleaner.members_at_stake;
