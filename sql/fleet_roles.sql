-- What:    the role of a fleet's workers, and its grants in the control database. River needs to write to its own tables;
--          ours are changed by functions alone. It may not approve: that is the owner's.
-- Locks:   ACCESS SHARE and the catalog's; milliseconds.
-- As:      the owner of the schema, with CREATEROLE; again after each `orphan-cleaner fleet migrate`.
-- Example: psql "$CONTROL_URL" -f sql/fleet_roles.sql
--          psql "$CONTROL_URL" -c 'CREATE ROLE fleet_worker LOGIN IN ROLE orphan_cleaner_fleet' -c '\password fleet_worker'

\set ON_ERROR_STOP on
BEGIN;
SET LOCAL lock_timeout = '3s';
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'orphan_cleaner_fleet') THEN
        CREATE ROLE orphan_cleaner_fleet NOLOGIN;
    END IF;
END
$$;
GRANT USAGE ON SCHEMA orphan_cleaner_fleet TO orphan_cleaner_fleet;
GRANT SELECT ON
    orphan_cleaner_fleet.runs, orphan_cleaner_fleet.shards, orphan_cleaner_fleet.ranges, orphan_cleaner_fleet.approvals, orphan_cleaner_fleet.pauses
    TO orphan_cleaner_fleet;
GRANT EXECUTE ON FUNCTION
    orphan_cleaner_fleet.run_begin(text [], text, interval),
    orphan_cleaner_fleet.shard_done(bigint, text, boolean, jsonb),
    orphan_cleaner_fleet.ranges_add(bigint, uuid [], uuid []),
    orphan_cleaner_fleet.range_done(bigint, uuid, uuid, bytea, uuid [], interval),
    orphan_cleaner_fleet.wave_begin(bigint, bigint, text [], jsonb, bigint),
    orphan_cleaner_fleet.run_end(bigint, text, text, text, jsonb),
    orphan_cleaner_fleet.take_calls(bigint, double precision),
    orphan_cleaner_fleet.pause(text, text),
    orphan_cleaner_fleet.resume(text)
    TO orphan_cleaner_fleet;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    orphan_cleaner_fleet.river_job, orphan_cleaner_fleet.river_leader, orphan_cleaner_fleet.river_queue
    TO orphan_cleaner_fleet;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA orphan_cleaner_fleet TO orphan_cleaner_fleet;
GRANT SELECT ON orphan_cleaner_fleet.river_migration TO orphan_cleaner_fleet;
COMMIT;
