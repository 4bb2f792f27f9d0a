// Package queue shares a fleet's work out over any number of machines: its control
// database holds the runs of the fleet and River's jobs. A job is a pass over one shard,
// the judgement between two waves, or the one check of a range of users. What a job found, that it is done and the jobs
// which follow from it are one transaction, so that a worker may be killed at any time.
package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	generated "github.com/nova-social/orphan-cleaner/gen/control"
	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/fleet/queue/migrations"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

// Control is the control database of a fleet. Close it.
type Control struct {
	pool *pgxpool.Pool
	log  *slog.Logger
}

// Codes of our functions in the control database.
const (
	ClockBehind  = "OC013" // an earlier run of the fleet
	AnotherFleet = "OC014" // has this control database
)

// connections are few: River's fetcher, maintenance and completer, and our own calls.
const connections = 8

// Open connects to the control database, once it is used.
func Open(ctx context.Context, url string, log *slog.Logger) (*Control, error) {
	pool, err := database.New(ctx, url, 0, connections)
	if err != nil {
		return nil, err
	}
	return &Control{pool, log}, nil
}

// Close closes its connections.
func (c *Control) Close() { c.pool.Close() }

// Migrate makes our tables, and River's beside them, or brings both up to date.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	cfg, err := database.ParseConfig(url)
	if err != nil {
		return err
	}
	handle := stdlib.OpenDB(*cfg.ConnConfig)
	provider, err := goose.NewProvider(goose.DialectPostgres, handle, migrations.FS, goose.WithTableName(migrations.VersionTable))
	if err != nil {
		return errors.Join(fmt.Errorf("reading the migrations: %w", err), handle.Close())
	}
	if _, err := provider.Up(ctx); err != nil {
		return errors.Join(fmt.Errorf("migrating the control database: %w", hinted(err)), handle.Close())
	}
	c, err := Open(ctx, url, log)
	if err != nil {
		return errors.Join(err, handle.Close())
	}
	defer c.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(c.pool), &rivermigrate.Config{Schema: migrations.Schema, Logger: ofRiver(log)})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		err = fmt.Errorf("making River's tables: %w", err)
	}
	return errors.Join(err, handle.Close())
}

// limit bounds a transaction in the control database, on both sides of the wire.
const limit = 15 * time.Second

// patience outlasts a restart of the control database, and a minute without it.
func (c *Control) patience() database.Patience { return database.Patience{Log: c.log, Attempts: 45} }

// write does something in one transaction, again after a passing error.
func (c *Control) write(ctx context.Context, doing string, do func(ctx context.Context, tx pgx.Tx, q *generated.Queries) error) error {
	_, err := database.Retry(ctx, c.patience(), doing, func() (struct{}, error) {
		return struct{}{}, c.once(ctx, pgx.ReadWrite, do)
	})
	return fence.Sentinel(err)
}

func (c *Control) once(ctx context.Context, mode pgx.TxAccessMode, do func(ctx context.Context, tx pgx.Tx, q *generated.Queries) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit+database.Grace)
	defer cancel()
	err := pgx.BeginTxFunc(ctx, c.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: mode}, func(tx pgx.Tx) error {
		bounds := db.SettingsApplyParams{LockTimeout: "10s", StatementTimeout: database.Milliseconds(limit), IdleTimeout: "5s", IsLocal: true}
		if err := database.Queries(tx).SettingsApply(ctx, bounds); err != nil {
			return err
		}
		return do(ctx, tx, generated.New(database.Naming(tx)))
	})
	return hinted(err)
}

// hinted is an error with what to do about it.
func hinted(err error) error {
	if _, is := errors.AsType[*pgconn.ConnectError](err); is {
		return fmt.Errorf("connecting to the control database: %w; hint: %s", err, strings.ReplaceAll(database.ConnectionHint(err), "DATABASE_URL", "control_url"))
	}
	switch database.Code(err) {
	case "42P01", "3F000", "42883": // a table, a schema or a function is not there
		err = fmt.Errorf("%w; the control database is not migrated to this version; fix: orphan-cleaner fleet migrate", err)
	case database.NoPrivilege:
		err = fmt.Errorf("%w; fix: for fleet approve and fleet migrate a control_url of the owner of schema orphan_cleaner_fleet; for all else: psql -f sql/fleet_roles.sql in the control database, then GRANT orphan_cleaner_fleet TO the login", err)
	}
	return err
}

// read asks the control database something.
func read[T any](ctx context.Context, c *Control, ask func(ctx context.Context, q *generated.Queries) (T, error)) (T, error) {
	return call(ctx, c, pgx.ReadOnly, ask)
}

// call is one attempt at something that has a result.
func call[T any](ctx context.Context, c *Control, mode pgx.TxAccessMode, do func(ctx context.Context, q *generated.Queries) (T, error)) (value T, err error) {
	err = c.once(ctx, mode, func(ctx context.Context, _ pgx.Tx, q *generated.Queries) error {
		value, err = do(ctx, q)
		return err
	})
	return value, err
}

// State is what `fleet status` shows of the control database.
type State struct {
	Runs      []generated.FleetRunsRow      `json:"runs"`
	Paused    []generated.FleetPausedRow    `json:"paused"`
	Approvals []generated.FleetApprovalsRow `json:"approvals"`
}

// State reads the last runs of the fleet, the pause in force and open approvals.
func (c *Control) State(ctx context.Context, runs int32) (State, error) {
	return read(ctx, c, func(ctx context.Context, q *generated.Queries) (st State, err error) {
		if st.Runs, err = q.FleetRuns(ctx, runs); err != nil {
			return st, err
		}
		if st.Paused, err = q.FleetPaused(ctx); err != nil {
			return st, err
		}
		st.Approvals, err = q.FleetApprovals(ctx)
		return st, err
	})
}

