-- Why:      public.likes is a target: rows of users whom auth-service no longer knows are deleted, audited and backed up.
-- Makes:    tables orphan_cleaner.likes_audit and likes_backup; triggers on public.likes that audit each DELETE, whoever makes it, and refuse TRUNCATE;
--           14 functions that run as the owner of the schema, granted to nobody; a row of orphan_cleaner.targets. sql/roles.sql grants that owner
--           SELECT, INSERT and DELETE on the table, and restorers SELECT on audit and backup.
-- Counts:   public.posts.likes, in the same transaction: sql/roles.sql grants that owner SELECT and UPDATE of this column.
-- Runs:     DELETE FROM public.likes of users who are due, where created_at is older than the retention
-- Locks:    SHARE ROW EXCLUSIVE on public.likes for the time of CREATE TRIGGER: writes wait for it, and it waits for running
--           writes, 3 s at most; then it fails and can be repeated. SHARE ROW EXCLUSIVE on orphan_cleaner.runs: no run is open.
-- Duration: milliseconds, whatever the size of the table.
-- Rollback: refused while audit or backup holds a row: they are evidence, and the only copy of what was deleted.
-- Printed by `orphan-cleaner target print`: change targets.yaml and print again, not this file.
-- Target: {"name":"likes","table":"public.likes","user":"user_id","action":"delete","retention":"NULL","limits":"{}","window":"NULL","counter":"{\"table\":\"public.posts\",\"key\":{\"id\":\"post_id\"},\"column\":\"likes\"}","digest":"b8f089d16a8535c68a2cab4c2e24ed39a2b683b8e649607fec4a6689aaaaf459","audit":[{"name":"post_id","ident":"post_id","type":"uuid"},{"name":"user_id","ident":"user_id","type":"uuid"},{"name":"created_at","ident":"created_at","type":"timestamptz"}],"backup":[{"name":"post_id","ident":"post_id","type":"uuid"},{"name":"user_id","ident":"user_id","type":"uuid"},{"name":"created_at","ident":"created_at","type":"timestamptz"},{"name":"kind","ident":"kind","type":"text"}]}
-- The types are those of the table.
-- squawk-ignore-file prefer-bigint-over-int, prefer-bigint-over-smallint, prefer-text-field, prefer-timestamp-tz, ban-char-field

-- +goose Up
SET LOCAL lock_timeout = '3s';
-- The table may have changed since: then a later migration makes these functions anew.
SET LOCAL check_function_bodies = off;
-- PostgreSQL refuses to create a partitioned table where it names the database's own tablespace.
SET LOCAL default_tablespace = '';

-- +goose StatementBegin
DO $$
BEGIN
    IF pg_catalog.current_setting('application_name') = 'psql' THEN
        -- It reads Up and Down alike, and goes on after an error.
        RAISE WARNING 'refusing to migrate: psql would run Up and Down, and record neither: this session ends'
            USING HINT = 'Run: orphan-cleaner target apply --dir DIR';
        PERFORM pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid());
    END IF;
    IF pg_catalog.to_regclass('public.orphan_cleaner_targets_goose') IS NULL THEN
        RAISE EXCEPTION 'refusing to migrate: these migrations would be recorded in another version table than public.orphan_cleaner_targets_goose'
            USING HINT = 'Run: orphan-cleaner target apply --dir DIR; or goose in this folder, where .env names the table; or goose -table public.orphan_cleaner_targets_goose up';
    END IF;
END
$$;
-- +goose StatementEnd

CREATE TABLE orphan_cleaner.likes_audit (
    post_id uuid,
    user_id uuid,
    created_at timestamptz,
    deleted_at timestamptz NOT NULL,
    deleted_by text NOT NULL,
    application text NOT NULL,
    run_id bigint,
    txid bigint NOT NULL
) PARTITION BY RANGE (deleted_at);

ALTER TABLE orphan_cleaner.likes_audit REPLICA IDENTITY FULL;

-- Rows arrive in the order of deleted_at: a BRIN of a few pages finds a day or a run, and costs next to nothing.
-- Autovacuum summarizes it; autosummarize would fill the server's log.
CREATE INDEX likes_audit_deleted_at
    ON orphan_cleaner.likes_audit USING brin (deleted_at) WITH (pages_per_range = 16, autosummarize = off);

-- The application's own deletes must never fail for want of a partition.
CREATE TABLE orphan_cleaner.likes_audit_default PARTITION OF orphan_cleaner.likes_audit DEFAULT
    WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0);
ALTER TABLE orphan_cleaner.likes_audit_default REPLICA IDENTITY FULL;

