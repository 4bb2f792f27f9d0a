{{define "head" -}}
-- Printed by `orphan-cleaner target print`: change targets.yaml and print again, not this file.
{{- end}}

{{define "types" -}}
-- The types are those of the table.
-- squawk-ignore-file prefer-bigint-over-int, prefer-bigint-over-smallint, prefer-text-field, prefer-timestamp-tz, ban-char-field
{{- end}}

{{define "recorded" -}}
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
{{- end}}

{{define "functions"}}
-- +goose StatementBegin
{{join .}}-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION{{names .}} FROM PUBLIC;
{{- range .}}
COMMENT ON FUNCTION orphan_cleaner.{{.Name}} IS {{literal .Comment}};
{{- end}}
{{- end}}

{{define "owned" -}}
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
{{- if .Tables}}
    FOREACH item IN ARRAY ARRAY[{{range $i, $t := .Tables}}{{if $i}}, {{end}}{{literal $t}}{{end}}] LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s OWNER TO %I', item, owner);
    END LOOP;
{{- end}}
    FOREACH item IN ARRAY ARRAY[
        {{range $i, $f := .Functions}}{{if $i}},
        {{end}}{{literal $f.Name}}{{end}}
    ] LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION orphan_cleaner.%I OWNER TO %I', item, owner);
    END LOOP;
END
$$;
-- +goose StatementEnd
{{end}}

{{define "registry_insert" -}}
INSERT INTO orphan_cleaner.targets (name, ordinal, table_name, user_column, action, retention, limits, backup_window, counter, audit_table, backup_table, digest)
SELECT
    {{literal .Name}}, max(t.ordinal) + 1, {{literal .Table}}, {{literal .User}}, {{literal .Action}}, {{.Retention}}, {{literal .Limits}}, {{.Window}}, {{template "counter" .}},
    {{literal .AuditTable}}, {{literal .BackupTable}},
    {{literal .Digest}}
FROM orphan_cleaner.targets AS t;
{{end}}

{{define "registry_update" -}}
UPDATE orphan_cleaner.targets AS t
SET retention = {{.Retention}},
    limits = {{literal .Limits}},
    backup_window = {{.Window}},
    counter = {{template "counter" .}},
    digest = {{literal .Digest}},
    applied_at = pg_catalog.now(),
    applied_by = session_user
WHERE t.name = {{literal .Name}};
{{end}}

{{define "counter"}}{{if .Counts}}{{literal .Counts}}{{else}}NULL{{end}}{{end}}

{{define "index" -}}
-- Why:      the scan of {{.Table}} reads user ids in order, a page at a time.
-- Locks:    SHARE UPDATE EXCLUSIVE on {{.Table}}: no read and no write waits. A leftover of a build that failed is dropped first (ACCESS EXCLUSIVE
--           for milliseconds, 3 s at most to get it).
-- Duration: reads the table twice: seconds for a million rows, minutes for a hundred million.
-- Rollback: drops the index; each page of a scan would read the whole table.
{{template "head"}}
-- Index: {{.Name}}
-- But for a leftover, SHARE UPDATE EXCLUSIVE stops no read or write while it waits; giving up would leave an invalid index behind.
-- squawk-ignore-file require-lock-timeout

-- +goose NO TRANSACTION
-- +goose Up
{{template "recorded"}}

{{template "index_up" .}}
-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS {{.Index}};
{{end}}

{{define "index_up" -}}
-- An attempt that was cut off leaves an invalid index behind, which IF NOT EXISTS would take for the real one.
-- +goose StatementBegin
DO $$
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '3s', true);
    IF EXISTS (
        SELECT
        FROM pg_catalog.pg_index
        WHERE indexrelid = pg_catalog.to_regclass({{literal .Index}})
            AND NOT indisvalid
    ) THEN
        DROP INDEX {{.Index}};
    END IF;
END
$$;
-- +goose StatementEnd
{{if .Shipped}}
-- Its storage parameter is the default; said, it tells Down that the index is ours, and not one that was there already.
{{- end}}
CREATE INDEX CONCURRENTLY IF NOT EXISTS {{.IndexName}} ON {{.Table}} ({{.Owner}}){{if .Shipped}} WITH (deduplicate_items = on){{end}};

-- A table that was loaded or restored lately may have no statistics: the planner would then sort the whole table for every page.
ANALYZE {{.Table}};
{{end}}

{{define "create_up" -}}
{{template "evidence" .Model}}
{{- template "functions" .Functions}}

{{template "owned" (owned .Functions .Model.AuditTable (print .Model.AuditTable "_default") .Model.BackupTable)}}
{{- if not .Model.IsUpdate}}
{{template "trigger" .Model}}{{end}}
{{template "registry_insert" .Model}}
SELECT orphan_cleaner.partitions_ensure(7);
{{end}}

