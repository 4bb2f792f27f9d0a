-- Why:      what the functions of a run need to know of conversation_members: the only place, beside the evidence and the
--           restore, where its columns are named. And the events, by which others are told of its deletes and restores.
-- Locks:    ACCESS SHARE on conversation_members, while bodies are checked. At work: the same; the delete ROW EXCLUSIVE, and the rows it deletes.
-- Duration: milliseconds.
-- Printed:  the functions conversation_members_*, but for conversation_members_leave, by the templates of internal/printer, as those of any target.
-- Rollback: drops the functions; runs refuse to start.

-- +goose Up
SET LOCAL lock_timeout = '3s';

-- +goose StatementBegin
CREATE FUNCTION orphan_cleaner.conversation_members_page(from_user uuid, max_users bigint)
RETURNS TABLE (user_ids uuid [], row_count bigint)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Rows that a policy hides must fail the run, not look like users without rows.
SET row_security = off
-- Without statistics, or with those of an empty table, the planner reads and sorts the whole table for every page.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashagg = off
SET enable_sort = off
SET jit = off
AS $$
    -- Parameters by their number, here and below: a name could be that of a column, which would be taken first.
    SELECT coalesce(array_agg(u.user_id), '{}'), coalesce(sum(u.row_count), 0)::bigint
    FROM (
        SELECT m.user_id, count(*) AS row_count
        FROM public.conversation_members AS m
        WHERE m.user_id >= $1
        GROUP BY m.user_id
        ORDER BY m.user_id
        LIMIT $2
    ) AS u
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_holders(user_ids uuid [])
RETURNS SETOF uuid
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET enable_seqscan = off
SET jit = off
AS $$
    -- One look for each user: a join would be planned as a read of the whole table.
    SELECT u.user_id
    FROM unnest(user_ids) AS u (user_id)
    WHERE EXISTS (SELECT FROM public.conversation_members AS m WHERE m.user_id = u.user_id OFFSET 0)
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_total(rows_due bigint, users bigint)
RETURNS double precision
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
AS $$
    -- Exact in a small table, whose statistics lag behind, and where the figure may matter.
    SELECT CASE
        WHEN t.few < 10000 THEN t.few
        WHEN t.estimate < 10000 OR $2 > t.estimate OR $1 > 50 AND $1 > 0.005 * t.estimate
            THEN (SELECT count(*)::double precision FROM public.conversation_members)
        ELSE t.estimate
    END
    FROM (
        SELECT
            (SELECT count(*)::double precision FROM (SELECT FROM public.conversation_members LIMIT 10000) AS m) AS few,
            (SELECT c.reltuples::double precision FROM pg_class AS c WHERE c.oid = 'public.conversation_members'::regclass) AS estimate
        -- Worked out once, however often it is named.
        OFFSET 0
    ) AS t
$$;

CREATE FUNCTION orphan_cleaner.is_kept_owner(of_conversation uuid, of_user uuid)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.choice = 'keep') AND NOT EXISTS (
        SELECT
        FROM (SELECT NULL AS role) AS absent
        CROSS JOIN LATERAL (SELECT role::text AS role FROM public.conversation_members AS o WHERE o.conversation_id = $1 AND o.user_id <> $2) AS m
        WHERE m.role = 'owner'
    )
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_facts(user_ids uuid [], horizon timestamptz)
RETURNS TABLE (user_id uuid, rows_old bigint, rows_young bigint, rows_held bigint, active_at timestamptz)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
AS $$
    SELECT
        r.user_id,
        count(*) FILTER (WHERE r.is_old AND NOT r.is_held),
        count(*) FILTER (WHERE NOT r.is_old AND NOT r.is_held),
        count(*) FILTER (WHERE r.is_held),
        max(r.active_at)
    FROM (
        SELECT
            m.user_id,
            coalesce(m.joined_at < $2, false) AS is_old,
            -- IN, which is hashed once, and not EXISTS, which would be looked up for each row.
            m.conversation_id IN (
                SELECT h.conversation_id
                FROM orphan_cleaner.holds_in_force AS h
                WHERE h.conversation_id IS NOT NULL
            ) OR coalesce(m.role = 'owner' AND orphan_cleaner.is_kept_owner(m.conversation_id, m.user_id), false) AS is_held,
            m.last_read_at AS active_at
        FROM (SELECT NULL::timestamptz AS last_read_at, NULL AS role) AS absent
        -- A name that the inner query has no column of is found in the outer one.
        CROSS JOIN LATERAL (
            SELECT o.ctid, o.xmin, o.conversation_id, o.user_id, o.joined_at, last_read_at, role::text AS role
            FROM public.conversation_members AS o
        ) AS m
        -- A subquery, so that the planner does not weigh thousands of users one by one.
        WHERE m.user_id = ANY (ARRAY(SELECT unnest($1)))
        -- Worked out once for each row, and not for each count.
        OFFSET 0
    ) AS r
    GROUP BY r.user_id
