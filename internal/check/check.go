// Package check is the preflight: what a run needs, examined before it changes
// anything, and what `check` prints, a line for each check.
package check

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// daysAhead is how many days of backup partitions are made beyond today.
const daysAhead = 7

const minServerVersion = 150000

// Preflight examines one database, and by its probes what is beside it.
type Preflight struct {
	pool          *pgxpool.Pool
	log           *slog.Logger
	schemaVersion int64
	probes        []Probe
	url           string // what hints call the database's URL; empty: DATABASE_URL
}

// Of makes it one of a fleet's shard: hints call the database's URL by this name and not
// DATABASE_URL, and its dry run is the first pass of a run that writes.
func (c *Preflight) Of(url string) *Preflight {
	c.url = url
	return c
}

// New returns a Preflight. The schema version is the newest migration that this
// program knows; the probes are checks beside the database's own, such as the
// health of auth-service.
func New(pool *pgxpool.Pool, log *slog.Logger, schemaVersion int64, probes ...Probe) *Preflight {
	return &Preflight{pool: pool, log: log, schemaVersion: schemaVersion, probes: probes}
}

// ForRun is the preflight of a run, which makes missing partitions, or of a dry run.
func (c *Preflight) ForRun(isDry bool) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		findings := c.Check(ctx, !isDry)
		if isDry && c.url == "" { // it only reads
			findings = slices.DeleteFunc(findings, func(f Finding) bool { return f.Name == "primary" })
		}
		findings.Log(c.log)
		if c.url != "" {
			return findings.Err("fleet check")
		}
		return findings.Err("check")
	}
}

// Check runs all checks. With repair it makes partitions that are not there.
func (c *Preflight) Check(ctx context.Context, repair bool) Findings {
	var found Findings
	probed := make(Findings, len(c.probes))
	var probing sync.WaitGroup
	for i, probe := range c.probes {
		probing.Go(func() { probed[i] = probe(ctx) })
	}
	c.checkDatabase(ctx, repair, &found)
	probing.Wait()
	found = append(found, probed...)
	if c.url != "" {
		for i := range found {
			found[i].Hint = strings.NewReplacer(`psql "$DATABASE_URL"`, "psql URL", "DATABASE_URL", c.url).Replace(found[i].Hint)
		}
	}
	return found
}