{{define "create_down" -}}
{{template "evidence_refuse" .Model}}
DELETE FROM orphan_cleaner.targets WHERE name = {{literal .Model.Name}};
{{- if not .Model.IsUpdate}}
{{template "trigger_drop" .Model}}
{{- end}}
DROP FUNCTION IF EXISTS{{backwards .Functions}};
DROP TABLE {{.Model.BackupTable}};
DROP TABLE {{.Model.AuditTable}};
{{end}}

{{define "create" -}}
-- Why:      {{.Model.Table}} is a target: rows of users whom auth-service no longer knows are {{.Model.Did}}, audited and backed up.
-- Makes:    tables {{.Model.AuditTable}} and {{.Model.Name}}_backup;{{if not .Model.IsUpdate}} triggers on {{.Model.Table}} that audit each DELETE, whoever makes it, and refuse TRUNCATE;{{end}}
--           {{len .Functions}} functions that run as the owner of the schema, granted to nobody; a row of orphan_cleaner.targets. sql/roles.sql grants that owner
--           SELECT, INSERT and {{if .Model.IsUpdate}}UPDATE{{else}}DELETE{{end}} on the table, and restorers SELECT on audit and backup.
{{- if .Model.HasCounter}}
-- Counts:   {{.Model.Counter.Table}}.{{.Model.Counter.Column.Ident}}, in the same transaction: sql/roles.sql grants that owner SELECT and UPDATE of this column.{{end}}
-- Runs:     {{template "runs" .Model}}
-- Locks:    {{template "locks" .Model}}
-- Duration: milliseconds, whatever the size of the table.
-- Rollback: refused while audit or backup holds a row: they are evidence, and the only copy of what was {{.Model.Did}}.
{{template "head"}}
-- Target: {{json .Model}}
{{template "types"}}

-- +goose Up
SET LOCAL lock_timeout = '3s';
-- The table may have changed since: then a later migration makes these functions anew.
SET LOCAL check_function_bodies = off;
-- PostgreSQL refuses to create a partitioned table where it names the database's own tablespace.
SET LOCAL default_tablespace = '';

{{template "recorded"}}

{{template "create_up" .}}
-- +goose Down
SET LOCAL lock_timeout = '3s';

{{template "create_down" .}}
{{- end}}

{{define "runs" -}}
{{if .IsUpdate}}UPDATE {{.Table}} SET {{sets .Sets}}{{else}}DELETE FROM {{.Table}}{{end}} of users who are due, {{if .Aged}}where {{.Aged}} is older than the retention{{else}}whatever the age of the row{{end}}{{if .Condition}} and ({{.Condition}}){{end}}
{{- end}}

{{define "locks" -}}
{{if .IsUpdate -}}
SHARE ROW EXCLUSIVE on orphan_cleaner.runs: no run is open. None on {{.Table}}.
{{- else -}}
SHARE ROW EXCLUSIVE on {{.Table}} for the time of CREATE TRIGGER: writes wait for it, and it waits for running
--           writes, 3 s at most; then it fails and can be repeated. SHARE ROW EXCLUSIVE on orphan_cleaner.runs: no run is open.
{{- end}}
{{- end}}

{{define "drop" -}}
-- Why:      {{.Model.Table}} is no target any more.
-- Locks:    {{if .Model.IsUpdate}}none{{else}}ACCESS EXCLUSIVE{{end}} on {{.Model.Table}}{{if not .Model.IsUpdate}} for the time of DROP TRIGGER, 3 s at most to get it{{end}}. SHARE ROW EXCLUSIVE on orphan_cleaner.runs: no run is open.
-- Duration: milliseconds.
-- Rollback: makes it a target again. Up is refused while candidates have rows in it, or audit or backup holds a row.
{{template "head"}}
-- Dropped: {{.Model.Name}}

-- +goose Up
SET LOCAL lock_timeout = '3s';

{{template "recorded"}}

-- +goose StatementBegin
DO $$
BEGIN
    -- A table that was dropped has no rows.
    IF pg_catalog.to_regclass({{literal .Model.Table}}) IS NOT NULL AND EXISTS (SELECT FROM orphan_cleaner.{{.Model.Name}}_holders(ARRAY(SELECT c.user_id FROM orphan_cleaner.candidates AS c))) THEN
        RAISE EXCEPTION 'refusing to drop target {{.Model.Name}}: candidates have rows in it, which nobody would clean any more'
            USING HINT = 'Wait until they are cleaned or have returned: orphan-cleaner status. A row whose age is null is never cleaned: set its age, or delete it.';
    END IF;
END
$$;
-- +goose StatementEnd

{{template "create_down" .}}
-- +goose Down
SET LOCAL lock_timeout = '3s';
SET LOCAL check_function_bodies = off;
SET LOCAL default_tablespace = '';

{{template "create_up" .}}
{{- template "order_set" .Order}}
{{- end}}

