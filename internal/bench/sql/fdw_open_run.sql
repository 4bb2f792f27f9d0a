-- A run for the audit trigger to go by, which then audits and backs up.
WITH run AS (
    INSERT INTO orphan_runs (kind, phase, lease, host, version, settings)
    VALUES ('clean', 'sweep', interval '1 hour', 'bench', 'bench', '{}')
    RETURNING run_id
)
SELECT set_config('orphan_cleaner.run_id', run_id::text, true)
FROM run