func (c *Preflight) checkDatabase(ctx context.Context, repair bool, f *Findings) {
	asked := time.Now()
	server, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (db.PreflightServerRow, error) { return q.PreflightServer(ctx) })
	if database.StatementPooled(err) {
		f.add("database", Fail, "a pooler in statement mode is in between: it allows no transaction",
			"pool_mode = transaction for this database in pgbouncer.ini, or point DATABASE_URL at the server")
		return
	}
	if !f.verdict(err == nil, "database", "PostgreSQL "+server.Version+", database "+server.DatabaseName+", role "+server.RoleName,
		fmt.Sprint(err), database.ConnectionHint(err)+": psql \"$DATABASE_URL\" -c 'SELECT 1'") {
		return
	}
	f.verdict(server.VersionNum >= minServerVersion, "version", "15 or newer", "PostgreSQL "+server.Version+" is older than 15", "upgrade the server")
	f.verdict(!server.InRecovery, "primary", "accepts writes", "the server is a standby: it takes no writes", "point DATABASE_URL at the primary")
	f.verdict(server.ReplicationRole == "origin", "triggers-fire", "session_replication_role is origin",
		"session_replication_role is "+server.ReplicationRole+": foreign keys and other triggers would not fire",
		"ALTER ROLE "+server.RoleName+" RESET session_replication_role, or take it out of the options in DATABASE_URL")

	repair = checkSkew(server.DatabaseTime, asked, time.Now(), f) && repair // no partition of a day that is not

	objects, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (db.PreflightObjectsRow, error) {
		return q.PreflightObjects(ctx)
	})
	if err != nil {
		f.add("tables", Fail, err.Error(), unreadHint(err))
		return
	}
	if !f.verdict(objects.HasMembers, "members", "conversation_members is there", "there is no table public.conversation_members in database "+server.DatabaseName,
		"point DATABASE_URL at messaging-service's database") {
		return
	}
	c.checkTempFiles(ctx, server.DatabaseName, f)
	if objects.IsDevelopment {
		f.add("schema", Fail, "this database holds tables of a development version (public.orphan_runs and others)",
			"see docs/upgrading.md: export what matters, drop the old tables, orphan-cleaner migrate up")
		return
	}
	around, err := c.surroundings(ctx, objects.HasSurroundings)
	if err != nil {
		f.add("surroundings", Fail, err.Error(), unreadHint(err))
		return
	}
	// What hides our own rows hides the version, too: it would be at migration 0.
	if hidden := around.failed("own-row-security"); hidden != nil {
		*f = append(*f, *hidden)
		return
	}
	if !c.checkSchema(ctx, objects, server, f) {
		return
	}
	if !f.verdict(objects.ObjectsMissing == "", "tables", "all of ours are there", objects.ObjectsMissing+" not there, though its migration was applied",
		"create it again as in migrations/, or restore it from a backup of the database") {
		return
	}
	f.verdict(objects.GrantsMissing == "", "grants", "all that a run needs", "role "+server.RoleName+" lacks "+objects.GrantsMissing,
		grantRunner(server))
	c.checkPause(ctx, server, f)
	*f = append(*f, around...)
	c.checkDrift(ctx, f)
	c.checkTargets(ctx, f)
	// A detached one stands in the way of those that would be made, and its hint helps.
	if objects.GrantsMissing == "" && around.failed("partitions-detached") == nil {
		c.checkPartitions(ctx, repair && !server.InRecovery, f)
	}
}

func (c *Preflight) checkSchema(ctx context.Context, objects db.PreflightObjectsRow, server db.PreflightServerRow, f *Findings) bool {
	const up, none = "orphan-cleaner migrate up", "no migration has been applied"
	if !objects.HasGoose {
		return f.verdict(false, "schema", "", none, up)
	}
	version, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (int64, error) { return q.PreflightVersion(ctx) })
	switch want := c.schemaVersion; {
	// A first migration that was refused leaves its version table behind, and nothing else.
	case err != nil && strings.Contains(objects.ObjectsMissing, "orphan_cleaner.runs"):
		return f.verdict(false, "schema", "", none, up)
	case err != nil:
		return f.verdict(false, "schema", "", "orphan_cleaner_goose cannot be read: "+err.Error(), grantRunner(server))
	case version > want:
		return f.verdict(false, "schema", "", fmt.Sprintf("the database is at migration %d, this program knows %d", version, want),
			"use the newer orphan-cleaner that migrated it")
	case version < want:
		return f.verdict(false, "schema", "", fmt.Sprintf("the database is at migration %d, this program needs %d", version, want), up)
	default:
		return f.verdict(true, "schema", fmt.Sprintf("at migration %d", version), "", "")
	}
}

// grantRunner makes a login a runner. A GRANT alone changes nothing of a member that does not inherit.
func grantRunner(server db.PreflightServerRow) string {
	login, acting := server.RoleName, server.ActingAs
	if acting != login {
		return fmt.Sprintf("sessions of %[1]s act as %[2]s: ALTER ROLE %[1]s RESET role, or GRANT orphan_cleaner_runner TO %[2]s", login, acting)
	}
	return fmt.Sprintf("psql -f sql/roles.sql, then GRANT orphan_cleaner_runner TO %[1]s; a member already: it has NOINHERIT, ALTER ROLE %[1]s INHERIT, REVOKE orphan_cleaner_runner FROM %[1]s, GRANT it again", login)
}

