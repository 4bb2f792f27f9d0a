package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/pressly/goose/v3"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
)

// MigrateCmd is `migrate`.
type MigrateCmd struct {
	Up          MigrateUpCmd          `cmd:"" help:"Apply all migrations that are not applied yet."`
	Down        MigrateDownCmd        `cmd:"" help:"Undo the newest migration; refuses where that would destroy evidence."`
	Status      MigrateStatusCmd      `cmd:"" help:"List the migrations and when they were applied."`
	SettleClock MigrateSettleClockCmd `cmd:"" help:"After the server's clock was ahead: move what runs recorded in the future to now, so that runs are not refused until then."`
	Drift       MigrateDriftCmd       `cmd:"" help:"Show how the backup's columns differ from those of conversation_members; print the migration that brings them along."`
}

// MigrateSettleClockCmd is `migrate settle-clock`.
type MigrateSettleClockCmd struct {
	DatabaseFlags `group:"Database"`
	JSONFlag
}

// Run settles the clock; this machine's must agree with the server's by now.
func (cmd *MigrateSettleClockCmd) Run(ctx context.Context, s *streams) error {
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := check.Clock(ctx, pool); err != nil {
		return err
	}
	runs, err := database.Once(ctx, pool, pgx.ReadWrite, func(ctx context.Context, q *db.Queries) (int64, error) { return q.ClockSettle(ctx) })
	if err != nil {
		return fmt.Errorf("settling the clock: %w; see: orphan-cleaner check", err)
	}
	return cmd.say(s, map[string]any{"runs_settled": runs}, "%d runs were recorded in the future; they are of now", runs)
}

// UpFlags are those of what applies migrations or undoes one.
type UpFlags struct {
	DatabaseFlags `group:"Database"`
	ShowSQL       bool `name:"show-sql" help:"Print what would run, and change nothing." xor:"format"`
	JSON          bool `name:"json" help:"Print one JSON object." xor:"format"`
}

// MigrateUpCmd is `migrate up`.
type MigrateUpCmd struct{ UpFlags }

// MigrateDownCmd is `migrate down`.
type MigrateDownCmd struct{ UpFlags }

// MigrateStatusCmd is `migrate status`.
type MigrateStatusCmd struct {
	DatabaseFlags `group:"Database"`
	JSON          bool `name:"json" help:"Print a JSON array."`
}

func withMigrator(ctx context.Context, flags *DatabaseFlags, set migrate.Set, do func(m *migrate.Migrator) error) (err error) {
	url, err := flags.url()
	if err != nil {
		return err
	}
	m, err := migrate.Open(ctx, url, set)
	if errors.Is(err, migrate.ErrNoMembers) || errors.Is(err, database.ErrPooled) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, database.ConnectionHint(err))
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return do(m)
}

// migrated is what `migrate up --json` and `migrate down --json` print.
type migrated struct {
	Version    int64          `json:"version"`
	Migrations []migratedOnce `json:"migrations"`
}

type migratedOnce struct {
	Migration string  `json:"migration"`
	Direction string  `json:"direction"`
	Seconds   float64 `json:"seconds"`
}

func printMigrated(s *streams, version int64, results ...*goose.MigrationResult) error {
	all := migrated{Version: version, Migrations: []migratedOnce{}}
	for _, r := range results {
		if r != nil {
			all.Migrations = append(all.Migrations, migratedOnce{r.Source.Path, r.Direction, r.Duration.Seconds()})
		}
	}
	return printJSON(s.out, all)
}

