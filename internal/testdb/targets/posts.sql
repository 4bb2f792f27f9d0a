-- Why:      public.posts is a target: rows of users whom auth-service no longer knows are updated, audited and backed up.
-- Makes:    tables orphan_cleaner.posts_audit and posts_backup;
--           16 functions that run as the owner of the schema, granted to nobody; a row of orphan_cleaner.targets. sql/roles.sql grants that owner
--           SELECT, INSERT and UPDATE on the table, and restorers SELECT on audit and backup.
-- Counts:   public.blogs."Posts", in the same transaction: sql/roles.sql grants that owner SELECT and UPDATE of this column.
-- Runs:     UPDATE public.posts SET deleted_at = (now()), body = ('') of users who are due, where created_at is older than the retention and (deleted_at IS NULL)
-- Locks:    SHARE ROW EXCLUSIVE on orphan_cleaner.runs: no run is open. None on public.posts.
-- Duration: milliseconds, whatever the size of the table.
-- Rollback: refused while audit or backup holds a row: they are evidence, and the only copy of what was updated.
-- Printed by `orphan-cleaner target print`: change targets.yaml and print again, not this file.
-- Target: {"name":"posts","table":"public.posts","user":"user_id","action":"update","retention":"NULL","limits":"{}","window":"NULL","counter":"{\"table\":\"public.blogs\",\"key\":{\"id\":\"blog_id\",\"part\":\"part\"},\"column\":\"Posts\"}","digest":"6cd19b41d948a5e9022f55382ab7176bb8822a8e271de25def577809e6aabcb9","audit":[{"name":"id","ident":"id","type":"uuid"},{"name":"user_id","ident":"user_id","type":"uuid"},{"name":"created_at","ident":"created_at","type":"timestamptz"}],"backup":[{"name":"id","ident":"id","type":"uuid"},{"name":"user_id","ident":"user_id","type":"uuid"},{"name":"body","ident":"body","type":"text"},{"name":"deleted_at","ident":"deleted_at","type":"timestamptz"}]}
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

CREATE TABLE orphan_cleaner.posts_audit (
    id uuid,
    user_id uuid,
    created_at timestamptz,
    deleted_at timestamptz NOT NULL,
    deleted_by text NOT NULL,
    application text NOT NULL,
    run_id bigint,
    txid bigint NOT NULL
) PARTITION BY RANGE (deleted_at);

ALTER TABLE orphan_cleaner.posts_audit REPLICA IDENTITY FULL;

-- Rows arrive in the order of deleted_at: a BRIN of a few pages finds a day or a run, and costs next to nothing.
-- Autovacuum summarizes it; autosummarize would fill the server's log.
CREATE INDEX posts_audit_deleted_at
    ON orphan_cleaner.posts_audit USING brin (deleted_at) WITH (pages_per_range = 16, autosummarize = off);

CREATE TABLE orphan_cleaner.posts_audit_default PARTITION OF orphan_cleaner.posts_audit DEFAULT
    WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0);
ALTER TABLE orphan_cleaner.posts_audit_default REPLICA IDENTITY FULL;

COMMENT ON TABLE orphan_cleaner.posts_audit IS 'One row for each row of public.posts that a run updated. Partitioned by month (UTC).';
COMMENT ON TABLE orphan_cleaner.posts_audit_default IS 'Catches rows of a month without a partition; stays empty while partitions are made ahead.';
COMMENT ON COLUMN orphan_cleaner.posts_audit.id IS 'As it was before.';
COMMENT ON COLUMN orphan_cleaner.posts_audit.user_id IS 'As it was before.';
COMMENT ON COLUMN orphan_cleaner.posts_audit.created_at IS 'As it was before.';
COMMENT ON COLUMN orphan_cleaner.posts_audit.deleted_at IS 'Start of the transaction that updated the row.';
COMMENT ON COLUMN orphan_cleaner.posts_audit.deleted_by IS 'session_user of the session that updated it.';
COMMENT ON COLUMN orphan_cleaner.posts_audit.application IS 'application_name of that session.';
COMMENT ON COLUMN orphan_cleaner.posts_audit.run_id IS 'The run of orphan-cleaner that updated it.';
COMMENT ON COLUMN orphan_cleaner.posts_audit.txid IS 'pg_current_xact_id() of that transaction.';