func (c *Preflight) checkPause(ctx context.Context, server db.PreflightServerRow, f *Findings) {
	pauses, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) ([]db.PauseInForceRow, error) { return q.PauseInForce(ctx) })
	switch {
	case err != nil:
		f.add("pause", Fail, err.Error(), grantRunner(server))
	case len(pauses) > 0:
		p := pauses[0]
		f.add("pause", Warn, "runs are paused by "+p.PausedBy+" since "+p.PausedAt.UTC().Format(time.RFC3339)+": "+p.Reason, "orphan-cleaner resume")
	default:
		f.add("pause", OK, "runs are not paused", "")
	}
}

// unreadHint is what to do where the catalog could not be read.
func unreadHint(err error) string {
	switch said := database.SaidIn(err); {
	case said != nil && said.Hint != "":
		return said.Hint
	case database.Code(err) == database.NoPrivilege:
		return "psql -f sql/roles.sql, as after each migration"
	case database.Code(err) == database.LockNotAvailable:
		return "somebody keeps a table locked: SELECT relation::regclass, mode, pid FROM pg_locks WHERE mode = 'AccessExclusiveLock'; one without pid is in pg_prepared_xacts"
	case database.Transient(err):
		return database.ConnectionHint(err)
	default:
		return "orphan-cleaner check"
	}
}

// surroundings are the rows of the function of that name, where it is there.
func (c *Preflight) surroundings(ctx context.Context, areThere bool) (Findings, error) {
	if !areThere {
		return nil, nil
	}
	rows, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) ([]db.PreflightSurroundingsRow, error) {
		return q.PreflightSurroundings(ctx)
	})
	found := make(Findings, len(rows))
	for i, row := range rows {
		found[i] = Finding{row.CheckName, row.Status, row.Message, row.Hint}
	}
	return found, err
}

func (c *Preflight) checkPartitions(ctx context.Context, repair bool, f *Findings) {
	var refused string
	if repair {
		made, err := database.Do(ctx, c.pool, c.patience(), pgx.ReadWrite, database.ReadLimit, "making partitions", func(ctx context.Context, q *db.Queries) (int32, error) {
			return q.PartitionEnsure(ctx, daysAhead)
		})
		if err != nil {
			// Those of today and tomorrow may be there all the same.
			f.add("partitions-ahead", Warn, err.Error(), "as the owner of the tables: SELECT orphan_cleaner.partitions_ensure(7)")
			refused = ": " + err.Error()
		}
		if made > 0 {
			c.log.Info("Made partitions", "count", made)
		}
	}
	there, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (db.PartitionsThereRow, error) { return q.PartitionsThere(ctx) })
	if err != nil {
		f.add("partitions", Fail, err.Error(), "SELECT orphan_cleaner.partitions_ensure(7)")
		return
	}
	if good := there.Today && there.Tomorrow && there.Month; good || repair {
		f.verdict(good, "partitions", "of today and tomorrow are there", "the backup partition of today or tomorrow, or the audit's of this month, is not there"+refused, "SELECT orphan_cleaner.partitions_ensure(7)")
	} else {
		f.add("partitions", Warn, "of today or tomorrow are not there yet; the next run makes them", "SELECT orphan_cleaner.partitions_ensure(7)")
	}
	if there.DefaultInUse {
		f.add("audit-default", Warn, "conversation_members_audit_default holds rows of a month that had no partition", "SELECT orphan_cleaner.partitions_ensure(7)")
	}
}

func (c *Preflight) patience() database.Patience {
	return database.Patience{Log: c.log, Attempts: attempts, LockTimeout: lockTimeout}
}

const (
	attempts    = 3
	lockTimeout = 2 * time.Second
)

func ask[T any](ctx context.Context, c *Preflight, query func(ctx context.Context, q *db.Queries) (T, error)) (T, error) {
	return database.Do(ctx, c.pool, c.patience(), pgx.ReadOnly, database.ReadLimit, "reading the catalog", query)
}
