{{define "counts" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_counts(counted jsonb, sign integer)
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
    IF counted IS NULL
    {{- if .Shipped}} OR NOT EXISTS (SELECT FROM orphan_cleaner.effects AS e WHERE e.name = 'counter' AND e.choice = 'on'){{end}} THEN
        RETURN;
    END IF;
    -- One chunk at a time changes counts, of whatever table: two cannot deadlock. Who deletes a row of {{.Counter.Table}} may
    -- wait for rows of this transaction, since it began at the earliest, and looks for a deadlock after a second: nobody is
    -- to be found waiting then.
    IF clock_timestamp() > now() + interval '700 ms' THEN
        LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
        PERFORM
        FROM {{.Counter.Table}} AS c
        JOIN (SELECT {{countedKey .Counter.Key}} FROM jsonb_array_elements(counted) AS e (value)) AS d ON {{matched "c." "d." .Counter.Key}}
        FOR NO KEY UPDATE OF c NOWAIT;
    ELSE
        LOCK TABLE orphan_cleaner.effects IN SHARE UPDATE EXCLUSIVE MODE;
    END IF;
    -- Triggers of the application fire in here, and may qualify nothing.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    -- A difference and no recount: the application may change the count in a transaction of its own. In the order of the key.
    UPDATE {{.Counter.Table}} AS c
    SET {{.Counter.Column.Ident}} = greatest(c.{{.Counter.Column.Ident}} + d.difference, 0)
    FROM (
        SELECT {{numbers "k." .Counter.Key}}, sign * sum(k.n)::bigint AS difference
        FROM (SELECT {{countedKey .Counter.Key}}, (e.value ->> {{len .Counter.Key}})::bigint AS n FROM jsonb_array_elements(counted) AS e (value)) AS k
        GROUP BY {{numbers "k." .Counter.Key}}
        ORDER BY {{numbers "k." .Counter.Key}}
        OFFSET 0
    ) AS d
    WHERE {{matched "c." "d." .Counter.Key}}
        AND c.{{.Counter.Column.Ident}} IS NOT NULL;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed < (
        SELECT count(*)
        FROM (SELECT DISTINCT {{countedKey .Counter.Key}} FROM jsonb_array_elements(counted) AS e (value)) AS d
        JOIN {{.Counter.Table}} AS c ON {{matched "c." "d." .Counter.Key}}
        WHERE c.{{.Counter.Column.Ident}} IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the % of % rows of % was changed, not of all: a trigger or rule keeps it', {{literal .Counter.Column.Ident}}, changed, {{literal .Counter.Table}}
            USING ERRCODE = 'OC006', HINT = {{if .Shipped}}'Correct it, or: orphan-cleaner effects set counter=unread'{{else}}'Correct it, or print the target without its counter.'{{end}};
    END IF;
END
$$;
{{end}}

{{define "counted_keys" -}}
jsonb_agg(jsonb_build_array({{numbers "k." .Counter.Key}}, k.n))
{{- end}}