// Pause stops the fleet before its next run and its next shard.
func (c *Control) Pause(ctx context.Context, by, reason string) error {
	return c.once(ctx, pgx.ReadWrite, func(ctx context.Context, _ pgx.Tx, q *generated.Queries) error {
		return q.FleetPause(ctx, generated.FleetPauseParams{ByWhom: by, Reason: reason})
	})
}

// Resume ends the pause, and says whether there was one.
func (c *Control) Resume(ctx context.Context, by string) (was bool, err error) {
	id, err := call(ctx, c, pgx.ReadWrite, func(ctx context.Context, q *generated.Queries) (int64, error) { return q.FleetResume(ctx, by) })
	return id != 0, err
}

// Approve admits what a refused run of the fleet found, once.
func (c *Control) Approve(ctx context.Context, fleetRun int64, by string, lasting time.Duration) (expires time.Time, err error) {
	return call(ctx, c, pgx.ReadWrite, func(ctx context.Context, q *generated.Queries) (time.Time, error) {
		return q.FleetApprove(ctx, generated.FleetApproveParams{FleetRun: fleetRun, ByWhom: by, Lasting: lasting})
	})
}

// Revoke withdraws an approval that no run has used, and says whether there was one. A run
// under way that goes by it is judged without it.
func (c *Control) Revoke(ctx context.Context, fleetRun int64, by string) (was bool, err error) {
	id, err := call(ctx, c, pgx.ReadWrite, func(ctx context.Context, q *generated.Queries) (int64, error) {
		return q.FleetApprovalRevoke(ctx, generated.FleetApprovalRevokeParams{FleetRun: fleetRun, ByWhom: by})
	})
	return id != 0, err
}

// Result is what a run of the fleet did so far.
func (c *Control) Result(ctx context.Context, fleetRun int64) (fleet.Result, error) {
	r, err := read(ctx, c, func(ctx context.Context, q *generated.Queries) (r fleet.Result, err error) {
		r.Shards = []fleet.Progress{}
		row, err := q.FleetRunState(ctx, fleetRun)
		if err != nil {
			return r, err
		}
		r = fleet.Result{FleetRun: fleetRun, State: row.State, Breaker: row.Breaker, Error: row.Error, Waves: int(row.Waves), Seconds: row.Seconds}
		if err := json.Unmarshal(row.Sums, &r.Sums); err != nil {
			return r, fmt.Errorf("reading the sums: %w", err)
		}
		r.Shards, err = progress(ctx, q, fleetRun)
		return r, err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return r, fmt.Errorf("%w %d of the fleet", ErrNoRun, fleetRun)
	}
	if err != nil {
		return r, fmt.Errorf("reading run %d of the fleet: %w", fleetRun, err)
	}
	return r, nil
}

// ErrNoRun is returned where a run is not there.
var ErrNoRun = errors.New("there is no run")

var errFailed = errors.New("the run of the fleet failed")

// errorOf is what [fleet.Fleet.Run] returns with a result, without the causes.
func errorOf(r fleet.Result) error {
	kind := map[string]error{"refused": result.ErrRefused, "incomplete": run.ErrIncomplete, "paused": run.ErrPaused, "failed": errFailed}[r.State]
	if kind == nil {
		return nil
	}
	return &ended{kind, r.Error}
}

// ended is how a run ended, in the words that were kept with it.
type ended struct {
	is   error
	text string
}

func (e *ended) Error() string { return e.text }
func (e *ended) Unwrap() error { return e.is }

func progress(ctx context.Context, q *generated.Queries, fleetRun int64) ([]fleet.Progress, error) {
	rows, err := q.FleetShards(ctx, fleetRun)
	if err != nil {
		return nil, err
	}
	shards := make([]fleet.Progress, len(rows))
	for i, row := range rows {
		shards[i] = fleet.Progress{Name: row.Shard, Wave: int(row.Wave)}
		for _, one := range []struct {
			text []byte
			to   **fleet.Report
		}{{row.Verified, &shards[i].Verified}, {row.Swept, &shards[i].Swept}} {
			if one.text == nil {
				continue
			}
			*one.to = new(fleet.Report)
			if err := json.Unmarshal(one.text, *one.to); err != nil {
				return nil, fmt.Errorf("reading the report of %s: %w", row.Shard, err)
			}
		}
	}
	return shards, nil
}

// approved is what approvals cover of the databases of this run: a name may be another's by now.
func approved(ctx context.Context, q *generated.Queries, fleetRun int64, shards []fleet.Progress) (fleet.Approved, error) {
	rows, err := q.FleetApproved(ctx, fleetRun)
	all := fleet.Approved{Open: map[string]fleet.Facts{}}
	for _, row := range rows {
		var report fleet.Report
		if err := json.Unmarshal(row.Verified, &report); err != nil {
			return all, fmt.Errorf("reading what is approved of %s: %w", row.Shard, err)
		}
		isOurs := func(p fleet.Progress) bool {
			return p.Name == row.Shard && p.Verified != nil && !p.Verified.IsOther(&report)
		}
		switch {
		case report.Facts == nil || !slices.ContainsFunc(shards, isOurs):
		case row.IsOpen:
			all.Open[row.Shard] = *report.Facts
		default:
			all.Used = append(all.Used, fleet.Used{DaysAgo: row.DaysAgo, Facts: *report.Facts})
		}
	}
	return all, err
}