-- No DEFAULT partition: without a partition for the backup there is no update.
CREATE TABLE orphan_cleaner.posts_backup (
    id uuid,
    user_id uuid,
    body text,
    deleted_at timestamptz,
    set_to jsonb,
    backed_up_at timestamptz NOT NULL,
    run_id bigint NOT NULL
) PARTITION BY RANGE (backed_up_at);

ALTER TABLE orphan_cleaner.posts_backup REPLICA IDENTITY FULL;

COMMENT ON TABLE orphan_cleaner.posts_backup IS 'What runs overwrote in rows of public.posts. Partitioned by UTC day: posts_backup_YYYYMMDD.';
COMMENT ON COLUMN orphan_cleaner.posts_backup.id IS 'As it was in public.posts.';
COMMENT ON COLUMN orphan_cleaner.posts_backup.user_id IS 'As it was in public.posts.';
COMMENT ON COLUMN orphan_cleaner.posts_backup.body IS 'As it was in public.posts.';
COMMENT ON COLUMN orphan_cleaner.posts_backup.deleted_at IS 'As it was in public.posts.';
COMMENT ON COLUMN orphan_cleaner.posts_backup.set_to IS 'What each column was set to, as text: a restore changes the row only while it still holds this.';
COMMENT ON COLUMN orphan_cleaner.posts_backup.backed_up_at IS 'Start of the transaction that updated the row; equals deleted_at of the audit row.';
COMMENT ON COLUMN orphan_cleaner.posts_backup.run_id IS 'The run that updated the row.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION orphan_cleaner.posts_page(from_user uuid, max_users bigint)
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
        FROM (SELECT posts.ctid, posts.xmin, posts.user_id, posts.created_at FROM public.posts WHERE (deleted_at IS NULL)) AS m
        WHERE m.user_id >= $1
        GROUP BY m.user_id
        ORDER BY m.user_id
        LIMIT $2
    ) AS u
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_holders(user_ids uuid [])
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
    WHERE EXISTS (SELECT FROM (SELECT posts.ctid, posts.xmin, posts.user_id, posts.created_at FROM public.posts WHERE (deleted_at IS NULL)) AS m WHERE m.user_id = u.user_id OFFSET 0)
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_total(rows_due bigint, users bigint)
RETURNS double precision
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
AS $$
    -- Nobody has statistics of the rows that are not done yet.
    SELECT count(*)::double precision FROM (SELECT posts.ctid, posts.xmin, posts.user_id, posts.created_at FROM public.posts WHERE (deleted_at IS NULL)) AS m
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_facts(user_ids uuid [], horizon timestamptz)
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
        FROM (SELECT posts.ctid, posts.xmin, posts.user_id, posts.created_at FROM public.posts WHERE (deleted_at IS NULL)) AS m
        -- A subquery, so that the planner does not weigh thousands of users one by one.
        WHERE m.user_id = ANY (ARRAY(SELECT unnest($1)))
        -- Worked out once for each row, and not for each count.
        OFFSET 0
    ) AS r
    GROUP BY r.user_id
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_canaries(users integer)
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
            FROM (SELECT posts.ctid, posts.xmin, posts.user_id, posts.created_at FROM public.posts WHERE (deleted_at IS NULL)) AS m
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

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_choose(
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
        FROM (SELECT posts.ctid, posts.xmin, posts.user_id, posts.created_at FROM public.posts WHERE (deleted_at IS NULL)) AS m
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

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_proof(of_run bigint, since timestamptz)
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
        FROM orphan_cleaner.posts_audit AS o
        WHERE o.run_id = $1 AND o.deleted_at >= $2
    ) AS a
    CROSS JOIN (SELECT count(*) AS backed_up FROM orphan_cleaner.posts_backup AS o WHERE o.run_id = $1 AND o.backed_up_at >= $2) AS b
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_restore_plan(
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
SET jit = off
AS $$
    WITH events AS (
        SELECT
            b.*,
            ($1 IS NULL OR b.run_id = $1) AND ($4 IS NULL OR b.backed_up_at >= $4) AND ($5 IS NULL OR b.backed_up_at < $5) AS orphan_chosen
        FROM orphan_cleaner.posts_backup AS b
        WHERE b.backed_up_at >= greatest($4, (SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = $1), '-infinity')
            -- A subquery is hashed, an array would be searched from its beginning for each row.
            AND ($2 IS NULL OR b.user_id IN (SELECT unnest($2)))
            -- Emptied on request of the law.
            AND b.user_id IS NOT NULL
            -- A conversation has members, and nothing else.
            AND $3 IS NULL
    ),
    newest AS (
        -- Of a row that was updated more than once, the last backup counts; it is restored if any of its updates was chosen.
        SELECT DISTINCT ON (e.id)
            e.*,
            bool_or(e.orphan_chosen) OVER (PARTITION BY e.id) AS orphan_any_chosen
        FROM events AS e
        ORDER BY e.id, e.backed_up_at DESC, e.run_id DESC
    )
    SELECT
        '00000000-0000-0000-0000-000000000000'::uuid,
        n.user_id,
        n.run_id,
        n.backed_up_at,
        CASE
            WHEN x.is_back THEN 'there'
            WHEN x.is_set THEN 'restore'
            WHEN x.is_set IS NOT NULL THEN 'there_differs'
            ELSE 'left_since'
        END,
        ROW(n.id)::text
    FROM newest AS n
    -- One lookup a row, whatever the planner believes: without statistics it would read whole tables.
    LEFT JOIN LATERAL (
        SELECT
            ROW(m.deleted_at, m.body)::text = ROW(CASE WHEN n.set_to ? 'deleted_at' THEN n.deleted_at ELSE m.deleted_at END, CASE WHEN n.set_to ? 'body' THEN n.body ELSE m.body END)::text AS is_back,
            ROW(m.deleted_at, m.body)::text = ROW(CASE WHEN n.set_to ? 'deleted_at' THEN (n.set_to ->> 'deleted_at')::timestamptz ELSE m.deleted_at END, CASE WHEN n.set_to ? 'body' THEN (n.set_to ->> 'body')::text ELSE m.body END)::text AS is_set
        FROM public.posts AS m
        WHERE m.id = n.id
        LIMIT 1
    ) AS x ON true
    WHERE n.orphan_any_chosen
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_restore_chunks(of_restore bigint, in_state text, pages integer)
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
    FROM orphan_cleaner.posts_backup AS b
    CROSS JOIN LATERAL (
        -- One lookup a row: without statistics the planner would read the list once for each row.
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = $1 AND r.user_id = b.user_id AND r.conversation_id = '00000000-0000-0000-0000-000000000000'
            AND r.target = 'posts' AND r.row_key = ROW(b.id)::text
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = $2
        LIMIT 1
    ) AS listed
    WHERE b.backed_up_at >= (SELECT min(o.backed_up_at) FROM orphan_cleaner.restores AS o WHERE o.run_id = $1)
    GROUP BY 1, 2
    ORDER BY 1, 2
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_restore_chunk(
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
-- As in posts_delete.
SET lock_timeout = '500ms'
SET jit = off
AS $$
-- Whatever columns the table has, these names are the variables.
#variable_conflict use_variable
DECLARE
    restored bigint;
    marked bigint;
    differing bigint;
    counted jsonb;
BEGIN
    PERFORM orphan_cleaner.run_open(of_restore, of_token, 'restore');
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    WITH page AS (
        SELECT b.*
        FROM orphan_cleaner.posts_backup AS b
        CROSS JOIN LATERAL (
            SELECT
            FROM orphan_cleaner.restores AS r
            WHERE r.run_id = of_restore AND r.user_id = b.user_id AND r.conversation_id = '00000000-0000-0000-0000-000000000000'
                AND r.target = 'posts' AND r.row_key = ROW(b.id)::text
                AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
                AND r.state = 'planned'
            LIMIT 1
        ) AS planned
        WHERE b.backed_up_at >= day::timestamp AT TIME ZONE 'UTC' AND b.backed_up_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
            AND b.ctid >= format('(%s,0)', first_page)::tid AND b.ctid < format('(%s,0)', first_page + pages)::tid
            AND b.user_id IN (SELECT unnest(of_users))
    ),
    restored_rows AS (
        UPDATE public.posts AS m
        SET
            deleted_at = CASE WHEN p.set_to ? 'deleted_at' THEN p.deleted_at ELSE m.deleted_at END,
            body = CASE WHEN p.set_to ? 'body' THEN p.body ELSE m.body END
        FROM page AS p
        WHERE m.id = p.id
            -- As the run left it: what was changed since is newer, and stays as it is.
            AND ROW(m.deleted_at, m.body)::text = ROW(CASE WHEN p.set_to ? 'deleted_at' THEN (p.set_to ->> 'deleted_at')::timestamptz ELSE m.deleted_at END, CASE WHEN p.set_to ? 'body' THEN (p.set_to ->> 'body')::text ELSE m.body END)::text
        RETURNING p.user_id AS user_id, ROW(m.id)::text AS row_key,
            ROW(m.deleted_at, m.body)::text IS DISTINCT FROM ROW(CASE WHEN p.set_to ? 'deleted_at' THEN p.deleted_at ELSE m.deleted_at END, CASE WHEN p.set_to ? 'body' THEN p.body ELSE m.body END)::text AS differs, m.blog_id::text AS k1, m.part::text AS k2
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
                    AND l.target = 'posts' AND l.row_key = g.row_key
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
        (SELECT count(*) FROM restored_rows AS g WHERE g.differs),
        (SELECT jsonb_agg(jsonb_build_array(k.k1, k.k2, k.n)) FROM (SELECT g.k1, g.k2, count(*) AS n FROM restored_rows AS g GROUP BY g.k1, g.k2) AS k)
    INTO restored, marked, differing, counted;
    -- As in posts_set.
    SET CONSTRAINTS ALL IMMEDIATE;
    IF restored <> marked OR differing > 0 THEN
        RAISE EXCEPTION 'restore proof failed: % restored, % recorded, % other than they were', restored, marked, differing
            USING ERRCODE = 'OC005', HINT = 'Does a trigger on posts change rows on their way in? Run: orphan-cleaner check';
    END IF;
    PERFORM orphan_cleaner.posts_counts(counted, 1);
    UPDATE orphan_cleaner.runs AS r SET heartbeat_at = clock_timestamp() WHERE r.run_id = of_restore;
    RETURN restored;
END
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_counts(counted jsonb, sign integer)
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
    -- One chunk at a time changes counts, of whatever table: two cannot deadlock. Who deletes a row of public.blogs may
    -- wait for rows of this transaction, since it began at the earliest, and looks for a deadlock after a second: nobody is
    -- to be found waiting then.
    IF clock_timestamp() > now() + interval '700 ms' THEN
        LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
        PERFORM
        FROM public.blogs AS c
        JOIN (SELECT (e.value ->> 0)::integer AS k1, (e.value ->> 1)::text AS k2 FROM jsonb_array_elements(counted) AS e (value)) AS d ON c.id = d.k1 AND c.part = d.k2
        FOR NO KEY UPDATE OF c NOWAIT;
    ELSE
        LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE;
    END IF;
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    -- A difference and no recount: the application may change the count in a transaction of its own. In the order of the key.
    UPDATE public.blogs AS c
    SET "Posts" = greatest(c."Posts" + d.difference, 0)
    FROM (
        SELECT k.k1, k.k2, sign * sum(k.n)::bigint AS difference
        FROM (SELECT (e.value ->> 0)::integer AS k1, (e.value ->> 1)::text AS k2, (e.value ->> 2)::bigint AS n FROM jsonb_array_elements(counted) AS e (value)) AS k
        GROUP BY k.k1, k.k2
        ORDER BY k.k1, k.k2
        OFFSET 0
    ) AS d
    WHERE c.id = d.k1 AND c.part = d.k2
        AND c."Posts" IS NOT NULL;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed < (
        SELECT count(*)
        FROM (SELECT DISTINCT (e.value ->> 0)::integer AS k1, (e.value ->> 1)::text AS k2 FROM jsonb_array_elements(counted) AS e (value)) AS d
        JOIN public.blogs AS c ON c.id = d.k1 AND c.part = d.k2
        WHERE c."Posts" IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the % of % rows of % was changed, not of all: a trigger or rule keeps it', '"Posts"', changed, 'public.blogs'
            USING ERRCODE = 'OC006', HINT = 'Correct it, or print the target without its counter.';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_keep(chosen tid [], first_xid bigint, window_size bigint, of_run bigint)
RETURNS TABLE (places tid [], values_set jsonb [], audited bigint, backed_up bigint)
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- As in posts_delete.
SET lock_timeout = '500ms'
SET jit = off
AS $$
    WITH old AS MATERIALIZED (
        SELECT
            posts.ctid AS place,
            posts.id,
            posts.user_id,
            posts.body,
            posts.deleted_at,
            posts.created_at,
            jsonb_build_object(
                'deleted_at', ((now())::timestamptz)::text,
                'body', (('')::text)::text
            ) AS set_to
        FROM public.posts
        WHERE posts.ctid = ANY ($1)
            -- The guard once more, for a row that changed while this waited for it.
            AND (posts.xmin::text::bigint - $2 % 4294967296 + 4294967296) % 4294967296 >= $3
        FOR UPDATE
    ),
    audit AS (
        INSERT INTO orphan_cleaner.posts_audit (id, user_id, created_at, deleted_at, deleted_by, application, run_id, txid)
        SELECT o.id, o.user_id, o.created_at, now(), session_user::text, current_setting('application_name'), $4, pg_current_xact_id()::text::bigint
        FROM old AS o
        RETURNING 1
    ),
    backup AS (
        INSERT INTO orphan_cleaner.posts_backup (id, user_id, body, deleted_at, set_to, backed_up_at, run_id)
        SELECT o.id, o.user_id, o.body, o.deleted_at, o.set_to, now(), $4
        FROM old AS o
        RETURNING 1
    )
    SELECT
        coalesce(array_agg(o.place), '{}'),
        coalesce(array_agg(o.set_to), '{}'),
        (SELECT count(*) FROM audit),
        (SELECT count(*) FROM backup)
    FROM old AS o
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_undone(places tid [])
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
AS $$
    SELECT count(*) FROM (SELECT posts.ctid, posts.xmin, posts.user_id, posts.created_at FROM public.posts WHERE (deleted_at IS NULL)) AS m WHERE m.ctid = ANY ($1)
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_set(chosen tid [], first_xid bigint, window_size bigint)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- As in posts_delete.
SET lock_timeout = '500ms'
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    kept record;
    done tid [];
    differing bigint;
    undone bigint;
BEGIN
    SELECT k.places, k.values_set, k.audited, k.backed_up INTO kept
    FROM orphan_cleaner.posts_keep(chosen, first_xid, window_size, orphan_cleaner.deleting_run()) AS k;
    -- Triggers of the application fire in here, and may qualify nothing: no expression of the target is worked out here.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    WITH changed AS (
        UPDATE public.posts AS m
        SET
            deleted_at = (v.set_to ->> 'deleted_at')::timestamptz,
            body = (v.set_to ->> 'body')::text
        FROM unnest(kept.places, kept.values_set) AS v (place, set_to)
        WHERE m.ctid = v.place
            AND m.ctid = ANY (kept.places)
        RETURNING m.ctid AS place, ROW(m.deleted_at, m.body)::text IS DISTINCT FROM ROW((v.set_to ->> 'deleted_at')::timestamptz, (v.set_to ->> 'body')::text)::text AS differs
    )
    SELECT coalesce(array_agg(c.place), '{}'), count(*) FILTER (WHERE c.differs) INTO done, differing
    FROM changed AS c;
    -- Deferred triggers of the application too: at COMMIT they would run as the login, and find no table of public.
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    undone := orphan_cleaner.posts_undone(done);
    IF cardinality(done) <> cardinality(chosen) OR differing > 0 OR undone > 0 THEN
        RAISE EXCEPTION '% rows of posts chosen, % updated, % other than set, % not done by that: they changed at that moment, or a trigger or rule is in the way',
            cardinality(chosen), cardinality(done), differing, undone
            USING ERRCODE = 'OC006', HINT = 'Run: orphan-cleaner target check';
    END IF;
    PERFORM set_config('orphan_cleaner.audited',
        (coalesce(nullif(current_setting('orphan_cleaner.audited', true), ''), '0')::bigint + kept.audited)::text, true);
    PERFORM set_config('orphan_cleaner.backed_up',
        (coalesce(nullif(current_setting('orphan_cleaner.backed_up', true), ''), '0')::bigint + kept.backed_up)::text, true);
    RETURN cardinality(done)::bigint;
END
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_delete(user_ids uuid [], horizon timestamptz, checked_from xid8, max_rows bigint)
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
    chosen tid [] := orphan_cleaner.posts_choose(user_ids, horizon, first_xid, window_size, max_rows);
BEGIN
    is_whole := cardinality(chosen) <= max_rows;
    chosen := chosen[1:max_rows];
    -- Read before: all of these rows are updated, or it rolls back.
    SELECT jsonb_agg(jsonb_build_array(k.k1, k.k2, k.n)) INTO counted
    FROM (
        SELECT m.blog_id::text AS k1, m.part::text AS k2, count(*) AS n
        FROM public.posts AS m
        WHERE m.ctid = ANY (chosen)
        GROUP BY m.blog_id, m.part
    ) AS k;
    rows_deleted := orphan_cleaner.posts_set(chosen, first_xid, window_size);
    RETURN NEXT;
END
$$;

CREATE OR REPLACE FUNCTION orphan_cleaner.posts_revert_chunk(
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
-- As in posts_delete.
SET lock_timeout = '500ms'
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    -- As in posts_delete.
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
    FROM orphan_cleaner.posts_backup AS b
    CROSS JOIN LATERAL (
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = reverted_run AND r.user_id = b.user_id AND r.conversation_id = '00000000-0000-0000-0000-000000000000'
            AND r.target = 'posts' AND r.row_key = ROW(b.id)::text
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = 'restored'
        LIMIT 1
    ) AS listed
    JOIN public.posts AS m ON m.id = b.id
    WHERE b.backed_up_at >= day_begin AND b.backed_up_at < day_end
        AND b.ctid >= first_place AND b.ctid < end_place
        -- Missing when the run was judged, and just again.
        AND b.user_id = ANY (of_users)
        AND EXISTS (SELECT FROM orphan_cleaner.sightings AS s WHERE s.run_id = run.run_id AND s.user_id = b.user_id OFFSET 0)
        -- As it was restored: a row that was used since is somebody's.
        AND m.user_id = b.user_id
        AND ROW(m.deleted_at, m.body)::text = ROW(CASE WHEN b.set_to ? 'deleted_at' THEN b.deleted_at ELSE m.deleted_at END, CASE WHEN b.set_to ? 'body' THEN b.body ELSE m.body END)::text
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
                        AND o.target = 'posts' AND o.row_key = ROW(b.id)::text
                        AND o.state = 'restored'
                    -- Looked up, and not hashed from the whole list, for each row.
                    OFFSET 0
                )
        );
    SELECT array_agg(m.user_id), array_agg(ROW(m.id)::text) INTO user_ids, keys
    FROM public.posts AS m
    WHERE m.ctid = ANY (chosen);
    rows_chosen := cardinality(chosen)::bigint;
    -- Read before: all of these rows are updated, or it rolls back.
    SELECT jsonb_agg(jsonb_build_array(k.k1, k.k2, k.n)) INTO counted
    FROM (
        SELECT m.blog_id::text AS k1, m.part::text AS k2, count(*) AS n
        FROM public.posts AS m
        WHERE m.ctid = ANY (chosen)
        GROUP BY m.blog_id, m.part
    ) AS k;
    rows_deleted := orphan_cleaner.posts_set(chosen, first_xid, window_size);
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
                AND l.target = 'posts' AND l.row_key = d.row_key
            LIMIT 1
        ) AS o
    ));
    PERFORM orphan_cleaner.posts_counts(counted, -1);
    RETURN NEXT;