COMMENT ON TABLE orphan_cleaner.likes_audit IS 'One row for each deleted row of public.likes, written by a trigger, whoever deleted it. Partitioned by month (UTC).';
COMMENT ON TABLE orphan_cleaner.likes_audit_default IS 'Catches rows of a month without a partition; stays empty while partitions are made ahead.';
COMMENT ON COLUMN orphan_cleaner.likes_audit.post_id IS 'As it was before.';
COMMENT ON COLUMN orphan_cleaner.likes_audit.user_id IS 'As it was before.';
COMMENT ON COLUMN orphan_cleaner.likes_audit.created_at IS 'As it was before.';
COMMENT ON COLUMN orphan_cleaner.likes_audit.deleted_at IS 'Start of the transaction that deleted the row.';
COMMENT ON COLUMN orphan_cleaner.likes_audit.deleted_by IS 'session_user of the session that deleted it.';
COMMENT ON COLUMN orphan_cleaner.likes_audit.application IS 'application_name of that session.';
COMMENT ON COLUMN orphan_cleaner.likes_audit.run_id IS 'The run of orphan-cleaner that deleted it; null: somebody else.';
COMMENT ON COLUMN orphan_cleaner.likes_audit.txid IS 'pg_current_xact_id() of that transaction.';

-- No DEFAULT partition: without a partition for the backup there is no delete.
CREATE TABLE orphan_cleaner.likes_backup (
    post_id uuid,
    user_id uuid,
    created_at timestamptz,
    kind text,
    backed_up_at timestamptz NOT NULL,
    run_id bigint NOT NULL
) PARTITION BY RANGE (backed_up_at);

ALTER TABLE orphan_cleaner.likes_backup REPLICA IDENTITY FULL;

