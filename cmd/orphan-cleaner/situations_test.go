package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// situation is what somebody else's tool or habit made of the database: docs/surroundings.md, "Also tried", has the
// source of each. In before and made %db%, %today% and %login% are the database, today's date and the runner's login.
type situation struct {
	before string // the first migration
	made   string // after roles.sql
	name   string // of a finding
	status string // of it
	says   string // in finding, error or log
	fails  bool   // the run does, and deletes nothing
	helps  string // puts it right; then a run does its work
	roles  bool   // roles.sql, run again, does
	// undone is put right after the test, where its cleanup could not work otherwise.
	undone string
}

const (
	publicImplicit = `CREATE CAST (%s AS text) WITH INOUT AS IMPLICIT;`
	checksOwner    = `CREATE FUNCTION keep_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF (SELECT count(*) FROM conversation_members WHERE conversation_id = coalesce(new.conversation_id, old.conversation_id)) = -1 THEN RAISE EXCEPTION 'no'; END IF;
			RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER keep_one AFTER INSERT OR DELETE ON conversation_members DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION keep_one()`
	defaults   = `ALTER DATABASE "%db%" SET `
	dropsToday = `; DROP TABLE conversation_members_backup_%today%`
	refusesDDL = `; CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'DDL goes by tickets'; END $$;
		CREATE EVENT TRIGGER no_ddl ON ddl_command_start EXECUTE FUNCTION no_ddl()`
	shadowing = `CREATE FUNCTION lies(uuid, uuid) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
		CREATE OPERATOR public.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = lies);
		CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz '2100-01-01' $$;
		CREATE FUNCTION public.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT text 'lies' $$;
		CREATE FUNCTION public.to_regclass(text) RETURNS regclass LANGUAGE sql AS $$ SELECT NULL::regclass $$;
		CREATE DOMAIN public.text AS pg_catalog.text CHECK (VALUE IS NULL);
		CREATE DOMAIN public.uuid AS pg_catalog.uuid CHECK (VALUE IS NULL);` + defaults + `search_path = public, pg_catalog`
	logsDDL = `CREATE TABLE ddl_log (tag text); CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO ddl_log SELECT command_tag FROM pg_event_trigger_ddl_commands(); END $$;
		CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION log_ddl()`
	variable = `CREATE FUNCTION who() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM current_setting('app.user_id'); RETURN NULL; END $$;
		CREATE TRIGGER who AFTER DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION who()`
	deadServer = `CREATE EXTENSION postgres_fdw; CREATE SERVER gone FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
		CREATE USER MAPPING FOR PUBLIC SERVER gone OPTIONS (user 'nobody', password 'none');
		ALTER TABLE users RENAME TO people; CREATE FOREIGN TABLE users (id uuid, created_at timestamptz, deleted_at timestamptz) SERVER gone;
		GRANT SELECT ON users TO orphan_cleaner_owner`
	people = `ALTER TABLE users RENAME TO people; CREATE VIEW users AS SELECT * FROM people`
)

// anyCast lets most built-in types become text by themselves, as databases of PostgreSQL 8.2 were helped over 8.3.
func anyCast() string {
	var b strings.Builder
	for _, of := range []string{"smallint", "integer", "bigint", "oid", "numeric", "real", "double precision", "date", "timestamptz", "interval", "uuid"} {
		fmt.Fprintf(&b, publicImplicit, of)
	}
	return b.String()
}