END
$$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION
    orphan_cleaner.posts_page, orphan_cleaner.posts_holders, orphan_cleaner.posts_total, orphan_cleaner.posts_facts,
    orphan_cleaner.posts_canaries, orphan_cleaner.posts_choose, orphan_cleaner.posts_proof,
    orphan_cleaner.posts_restore_plan, orphan_cleaner.posts_restore_chunks, orphan_cleaner.posts_restore_chunk,
    orphan_cleaner.posts_counts, orphan_cleaner.posts_keep, orphan_cleaner.posts_undone, orphan_cleaner.posts_set,
    orphan_cleaner.posts_delete, orphan_cleaner.posts_revert_chunk FROM PUBLIC;
COMMENT ON FUNCTION orphan_cleaner.posts_page IS 'The next distinct user ids from one on, in order, and how many rows they have. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_holders IS 'Those of the users who have a row. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_total IS 'How many rows there are: counted where it may matter, else an estimate. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_facts IS 'Of each user: rows older than the horizon, younger ones, rows on hold, and the last activity. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_canaries IS 'Users who were alive so far, spread over all ids. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_choose IS 'Where those rows of the users are that may go: older than the horizon, unchanged since; one more than asked for where there are more. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_proof IS 'How many rows of a run were audited and backed up since its beginning. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_restore_plan IS 'What a restore of this run, these users and span would do with each row: restore, there, there_differs, left_since. A null chooses all. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_restore_chunks IS 'Where the backup rows of a restore are: the chunks of that many pages that hold one, by UTC day, with their users. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_restore_chunk IS 'Restores the planned rows of these users on some pages of the backup of a day, places holds on their users, returns how many. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_counts IS 'Changes what counts the rows with these keys, by as many as each has: more, or less. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_keep IS 'Audits and backs up rows, and works out what each column is to be set to. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_undone IS 'How many of the rows are not done yet. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_set IS 'Updates the chosen rows as far as they are unchanged, all of them or none. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_delete IS 'Updates at most max_rows rows of the users: older than the horizon, unchanged since checked_from. Granted to nobody.';
COMMENT ON FUNCTION orphan_cleaner.posts_revert_chunk IS 'Updates rows of a restore once more, as far as they are unchanged and of these users. Granted to nobody.';

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
    FOREACH item IN ARRAY ARRAY['orphan_cleaner.posts_audit', 'orphan_cleaner.posts_audit_default', 'orphan_cleaner.posts_backup'] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s OWNER TO %I', item, owner);
    END LOOP;
    FOREACH item IN ARRAY ARRAY[
        'posts_page',
        'posts_holders',
        'posts_total',
        'posts_facts',
        'posts_canaries',
        'posts_choose',
        'posts_proof',
        'posts_restore_plan',
        'posts_restore_chunks',
        'posts_restore_chunk',
        'posts_counts',
        'posts_keep',
        'posts_undone',
        'posts_set',
        'posts_delete',
        'posts_revert_chunk'
    ] LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION orphan_cleaner.%I OWNER TO %I', item, owner);
    END LOOP;