COMMENT ON TABLE orphan_cleaner.likes_backup IS 'Whole rows of public.likes that runs deleted. Partitioned by UTC day: likes_backup_YYYYMMDD.';
COMMENT ON COLUMN orphan_cleaner.likes_backup.post_id IS 'As it was in public.likes.';
COMMENT ON COLUMN orphan_cleaner.likes_backup.user_id IS 'As it was in public.likes.';
COMMENT ON COLUMN orphan_cleaner.likes_backup.created_at IS 'As it was in public.likes.';
COMMENT ON COLUMN orphan_cleaner.likes_backup.kind IS 'As it was in public.likes.';
COMMENT ON COLUMN orphan_cleaner.likes_backup.backed_up_at IS 'Start of the transaction that deleted the row; equals deleted_at of the audit row.';
COMMENT ON COLUMN orphan_cleaner.likes_backup.run_id IS 'The run that deleted the row.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION orphan_cleaner.likes_page(from_user uuid, max_users bigint)
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
        FROM public.likes AS m
        WHERE m.user_id >= $1
        GROUP BY m.user_id
        ORDER BY m.user_id
        LIMIT $2
    ) AS u
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_holders(user_ids uuid [])
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
    WHERE EXISTS (SELECT FROM public.likes AS m WHERE m.user_id = u.user_id OFFSET 0)
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_total(rows_due bigint, users bigint)
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
            THEN (SELECT count(*)::double precision FROM public.likes)
        ELSE t.estimate
    END
    FROM (
        SELECT
            (SELECT count(*)::double precision FROM (SELECT FROM public.likes LIMIT 10000) AS m) AS few,
            (SELECT c.reltuples::double precision FROM pg_class AS c WHERE c.oid = 'public.likes'::regclass) AS estimate
        -- Worked out once, however often it is named.
        OFFSET 0
    ) AS t
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_facts(user_ids uuid [], horizon timestamptz)
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
            coalesce(m.created_at < $2, false) AS is_old,
            -- Of a single row nothing is known that would hold it.
            false AS is_held,
            NULL::timestamptz AS active_at
        FROM public.likes AS m
        -- A subquery, so that the planner does not weigh thousands of users one by one.
        WHERE m.user_id = ANY (ARRAY(SELECT unnest($1)))
        -- Worked out once for each row, and not for each count.
        OFFSET 0
    ) AS r
    GROUP BY r.user_id
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_canaries(users integer)
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
    -- One of twenty rows behind each of so many points, evenly spread over the ids: in turn of an older and of a younger row, where there is one.
    SELECT DISTINCT f.user_id
    FROM generate_series(0, least($1, 1000) - 1) AS points (n)
    CROSS JOIN LATERAL (
        SELECT near.user_id
        FROM (
            SELECT
                m.user_id,
                m.created_at AS made_at
            FROM public.likes AS m
            WHERE m.user_id >= (lpad(to_hex(points.n * 65536 / least($1, 1000)), 4, '0') || repeat('0', 28))::uuid
            ORDER BY m.user_id
            LIMIT 20
        ) AS near
        WHERE near.made_at < now() - interval '30 days'
            AND NOT EXISTS (SELECT FROM orphan_cleaner.candidates AS c WHERE c.user_id = near.user_id OFFSET 0)
        ORDER BY
            ((near.made_at < now() - interval '1 year') = (points.n % 4 < 2))::integer DESC,
            near.user_id
        LIMIT 1
    ) AS f
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_choose(
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
        FROM public.likes AS m
        JOIN orphan_cleaner.candidates AS c ON c.user_id = m.user_id
        WHERE m.user_id = ANY (ARRAY(SELECT unnest($1)))
            AND c.user_id = ANY (ARRAY(SELECT unnest($1)))
            -- The clock and the row are both older than the retention.
            AND c.first_missing_at <= $2
            AND m.created_at < $2
            -- Nobody has changed it since the user was checked.
            AND (m.xmin::text::bigint - $3 % 4294967296 + 4294967296) % 4294967296 >= $4
        LIMIT $5 + 1
    ) AS d
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_proof(of_run bigint, since timestamptz)
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
        SELECT count(*) AS audited, NULL::bigint AS conversations
        FROM orphan_cleaner.likes_audit AS o
        WHERE o.run_id = $1 AND o.deleted_at >= $2
    ) AS a
    CROSS JOIN (SELECT count(*) AS backed_up FROM orphan_cleaner.likes_backup AS o WHERE o.run_id = $1 AND o.backed_up_at >= $2) AS b
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_restore_plan(
    of_run bigint,
    of_users uuid [],
    of_conversations uuid [],
    since timestamptz,
    until timestamptz
)
RETURNS TABLE (conversation_id uuid, user_id uuid, deleted_run bigint, backed_up_at timestamptz, verdict text, row_key text)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- Without statistics all of the audit's months are read, and not what its BRIN says.
SET enable_seqscan = off
SET jit = off
AS $$
    WITH events AS (
        SELECT
            b.post_id AS k1, b.user_id AS k2, b.user_id AS owner, ROW(b.post_id, b.user_id, b.created_at, b.kind)::text AS row_deleted,
            b.run_id, b.backed_up_at AS happened_at, true AS is_backup,
            ($1 IS NULL OR b.run_id = $1) AND ($4 IS NULL OR b.backed_up_at >= $4) AND ($5 IS NULL OR b.backed_up_at < $5) AS is_chosen
        FROM orphan_cleaner.likes_backup AS b
        -- Backups of a run are not older than the run, but for a clock that went back meanwhile.
        WHERE b.backed_up_at >= greatest($4, (SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = $1), '-infinity')
            -- A subquery is hashed, an array would be searched from its beginning for each row.
            AND ($2 IS NULL OR b.user_id IN (SELECT unnest($2)))
            -- Emptied on request of the law.
            AND b.user_id IS NOT NULL
            -- A conversation has members, and nothing else.
            AND $3 IS NULL
        UNION ALL
        -- Deletes by others: what was restored and deleted since must stay away.
        SELECT a.post_id, a.user_id, a.user_id, NULL, NULL, a.deleted_at, false, false
        FROM orphan_cleaner.likes_audit AS a
        WHERE a.run_id IS NULL
            AND a.deleted_at >= greatest($4, (SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = $1), '-infinity')
            AND ($2 IS NULL OR a.user_id IN (SELECT unnest($2)))
    ),
    -- One sort, and no join between large sets: nobody keeps statistics for it.
    newest AS (
        -- Of a row that was deleted more than once, the last backup counts; it is restored if any of its deletions was chosen.
        SELECT DISTINCT ON (e.k1, e.k2)
            e.*,
            bool_or(e.is_chosen) OVER events_of_row AS any_chosen,
            coalesce(max(e.happened_at) FILTER (WHERE NOT e.is_backup) OVER events_of_row > e.happened_at, false) AS has_left
        FROM events AS e
        WINDOW events_of_row AS (PARTITION BY e.k1, e.k2)
        ORDER BY e.k1, e.k2, e.is_backup DESC, e.happened_at DESC, e.run_id DESC
    )
    SELECT
        '00000000-0000-0000-0000-000000000000'::uuid,
        n.owner,
        n.run_id,
        n.happened_at,
        CASE
            WHEN x.is_same THEN 'there'
            WHEN x.is_same IS NOT NULL THEN 'there_differs'
            WHEN n.has_left THEN 'left_since'
            ELSE 'restore'
        END,
        ROW(n.k1, n.k2)::text
    FROM newest AS n
    -- One lookup a row, whatever the planner believes: without statistics it would read whole tables.
    LEFT JOIN LATERAL (
        SELECT ROW(m.post_id, m.user_id, m.created_at, m.kind)::text = n.row_deleted AS is_same
        FROM public.likes AS m
        WHERE m.post_id = n.k1 AND m.user_id = n.k2
        LIMIT 1
    ) AS x ON true
    WHERE n.any_chosen
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_restore_chunks(of_restore bigint, in_state text, pages integer)
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
        (b.ctid::text::point)[0]::bigint / $3 * $3,
        count(*),
        array_agg(DISTINCT b.user_id)
    FROM orphan_cleaner.likes_backup AS b
    CROSS JOIN LATERAL (
        -- One lookup a row: without statistics the planner would read the list once for each row.
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = $1 AND r.user_id = b.user_id AND r.conversation_id = '00000000-0000-0000-0000-000000000000'
            AND r.target = 'likes' AND r.row_key = ROW(b.post_id, b.user_id)::text
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = $2
        LIMIT 1
    ) AS listed
    WHERE b.backed_up_at >= (SELECT min(o.backed_up_at) FROM orphan_cleaner.restores AS o WHERE o.run_id = $1)
    GROUP BY 1, 2
    ORDER BY 1, 2
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_restore_chunk(
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
-- As in likes_delete.
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
    day_begin timestamptz := day::timestamp AT TIME ZONE 'UTC';
    day_end timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    first_place tid := format('(%s,0)', first_page)::tid;
    end_place tid := format('(%s,0)', first_page + pages)::tid;
    planned_at timestamptz := run.started_at - interval '1 minute';
BEGIN
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    WITH page AS (
        SELECT b.*
        FROM orphan_cleaner.likes_backup AS b
        CROSS JOIN LATERAL (
            SELECT
            FROM orphan_cleaner.restores AS r
            WHERE r.run_id = of_restore AND r.user_id = b.user_id AND r.conversation_id = '00000000-0000-0000-0000-000000000000'
                AND r.target = 'likes' AND r.row_key = ROW(b.post_id, b.user_id)::text
                AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
                AND r.state = 'planned'
            LIMIT 1
        ) AS planned
        WHERE b.backed_up_at >= day_begin AND b.backed_up_at < day_end
            AND b.ctid >= first_place AND b.ctid < end_place
            AND b.user_id IN (SELECT unnest(of_users))
            -- Nor what was made again and deleted since the plan was made.
            AND NOT EXISTS (
                SELECT
                FROM orphan_cleaner.likes_audit AS a
                WHERE a.run_id IS NULL
                    AND a.deleted_at >= planned_at
                    AND a.deleted_at > b.backed_up_at
                    AND a.post_id = b.post_id AND a.user_id = b.user_id
            )
        -- Always in one order: two writers cannot deadlock.
        ORDER BY b.post_id, b.user_id
    ),
    restored_rows AS (
        INSERT INTO public.likes AS m (post_id, user_id, created_at, kind) OVERRIDING SYSTEM VALUE
        SELECT p.post_id, p.user_id, p.created_at, p.kind FROM page AS p
        -- A row that is there is newer, and stays as it is.
        ON CONFLICT DO NOTHING
        RETURNING m.user_id, ROW(m.post_id, m.user_id)::text AS row_key, ROW(m.post_id, m.user_id, m.created_at, m.kind)::text AS row_restored, m.post_id::text AS k1
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
                WHERE l.run_id = of_restore AND l.user_id = g.user_id AND l.conversation_id = '00000000-0000-0000-0000-000000000000'
                    AND l.target = 'likes' AND l.row_key = g.row_key
                LIMIT 1
            ) AS o
        ))
        RETURNING r.user_id
    ),
    held AS (
        INSERT INTO orphan_cleaner.holds (user_id, reason, until, run_id)
        SELECT DISTINCT g.user_id, 'restored by run ' || of_restore::text, now() + hold, of_restore
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
                SELECT ROW(p.post_id, p.user_id, p.created_at, p.kind)::text FROM page AS p
            ) AS other
        ),
        (SELECT jsonb_agg(jsonb_build_array(k.k1, k.n)) FROM (SELECT g.k1, count(*) AS n FROM restored_rows AS g GROUP BY g.k1) AS k)
    INTO restored, marked, differing, counted;
    -- As in likes_delete.
    SET CONSTRAINTS ALL IMMEDIATE;
    IF restored <> marked OR differing > 0 THEN
        RAISE EXCEPTION 'restore proof failed: % restored, % recorded, % other than they were', restored, marked, differing
            USING ERRCODE = 'OC005', HINT = 'Does a trigger on likes change rows on their way in? Run: orphan-cleaner check';
    END IF;
    PERFORM orphan_cleaner.likes_counts(counted, 1);
    UPDATE orphan_cleaner.runs AS r
    SET heartbeat_at = clock_timestamp()
    WHERE r.run_id = of_restore;
    RETURN restored;
