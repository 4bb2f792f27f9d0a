{{define "restore_plan_delete" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_restore_plan(
    of_run bigint,
    of_users uuid [],
    of_conversations uuid [],
    since timestamptz,
    until timestamptz
)
RETURNS TABLE (conversation_id uuid, user_id uuid, deleted_run bigint, backed_up_at timestamptz, verdict text, row_key text)
LANGUAGE {{if .Shipped}}plpgsql{{else}}sql{{end}}
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- Without statistics all of the audit's months are read, and not what its BRIN says.
SET enable_seqscan = off
SET jit = off
AS $$
{{- if .Shipped}}
BEGIN
    RETURN QUERY EXECUTE format($statement$
{{- end}}
    WITH events AS (
        SELECT
            {{numbered "b." .Key}}, b.{{.Owner}} AS owner, {{row "b." 1 .}} AS row_deleted,
            b.run_id, b.backed_up_at AS happened_at, true AS is_backup,
            ($1 IS NULL OR b.run_id = $1) AND ($4 IS NULL OR b.backed_up_at >= $4) AND ($5 IS NULL OR b.backed_up_at < $5) AS is_chosen
        FROM {{.BackupTable}} AS b
        -- Backups of a run are not older than the run, but for a clock that went back meanwhile.
        WHERE b.backed_up_at >= {{template "plan_since" .}}
            -- A subquery is hashed, an array would be searched from its beginning for each row.
            AND ($2 IS NULL OR b.{{.Owner}} IN (SELECT unnest($2)))
            -- Emptied on request of the law.
            AND b.{{.Owner}} IS NOT NULL
{{- if .Shipped}}
            AND b.conversation_id IS NOT NULL
            AND ($3 IS NULL OR b.conversation_id IN (SELECT unnest($3)))
{{- else}}
            -- A conversation has members, and nothing else.
            AND $3 IS NULL
{{- end}}
        UNION ALL
        -- Deletes by others: what was restored and deleted since must stay away.
        SELECT {{list "a." .Key}}, a.{{.Owner}}, NULL, NULL, a.deleted_at, false, false
        FROM {{.AuditTable}} AS a
        WHERE a.run_id IS NULL
            AND a.deleted_at >= {{template "plan_since" .}}
            AND ($2 IS NULL OR a.{{.Owner}} IN (SELECT unnest($2)))
{{- if .Shipped}}
            AND ($3 IS NULL OR a.conversation_id IN (SELECT unnest($3)))
{{- end}}
    ),
    -- One sort, and no join between large sets: nobody keeps statistics for it.
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
        {{if .Shipped}}n.k1{{else}}'00000000-0000-0000-0000-000000000000'::uuid{{end}},
        n.owner,
        n.run_id,
        n.happened_at,
        CASE
{{- if .Shipped}}
            WHEN c.is_there IS NULL THEN 'conversation_gone'
{{- end}}
            WHEN x.is_same THEN 'there'
            WHEN x.is_same IS NOT NULL THEN 'there_differs'
            WHEN n.has_left THEN 'left_since'
            ELSE 'restore'
        END,
        {{if .Shipped}}''{{else}}ROW({{numbers "n." .Key}})::text{{end}}
    FROM newest AS n
    -- One lookup a row, whatever the planner believes: without statistics it would read whole tables.
{{- if .Shipped}}
    LEFT JOIN LATERAL (
        SELECT true AS is_there FROM public.conversations AS g WHERE g.id = n.k1 LIMIT 1
    ) AS c ON true
{{- end}}
    LEFT JOIN LATERAL (
        SELECT {{row "m." 2 .}} = n.row_deleted AS is_same
        FROM {{.Table}} AS m
        WHERE {{matched "m." "n." .Key}}
        LIMIT 1
    ) AS x ON true
    WHERE n.any_chosen
{{- if .Shipped}}
    $statement$, orphan_cleaner.members_columns('b.@::text', ', '), orphan_cleaner.members_columns('m.@::text', ', '))
    USING of_run, of_users, of_conversations, since, until,
        -- A value, by which the planner leaves out the days before: it would lock each that a subquery leaves out later.
        greatest(since, (SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = of_run), '-infinity');
END
{{- end}}
$$;
{{end}}

{{define "restore_chunk_delete" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_restore_chunk(
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
-- As in {{.Name}}_delete.
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
{{- if .HasCounter}}
    counted jsonb;
{{- end}}
{{- if .Shipped}}
    users uuid [];
    conversations uuid [];
{{- end}}
    day_begin timestamptz := day::timestamp AT TIME ZONE 'UTC';
    day_end timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    first_place tid := format('(%s,0)', first_page)::tid;
    end_place tid := format('(%s,0)', first_page + pages)::tid;
    planned_at timestamptz := run.started_at - interval '1 minute';
BEGIN
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
{{- if .Shipped}}
    EXECUTE format($statement$
{{- end}}
    WITH page AS (
        SELECT b.*
        FROM {{.BackupTable}} AS b
        CROSS JOIN LATERAL (
            SELECT
            FROM orphan_cleaner.restores AS r
            WHERE r.run_id = {{value "of_restore" 1 .}} AND r.user_id = b.{{.Owner}} AND r.conversation_id = {{conversation "b." .}}
                AND r.target = {{literal .Name}} AND r.row_key = {{rowKey "b." .}}
                AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
                AND r.state = 'planned'
            LIMIT 1
        ) AS planned
        WHERE b.backed_up_at >= {{value "day_begin" 2 .}} AND b.backed_up_at < {{value "day_end" 3 .}}
            AND b.ctid >= {{value "first_place" 4 .}} AND b.ctid < {{value "end_place" 5 .}}
            AND b.{{.Owner}} IN (SELECT unnest({{value "of_users" 8 .}}))
{{- if .Shipped}}
            AND EXISTS (SELECT FROM public.conversations AS c WHERE c.id = b.conversation_id)
{{- end}}
            -- Nor what was made again and deleted since the plan was made.
            AND NOT EXISTS (
                SELECT
                FROM {{.AuditTable}} AS a
                WHERE a.run_id IS NULL
                    AND a.deleted_at >= {{value "planned_at" 6 .}}
                    AND a.deleted_at > b.backed_up_at
                    AND {{equal "a." "b." .Key}}
            )
        -- Always in one order: two writers cannot deadlock.
        ORDER BY {{list "b." .Key}}
    ),
    restored_rows AS (
        INSERT INTO {{.Table}} AS m ({{if .Shipped}}%1$s{{else}}{{list "" .Stored}}{{end}}) OVERRIDING SYSTEM VALUE
        SELECT {{if .Shipped}}%1$s{{else}}{{list "p." .Stored}}{{end}} FROM page AS p
{{- if .Shipped}}
        -- Once, before the first row.
        WHERE CASE WHEN EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.choice = 'trigger')
            THEN (SELECT orphan_cleaner.conversations_lock(array_agg(o.conversation_id)) FROM page AS o) ELSE true END
{{- end}}
        -- A row that is there is newer, and stays as it is.
        ON CONFLICT DO NOTHING
        RETURNING {{.OwnerAs}}, {{if .Shipped}}m.conversation_id{{else}}{{rowKey "m." .}} AS row_key{{end}}, {{row "m." 2 .}} AS row_restored
            {{- if .HasCounter}}, {{countedOf "m." .}}{{end}}
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
                WHERE l.run_id = {{value "of_restore" 1 .}} AND l.user_id = g.user_id AND l.conversation_id = {{conversation "g." .}}
                    AND l.target = {{literal .Name}} AND l.row_key = {{if .Shipped}}''{{else}}g.row_key{{end}}
                LIMIT 1
            ) AS o
        ))
        RETURNING r.user_id
    ),
    held AS (
        INSERT INTO orphan_cleaner.holds (user_id, reason, until, run_id)
        SELECT DISTINCT g.user_id, 'restored by run ' || {{value "of_restore" 1 .}}::text, now() + {{value "hold" 7 .}}, {{value "of_restore" 1 .}}
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
                SELECT {{row "p." 3 .}} FROM page AS p
            ) AS other
        )
        {{- if .HasCounter}},
        (SELECT {{template "counted_keys" .}} FROM (SELECT {{numbers "g." .Counter.Key}}, count(*) AS n FROM restored_rows AS g GROUP BY {{numbers "g." .Counter.Key}}) AS k){{end}}
{{- if .Shipped}},
        (SELECT array_agg(g.user_id ORDER BY g.user_id, g.conversation_id) FROM restored_rows AS g),
        (SELECT array_agg(g.conversation_id ORDER BY g.user_id, g.conversation_id) FROM restored_rows AS g)
    $statement$,
        orphan_cleaner.members_columns('@', ', '), orphan_cleaner.members_columns('m.@::text', ', '), orphan_cleaner.members_columns('p.@::text', ', '))
    INTO restored, marked, differing, counted, users, conversations
    USING of_restore, day_begin, day_end, first_place, end_place, planned_at, hold, of_users;
{{- else}}
    INTO restored, marked, differing{{if .HasCounter}}, counted{{end}};
{{- end}}
    -- As in {{.Name}}_delete.
    SET CONSTRAINTS ALL IMMEDIATE;
    IF restored <> marked OR differing > 0 THEN
        RAISE EXCEPTION 'restore proof failed: % restored, % recorded, % other than they were', restored, marked, differing
            USING ERRCODE = 'OC005', HINT = 'Does a trigger on {{.Name}} change rows on their way in? Run: orphan-cleaner check';
    END IF;
{{- if .Shipped}}
    PERFORM orphan_cleaner.owners_return(of_restore, users, conversations);
{{- end}}
{{- if .HasCounter}}
    PERFORM orphan_cleaner.{{.Name}}_counts(counted, 1);
{{- end}}
    UPDATE orphan_cleaner.runs AS r
    SET {{if .Shipped}}members_restored = r.members_restored + restored, {{end}}heartbeat_at = clock_timestamp()
    WHERE r.run_id = of_restore;
    RETURN restored;
END
$$;
{{end}}

{{define "plan_since" -}}
{{if .Shipped}}$6{{else}}greatest($4, (SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = $1), '-infinity'){{end}}
{{- end}}
