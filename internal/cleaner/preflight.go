package cleaner

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Status of a finding.
const (
	OK   = "ok"
	Warn = "warn"
	Fail = "FAIL"
)

// Finding is one line of `check`.
type Finding struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // the command or the change that fixes it
}

func (f Finding) attrs() []any {
	return []any{"check", f.Name, "finding", f.Message, "hint", f.Hint}
}

// Findings are the lines of one preflight, in order.
type Findings []Finding

// Probe is a check beside the database's own.
type Probe func(ctx context.Context) Finding

// Err is an [ErrPreflight] that names the first failure, or nil.
func (f Findings) Err() error {
	var first *Finding
	more := -1
	for _, finding := range f {
		if finding.Status == Fail {
			if more++; first == nil {
				first = &finding
			}
		}
	}
	switch {
	case first == nil:
		return nil
	case more > 0:
		return fmt.Errorf("%w: %s: %s; hint: %s (%d more: orphan-cleaner check)", ErrPreflight, first.Name, first.Message, first.Hint, more)
	default:
		return fmt.Errorf("%w: %s: %s; hint: %s", ErrPreflight, first.Name, first.Message, first.Hint)
	}
}

// Log writes what is not ok.
func (f Findings) Log(log *slog.Logger) {
	for _, finding := range f {
		switch finding.Status {
		case Warn:
			log.Warn("Preflight check wants attention", finding.attrs()...)
		case Fail:
			log.Error("Preflight check failed", finding.attrs()...)
		default:
			log.Debug("Preflight check passed", finding.attrs()...)
		}
	}
}

// daysAhead is how many days of backup partitions are made beyond today.
const daysAhead = 7

const minServerVersion = 150000

// Check is the preflight. With repair it makes partitions that are not there.
func (c *Cleaner) Check(ctx context.Context, repair bool) Findings {
	var found Findings
	probed := make(Findings, len(c.probes))
	var probing sync.WaitGroup
	for i, probe := range c.probes {
		probing.Go(func() { probed[i] = probe(ctx) })
	}
	c.checkDatabase(ctx, repair, &found)
	probing.Wait()
	return append(found, probed...)
}

func (f *Findings) add(name, status, message, hint string) {
	*f = append(*f, Finding{name, status, message, hint})
}

// verdict is a failure unless it is good.
func (f *Findings) verdict(good bool, name, fine, wrong, hint string) bool {
	if good {
		f.add(name, OK, fine, "")
	} else {
		f.add(name, Fail, wrong, hint)
	}
	return good
}

func (c *Cleaner) checkDatabase(ctx context.Context, repair bool, f *Findings) {
	asked := time.Now()
	server, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (db.PreflightServerRow, error) { return q.PreflightServer(ctx) })
	if database.StatementPooled(err) {
		f.add("database", Fail, "a pooler in statement mode is in between: it allows no transaction",
			"pool_mode = transaction for this database in pgbouncer.ini, or point DATABASE_URL at the server")
		return
	}
	if !f.verdict(err == nil, "database", "PostgreSQL "+server.Version+", database "+server.DatabaseName+", role "+server.RoleName,
		fmt.Sprint(err), "check DATABASE_URL and that the server is up: psql \"$DATABASE_URL\" -c 'SELECT 1'") {
		return
	}
	f.verdict(server.VersionNum >= minServerVersion, "version", "15 or newer", "PostgreSQL "+server.Version+" is older than 15", "upgrade the server")
	f.verdict(!server.InRecovery || !repair, "primary", "accepts writes", "the server is a standby: it takes no writes", "point DATABASE_URL at the primary")
	f.verdict(server.ReplicationRole == "origin", "triggers-fire", "session_replication_role is origin",
		"session_replication_role is "+server.ReplicationRole+": foreign keys and other triggers would not fire",
		"ALTER ROLE "+server.RoleName+" RESET session_replication_role, or take it out of the options in DATABASE_URL")

	checkSkew(server.DatabaseTime, asked, time.Now(), f)

	objects, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (db.PreflightObjectsRow, error) {
		return q.PreflightObjects(ctx)
	})
	if err != nil {
		f.add("tables", Fail, err.Error(), "orphan-cleaner check")
		return
	}
	if !f.verdict(objects.HasMembers, "members", "conversation_members is there", "there is no table public.conversation_members in database "+server.DatabaseName,
		"point DATABASE_URL at messaging-service's database") {
		return
	}
	if !c.checkSchema(ctx, objects.HasGoose, f) {
		return
	}
	if !f.verdict(objects.ObjectsMissing == "", "tables", "all of ours are there", objects.ObjectsMissing+" not there, though its migration was applied",
		"create it again as in migrations/, or restore it from a backup of the database") {
		return
	}
	c.checkPause(ctx, f)
	f.verdict(objects.GrantsMissing == "", "grants", "all that a run needs", "role "+server.RoleName+" lacks "+objects.GrantsMissing,
		"psql -f sql/roles.sql, then GRANT orphan_cleaner_runner TO "+server.RoleName)
	c.checkTable(ctx, f)
	if objects.GrantsMissing == "" {
		c.checkPartitions(ctx, repair && !server.InRecovery, f)
	}
}

// How far the clocks of this machine and of the database may be apart. The
// retention goes by the database's alone: a minute means that either is wrong,
// and that nobody knows which.
const (
	skewWarn = 5 * time.Second
	skewFail = time.Minute
)