END
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_counts(counted jsonb, sign integer)
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
    IF counted IS NULL THEN
        RETURN;
    END IF;
    -- One chunk at a time changes counts, of whatever table: two cannot deadlock. Who deletes a row of public.posts may
    -- wait for rows of this transaction, since it began at the earliest, and looks for a deadlock after a second: nobody is
    -- to be found waiting then.
    IF clock_timestamp() > now() + interval '700 ms' THEN
        LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
        PERFORM
        FROM public.posts AS c
        JOIN (SELECT (e.value ->> 0)::uuid AS k1 FROM jsonb_array_elements(counted) AS e (value)) AS d ON c.id = d.k1
        FOR NO KEY UPDATE OF c NOWAIT;
    ELSE
        LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE;
    END IF;
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    -- A difference and no recount: the application may change the count in a transaction of its own. In the order of the key.
    UPDATE public.posts AS c
    SET likes = greatest(c.likes + d.difference, 0)
    FROM (
        SELECT k.k1, sign * sum(k.n)::bigint AS difference
        FROM (SELECT (e.value ->> 0)::uuid AS k1, (e.value ->> 1)::bigint AS n FROM jsonb_array_elements(counted) AS e (value)) AS k
        GROUP BY k.k1
        ORDER BY k.k1
        OFFSET 0
    ) AS d
    WHERE c.id = d.k1
        AND c.likes IS NOT NULL;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed < (
        SELECT count(*)
        FROM (SELECT DISTINCT (e.value ->> 0)::uuid AS k1 FROM jsonb_array_elements(counted) AS e (value)) AS d
        JOIN public.posts AS c ON c.id = d.k1
        WHERE c.likes IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the % of % rows of % was changed, not of all: a trigger or rule keeps it', 'likes', changed, 'public.posts'
            USING ERRCODE = 'OC006', HINT = 'Correct it, or print the target without its counter.';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_audit_deleted()
RETURNS trigger
LANGUAGE plpgsql
-- The application may write the audit through this trigger and in no other way.
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Nobody who locks the audit must keep the application's delete waiting.
SET lock_timeout = '500ms'
AS $$
-- Whatever columns the table has, these names are the variables.
#variable_conflict use_variable
DECLARE
    -- Once per statement and not once per row.
    deleter text := session_user::text;
    application text := current_setting('application_name');
    run bigint;
    transaction_id bigint;
    audited bigint;
    backed_up bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM gone) THEN
        RETURN NULL;
    END IF;
    IF current_setting('orphan_cleaner.run_token', true) <> '' THEN
        run := orphan_cleaner.deleting_run();
    END IF;
    transaction_id := pg_current_xact_id()::text::bigint;

    IF run IS NULL AND current_setting('orphan_cleaner.likes_audits', true) IS DISTINCT FROM transaction_id::text THEN
        -- Somebody else's delete, which must not fail because of us. The first of a transaction is caught by a subtransaction;
        -- the later ones need none: hundreds of subtransactions in one transaction would slow every session.
        IF current_setting('orphan_cleaner.likes_audit_failed', true) IS NOT DISTINCT FROM transaction_id::text THEN
            RETURN NULL;
        END IF;
        BEGIN
            INSERT INTO orphan_cleaner.likes_audit (post_id, user_id, created_at, deleted_at, deleted_by, application, txid)
            SELECT g.post_id, g.user_id, g.created_at, now(), deleter, application, transaction_id
            FROM gone AS g;
            -- Not set_config(), which some revoke from PUBLIC.
            EXECUTE format('SET LOCAL orphan_cleaner.likes_audits = %L', transaction_id);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'likes: rows deleted by this transaction are not audited: %', SQLERRM
                USING HINT = 'Run: orphan-cleaner check';
            EXECUTE format('SET LOCAL orphan_cleaner.likes_audit_failed = %L', transaction_id);
        END;
        RETURN NULL;
    END IF;

    IF run IS NOT NULL AND EXISTS (
        SELECT
        FROM orphan_cleaner.targets AS t
        WHERE t.name = current_setting('orphan_cleaner.target', true) AND t.name <> 'likes' AND to_regclass(t.table_name) = TG_RELID
    ) THEN
        -- By another column of this table: audited here, and backed up there.
        run := NULL;
    END IF;
    -- A cascade or a trigger: the rows may be those of somebody who lives.
    IF run IS NOT NULL AND current_setting('orphan_cleaner.target', true) IS DISTINCT FROM 'likes' THEN
        RAISE EXCEPTION 'a delete from another table would delete % rows of likes, whoever they belong to', (SELECT count(*) FROM gone)
            USING ERRCODE = 'restrict_violation', DETAIL = format(
                'By a foreign key with ON DELETE CASCADE%s, or by a trigger, onto %s.',
                (
                    SELECT ', ' || string_agg(k.conname, ', ' ORDER BY k.conname)
                    FROM pg_constraint AS k
                    JOIN orphan_cleaner.targets AS t ON t.name = current_setting('orphan_cleaner.target', true) AND to_regclass(t.table_name) = k.confrelid
                    WHERE k.conrelid = TG_RELID AND k.contype = 'f' AND k.confdeltype = 'c'
                ),
                TG_RELID::regclass
            ),
                HINT = 'Add action: update for the other table, or delete those rows by hand.';
    END IF;
    -- A backup has whole rows, of the columns that it was printed for.
    IF run IS NOT NULL AND '{"created_at","kind","post_id","user_id"}'::name [] IS DISTINCT FROM ARRAY(
        SELECT a.attname
        FROM pg_attribute AS a
        WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attname
    ) THEN
        RAISE EXCEPTION 'likes: % has other columns than those that its backup was printed for', TG_RELID::regclass
            USING ERRCODE = 'OC007', HINT = 'Run: orphan-cleaner target print, and apply what it prints';
    END IF;

    INSERT INTO orphan_cleaner.likes_audit (post_id, user_id, created_at, deleted_at, deleted_by, application, run_id, txid)
    SELECT g.post_id, g.user_id, g.created_at, now(), deleter, application, run, transaction_id
    FROM gone AS g;
    GET DIAGNOSTICS audited = ROW_COUNT;
    IF run IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO orphan_cleaner.likes_backup (post_id, user_id, created_at, kind, backed_up_at, run_id)
    SELECT g.post_id, g.user_id, g.created_at, g.kind, now(), run
    FROM gone AS g;
    GET DIAGNOSTICS backed_up = ROW_COUNT;

    -- What the deleting function compares with the rows it deleted, before COMMIT.
    PERFORM set_config('orphan_cleaner.audited',
        (coalesce(nullif(current_setting('orphan_cleaner.audited', true), ''), '0')::bigint + audited)::text, true);
    PERFORM set_config('orphan_cleaner.backed_up',
        (coalesce(nullif(current_setting('orphan_cleaner.backed_up', true), ''), '0')::bigint + backed_up)::text, true);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_delete(user_ids uuid [], horizon timestamptz, checked_from xid8, max_rows bigint)
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
    chosen tid [] := orphan_cleaner.likes_choose(user_ids, horizon, first_xid, window_size, max_rows);
    inserted bigint;