END
$$;
-- +goose StatementEnd

INSERT INTO orphan_cleaner.targets (name, ordinal, table_name, user_column, action, retention, limits, backup_window, counter, audit_table, backup_table, digest)
SELECT
    'posts', max(t.ordinal) + 1, 'public.posts', 'user_id', 'update', NULL, '{}', NULL, '{"table":"public.blogs","key":{"id":"blog_id","part":"part"},"column":"Posts"}',
    'orphan_cleaner.posts_audit', 'orphan_cleaner.posts_backup',
    '6cd19b41d948a5e9022f55382ab7176bb8822a8e271de25def577809e6aabcb9'
FROM orphan_cleaner.targets AS t;

SELECT orphan_cleaner.partitions_ensure(7);

-- +goose Down
SET LOCAL lock_timeout = '3s';

-- Before looking: a row that is being written now must be seen.
LOCK TABLE orphan_cleaner.posts_audit, orphan_cleaner.posts_backup IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM orphan_cleaner.posts_audit) THEN
        RAISE EXCEPTION 'refusing to drop orphan_cleaner.posts_audit: it holds evidence of rows that were updated'
            USING HINT = 'Copy the rows elsewhere and empty the table first, if you mean it.';
    END IF;
    IF EXISTS (SELECT FROM orphan_cleaner.posts_backup) THEN
        RAISE EXCEPTION 'refusing to drop orphan_cleaner.posts_backup: it is the only copy of what was updated'
            USING HINT = 'Restore or copy the rows and empty the table first, if you mean it.';
    END IF;
END
$$;
-- +goose StatementEnd

DELETE FROM orphan_cleaner.targets WHERE name = 'posts';
DROP FUNCTION IF EXISTS
    orphan_cleaner.posts_revert_chunk, orphan_cleaner.posts_delete, orphan_cleaner.posts_set,
    orphan_cleaner.posts_undone, orphan_cleaner.posts_keep, orphan_cleaner.posts_counts,
    orphan_cleaner.posts_restore_chunk, orphan_cleaner.posts_restore_chunks, orphan_cleaner.posts_restore_plan,
    orphan_cleaner.posts_proof, orphan_cleaner.posts_choose, orphan_cleaner.posts_canaries, orphan_cleaner.posts_facts,
    orphan_cleaner.posts_total, orphan_cleaner.posts_holders, orphan_cleaner.posts_page;
DROP TABLE orphan_cleaner.posts_backup;
DROP TABLE orphan_cleaner.posts_audit;
