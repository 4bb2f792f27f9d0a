{{define "restore_plan_delete" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_restore_plan(
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
            {{numbered "b." .Key}}, b.{{.Owner}} AS owner, ROW({{list "b." .Stored}})::text AS row_deleted,
            b.run_id, b.backed_up_at AS happened_at, true AS is_backup,
            ($1 IS NULL OR b.run_id = $1) AND ($4 IS NULL OR b.backed_up_at >= $4) AND ($5 IS NULL OR b.backed_up_at < $5) AS is_chosen
        FROM {{.BackupTable}} AS b
        WHERE b.backed_up_at >= coalesce($4, (SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = $1), '-infinity')
            -- A subquery is hashed, an array would be searched from its beginning for each row.
            AND ($2 IS NULL OR b.{{.Owner}} IN (SELECT unnest($2)))
            -- Emptied on request of the law.
            AND b.{{.Owner}} IS NOT NULL
            -- A conversation has members, and nothing else.
            AND $3 IS NULL
        UNION ALL
        -- Deletes by others: what was restored and deleted since must stay away.
        SELECT {{list "a." .Key}}, a.{{.Owner}}, NULL, NULL, a.deleted_at, false, false
        FROM {{.AuditTable}} AS a
        WHERE a.run_id IS NULL
            AND a.deleted_at >= coalesce($4, (SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = $1), '-infinity')
            AND ($2 IS NULL OR a.{{.Owner}} IN (SELECT unnest($2)))
    ),
    newest AS (
        -- Of a row that was deleted more than once, the last backup counts; it is restored if any of its deletions was chosen.
        SELECT DISTINCT ON ({{numbers "e." .Key}})
            e.*,
            bool_or(e.is_chosen) OVER events_of_row AS any_chosen,
            coalesce(max(e.happened_at) FILTER (WHERE NOT e.is_backup) OVER events_of_row > e.happened_at, false) AS has_left
        FROM events AS e
        WINDOW events_of_row AS (PARTITION BY {{numbers "e." .Key}})
        ORDER BY {{numbers "e." .Key}}, e.is_backup DESC, e.happened_at DESC, e.run_id DESC
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
        ROW({{numbers "n." .Key}})::text
    FROM newest AS n
    -- One lookup a row, whatever the planner believes: without statistics it would read whole tables.
    LEFT JOIN LATERAL (
        SELECT ROW({{list "m." .Stored}})::text = n.row_deleted AS is_same
        FROM {{.Table}} AS m
        WHERE {{matched "m." "n." .Key}}
        LIMIT 1
    ) AS x ON true
    WHERE n.any_chosen
$$;
{{end}}

{{define "restore_chunk_delete" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_restore_chunk(
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
-- Whatever columns the table has, these names are the variables.
#variable_conflict use_variable
DECLARE
    run orphan_cleaner.runs := orphan_cleaner.run_open(of_restore, of_token, 'restore');
    restored bigint;
    marked bigint;
    differing bigint;
BEGIN
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    WITH page AS (
        SELECT b.*
        FROM {{.BackupTable}} AS b
        CROSS JOIN LATERAL (
            SELECT
            FROM orphan_cleaner.restores AS r
            WHERE r.run_id = of_restore AND r.user_id = b.{{.Owner}} AND r.conversation_id = '00000000-0000-0000-0000-000000000000'
                AND r.target = {{literal .Name}} AND r.row_key = ROW({{list "b." .Key}})::text
                AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
                AND r.state = 'planned'
            LIMIT 1
        ) AS planned
        WHERE b.backed_up_at >= day::timestamp AT TIME ZONE 'UTC' AND b.backed_up_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
            AND b.ctid >= format('(%s,0)', first_page)::tid AND b.ctid < format('(%s,0)', first_page + pages)::tid
            -- Nor what was made again and deleted since the plan was made.
            AND NOT EXISTS (
                SELECT
                FROM {{.AuditTable}} AS a
                WHERE a.run_id IS NULL
                    AND a.deleted_at >= run.started_at - interval '1 minute'
                    AND a.deleted_at > b.backed_up_at
                    AND {{equal "a." "b." .Key}}
            )
        -- Always in one order: two writers cannot deadlock.
        ORDER BY {{list "b." .Key}}
    ),
    restored_rows AS (
        INSERT INTO {{.Table}} AS m ({{list "" .Stored}}) OVERRIDING SYSTEM VALUE
        SELECT {{list "p." .Stored}} FROM page AS p
        -- A row that is there is newer, and stays as it is.
        ON CONFLICT DO NOTHING
        RETURNING m.{{.Owner}} AS owner, ROW({{list "m." .Key}})::text AS row_key, ROW({{list "m." .Stored}})::text AS row_restored
    ),
    marked_rows AS (
        UPDATE orphan_cleaner.restores AS r
        SET state = 'restored'
        FROM restored_rows AS g
        WHERE r.run_id = of_restore AND r.user_id = g.owner AND r.conversation_id = '00000000-0000-0000-0000-000000000000'
            AND r.target = {{literal .Name}} AND r.row_key = g.row_key
        RETURNING r.user_id
    ),
    held AS (
        INSERT INTO orphan_cleaner.holds (user_id, reason, until, run_id)
        SELECT DISTINCT g.owner, 'restored by run ' || of_restore::text, now() + hold, of_restore
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
                SELECT ROW({{list "p." .Stored}})::text FROM page AS p
            ) AS other
        )
    INTO restored, marked, differing;
    -- As in {{.Name}}_delete.
    SET CONSTRAINTS ALL IMMEDIATE;
    IF restored <> marked OR differing > 0 THEN
        RAISE EXCEPTION 'restore proof failed: % restored, % recorded, % other than they were', restored, marked, differing
            USING ERRCODE = 'OC005', HINT = 'Does a trigger on {{.Name}} change rows on their way in? Run: orphan-cleaner check';
    END IF;
    UPDATE orphan_cleaner.runs AS r SET heartbeat_at = clock_timestamp() WHERE r.run_id = of_restore;
    RETURN restored;
END
$$;
{{end}}