func situations() map[string]situation {
	return map[string]situation{
		"implicit casts to text":            {made: anyCast()},
		"implicit casts from text":          {made: `CREATE CAST (varchar AS uuid) WITH INOUT AS IMPLICIT; CREATE CAST (text AS uuid) WITH INOUT AS IMPLICIT; CREATE CAST (text AS jsonb) WITH INOUT AS IMPLICIT`},
		"a cast of role":                    {before: `CREATE TYPE member_role AS ENUM ('member', 'admin', 'owner'); ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_role_check, ALTER role DROP DEFAULT, ALTER role TYPE member_role USING role::member_role, ALTER role SET DEFAULT 'member'`, made: `CREATE FUNCTION shout(member_role) RETURNS text LANGUAGE sql AS $$ SELECT text 'x' $$; CREATE CAST (member_role AS text) WITH FUNCTION shout(member_role) AS ASSIGNMENT`},
		"functions named like built-ins":    {made: shadowing},
		"the default tablespace by name":    {before: defaults + `default_tablespace = pg_default`},
		"new tables in another one":         {made: defaults + `default_tablespace = situations` + dropsToday},
		"another default access method":     {made: `CREATE ACCESS METHOD columnar TYPE TABLE HANDLER heap_tableam_handler;` + defaults + `default_table_access_method = columnar` + dropsToday},
		"nothing for PUBLIC":                {before: `REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON DATABASE "%db%" FROM PUBLIC`},
		"views of the catalog revoked":      {made: `REVOKE SELECT ON pg_roles FROM PUBLIC`, name: "surroundings", status: "FAIL", says: "GRANT SELECT ON pg_catalog.pg_roles TO orphan_cleaner_owner, ", fails: true, helps: `GRANT SELECT ON pg_catalog.pg_roles TO orphan_cleaner_owner, orphan_cleaner_runner, orphan_cleaner_restorer`, undone: `GRANT SELECT ON pg_roles TO PUBLIC`},
		"set_config revoked":                {made: `REVOKE EXECUTE ON FUNCTION set_config FROM PUBLIC`, name: "database", status: "FAIL", says: "GRANT EXECUTE ON FUNCTION pg_catalog.set_config TO orphan_cleaner_owner, ", fails: true, helps: `GRANT EXECUTE ON FUNCTION set_config TO orphan_cleaner_owner, orphan_cleaner_runner, orphan_cleaner_restorer`, undone: `GRANT EXECUTE ON FUNCTION set_config TO PUBLIC`},
		"a deferred constraint trigger":     {made: checksOwner},
		"a trigger that wants a variable":   {made: variable, says: `unrecognized configuration parameter "app.user_id"`, fails: true, helps: `ALTER ROLE "%login%" SET app.user_id = 'orphan-cleaner'`},
		"no DDL":                            {made: `SELECT` + dropsToday + refusesDDL, says: "is not there: making partitions: ERROR: DDL goes by tickets", fails: true, helps: `ALTER EVENT TRIGGER no_ddl DISABLE`},
		"DDL is logged in public":           {made: logsDDL + `; GRANT INSERT ON ddl_log TO PUBLIC` + dropsToday},
		"DDL is logged, without a right":    {made: logsDDL + dropsToday, says: "permission denied for table ddl_log", fails: true, helps: `GRANT INSERT ON ddl_log TO orphan_cleaner_owner`},
		"the login acts as another role":    {made: `CREATE ROLE "app_%db%"; GRANT "app_%db%" TO "%login%"; ALTER ROLE "%login%" SET role = "app_%db%"`, name: "schema", status: "FAIL", says: `act as app_%db%: ALTER ROLE %login% RESET role`, fails: true, helps: `ALTER ROLE "%login%" RESET role`, undone: `DROP ROLE "app_%db%"`},
		"users is a view":                   {made: people, name: "owner-grants", status: "FAIL", says: "lacks SELECT on users (id, created_at, deleted_at)", fails: true, roles: true},
		"users is of another meaning":       {made: `ALTER TABLE users RENAME TO people; CREATE TABLE users (name text)`, roles: true},
		"users is on a server that is down": {made: deadServer, says: `could not connect to server "gone"`, fails: true, helps: `DROP FOREIGN TABLE users; ALTER TABLE people RENAME TO users`},
		"everything reassigned":             {made: `CREATE ROLE "dba_%db%"; REASSIGN OWNED BY orphan_cleaner_owner TO "dba_%db%"`, name: "owner-grants", status: "FAIL", says: "lacks SELECT, INSERT, DELETE on conversation_members", fails: true, roles: true, undone: `DROP OWNED BY "dba_%db%"; DROP ROLE "dba_%db%"`},
		"default privileges for everybody":  {made: `ALTER DEFAULT PRIVILEGES FOR ROLE orphan_cleaner_owner GRANT ALL ON TABLES TO PUBLIC` + dropsToday + `; SELECT orphan_cleaner.partitions_ensure(7)`, name: "own-grants", status: "warn", says: "PUBLIC may write to 1 of our tables, such as public.conversation_members_backup_%today%"},
		"a schema migration under way":      {made: `ALTER TABLE conversation_members ADD _pgroll_needs_backfill boolean DEFAULT true, ADD _pgroll_new_role text`, name: "backup-columns", status: "FAIL", says: "_pgroll_new_role", fails: true, helps: `ALTER TABLE conversation_members DROP _pgroll_needs_backfill, DROP _pgroll_new_role`},
		"a collation of another version":    {made: `UPDATE pg_database SET datcollversion = '1.0' WHERE datname = current_database()`},
	}
}