BEGIN
    is_whole := cardinality(chosen) <= max_rows;
    chosen := chosen[1:max_rows];
    -- Read before: all of these rows are deleted, or it rolls back.
    SELECT jsonb_agg(jsonb_build_array(k.k1, k.n)) INTO counted
    FROM (
        SELECT m.post_id::text AS k1, count(*) AS n
        FROM public.likes AS m
        WHERE m.ctid = ANY (chosen)
        GROUP BY m.post_id
    ) AS k;
    PERFORM set_config('orphan_cleaner.target', 'likes', true);
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    inserted := pg_stat_get_xact_tuples_inserted('public.likes'::regclass);
    -- The guard once more, for a row that changed while this waited for it: what is found in its place must not be deleted unseen.
    DELETE FROM public.likes AS m
    WHERE m.ctid = ANY (chosen)
        AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 >= window_size;
    GET DIAGNOSTICS rows_deleted = ROW_COUNT;
    -- Deferred triggers of the application too: at COMMIT they would run as the login, and find no table of public.
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM set_config('orphan_cleaner.target', '', true);
    IF rows_deleted <> cardinality(chosen) THEN
        RAISE EXCEPTION '% rows of likes chosen, % deleted: they changed at that moment, or a trigger or rule keeps them',
            cardinality(chosen), rows_deleted
            USING ERRCODE = 'OC006', HINT = 'Run: orphan-cleaner check';
    END IF;
    -- Or puts them back. Looked for only where something was inserted, since it reads the rows of these users again.
    IF pg_stat_get_xact_tuples_inserted('public.likes'::regclass) > inserted AND EXISTS (
        SELECT
        FROM public.likes AS m
        WHERE m.user_id = ANY (ARRAY(SELECT unnest(user_ids)))
            AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 < window_size
    ) THEN
        RAISE EXCEPTION '% rows of likes deleted, and some of these users have new ones at once: a trigger puts them back', rows_deleted
            USING ERRCODE = 'OC006', HINT = 'Run: orphan-cleaner check';
    END IF;
    RETURN NEXT;