// checkSkew compares the database's time with those of asking and answer here.
func checkSkew(there, asked, answered time.Time, f *Findings) {
	const hint = "set the clocks: chronyc tracking, or timedatectl timesync-status, on both machines"
	skew := max(there.Sub(answered), asked.Sub(there), 0)
	which := "ahead of"
	if there.Before(asked) {
		which = "behind"
	}
	message := fmt.Sprintf("the database is %s %s this machine", skew.Round(time.Second), which)
	switch {
	case skew > skewFail:
		f.add("clock-skew", Fail, message, hint)
	case skew > skewWarn:
		f.add("clock-skew", Warn, message, hint)
	default:
		f.add("clock-skew", OK, "database and this machine agree about the time", "")
	}
}

func (c *Cleaner) checkSchema(ctx context.Context, hasGoose bool, f *Findings) bool {
	const up = "orphan-cleaner migrate up"
	if !hasGoose {
		return f.verdict(false, "schema", "", "no migration has been applied", up)
	}
	version, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (int64, error) { return q.PreflightVersion(ctx) })
	switch want := c.cfg.SchemaVersion; {
	case err != nil:
		return f.verdict(false, "schema", "", "goose_db_version cannot be read: "+err.Error(), "psql -f sql/roles.sql, then GRANT orphan_cleaner_runner to this role")
	case version > want:
		return f.verdict(false, "schema", "", fmt.Sprintf("the database is at migration %d, this program knows %d", version, want),
			"use the newer orphan-cleaner that migrated it")
	case version < want:
		return f.verdict(false, "schema", "", fmt.Sprintf("the database is at migration %d, this program needs %d", version, want), up)
	default:
		return f.verdict(true, "schema", fmt.Sprintf("at migration %d", version), "", "")
	}
}

func (c *Cleaner) checkPause(ctx context.Context, f *Findings) {
	pauses, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) ([]db.PauseInForceRow, error) { return q.PauseInForce(ctx) })
	switch {
	case err != nil:
		f.add("pause", Fail, err.Error(), "psql -f sql/roles.sql, then GRANT orphan_cleaner_runner to this role")
	case len(pauses) > 0:
		p := pauses[0]
		f.add("pause", Fail, "runs are paused by "+p.PausedBy+" since "+p.PausedAt.UTC().Format(time.RFC3339)+": "+p.Reason, "orphan-cleaner resume")
	default:
		f.add("pause", OK, "runs are not paused", "")
	}
}

func (c *Cleaner) checkTable(ctx context.Context, f *Findings) {
	table, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (db.PreflightTableRow, error) { return q.PreflightTable(ctx) })
	if err != nil {
		f.add("table", Fail, err.Error(), "orphan-cleaner check")
		return
	}
	// tgenabled: A always, O origin, R replica, D disabled.
	trigger := func(name, state, create string) {
		hint := "ALTER TABLE conversation_members ENABLE ALWAYS TRIGGER " + name
		wrong := map[string]string{"missing": "is not there", "D": "is disabled", "O": "is not ENABLE ALWAYS", "R": "fires on replicas only"}[state]
		if state == "missing" {
			hint = "as the owner of the table: CREATE TRIGGER " + name + " " + create + " EXECUTE FUNCTION " + name + "(); " + hint
		}
		f.verdict(state == "A", name, "enabled, always", "the trigger "+name+" on conversation_members "+wrong, hint)
	}
	trigger("conversation_members_audit_delete", table.AuditTrigger,
		"AFTER DELETE ON conversation_members REFERENCING OLD TABLE AS gone FOR EACH STATEMENT")
	trigger("conversation_members_refuse_truncate", table.TruncateTrigger,
		"BEFORE TRUNCATE ON conversation_members FOR EACH STATEMENT")
	f.verdict(table.HasIndex, "index", "an index on conversation_members(user_id) is valid",
		"no valid index on conversation_members(user_id): every page of the scan would read the whole table",
		"CREATE INDEX CONCURRENTLY conversation_members_user_id ON conversation_members (user_id)")
	c.checkDrift(ctx, f)
}

func (c *Cleaner) checkPartitions(ctx context.Context, repair bool, f *Findings) {
	if repair {
		made, err := retry(ctx, c, "making partitions", func() (int32, error) { return db.New(c.pool).PartitionEnsure(ctx, daysAhead) })
		if err != nil {
			// Those of today and tomorrow may be there all the same.
			f.add("partitions-ahead", Warn, err.Error(), "as the owner of the tables: SELECT orphan_ensure_partitions(7)")
		}
		if made > 0 {
			c.log.Info("Made partitions", "count", made)
		}
	}
	there, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (db.PartitionsThereRow, error) { return q.PartitionsThere(ctx) })
	if err != nil {
		f.add("partitions", Fail, err.Error(), "SELECT orphan_ensure_partitions(7)")
		return
	}
	if good := there.Today && there.Tomorrow && there.Month; good || repair {
		f.verdict(good, "partitions", "of today and tomorrow are there", "the backup partition of today or tomorrow, or the audit's of this month, is not there", "SELECT orphan_ensure_partitions(7)")
	} else {
		f.add("partitions", Warn, "of today or tomorrow are not there yet; the next run makes them", "SELECT orphan_ensure_partitions(7)")
	}
	if there.DefaultInUse {
		f.add("audit-default", Warn, "conversation_members_audit_default holds rows of a month that had no partition", "SELECT orphan_ensure_partitions(7)")
	}
}

func ask[T any](ctx context.Context, c *Cleaner, query func(ctx context.Context, q *db.Queries) (T, error)) (T, error) {
	return read(ctx, c, "reading the catalog", query)
}
