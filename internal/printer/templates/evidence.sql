{{define "evidence" -}}
CREATE TABLE {{.AuditTable}} (
{{- range .Audit}}
    {{.Ident}} {{.Type}},
{{- end}}
    deleted_at timestamptz NOT NULL,
    deleted_by text NOT NULL,
    application text NOT NULL,
    run_id bigint,
    txid bigint NOT NULL
) PARTITION BY RANGE (deleted_at);

ALTER TABLE {{.AuditTable}} REPLICA IDENTITY FULL;

-- Rows arrive in the order of deleted_at: a BRIN of a few pages finds a day or a run, and costs next to nothing.
-- Autovacuum summarizes it; autosummarize would fill the server's log.
CREATE INDEX {{.Name}}_audit_deleted_at
    ON {{.AuditTable}} USING brin (deleted_at) WITH (pages_per_range = 16, autosummarize = off);

{{if not .IsUpdate -}}
-- The application's own deletes must never fail for want of a partition.
{{end -}}
CREATE TABLE {{.AuditTable}}_default PARTITION OF {{.AuditTable}} DEFAULT
    WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0);
ALTER TABLE {{.AuditTable}}_default REPLICA IDENTITY FULL;

COMMENT ON TABLE {{.AuditTable}} IS 'One row for each {{if .IsUpdate}}row of {{.Table}} that a run updated{{else}}deleted row of {{.Table}}, written by a trigger, whoever deleted it{{end}}. Partitioned by month (UTC).';
COMMENT ON TABLE {{.AuditTable}}_default IS 'Catches rows of a month without a partition; stays empty while partitions are made ahead.';
{{- range .Audit}}
COMMENT ON COLUMN {{$.AuditTable}}.{{.Ident}} IS 'As it was before.';
{{- end}}
COMMENT ON COLUMN {{.AuditTable}}.deleted_at IS 'Start of the transaction that {{.Did}} the row.';
COMMENT ON COLUMN {{.AuditTable}}.deleted_by IS 'session_user of the session that {{.Did}} it.';
COMMENT ON COLUMN {{.AuditTable}}.application IS 'application_name of that session.';
COMMENT ON COLUMN {{.AuditTable}}.run_id IS 'The run of orphan-cleaner that {{.Did}} it{{if not .IsUpdate}}; null: somebody else{{end}}.';
COMMENT ON COLUMN {{.AuditTable}}.txid IS 'pg_current_xact_id() of that transaction.';

-- No DEFAULT partition: without a partition for the backup there is no {{.Action}}.
CREATE TABLE {{.BackupTable}} (
{{- if .Shipped}}
    -- Its columns as they are here and now, then ours.
    LIKE {{.Table}},
{{- end}}
{{- range .Backup}}
    {{.Ident}} {{.Type}},
{{- end}}
{{- if .IsUpdate}}
    set_to jsonb,
{{- end}}
    backed_up_at timestamptz NOT NULL,
    run_id bigint NOT NULL
) PARTITION BY RANGE (backed_up_at);

ALTER TABLE {{.BackupTable}} REPLICA IDENTITY FULL;
{{- if .Shipped}}

-- A backup takes whatever the table held: the NOT NULLs that LIKE brought along would refuse it on the day one of them is relaxed.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE (
        SELECT 'ALTER TABLE {{.BackupTable}} ' || pg_catalog.string_agg(pg_catalog.format('ALTER COLUMN %I DROP NOT NULL', a.attname), ', ')
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = {{literal .Table}}::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
    );
END
$$;
-- +goose StatementEnd
{{- end}}

COMMENT ON TABLE {{.BackupTable}} IS '{{if .IsUpdate}}What runs overwrote in rows of {{.Table}}{{else}}Whole rows of {{.Table}} that runs deleted{{end}}. Partitioned by UTC day: {{.Name}}_backup_YYYYMMDD.';
{{- range .Backup}}
COMMENT ON COLUMN {{$.BackupTable}}.{{.Ident}} IS 'As it was in {{$.Table}}.';
{{- end}}
{{- if .IsUpdate}}
COMMENT ON COLUMN {{.BackupTable}}.set_to IS 'What each column was set to, as text: a restore changes the row only while it still holds this.';
{{- end}}
COMMENT ON COLUMN {{.BackupTable}}.backed_up_at IS 'Start of the transaction that {{.Did}} the row; equals deleted_at of the audit row.';
COMMENT ON COLUMN {{.BackupTable}}.run_id IS 'The run that {{.Did}} the row.';
{{end}}

{{define "evidence_refuse" -}}
-- Before looking: a row that is being written now must be seen.
LOCK TABLE {{.AuditTable}}, {{.BackupTable}} IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM {{.AuditTable}}) THEN
        RAISE EXCEPTION 'refusing to drop {{.AuditTable}}: it holds evidence of rows that were {{.Did}}'
            USING HINT = 'Copy the rows elsewhere and empty the table first, if you mean it.';
    END IF;
    IF EXISTS (SELECT FROM {{.BackupTable}}) THEN
        RAISE EXCEPTION 'refusing to drop {{.BackupTable}}: it is the only copy of what was {{.Did}}'
            USING HINT = 'Restore or copy the rows and empty the table first, if you mean it.';
    END IF;
END
$$;
-- +goose StatementEnd
{{end}}

{{define "trigger" -}}
-- A statement trigger with a transition table costs half of what a row trigger does.
CREATE TRIGGER {{.Name}}_audit_delete
    AFTER DELETE ON {{.Table}}
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION orphan_cleaner.{{.Name}}_audit_deleted();
CREATE TRIGGER {{.Name}}_refuse_truncate
    BEFORE TRUNCATE ON {{.Table}}
    FOR EACH STATEMENT EXECUTE FUNCTION orphan_cleaner.refuse_truncate();
-- ALWAYS: also under session_replication_role = replica.
ALTER TABLE {{.Table}} ENABLE ALWAYS TRIGGER {{.Name}}_audit_delete;
ALTER TABLE {{.Table}} ENABLE ALWAYS TRIGGER {{.Name}}_refuse_truncate;
{{end}}

{{define "trigger_drop" -}}
-- IF EXISTS: down and up again is how a trigger that somebody dropped comes back.
DROP TRIGGER IF EXISTS {{.Name}}_audit_delete ON {{.Table}};
DROP TRIGGER IF EXISTS {{.Name}}_refuse_truncate ON {{.Table}};
{{end}}
