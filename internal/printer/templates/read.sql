{{define "page" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_page(from_user uuid, max_users bigint)
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
        SELECT {{.OwnerAs}}, count(*) AS row_count
        FROM {{.From}}
        WHERE m.{{.Owner}} >= $1
        GROUP BY m.{{.Owner}}
        ORDER BY m.{{.Owner}}
        LIMIT $2
    ) AS u
$$;
{{end}}

{{define "holders" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_holders(user_ids uuid [])
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
    WHERE EXISTS (SELECT FROM {{.From}} WHERE m.{{.Owner}} = u.user_id OFFSET 0)
$$;
{{end}}

{{define "total" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_total(rows_due bigint, users bigint)
RETURNS double precision
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
AS $$
{{- if .Condition}}
    -- Nobody has statistics of the rows that are not done yet.
    SELECT count(*)::double precision FROM {{.From}}
{{- else}}
    -- Exact in a small table, whose statistics lag behind, and where the figure may matter.
    SELECT CASE
        WHEN t.few < 10000 THEN t.few
        WHEN t.estimate < 10000 OR $2 > t.estimate OR $1 > 50 AND $1 > 0.005 * t.estimate
            THEN (SELECT count(*)::double precision FROM {{.Table}})
        ELSE t.estimate
    END
    FROM (
        SELECT
            (SELECT count(*)::double precision FROM (SELECT FROM {{.Table}} LIMIT 10000) AS m) AS few,
            (SELECT c.reltuples::double precision FROM pg_class AS c WHERE c.oid = {{literal .Table}}::regclass) AS estimate
        -- Worked out once, however often it is named.
        OFFSET 0
    ) AS t
{{- end}}
$$;
{{end}}

{{define "facts" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_facts(user_ids uuid [], horizon timestamptz)
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
            {{.OwnerAs}},
            {{if .Aged}}coalesce(m.{{.Aged}} < $2, false){{else}}true{{end}} AS is_old,
{{- if .Shipped}}
            -- IN, which is hashed once, and not EXISTS, which would be looked up for each row.
            m.conversation_id IN (
                SELECT h.conversation_id
                FROM orphan_cleaner.holds_in_force AS h
                WHERE h.conversation_id IS NOT NULL
            ) OR coalesce(m.role = 'owner' AND orphan_cleaner.is_kept_owner(m.conversation_id, m.user_id), false) AS is_held,
{{- else}}
            -- Of a single row nothing is known that would hold it.
            false AS is_held,
{{- end}}
            {{if .Active}}m.{{.Active}}{{else}}NULL::timestamptz{{end}} AS active_at
        FROM {{.Rows "        "}}
        -- A subquery, so that the planner does not weigh thousands of users one by one.
        WHERE m.{{.Owner}} = ANY (ARRAY(SELECT unnest($1)))
        -- Worked out once for each row, and not for each count.
        OFFSET 0
    ) AS r
    GROUP BY r.user_id
$$;
{{end}}

{{define "canaries" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_canaries(users integer)
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
    -- One of twenty rows behind each of so many points, evenly spread over the ids
{{- if .Active}}: in turn of a user who was active within a month
    -- and of one who was not{{end}}{{if .Aged}}{{if .Active}}, {{else}}: {{end}}in turn of an older and of a younger row{{end}}, where there is one.
    SELECT DISTINCT f.user_id
    FROM generate_series(0, least($1, 1000) - 1) AS points (n)
    CROSS JOIN LATERAL (
        SELECT near.user_id
        FROM (
            SELECT
                {{.OwnerAs}}
                {{- if .Aged}},
                m.{{.Aged}} AS made_at{{end}}
                {{- if .Active}},
                coalesce(m.{{.Active}} > now() - interval '30 days', false) AS is_active{{end}}
            FROM {{.Rows "            "}}
            WHERE m.{{.Owner}} >= (lpad(to_hex(points.n * 65536 / least($1, 1000)), 4, '0') || repeat('0', 28))::uuid
            ORDER BY m.{{.Owner}}
            LIMIT 20
        ) AS near
        WHERE {{if .Aged}}near.made_at < now() - interval '30 days'
            AND {{end}}NOT EXISTS (SELECT FROM orphan_cleaner.candidates AS c WHERE c.user_id = near.user_id OFFSET 0)
        ORDER BY
{{- if .Active}}
            (near.is_active = (points.n % 2 = 0))::integer{{if .Aged}} +{{else}} DESC,{{end}}
{{- end}}
{{- if .Aged}}
            ((near.made_at < now() - interval '1 year') = (points.n % 4 < 2))::integer DESC,
{{- end}}
            near.user_id
        LIMIT 1
    ) AS f
$$;
{{end}}

{{define "choose" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_choose(
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
        FROM {{.Rows "        "}}
        JOIN orphan_cleaner.candidates AS c ON c.user_id = m.{{.Owner}}
        WHERE m.{{.Owner}} = ANY (ARRAY(SELECT unnest($1)))
            AND c.user_id = ANY (ARRAY(SELECT unnest($1)))
            -- The clock{{if .Aged}} and the row are both{{else}} is{{end}} older than the retention.
            AND c.first_missing_at <= $2
{{- if .Aged}}
            AND m.{{.Aged}} < $2
{{- end}}
{{- if .Active}}
            -- Nobody has used it since the clock started.
            AND coalesce(m.{{.Active}} <= c.first_missing_at, true)
{{- end}}
            -- Nobody has changed it since the user was checked.
            AND (m.xmin::text::bigint - $3 % 4294967296 + 4294967296) % 4294967296 >= $4
{{- if .Shipped}}
            -- NOT IN is hashed once, NOT EXISTS would be looked up for each row. It is never null here.
            AND m.conversation_id NOT IN (
                SELECT h.conversation_id
                FROM orphan_cleaner.holds_in_force AS h
                WHERE h.conversation_id IS NOT NULL
            )
            AND (m.role = 'owner' AND orphan_cleaner.is_kept_owner(m.conversation_id, m.user_id)) IS NOT TRUE
{{- end}}
        LIMIT $5 + 1
    ) AS d
$$;
{{end}}

{{define "proof" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_proof(of_run bigint, since timestamptz)
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
        SELECT count(*) AS audited, {{if .Shipped}}count(DISTINCT o.conversation_id){{else}}NULL::bigint{{end}} AS conversations
        FROM {{.AuditTable}} AS o
        WHERE o.run_id = $1 AND o.deleted_at >= $2
    ) AS a
    CROSS JOIN (SELECT count(*) AS backed_up FROM {{.BackupTable}} AS o WHERE o.run_id = $1 AND o.backed_up_at >= $2) AS b
$$;
{{end}}

{{define "restore_chunks" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_restore_chunks(of_restore bigint, in_state text, pages integer)
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
        array_agg(DISTINCT b.{{.Owner}})
    FROM {{.BackupTable}} AS b
    CROSS JOIN LATERAL (
        -- One lookup a row: without statistics the planner would read the list once for each row.
        SELECT
        FROM orphan_cleaner.restores AS r
        WHERE r.run_id = $1 AND r.user_id = b.{{.Owner}} AND r.conversation_id = {{conversation "b." .}}
            AND r.target = {{literal .Name}} AND r.row_key = {{rowKey "b." .}}
            AND r.deleted_run = b.run_id AND r.backed_up_at = b.backed_up_at
            AND r.state = $2
        LIMIT 1
    ) AS listed
    WHERE b.backed_up_at >= (SELECT min(o.backed_up_at) FROM orphan_cleaner.restores AS o WHERE o.run_id = $1)
    GROUP BY 1, 2
    ORDER BY 1, 2
$$;
{{end}}