{{define "change" -}}
-- Why:      {{if .Why}}the declaration of {{.New.Name}}, {{.New.Table}} or the program that prints changed: {{.Why}}{{else}}somebody changed the functions or figures of {{.New.Name}} in the database: they become what was printed again{{end}}.
-- Runs:     {{template "runs" .New}}
-- Locks:    SHARE ROW EXCLUSIVE on orphan_cleaner.runs: no run is open.{{if or .AddedBackup .AddedAudit .Retyped}} ACCESS EXCLUSIVE on audit or backup of {{.New.Name}}.{{end}} None on {{.New.Table}}.
-- Duration: {{if .Retyped}}rewrites the backup where a type is stored otherwise.{{else}}milliseconds.{{end}}
-- Rollback: brings the former functions back{{if or .AddedBackup .AddedAudit}}; drops the new columns of audit and backup, refused while they hold a value{{end}}.
{{template "head"}}
-- Target: {{json .New}}
{{template "types"}}

-- +goose Up
SET LOCAL lock_timeout = '3s';
SET LOCAL check_function_bodies = off;

{{template "recorded"}}
{{range .AddedAudit}}
ALTER TABLE {{$.New.AuditTable}} ADD COLUMN {{.Ident}} {{.Type}};
COMMENT ON COLUMN {{$.New.AuditTable}}.{{.Ident}} IS 'As it was before.';
{{end}}
{{- range .AddedBackup}}
ALTER TABLE {{$.New.BackupTable}} ADD COLUMN {{.Ident}} {{.Type}};
COMMENT ON COLUMN {{$.New.BackupTable}}.{{.Ident}} IS 'As it was in {{$.New.Table}}.';
{{end}}
{{- range .Retyped}}
ALTER TABLE {{.Table}} ALTER COLUMN {{.Ident}} TYPE {{.To}} USING {{.Ident}}::text::{{.To}};
{{end}}
{{- if .Gone}}
DROP FUNCTION IF EXISTS{{backwards .Gone}};
{{end}}
{{- if .After}}{{template "functions" .After}}

{{template "owned" (owned .After)}}{{end}}
{{template "registry_update" .New}}
-- +goose Down
SET LOCAL lock_timeout = '3s';
SET LOCAL check_function_bodies = off;
{{- if .Added}}

DROP FUNCTION IF EXISTS{{backwards .Added}};
{{- end}}
{{if .Before}}{{template "functions" .Before}}

{{template "owned" (owned .Before)}}{{end}}
{{template "registry_update" .Old}}
{{- if or .AddedAudit .AddedBackup}}
-- +goose StatementBegin
DO $$
BEGIN
{{- range .AddedBackup}}
    IF EXISTS (SELECT FROM {{$.New.BackupTable}} AS b WHERE b.{{.Ident}} IS NOT NULL) THEN
        RAISE EXCEPTION 'refusing to take back {{.Ident}}: a value of it was backed up and would be lost'
            USING HINT = 'Restore those rows first, or leave the column where it is.';
    END IF;
{{- end}}
END
$$;
-- +goose StatementEnd
{{- end}}
{{- range .Retyped}}
ALTER TABLE {{.Table}} ALTER COLUMN {{.Ident}} TYPE {{.From}} USING {{.Ident}}::text::{{.From}};
{{- end}}
{{- range .AddedAudit}}
ALTER TABLE {{$.New.AuditTable}} DROP COLUMN {{.Ident}};
{{- end}}
{{- range .AddedBackup}}
ALTER TABLE {{$.New.BackupTable}} DROP COLUMN {{.Ident}};
{{- end}}
{{end}}

{{define "order_set"}}
-- Two steps: no two targets share an ordinal in between.
UPDATE orphan_cleaner.targets AS t SET ordinal = -t.ordinal WHERE t.name IN ({{range $i, $n := .}}{{if $i}}, {{end}}{{literal $n}}{{end}});
UPDATE orphan_cleaner.targets AS t
SET ordinal = o.ordinal + 1
FROM (VALUES {{range $i, $n := .}}{{if $i}}, {{end}}({{literal $n}}, {{add $i 1}}){{end}}) AS o (name, ordinal)
WHERE t.name = o.name;
{{end}}

{{define "order" -}}
-- Why:      the order in which a chunk goes through the targets changed.
-- Locks:    SHARE ROW EXCLUSIVE on orphan_cleaner.runs: no run is open.
-- Duration: milliseconds.
-- Rollback: brings the former order back.
{{template "head"}}
-- Order: {{range $i, $n := .New}}{{if $i}} {{end}}{{$n}}{{end}}

-- +goose Up
SET LOCAL lock_timeout = '3s';

{{template "recorded"}}
{{template "order_set" .New}}
-- +goose Down
SET LOCAL lock_timeout = '3s';
{{template "order_set" .Old}}
{{- end}}
