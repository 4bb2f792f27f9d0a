{{define "keep" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_keep(chosen tid [], first_xid bigint, window_size bigint, of_run bigint)
RETURNS TABLE (places tid [], values_set jsonb [], audited bigint, backed_up bigint)
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- As in {{.Name}}_delete.
SET lock_timeout = '500ms'
SET jit = off
AS $$
    WITH old AS MATERIALIZED (
        SELECT
            {{.Base}}.ctid AS place,
            {{listed (print .Base ".") .Kept}},
            jsonb_build_object(
{{- range $i, $s := .Sets}}{{if $i}},{{end}}
                {{literal $s.Name}}, (({{$s.Expression}})::{{$s.Type}})::text
{{- end}}
            ) AS set_to
        FROM {{.Table}}
        WHERE {{.Base}}.ctid = ANY ($1)
            -- The guard once more, for a row that changed while this waited for it.
            AND ({{.Base}}.xmin::text::bigint - $2 % 4294967296 + 4294967296) % 4294967296 >= $3
        FOR UPDATE
    ),
    audit AS (
        INSERT INTO {{.AuditTable}} ({{list "" .Audited}}, deleted_at, deleted_by, application, run_id, txid)
        SELECT {{list "o." .Audited}}, now(), session_user::text, current_setting('application_name'), $4, pg_current_xact_id()::text::bigint
        FROM old AS o
        RETURNING 1
    ),
    backup AS (
        INSERT INTO {{.BackupTable}} ({{list "" .Stored}}, set_to, backed_up_at, run_id)
        SELECT {{list "o." .Stored}}, o.set_to, now(), $4
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
{{end}}

{{define "undone" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_undone(places tid [])
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
AS $$
    SELECT count(*) FROM {{.From}} WHERE m.ctid = ANY ($1)
$$;
{{end}}

{{define "set" -}}
CREATE OR REPLACE FUNCTION orphan_cleaner.{{.Name}}_set(chosen tid [], first_xid bigint, window_size bigint)
RETURNS bigint
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
    kept record;
    done tid [];
    differing bigint;
    undone bigint;
BEGIN
    SELECT k.places, k.values_set, k.audited, k.backed_up INTO kept
    FROM orphan_cleaner.{{.Name}}_keep(chosen, first_xid, window_size, orphan_cleaner.deleting_run()) AS k;
    -- Triggers of the application fire in here, and may qualify nothing: no expression of the target is worked out here.
    PERFORM set_config('search_path', 'pg_catalog, public, pg_temp', true);
    WITH changed AS (
        UPDATE {{.Table}} AS m
        SET
{{- range $i, $s := .Sets}}{{if $i}},{{end}}
            {{$s.Ident}} = (v.set_to ->> {{literal $s.Name}})::{{$s.Type}}
{{- end}}
        FROM unnest(kept.places, kept.values_set) AS v (place, set_to)
        WHERE m.ctid = v.place
            AND m.ctid = ANY (kept.places)
        RETURNING m.ctid AS place, ROW({{list "m." .Sets}})::text IS DISTINCT FROM ROW({{setTo "v." .Sets}})::text AS differs
    )
    SELECT coalesce(array_agg(c.place), '{}'), count(*) FILTER (WHERE c.differs) INTO done, differing
    FROM changed AS c;
    -- Deferred triggers of the application too: at COMMIT they would run as the login, and find no table of public.
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    undone := orphan_cleaner.{{.Name}}_undone(done);
    IF cardinality(done) <> cardinality(chosen) OR differing > 0 OR undone > 0 THEN
        RAISE EXCEPTION '% rows of {{.Name}} chosen, % updated, % other than set, % not done by that: they changed at that moment, or a trigger or rule is in the way',
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
{{end}}
