{{define "restore_plan_update" -}}
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
SET jit = off
AS $$
    WITH events AS (
        SELECT
            b.*,
            ($1 IS NULL OR b.run_id = $1) AND ($4 IS NULL OR b.backed_up_at >= $4) AND ($5 IS NULL OR b.backed_up_at < $5) AS orphan_chosen
        FROM {{.BackupTable}} AS b
        WHERE b.backed_up_at >= greatest($4, (SELECT r.started_at - interval '1 day' FROM orphan_cleaner.runs AS r WHERE r.run_id = $1), '-infinity')
            -- A subquery is hashed, an array would be searched from its beginning for each row.
            AND ($2 IS NULL OR b.{{.Owner}} IN (SELECT unnest($2)))
            -- Emptied on request of the law.
            AND b.{{.Owner}} IS NOT NULL
            -- A conversation has members, and nothing else.
            AND $3 IS NULL
    ),
    newest AS (
        -- Of a row that was updated more than once, the last backup counts; it is restored if any of its updates was chosen.
        SELECT DISTINCT ON ({{list "e." .Key}})
            e.*,
            bool_or(e.orphan_chosen) OVER (PARTITION BY {{list "e." .Key}}) AS orphan_any_chosen
        FROM events AS e
        ORDER BY {{list "e." .Key}}, e.backed_up_at DESC, e.run_id DESC
    )
    SELECT
        '00000000-0000-0000-0000-000000000000'::uuid,
        n.{{.Owner}},
        n.run_id,
        n.backed_up_at,
        CASE
            WHEN x.is_back THEN 'there'
            WHEN x.is_set THEN 'restore'
            WHEN x.is_set IS NOT NULL THEN 'there_differs'
            ELSE 'left_since'
        END,
        {{rowKey "n." .}}
    FROM newest AS n
    -- One lookup a row, whatever the planner believes: without statistics it would read whole tables.
    LEFT JOIN LATERAL (
        SELECT
            ROW({{list "m." .Sets}})::text = ROW({{was "n." "m." .Sets}})::text AS is_back,
            ROW({{list "m." .Sets}})::text = ROW({{wasSet "n." "m." .Sets}})::text AS is_set
        FROM {{.Table}} AS m
        WHERE {{equal "m." "n." .Key}}
        LIMIT 1
    ) AS x ON true
    WHERE n.orphan_any_chosen
$$;
{{end}}

{{define "restore_chunk_update" -}}
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
    restored bigint;
    marked bigint;
    differing bigint;
{{- if .HasCounter}}
    counted jsonb;
{{- end}}
BEGIN
    PERFORM orphan_cleaner.run_open(of_restore, of_token, 'restore');
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    WITH page AS (
        SELECT b.*
        FROM {{.BackupTable}} AS b
        CROSS JOIN LATERAL (
            SELECT
            FROM orphan_cleaner.restores AS r
            WHERE r.run_id = of_restore AND r.user_id = b.{{.Owner}} AND r.conversation_id = {{conversation "b." .}}
                AND r.target = {{literal .Name}} AND r.row_key = {{rowKey "b." .}}
                AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
                AND r.state = 'planned'
            LIMIT 1
        ) AS planned
        WHERE b.backed_up_at >= day::timestamp AT TIME ZONE 'UTC' AND b.backed_up_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
            AND b.ctid >= format('(%s,0)', first_page)::tid AND b.ctid < format('(%s,0)', first_page + pages)::tid
            AND b.{{.Owner}} IN (SELECT unnest(of_users))
    ),
    restored_rows AS (
        UPDATE {{.Table}} AS m
        SET
{{- range $i, $s := .Sets}}{{if $i}},{{end}}
            {{$s.Ident}} = {{wasOne "p." "m." $s}}
{{- end}}
        FROM page AS p
        WHERE {{equal "m." "p." .Key}}
            -- As the run left it: what was changed since is newer, and stays as it is.
            AND ROW({{list "m." .Sets}})::text = ROW({{wasSet "p." "m." .Sets}})::text
        RETURNING p.{{.Owner}} AS user_id, {{rowKey "m." .}} AS row_key,
            ROW({{list "m." .Sets}})::text IS DISTINCT FROM ROW({{was "p." "m." .Sets}})::text AS differs
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
                WHERE l.run_id = of_restore AND l.user_id = g.user_id AND l.conversation_id = {{conversation "g." .}}
                    AND l.target = {{literal .Name}} AND l.row_key = {{if .Shipped}}''{{else}}g.row_key{{end}}
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
        (SELECT count(*) FROM restored_rows AS g WHERE g.differs)
        {{- if .HasCounter}},
        (SELECT {{template "counted_keys" .}} FROM (SELECT {{numbers "g." .Counter.Key}}, count(*) AS n FROM restored_rows AS g GROUP BY {{numbers "g." .Counter.Key}}) AS k){{end}}
    INTO restored, marked, differing{{if .HasCounter}}, counted{{end}};
    -- As in {{.Name}}_set.
    SET CONSTRAINTS ALL IMMEDIATE;
    IF restored <> marked OR differing > 0 THEN
        RAISE EXCEPTION 'restore proof failed: % restored, % recorded, % other than they were', restored, marked, differing
            USING ERRCODE = 'OC005', HINT = 'Does a trigger on {{.Name}} change rows on their way in? Run: orphan-cleaner check';
    END IF;
{{- if .HasCounter}}
    PERFORM orphan_cleaner.{{.Name}}_counts(counted, 1);
{{- end}}
    UPDATE orphan_cleaner.runs AS r SET heartbeat_at = clock_timestamp() WHERE r.run_id = of_restore;
    RETURN restored;
END
$$;
{{end}}