END
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.likes_revert_chunk(
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
-- As in likes_delete.
SET lock_timeout = '500ms'
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    -- As in likes_delete.
    first_xid bigint := checked_from::text::bigint;
    window_size bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - first_xid + 1000000;
    chosen tid [];
    keys text [];
    day_begin timestamptz := day::timestamp AT TIME ZONE 'UTC';
    day_end timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    first_place tid := format('(%s,0)', first_page)::tid;
    end_place tid := format('(%s,0)', first_page + pages)::tid;
    counted jsonb;
BEGIN
    SELECT coalesce(array_agg(m.ctid), '{}') INTO chosen
    FROM orphan_cleaner.likes_backup AS b
    CROSS JOIN LATERAL (
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = reverted_run AND r.user_id = b.user_id AND r.conversation_id = '00000000-0000-0000-0000-000000000000'
            AND r.target = 'likes' AND r.row_key = ROW(b.post_id, b.user_id)::text
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = 'restored'
        LIMIT 1
    ) AS listed
    JOIN public.likes AS m ON m.post_id = b.post_id AND m.user_id = b.user_id
    WHERE b.backed_up_at >= day_begin AND b.backed_up_at < day_end
        AND b.ctid >= first_place AND b.ctid < end_place
        -- Missing when the run was judged, and just again.
        AND b.user_id = ANY (of_users)
        AND EXISTS (SELECT FROM orphan_cleaner.sightings AS s WHERE s.run_id = run.run_id AND s.user_id = b.user_id OFFSET 0)
        -- As it was restored: a row that was used since is somebody's.
        AND ROW(m.post_id, m.user_id, m.created_at, m.kind)::text = ROW(b.post_id, b.user_id, b.created_at, b.kind)::text
        AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 >= window_size
        AND NOT EXISTS (
            SELECT
            FROM (
                SELECT u.run_id FROM orphan_cleaner.holds_in_force AS u WHERE u.user_id = b.user_id
            ) AS h
            -- Another restore's hold is about the rows that it restored itself.
            WHERE h.run_id IS NULL
                OR h.run_id <> reverted_run
                AND EXISTS (
                    SELECT
                    FROM orphan_cleaner.restores AS o
                    WHERE o.run_id = h.run_id AND o.user_id = b.user_id AND o.conversation_id = '00000000-0000-0000-0000-000000000000'
                        AND o.target = 'likes' AND o.row_key = ROW(b.post_id, b.user_id)::text
                        AND o.state = 'restored'
                    -- Looked up, and not hashed from the whole list, for each row.
                    OFFSET 0
                )
        );
    SELECT array_agg(m.user_id), array_agg(ROW(m.post_id, m.user_id)::text) INTO user_ids, keys
    FROM public.likes AS m
    WHERE m.ctid = ANY (chosen);
    rows_chosen := cardinality(chosen)::bigint;
    -- Read before: all of these rows are deleted, or it rolls back.
    SELECT jsonb_agg(jsonb_build_array(k.k1, k.n)) INTO counted
    FROM (
        SELECT m.post_id::text AS k1, count(*) AS n
        FROM public.likes AS m
        WHERE m.ctid = ANY (chosen)
        GROUP BY m.post_id
    ) AS k;
    PERFORM set_config('orphan_cleaner.target', 'likes', true);
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    DELETE FROM public.likes AS m
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
        FROM unnest(user_ids, keys) AS d (user_id, row_key)
        CROSS JOIN LATERAL (
            SELECT l.ctid
            FROM orphan_cleaner.restores AS l
            WHERE l.run_id = reverted_run AND l.user_id = d.user_id AND l.conversation_id = '00000000-0000-0000-0000-000000000000'
                AND l.target = 'likes' AND l.row_key = d.row_key
            LIMIT 1
        ) AS o
    ));
    PERFORM orphan_cleaner.likes_counts(counted, -1);
    RETURN NEXT;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION
    orphan_cleaner.likes_page, orphan_cleaner.likes_holders, orphan_cleaner.likes_total, orphan_cleaner.likes_facts,
    orphan_cleaner.likes_canaries, orphan_cleaner.likes_choose, orphan_cleaner.likes_proof,
    orphan_cleaner.likes_restore_plan, orphan_cleaner.likes_restore_chunks, orphan_cleaner.likes_restore_chunk,
    orphan_cleaner.likes_counts, orphan_cleaner.likes_audit_deleted, orphan_cleaner.likes_delete,
    orphan_cleaner.likes_revert_chunk FROM PUBLIC;