func printApplied(s *streams, results ...*goose.MigrationResult) error {
	for _, r := range results {
		if r == nil {
			continue
		}
		if _, err := fmt.Fprintf(s.out, "%-4s  %s  %s\n", r.Direction, r.Source.Path, r.Duration.Round(time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// Run applies what is pending.
func (cmd *MigrateUpCmd) Run(ctx context.Context, s *streams) error {
	return cmd.up(ctx, s, migrate.Embedded(), "the schema is")
}

// up applies what is pending of a set, or shows it; what names the subject of the last line, and its verb.
func (cmd *UpFlags) up(ctx context.Context, s *streams, set migrate.Set, what string) error {
	return withMigrator(ctx, &cmd.DatabaseFlags, set, func(m *migrate.Migrator) error {
		if cmd.ShowSQL {
			return showUp(ctx, s, m)
		}
		results, err := m.Up(ctx)
		if partial, ok := errors.AsType[*goose.PartialError](err); ok {
			results = partial.Applied
		}
		failed := failedMigration("up", err)
		if !cmd.JSON {
			failed = errors.Join(failed, printApplied(s, results...))
		}
		if failed != nil {
			return failed
		}
		version, err := m.GetDBVersion(ctx)
		if err != nil {
			return fmt.Errorf("reading the schema version: %w", err)
		}
		if cmd.JSON {
			return printMigrated(s, version, results...)
		}
		next := ""
		if len(results) > 0 {
			next = "; next, as a superuser: psql -f sql/roles.sql"
		}
		_, err = fmt.Fprintf(s.out, "%s at migration %d%s\n", what, version, next)
		return err
	})
}

// Run undoes one migration.
func (cmd *MigrateDownCmd) Run(ctx context.Context, s *streams) error {
	return withMigrator(ctx, &cmd.DatabaseFlags, migrate.Embedded(), func(m *migrate.Migrator) error {
		if cmd.ShowSQL {
			return showDown(ctx, s, m)
		}
		result, err := m.Down(ctx)
		none := errors.Is(err, goose.ErrNoNextVersion)
		switch {
		case err != nil && !none:
			return failedMigration("down", err)
		case none && !cmd.JSON:
			_, err = fmt.Fprintln(s.out, "no migration is applied")
			return err
		}
		version, err := m.GetDBVersion(ctx)
		if err != nil {
			return fmt.Errorf("reading the schema version: %w", err)
		}
		if cmd.JSON {
			return printMigrated(s, version, result)
		}
		if err := printApplied(s, result); err != nil {
			return err
		}
		_, err = fmt.Fprintf(s.out, "the schema is at migration %d; no run of this program begins until: orphan-cleaner migrate up\n", version)
		return err
	})
}

// failedMigration is goose's error in the words of the server and with the name
// of the file: "migrating down 00001_create_runs.sql: refusing to drop …".
func failedMigration(direction string, err error) error {
	if err == nil {
		return nil
	}
	partial, ok := errors.AsType[*goose.PartialError](err)
	if !ok {
		return fmt.Errorf("migrating %s: %w", direction, err)
	}
	said, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !strings.HasPrefix(said.Message, "refusing to") {
		return fmt.Errorf("migrating %s %s: %w", direction, partial.Failed.Source.Path, partial.Err)
	}
	return fmt.Errorf("migrating %s %s: %w", direction, partial.Failed.Source.Path, &refusal{said})
}

// refusal is what a migration raises itself.
type refusal struct{ said *pgconn.PgError }

func (r *refusal) Error() string { return r.said.Message }
func (r *refusal) Unwrap() error { return r.said }

// showUp prints the Up part of each pending migration.
func showUp(ctx context.Context, s *streams, m *migrate.Migrator) error {
	list, err := m.List(ctx)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(one migrate.Migration) bool { return !one.AppliedAt.IsZero() })
	if len(list) == 0 {
		_, err := fmt.Fprintln(s.out, "-- no migration is pending")
		return err
	}
	return showSQL(s, m, false, list...)
}

// showDown prints the Down part of the newest migration that is applied.
func showDown(ctx context.Context, s *streams, m *migrate.Migrator) error {
	list, err := m.List(ctx)
	if err != nil {
		return err
	}
	for _, one := range slices.Backward(list) {
		if !one.AppliedAt.IsZero() {
			return showSQL(s, m, true, one)
		}
	}
	_, err = fmt.Fprintln(s.out, "-- no migration is applied")
	return err
}

func showSQL(s *streams, m *migrate.Migrator, down bool, list ...migrate.Migration) error {
	for _, one := range list {
		text, err := m.SQL(one, down)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(s.out, "-- %s\n%s\n", one.Name, text); err != nil {
			return err
		}
	}
	return nil
}

// migrationState is a line of `migrate status`.
type migrationState struct {
	Migration string     `json:"migration"`
	State     string     `json:"state"` // applied or pending
	AppliedAt *time.Time `json:"applied_at"`
}

// Run lists the migrations; it only reads.
func (cmd *MigrateStatusCmd) Run(ctx context.Context, s *streams) error {
	return withMigrator(ctx, &cmd.DatabaseFlags, migrate.Embedded(), func(m *migrate.Migrator) error {
		list, err := m.List(ctx)
		if err != nil {
			return err
		}
		states := make([]migrationState, len(list))
		t := newTable("", "migration", "state", "applied at (UTC)")
		for i, one := range list {
			at := ""
			states[i] = migrationState{Migration: one.Name, State: "pending"}
			if !one.AppliedAt.IsZero() {
				utc := one.AppliedAt.UTC()
				states[i].State, states[i].AppliedAt, at = "applied", &utc, utc.Format(time.DateTime)
			}
			t.AppendRow(table.Row{one.Name, states[i].State, at})
		}
		if cmd.JSON {
			return printJSON(s.out, states)
		}
		return printTable(s.out, t)
	})
}
