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
SET lock_timeout = '2s'
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    -- As in {{.Name}}_delete.
    first_xid bigint := checked_from::text::bigint;
    window_size bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint - first_xid + 1000000;
    chosen tid [];
    keys text [];
BEGIN
    SELECT coalesce(array_agg(m.ctid), '{}'), array_agg(b.{{.Owner}}), array_agg(ROW({{list "m." .Key}})::text)
    INTO chosen, user_ids, keys
    FROM {{.BackupTable}} AS b
    CROSS JOIN LATERAL (
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = reverted_run AND r.user_id = b.{{.Owner}} AND r.conversation_id = '00000000-0000-0000-0000-000000000000'
            AND r.target = {{literal .Name}} AND r.row_key = ROW({{list "b." .Key}})::text
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = 'restored'
        LIMIT 1
    ) AS listed
    JOIN {{.Table}} AS m ON {{equal "m." "b." .Key}}
    WHERE b.backed_up_at >= day::timestamp AT TIME ZONE 'UTC' AND b.backed_up_at < (day + 1)::timestamp AT TIME ZONE 'UTC'
        AND b.ctid >= format('(%s,0)', first_page)::tid AND b.ctid < format('(%s,0)', first_page + pages)::tid
        -- Missing when the run was judged, and just again.
        AND b.{{.Owner}} = ANY (of_users)
        AND EXISTS (SELECT FROM orphan_cleaner.sightings AS s WHERE s.run_id = run.run_id AND s.user_id = b.{{.Owner}})
        -- As it was restored: a row that was used since is somebody's.
{{- if .IsUpdate}}
        AND m.{{.Owner}} = b.{{.Owner}}
        AND ROW({{list "m." .Sets}})::text = ROW({{was "b." "m." .Sets}})::text
{{- else}}
        AND ROW({{list "m." .Stored}})::text = ROW({{list "b." .Stored}})::text
{{- end}}
        AND (m.xmin::text::bigint - first_xid % 4294967296 + 4294967296) % 4294967296 >= window_size
        AND NOT EXISTS (
            SELECT
            FROM orphan_cleaner.holds_in_force AS h
            WHERE h.user_id = b.{{.Owner}}
                -- Another restore's hold is about the rows that it restored itself.
                AND (
                    h.run_id IS NULL
                    OR h.run_id <> reverted_run
                    AND EXISTS (
                        SELECT
                        FROM orphan_cleaner.restores AS o
                        WHERE o.run_id = h.run_id AND o.user_id = b.{{.Owner}}
                            AND o.conversation_id = '00000000-0000-0000-0000-000000000000' AND o.target = {{literal .Name}}
                            AND o.row_key = ROW({{list "m." .Key}})::text AND o.state = 'restored'
                        -- Looked up, and not hashed from the whole list, for each row.
                        OFFSET 0
                    )
                )
        );
    rows_chosen := cardinality(chosen)::bigint;
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
    FROM unnest(user_ids, keys) AS d (user_id, row_key)
    WHERE r.run_id = reverted_run
        AND r.user_id = d.user_id
        AND r.target = {{literal .Name}}
        AND r.row_key = d.row_key;
    RETURN NEXT;
END
$$;
{{end}}