COMMENT ON FUNCTION orphan_cleaner.likes_page IS 'The next distinct user ids from one on, in order, and how many rows they have. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_holders IS 'Those of the users who have a row. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_total IS 'How many rows there are: counted where it may matter, else an estimate. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_facts IS 'Of each user: rows older than the horizon, younger ones, rows on hold, and the last activity. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_canaries IS 'Users who were alive so far, spread over all ids. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_choose IS 'Where those rows of the users are that may go: older than the horizon, unchanged since; one more than asked for where there are more. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_proof IS 'How many rows of a run were audited and backed up since its beginning. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_restore_plan IS 'What a restore of this run, these users and span would do with each row: restore, there, there_differs, left_since. A null chooses all. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_restore_chunks IS 'Where the backup rows of a restore are: the chunks of that many pages that hold one, by UTC day, with their users. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_restore_chunk IS 'Restores the planned rows of these users on some pages of the backup of a day, places holds on their users, returns how many. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_counts IS 'Changes what counts the rows with these keys, by as many as each has: more, or less. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_audit_deleted IS 'Audits every deleted row; backs up those of an open run and reports both counts to its transaction.';
COMMENT ON FUNCTION orphan_cleaner.likes_delete IS 'Deletes at most max_rows rows of the users: older than the horizon, unchanged since checked_from. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.likes_revert_chunk IS 'Deletes rows of a restore once more, as far as they are unchanged and of these users. Granted to nobody.';

