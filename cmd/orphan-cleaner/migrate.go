package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/pressly/goose/v3"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
)

// MigrateCmd is `migrate`.
type MigrateCmd struct {
	Up     MigrateUpCmd     `cmd:"" help:"Apply all migrations that are not applied yet."`
	Down   MigrateDownCmd   `cmd:"" help:"Undo the newest migration; refuses where that would destroy evidence."`
	Status MigrateStatusCmd `cmd:"" help:"List the migrations and when they were applied."`
	Drift  MigrateDriftCmd  `cmd:"" help:"Show how the backup's columns differ from those of conversation_members; print the migration that brings them along."`
}

// MigrateUpCmd is `migrate up`.
type MigrateUpCmd struct{ DatabaseFlags }

// MigrateDownCmd is `migrate down`.
type MigrateDownCmd struct{ DatabaseFlags }

// MigrateStatusCmd is `migrate status`.
type MigrateStatusCmd struct{ DatabaseFlags }

func withMigrator(ctx context.Context, flags *DatabaseFlags, do func(m *migrate.Migrator) error) (err error) {
	url, err := flags.url()
	if err != nil {
		return err
	}
	m, err := migrate.Open(ctx, url)
	if errors.Is(err, migrate.ErrNoMembers) || errors.Is(err, database.ErrPooled) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, databaseHint)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return do(m)
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
	return withMigrator(ctx, &cmd.DatabaseFlags, func(m *migrate.Migrator) error {
		results, err := m.Up(ctx)
		if partial, ok := errors.AsType[*goose.PartialError](err); ok {
			results = partial.Applied
		}
		if err := errors.Join(err, printApplied(s, results...)); err != nil {
			return fmt.Errorf("migrating up: %w", err)
		}
		version, err := m.GetDBVersion(ctx)
		if err != nil {
			return fmt.Errorf("reading the schema version: %w", err)
		}
		_, err = fmt.Fprintf(s.out, "the schema is at migration %d\n", version)
		return err
	})
}

// Run undoes one migration.
func (cmd *MigrateDownCmd) Run(ctx context.Context, s *streams) error {
	return withMigrator(ctx, &cmd.DatabaseFlags, func(m *migrate.Migrator) error {
		result, err := m.Down(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			_, err = fmt.Fprintln(s.out, "no migration is applied")
			return err
		}
		if err != nil {
			return fmt.Errorf("migrating down: %w", err)
		}
		return printApplied(s, result)
	})
}

// Run lists the migrations.
func (cmd *MigrateStatusCmd) Run(ctx context.Context, s *streams) error {
	return withMigrator(ctx, &cmd.DatabaseFlags, func(m *migrate.Migrator) error {
		statuses, err := m.Status(ctx)
		if err != nil {
			return fmt.Errorf("reading the migrations: %w", err)
		}
		t := newTable("", "migration", "state", "applied at (UTC)")
		for _, status := range statuses {
			at := ""
			if !status.AppliedAt.IsZero() {
				at = status.AppliedAt.UTC().Format(time.DateTime)
			}
			t.AppendRow(table.Row{status.Source.Path, status.State, at})
		}
		return printTable(s.out, t)
	})
}
