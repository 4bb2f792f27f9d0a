-- auth-service's users as a foreign table. bench.port, bench.socket and bench.auth say where they are.
CREATE EXTENSION postgres_fdw;

DO $$
BEGIN
    EXECUTE format(
        -- As a DBA would tune it: few round trips, and the remote side's own figures.
        'CREATE SERVER auth_service FOREIGN DATA WRAPPER postgres_fdw'
        ' OPTIONS (host %L, port %L, dbname %L, fetch_size ''10000'', use_remote_estimate ''true'')',
        current_setting('bench.socket'), current_setting('bench.port'), current_setting('bench.auth')
    );
END
$$;

CREATE USER MAPPING FOR CURRENT_USER SERVER auth_service OPTIONS (user 'postgres');

CREATE FOREIGN TABLE auth_users (
    id uuid NOT NULL,
    deleted_at timestamptz
) SERVER auth_service OPTIONS (table_name 'users');