// What tools that live in other people's databases met there: the application's deletes go on, and a run does its work,
// or deletes nothing and names the cause.
func TestSituations(t *testing.T) {
	t.Parallel()
	// Roles and the catalog are everybody's in a cluster, so it is their own, and one at a time.
	cluster := ownCluster(t, nil)
	if err := inSession(t, cluster.URL("postgres"), "SET allow_in_place_tablespaces = on", "CREATE TABLESPACE situations LOCATION ''"); err != nil {
		t.Fatal(err)
	}
	for name, s := range situations() {
		t.Run(name, func(t *testing.T) {
			db := testdb.NewBareOn(t, cluster)
			if strings.Contains(s.made, "postgres_fdw") {
				if err := inSession(t, db.URL, "LOAD 'postgres_fdw'"); err != nil && strings.Contains(err.Error(), "undefined symbol") {
					t.Skip("the server's postgres_fdw is newer than the libpq of this machine")
				}
			}
			w := newShaped(t, db, "SELECT; "+strings.ReplaceAll(s.before, "%db%", db.Name))
			w.Roles(rolesFile)
			login := w.Login(runner, restorer)
			w.env = w.envOf(login)
			user, err := url.Parse(login)
			if err != nil {
				t.Fatal(err)
			}
			names := strings.NewReplacer("%db%", db.Name, "%today%", testdb.One[string](db, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')"), "%login%", user.User.Username())
			if s.undone != "" {
				t.Cleanup(func() { w.Psql("-qc", names.Replace(s.undone)) })
			}
			w.Psql("-qc", "SELECT 1; "+names.Replace(s.made))
			w.Settle()

			if err := inSession(t, w.URL, "SET app.user_id = 'somebody'", "DELETE FROM public.conversation_members WHERE user_id OPERATOR(pg_catalog.=) pg_catalog.md5('user 60')::pg_catalog.uuid"); err != nil {
				t.Errorf("the application: %v", err)
			}
			if audited := w.Count("conversation_members_audit WHERE run_id IS NULL"); audited != 2 {
				t.Errorf("%d of the application's 2 deletes are audited", audited)
			}
			before := w.Snapshot("public.conversation_members")
			if s.name != "" {
				status := exitDone
				if s.status == "FAIL" {
					status = exitFailed
				}
				found := findings(t, w.env, status)
				is(t, found, s.name, s.status, names.Replace(s.says))
				if found[s.name]["hint"] == "orphan-cleaner check" {
					t.Error("the hint of check is check")
				}
			}
			if s.fails {
				e := program(t, w.env, "run", "--json").expect(t, exitFailed)
				if said, _ := e.result(t)["error"].(string); !strings.Contains(said, names.Replace(s.says)) {
					t.Errorf("it does not say %q: %s", s.says, e)
				}
				if diff := before.Diff(w.Snapshot("public.conversation_members")); diff != "" {
					t.Errorf("the run wrote:\n%s", diff)
				}
				if s.helps != "" {
					w.Psql("-qc", names.Replace(s.helps))
				}
				before = w.Snapshot("public.conversation_members")
			}
			if s.roles {
				w.Roles(rolesFile)
			}
			ran := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
			if ran["members_deleted"] != float64(shapedDue) {
				t.Fatalf("%v members are deleted", ran["members_deleted"])
			}
			program(t, w.env, "restore", "--run", fmt.Sprint(ran["run_id"]), "--execute").expect(t, exitDone)
			if diff := before.Diff(w.Snapshot("public.conversation_members")); diff != "" {
				t.Errorf("restored, the table is not as it was:\n%s", diff)
			}
		})
	}
}

// ownCluster is a server of the test's own, with these settings.
func ownCluster(t *testing.T, settings map[string]string) *pgtemp.Cluster {
	t.Helper()
	cluster, err := pgtemp.Start(context.Background(), pgtemp.Options{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// inSession runs statements in a session of their own, up to the first that fails.
func inSession(t *testing.T, url string, statements ...string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }() // the server ends it anyway
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			return err
		}
	}
	return nil
}