$$;

-- The effects of a delete and a restore on the conversation: docs/effects.md. One chunk at a time writes to conversations: two
-- cannot deadlock. What the application holds is waited for so shortly that PostgreSQL takes nobody for a part of a deadlock.
CREATE FUNCTION orphan_cleaner.conversations_lock(conversations uuid [])
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET lock_timeout = '500ms'
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM FROM public.conversations AS c WHERE c.id = ANY (conversations) ORDER BY c.id FOR NO KEY UPDATE;
    RETURN true;
END
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_leave(chosen tid [])
RETURNS tid []
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    chooses_owners boolean := EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.choice IN ('keep', 'promote'));
BEGIN
    IF chooses_owners THEN
        chooses_owners := EXISTS (SELECT FROM public.conversation_members AS m WHERE m.ctid = ANY (chosen) AND m.role = 'owner');
    END IF;
    IF chooses_owners OR EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.choice = 'trigger') THEN
        LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE;
        PERFORM orphan_cleaner.conversations_lock(ARRAY(
            SELECT DISTINCT m.conversation_id FROM public.conversation_members AS m WHERE m.ctid = ANY (chosen)
        ));
        -- A member whom somebody holds is being changed, and stays: nobody is waited for with conversations locked.
        chosen := ARRAY(
            SELECT l.ctid
            FROM (SELECT m.ctid FROM public.conversation_members AS m WHERE m.ctid = ANY (chosen) FOR UPDATE SKIP LOCKED) AS l
            INTERSECT
            SELECT unnest(chosen)
        );
    END IF;
    RETURN CASE WHEN chooses_owners THEN orphan_cleaner.owners_leave(chosen) ELSE chosen END;
END
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_counts(counted jsonb, sign integer)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET lock_timeout = '200ms'
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_nestloop = on
SET jit = off
AS $$
-- Whatever columns the table has, these names are the variables.
#variable_conflict use_variable
DECLARE
    changed bigint;