-- Its functions run as the owner of the schema, and not as whoever applies this.
-- +goose StatementBegin
DO $$
DECLARE
    owner name := (SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'orphan_cleaner');
    item text;
BEGIN
    IF owner = current_user THEN
        RETURN;
    END IF;
    FOREACH item IN ARRAY ARRAY['orphan_cleaner.likes_audit', 'orphan_cleaner.likes_audit_default', 'orphan_cleaner.likes_backup'] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s OWNER TO %I', item, owner);
    END LOOP;
    FOREACH item IN ARRAY ARRAY[
        'likes_page',
        'likes_holders',
        'likes_total',
        'likes_facts',
        'likes_canaries',
        'likes_choose',
        'likes_proof',
        'likes_restore_plan',
        'likes_restore_chunks',
        'likes_restore_chunk',
        'likes_counts',
        'likes_audit_deleted',
        'likes_delete',
        'likes_revert_chunk'
    ] LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION orphan_cleaner.%I OWNER TO %I', item, owner);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- A statement trigger with a transition table costs half of what a row trigger does.
CREATE TRIGGER likes_audit_delete
    AFTER DELETE ON public.likes
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION orphan_cleaner.likes_audit_deleted();
CREATE TRIGGER likes_refuse_truncate
    BEFORE TRUNCATE ON public.likes
    FOR EACH STATEMENT EXECUTE FUNCTION orphan_cleaner.refuse_truncate();
-- ALWAYS: also under session_replication_role = replica.
ALTER TABLE public.likes ENABLE ALWAYS TRIGGER likes_audit_delete;
ALTER TABLE public.likes ENABLE ALWAYS TRIGGER likes_refuse_truncate;

INSERT INTO orphan_cleaner.targets (name, ordinal, table_name, user_column, action, retention, limits, backup_window, counter, audit_table, backup_table, digest)
SELECT
    'likes', max(t.ordinal) + 1, 'public.likes', 'user_id', 'delete', NULL, '{}', NULL, '{"table":"public.posts","key":{"id":"post_id"},"column":"likes"}',
    'orphan_cleaner.likes_audit', 'orphan_cleaner.likes_backup',
    'b8f089d16a8535c68a2cab4c2e24ed39a2b683b8e649607fec4a6689aaaaf459'
FROM orphan_cleaner.targets AS t;

SELECT orphan_cleaner.partitions_ensure(7);

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE orphan_cleaner.likes_audit, orphan_cleaner.likes_backup IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM orphan_cleaner.likes_audit) THEN
        RAISE EXCEPTION 'refusing to drop orphan_cleaner.likes_audit: it holds evidence of rows that were deleted'
            USING HINT = 'Copy the rows elsewhere and empty the table first, if you mean it.';
    END IF;
    IF EXISTS (SELECT FROM orphan_cleaner.likes_backup) THEN
        RAISE EXCEPTION 'refusing to drop orphan_cleaner.likes_backup: it is the only copy of what was deleted'
            USING HINT = 'Restore or copy the rows and empty the table first, if you mean it.';
    END IF;
END
$$;
-- +goose StatementEnd

DELETE FROM orphan_cleaner.targets WHERE name = 'likes';
-- IF EXISTS: down and up again is how a trigger that somebody dropped comes back.
DROP TRIGGER IF EXISTS likes_audit_delete ON public.likes;
DROP TRIGGER IF EXISTS likes_refuse_truncate ON public.likes;

DROP FUNCTION IF EXISTS
    orphan_cleaner.likes_revert_chunk, orphan_cleaner.likes_delete, orphan_cleaner.likes_audit_deleted,
    orphan_cleaner.likes_counts, orphan_cleaner.likes_restore_chunk, orphan_cleaner.likes_restore_chunks,
    orphan_cleaner.likes_restore_plan, orphan_cleaner.likes_proof, orphan_cleaner.likes_choose,
    orphan_cleaner.likes_canaries, orphan_cleaner.likes_facts, orphan_cleaner.likes_total, orphan_cleaner.likes_holders,
    orphan_cleaner.likes_page;
DROP TABLE orphan_cleaner.likes_backup;
DROP TABLE orphan_cleaner.likes_audit;
