{{define "revert_chunk" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_revert_chunk(
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
-- As in {{.Name}}_delete.
SET lock_timeout = '500ms'
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    -- As in {{.Name}}_delete.
    first_xid bigint := checked_from::text::bigint;
    window_size bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - first_xid + 1000000;
    chosen tid [];
    keys {{if .Shipped}}uuid{{else}}text{{end}} [];
    day_begin timestamptz := day::timestamp AT TIME ZONE 'UTC';
    day_end timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    first_place tid := format('(%s,0)', first_page)::tid;
    end_place tid := format('(%s,0)', first_page + pages)::tid;
{{- if .HasCounter}}
    counted jsonb;
{{- end}}
BEGIN
{{- if .Shipped}}
    EXECUTE format($statement$
{{- end}}
    SELECT coalesce(array_agg(m.ctid), '{}'){{if not .Shipped}} INTO chosen{{end}}
    FROM {{.BackupTable}} AS b
    CROSS JOIN LATERAL (
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = {{value "reverted_run" 1 .}} AND r.user_id = b.{{.Owner}} AND r.conversation_id = {{conversation "b." .}}
            AND r.target = {{literal .Name}} AND r.row_key = {{rowKey "b." .}}
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = 'restored'
        LIMIT 1
    ) AS listed
    JOIN {{.Table}} AS m ON {{equal "m." "b." .Key}}
    WHERE b.backed_up_at >= {{value "day_begin" 2 .}} AND b.backed_up_at < {{value "day_end" 3 .}}
        AND b.ctid >= {{value "first_place" 4 .}} AND b.ctid < {{value "end_place" 5 .}}
        -- Missing when the run was judged, and just again.
        AND b.{{.Owner}} = ANY ({{value "of_users" 6 .}})
        AND EXISTS (SELECT FROM orphan_cleaner.sightings AS s WHERE s.run_id = {{value "run.run_id" 9 .}} AND s.user_id = b.{{.Owner}} OFFSET 0)
        -- As it was restored: a row that was used since is somebody's.
{{- if .IsUpdate}}
        AND m.{{.Owner}} = b.{{.Owner}}
        AND ROW({{list "m." .Sets}})::text = ROW({{was "b." "m." .Sets}})::text
{{- else}}
        AND {{row "m." 1 .}} = {{row "b." 2 .}}
{{- end}}
        AND (m.xmin::text::bigint - {{value "first_xid" 7 .}} {{mod .}} 4294967296 + 4294967296) {{mod .}} 4294967296 >= {{value "window_size" 8 .}}
        AND NOT EXISTS (
            SELECT
            FROM (
                SELECT u.run_id FROM orphan_cleaner.holds_in_force AS u WHERE u.user_id = b.{{.Owner}}
{{- if .Shipped}}
                UNION ALL
                -- Not OR: by statistics of no hold all of them are read for each row.
                SELECT c.run_id FROM orphan_cleaner.holds_in_force AS c WHERE c.conversation_id = b.conversation_id
{{- end}}
            ) AS h
            -- Another restore's hold is about the rows that it restored itself.
            WHERE h.run_id IS NULL
                OR h.run_id <> {{value "reverted_run" 1 .}}
                AND EXISTS (
                    SELECT
                    FROM orphan_cleaner.restores AS o
                    WHERE o.run_id = h.run_id AND o.user_id = b.{{.Owner}} AND o.conversation_id = {{conversation "b." .}}
                        AND o.target = {{literal .Name}} AND o.row_key = {{rowKey "b." .}}
                        AND o.state = 'restored'
                    -- Looked up, and not hashed from the whole list, for each row.
                    OFFSET 0
                )
        )
{{- if .Shipped}}
    $statement$, orphan_cleaner.members_columns('m.@::text', ', '), orphan_cleaner.members_columns('b.@::text', ', '))
    INTO chosen
    USING reverted_run, day_begin, day_end, first_place, end_place, of_users, first_xid, window_size, run.run_id
{{- end}};
{{- if .Shipped}}
    chosen := orphan_cleaner.{{.Name}}_leave(chosen);
{{- end}}
    SELECT array_agg(m.{{.Owner}}), array_agg({{if .Shipped}}m.conversation_id{{else}}{{rowKey "m." .}}{{end}}) INTO user_ids, keys
    FROM {{.Table}} AS m
    WHERE m.ctid = ANY (chosen);
    rows_chosen := cardinality(chosen)::bigint;
{{- if .HasCounter}}{{template "counted" .}}{{end}}
{{- if .IsUpdate}}
    rows_deleted := orphan_cleaner.{{.Name}}_set(chosen, first_xid, window_size);
{{- else}}
    PERFORM set_config('orphan_cleaner.target', {{literal .Name}}, true);
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    DELETE FROM {{.Table}} AS m
    WHERE m.ctid = ANY (chosen)
        AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 >= window_size;
    GET DIAGNOSTICS rows_deleted = ROW_COUNT;
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM set_config('orphan_cleaner.target', '', true);
{{- end}}
    UPDATE orphan_cleaner.restores AS r
    SET state = 'reverted',
        reverted_by_run = run.run_id
    -- Each looked up by its key, and not hashed from the whole restore for each chunk.
    WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid
        FROM unnest(user_ids, keys) AS d (user_id, {{if .Shipped}}conversation_id{{else}}row_key{{end}})
        CROSS JOIN LATERAL (
            SELECT l.ctid
            FROM orphan_cleaner.restores AS l
            WHERE l.run_id = reverted_run AND l.user_id = d.user_id AND l.conversation_id = {{conversation "d." .}}
                AND l.target = {{literal .Name}} AND l.row_key = {{if .Shipped}}''{{else}}d.row_key{{end}}
            LIMIT 1
        ) AS o
    ));
{{- if .HasCounter}}
    PERFORM orphan_cleaner.{{.Name}}_counts(counted, -1);
{{- end}}
    RETURN NEXT;
END
$$;
{{end}}