BEGIN
    IF counted IS NULL OR NOT EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.name = 'counter' AND e.choice = 'on') THEN
        RETURN;
    END IF;
    -- One chunk at a time changes counts, of whatever table: two cannot deadlock. Who deletes a row of public.conversations may
    -- wait for rows of this transaction, since it began at the earliest, and looks for a deadlock after a second: nobody is
    -- to be found waiting then.
    IF clock_timestamp() > now() + interval '700 ms' THEN
        LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
        PERFORM
        FROM public.conversations AS c
        JOIN (SELECT (e.value ->> 0)::uuid AS k1 FROM jsonb_array_elements(counted) AS e (value)) AS d ON c.id = d.k1
        FOR NO KEY UPDATE OF c NOWAIT;
    ELSE
        LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE;
    END IF;
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    -- A difference and no recount: the application may change the count in a transaction of its own. In the order of the key.
    UPDATE public.conversations AS c
    SET member_count = greatest(c.member_count + d.difference, 0)
    FROM (
        SELECT k.k1, sign * sum(k.n)::bigint AS difference
        FROM (SELECT (e.value ->> 0)::uuid AS k1, (e.value ->> 1)::bigint AS n FROM jsonb_array_elements(counted) AS e (value)) AS k
        GROUP BY k.k1
        ORDER BY k.k1
        OFFSET 0
    ) AS d
    WHERE c.id = d.k1
        AND c.member_count IS NOT NULL;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed < (
        SELECT count(*)
        FROM (SELECT DISTINCT (e.value ->> 0)::uuid AS k1 FROM jsonb_array_elements(counted) AS e (value)) AS d
        JOIN public.conversations AS c ON c.id = d.k1
        WHERE c.member_count IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the % of % rows of % was changed, not of all: a trigger or rule keeps it', 'member_count', changed, 'public.conversations'
            USING ERRCODE = 'OC006', HINT = 'Correct it, or: orphan-cleaner effects set counter=unread';
    END IF;
END
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_choose(
    user_ids uuid [],
    horizon timestamptz,
    first_xid bigint,
    window_size bigint,
    max_rows bigint
)
RETURNS tid []
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- Users and ledger joined once, by their keys, whatever the statistics say of tables that change within the run; and rows
-- read one by one, so that a part of a very large user is found without reading all of it.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_nestloop = off
SET enable_mergejoin = off
SET jit = off
AS $$
    SELECT coalesce(array_agg(d.place), '{}')
    FROM (
        SELECT m.ctid AS place
        FROM (SELECT NULL::timestamptz AS last_read_at, NULL AS role) AS absent
        -- A name that the inner query has no column of is found in the outer one.
        CROSS JOIN LATERAL (
            SELECT o.ctid, o.xmin, o.conversation_id, o.user_id, o.joined_at, last_read_at, role::text AS role
            FROM public.conversation_members AS o
        ) AS m
        JOIN orphan_cleaner.candidates AS c ON c.user_id = m.user_id
        WHERE m.user_id = ANY (ARRAY(SELECT unnest($1)))
            AND c.user_id = ANY (ARRAY(SELECT unnest($1)))
            -- The clock and the row are both older than the retention.
            AND c.first_missing_at <= $2
            AND m.joined_at < $2
            -- Nobody has used it since the clock started.
            AND coalesce(m.last_read_at <= c.first_missing_at, true)
            -- Nobody has changed it since the user was checked.
            AND (m.xmin::text::bigint - $3 % 4294967296 + 4294967296) % 4294967296 >= $4
            -- NOT IN is hashed once, NOT EXISTS would be looked up for each row. It is never null here.
            AND m.conversation_id NOT IN (
                SELECT h.conversation_id
                FROM orphan_cleaner.holds_in_force AS h
                WHERE h.conversation_id IS NOT NULL
            )
            AND (m.role = 'owner' AND orphan_cleaner.is_kept_owner(m.conversation_id, m.user_id)) IS NOT TRUE
        LIMIT $5 + 1
    ) AS d
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_delete(user_ids uuid [], horizon timestamptz, checked_from xid8, max_rows bigint)
RETURNS TABLE (rows_deleted bigint, is_whole boolean, counted jsonb)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- A chunk that waits keeps others waiting, and after a second (deadlock_timeout) is taken for a part of a deadlock.
SET lock_timeout = '500ms'
SET enable_seqscan = off
SET jit = off
AS $$
-- Whatever columns the table has, these names are the variables.
#variable_conflict use_variable
DECLARE
    -- A row version is unchanged if its transaction is older than every one that ran when the users were checked. Its xmin
    -- has 32 bits and may be older than they reach back: only those in the window since then count as changed. The
    -- million is for transactions that begin while this one waits for a row.
    first_xid bigint := checked_from::text::bigint;
    window_size bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - first_xid + 1000000;
    chosen tid [] := orphan_cleaner.conversation_members_choose(user_ids, horizon, first_xid, window_size, max_rows);
    inserted bigint;
BEGIN
    is_whole := cardinality(chosen) <= max_rows;
    chosen := orphan_cleaner.conversation_members_leave(chosen[1:max_rows]);
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
    inserted := pg_stat_get_xact_tuples_inserted('public.conversation_members'::regclass);
    -- The guard once more, for a row that changed while this waited for it: what is found in its place must not be deleted unseen.
    DELETE FROM public.conversation_members AS m
    WHERE m.ctid = ANY (chosen)
        AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 >= window_size;
    GET DIAGNOSTICS rows_deleted = ROW_COUNT;
    -- Deferred triggers of the application too: at COMMIT they would run as the login, and find no table of public.
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM set_config('orphan_cleaner.target', '', true);
    IF rows_deleted <> cardinality(chosen) THEN
        RAISE EXCEPTION '% rows of conversation_members chosen, % deleted: they changed at that moment, or a trigger or rule keeps them',
            cardinality(chosen), rows_deleted
            USING ERRCODE = 'OC006', HINT = 'Run: orphan-cleaner check';
    END IF;
    -- Or puts them back. Looked for only where something was inserted, since it reads the rows of these users again.
    IF pg_stat_get_xact_tuples_inserted('public.conversation_members'::regclass) > inserted AND EXISTS (
        SELECT
        FROM public.conversation_members AS m
        WHERE m.user_id = ANY (ARRAY(SELECT unnest(user_ids)))
            AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 < window_size
    ) THEN
        RAISE EXCEPTION '% rows of conversation_members deleted, and some of these users have new ones at once: a trigger puts them back', rows_deleted
            USING ERRCODE = 'OC006', HINT = 'Run: orphan-cleaner check';
    END IF;
    RETURN NEXT;
END
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_proof(of_run bigint, since timestamptz)
RETURNS TABLE (audited bigint, backed_up bigint, conversations bigint)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
AS $$
    SELECT a.audited, b.backed_up, a.conversations
    FROM (
        SELECT count(*) AS audited, count(DISTINCT o.conversation_id) AS conversations
        FROM public.conversation_members_audit AS o
        WHERE o.run_id = $1 AND o.deleted_at >= $2
    ) AS a
    CROSS JOIN (SELECT count(*) AS backed_up FROM public.conversation_members_backup AS o WHERE o.run_id = $1 AND o.backed_up_at >= $2) AS b
$$;

CREATE FUNCTION orphan_cleaner.conversation_members_canaries(users integer)
RETURNS SETOF uuid
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET enable_seqscan = off
SET enable_sort = off
SET jit = off
AS $$
    -- One of twenty rows behind each of so many points, evenly spread over the ids: in turn of a user who was active within a month
    -- and of one who was not, in turn of an older and of a younger row, where there is one.
    SELECT DISTINCT f.user_id
    FROM generate_series(0, least($1, 1000) - 1) AS points (n)
    CROSS JOIN LATERAL (
        SELECT near.user_id
        FROM (
            SELECT
                m.user_id,
                m.joined_at AS made_at,
                coalesce(m.last_read_at > now() - interval '30 days', false) AS is_active
            FROM (SELECT NULL::timestamptz AS last_read_at, NULL AS role) AS absent
            -- A name that the inner query has no column of is found in the outer one.
            CROSS JOIN LATERAL (
                SELECT o.ctid, o.xmin, o.conversation_id, o.user_id, o.joined_at, last_read_at, role::text AS role
                FROM public.conversation_members AS o
            ) AS m
            WHERE m.user_id >= (lpad(to_hex(points.n * 65536 / least($1, 1000)), 4, '0') || repeat('0', 28))::uuid
            ORDER BY m.user_id
            LIMIT 20
        ) AS near
        WHERE near.made_at < now() - interval '30 days'
            AND NOT EXISTS (SELECT FROM orphan_cleaner.candidates AS c WHERE c.user_id = near.user_id OFFSET 0)
        ORDER BY
            (near.is_active = (points.n % 2 = 0))::integer +
            ((near.made_at < now() - interval '1 year') = (points.n % 4 < 2))::integer DESC,
            near.user_id
        LIMIT 1
    ) AS f
$$;

CREATE FUNCTION orphan_cleaner.event_sink(of_sink text, from_run bigint)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
    -- Behind the newest finished run: what happened before the sink was configured is no news.
    INSERT INTO orphan_cleaner.event_cursors (sink, run_id)
    VALUES (of_sink, coalesce(from_run, (SELECT max(r.run_id) + 1 FROM orphan_cleaner.runs AS r WHERE r.state <> 'running'), 0))
    ON CONFLICT (sink) DO NOTHING
$$;

CREATE FUNCTION orphan_cleaner.event_page(of_sink text, new_ticket uuid, max_events integer, lease interval)
RETURNS TABLE (run_id bigint, kind text, conversation_id uuid, user_id uuid, happened_at timestamptz, role text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
-- As in restore_plan: without statistics all of the audit's months are read.
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    place orphan_cleaner.event_cursors;
    run record;
BEGIN
    SELECT c.* INTO place FROM orphan_cleaner.event_cursors AS c WHERE c.sink = of_sink FOR UPDATE SKIP LOCKED;
    -- Another relay is at work. A lease from when the clock was ahead is none.
    IF NOT FOUND OR place.ticket <> new_ticket AND place.leased_until BETWEEN clock_timestamp() AND clock_timestamp() + lease THEN
        RETURN;
    END IF;
    place.ticket := NULL;
    -- One run is open at a time, and the next has a higher id: behind a finished one nothing is added any more.
    FOR run IN
        SELECT r.run_id, r.started_at, r.finished_at, r.members_deleted, '-infinity'::timestamptz AS since, 'infinity'::timestamptz AS until
        FROM orphan_cleaner.runs AS r
        WHERE r.run_id >= place.run_id AND r.state <> 'running' AND r.members_deleted + r.members_restored > 0
        ORDER BY r.run_id
    LOOP
        IF run.run_id > place.run_id THEN
            place.run_id := run.run_id; place.kind := ''; place.events := 0;
        END IF;
        -- Where the run's own span does not hold all its rows the clock was wrong: then all of the audit.
        IF run.members_deleted <= (
            SELECT count(*) FROM public.conversation_members_audit AS a
            WHERE a.run_id = run.run_id AND a.deleted_at BETWEEN run.started_at AND run.finished_at
        ) THEN
            run.since := run.started_at; run.until := run.finished_at;
        END IF;
        RETURN QUERY
        SELECT run.run_id, e.kind, e.conversation_id, e.user_id, e.happened_at, e.role FROM (
            SELECT 'member.joined' COLLATE "C" AS kind, g.conversation_id, g.user_id, run.finished_at AS happened_at, NULL AS role
            FROM orphan_cleaner.restores AS g WHERE g.run_id = run.run_id AND g.target = 'conversation_members' AND g.state <> 'planned'
            UNION ALL
            SELECT 'member.left', a.conversation_id, a.user_id, a.deleted_at, NULL
            FROM public.conversation_members_audit AS a WHERE a.run_id = run.run_id AND a.deleted_at BETWEEN run.since AND run.until
            UNION ALL
            SELECT 'member.promoted', p.conversation_id, p.user_id, p.promoted_at, 'owner' FROM orphan_cleaner.promotions AS p WHERE p.run_id = run.run_id
            UNION ALL
            SELECT 'member.demoted', p.conversation_id, p.user_id, p.undone_at, p.role_before FROM orphan_cleaner.promotions AS p WHERE p.undone_by_run = run.run_id AND p.undone_at IS NOT NULL
        ) AS e
        WHERE (e.kind, e.conversation_id, e.user_id) > (place.kind, place.conversation_id, place.user_id)
            -- Emptied on request of the law: nobody is told of them any more.
            AND left(e.user_id::text, 24) <> '00000000-0000-0000-0000-'
        ORDER BY e.kind, e.conversation_id, e.user_id
        LIMIT least(max_events, 10000);
        place.ticket := CASE WHEN FOUND THEN new_ticket END;
        EXIT WHEN place.ticket IS NOT NULL;
        place.run_id := run.run_id + 1; place.kind := ''; place.events := 0;
    END LOOP;
    IF FOUND THEN
        -- Its COMMIT puts on disk, and on synchronous standbys, all that was read.
        UPDATE orphan_cleaner.event_cursors AS c
        SET run_id = place.run_id, kind = place.kind, events = place.events, ticket = place.ticket, leased_until = clock_timestamp() + lease
        WHERE c.sink = of_sink;
    END IF;
END
$$;

CREATE FUNCTION orphan_cleaner.event_advance(
    of_sink text, of_ticket uuid, last_kind text, last_conversation uuid, last_user uuid, delivered bigint, failure text
)
RETURNS boolean
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
    -- Compare and set: forward only, by whoever got the page last. Without a last event the error alone is written.
    UPDATE orphan_cleaner.event_cursors AS c
    SET kind = coalesce(last_kind, c.kind),
        conversation_id = coalesce(last_conversation, c.conversation_id), user_id = coalesce(last_user, c.user_id),
        ticket = NULL, leased_until = NULL,
        events = c.events + greatest(delivered, 0), error = left(failure, 500)
    WHERE c.sink = of_sink AND c.ticket = of_ticket
        AND (last_kind IS NULL OR c.kind = '' OR (last_kind, last_conversation, last_user) > (c.kind, c.conversation_id, c.user_id))
    RETURNING true
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA orphan_cleaner FROM PUBLIC;

COMMENT ON FUNCTION orphan_cleaner.conversation_members_page IS 'The next distinct user ids from one on, in order, and how many rows they have. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_holders IS 'Those of the users who have a row. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_total IS 'How many rows there are: counted where it may matter, else an estimate. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.is_kept_owner IS 'Whether an owner stays: the only one of a conversation, where the choice is keep. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_facts IS 'Of each user: rows older than the horizon, younger ones, rows on hold, and the last activity. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversations_lock IS 'Locks conversations in the order of their ids. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_leave IS 'Of rows that are about to be deleted those that may be: where a trigger counts or owners are kept, with their conversations locked. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_counts IS 'Changes what counts the rows with these keys, by as many as each has: more, or less. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_choose IS 'Where those rows of the users are that may go: older than the horizon, unchanged since; one more than asked for where there are more. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_delete IS 'Deletes at most max_rows rows of the users: older than the horizon, unchanged since checked_from. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_proof IS 'How many rows of a run were audited and backed up since its beginning. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.conversation_members_canaries IS 'Users who were alive so far, spread over all ids. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.event_sink IS 'Begins a cursor for a sink that has none: at this run, or behind the newest one that is finished.';
COMMENT ON FUNCTION orphan_cleaner.event_page IS 'The next events of finished runs behind a sink''s cursor, in their order, of one run at a time; leases the cursor to the relay. Empty: there is none, or another relay is at work.';
COMMENT ON FUNCTION orphan_cleaner.event_advance IS 'Moves a sink''s cursor to the last event of its page that was delivered, or records why none was; null: another relay has got the page since.';

-- +goose Down
SET LOCAL lock_timeout = '3s';

DROP FUNCTION
    orphan_cleaner.event_advance, orphan_cleaner.event_page, orphan_cleaner.event_sink,
    orphan_cleaner.conversation_members_canaries, orphan_cleaner.conversation_members_proof,
    orphan_cleaner.conversation_members_delete, orphan_cleaner.conversation_members_choose, orphan_cleaner.conversation_members_counts, orphan_cleaner.conversation_members_leave,
    orphan_cleaner.conversations_lock, orphan_cleaner.conversation_members_facts, orphan_cleaner.is_kept_owner,
    orphan_cleaner.conversation_members_total, orphan_cleaner.conversation_members_holders,
    orphan_cleaner.conversation_members_page;
