package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/printer"
	"github.com/nova-social/orphan-cleaner/internal/target"
)

// TargetPrintCmd is `target print`.
type TargetPrintCmd struct {
	DatabaseFlags `group:"Database"`
	File          string   `arg:"" help:"targets.yaml."`
	Dir           string   `required:"" help:"The folder for the printed migrations, and for nothing else." placeholder:"DIR"`
	Retention     Duration `help:"The retention of the runs: a target's may only be longer." env:"ORPHAN_CLEANER_RETENTION" default:"30d"`
	JSON          bool     `name:"json" help:"Print one JSON object."`
}

// TargetApplyCmd is `target apply`.
type TargetApplyCmd struct {
	Dir string `required:"" help:"The folder that target print wrote to." placeholder:"DIR"`
	UpFlags
}

// Run applies what is pending.
func (cmd *TargetApplyCmd) Run(ctx context.Context, s *streams) error {
	folder, err := readFolder(cmd.Dir)
	if err != nil {
		return err
	}
	if folder.IsEmpty() {
		return fmt.Errorf("%w: there is no printed migration in %s: orphan-cleaner target print FILE --dir %[2]s", errUsage, cmd.Dir)
	}
	return cmd.up(ctx, s, migrate.Set{Files: os.DirFS(cmd.Dir), Table: printer.VersionTable}, "the targets are")
}

// readFolder refuses one that holds what was not printed.
func readFolder(dir string) (printer.Folder, error) {
	folder, err := printer.Read(dir)
	if errors.Is(err, printer.ErrFolder) {
		err = fmt.Errorf("%w: %w", errUsage, err)
	}
	return folder, err
}

// printedFiles is what `target print --json` prints.
type printedFiles struct {
	Written []string `json:"written"`
	Notes   []string `json:"notes"`
}

// Run writes what the folder lacks. It reads the database, and changes nothing there.
func (cmd *TargetPrintCmd) Run(ctx context.Context, s *streams) error {
	file, err := target.Load(cmd.File)
	if err != nil {
		return usageOfFile(err)
	}
	folder, err := readFolder(cmd.Dir)
	if err != nil {
		return err
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	so := printedFiles{Written: []string{}, Notes: []string{}}
	notes, err := file.Validate(ctx, pool, time.Duration(cmd.Retention))
	if err == nil {
		err = file.Droppable(ctx, pool, folder.Names())
	}
	if err != nil {
		return usageOfFile(err)
	}
	shapes, err := file.Shapes(ctx, pool)
	if err != nil {
		return usageOfFile(err)
	}
	migrations, err := folder.Print(file, shapes)
	if err == nil && len(migrations) == 0 && !folder.IsEmpty() {
		var changed []string
		if changed, err = cmd.changed(ctx, pool, file); err == nil {
			migrations, err = folder.Print(file, shapes, changed...)
		}
	}
	if err != nil {
		return usageOfFile(err)
	}
	if err := folder.Write(migrations); err != nil {
		return err
	}
	so.Notes = append(so.Notes, notes...)
	for _, m := range migrations {
		so.Written = append(so.Written, filepath.Join(cmd.Dir, m.Name))
	}
	if cmd.JSON {
		return printJSON(s.out, so)
	}
	unapplied := 0
	if len(migrations) == 0 {
		disagree, missing, err := printer.Compare(ctx, pool, file)
		if err != nil {
			return usageOfFile(err)
		}
		unapplied = len(disagree) + len(missing)
	}
	return so.print(s, cmd.Dir, unapplied)
}

// changed names the targets that somebody changed in the database since all of the folder was applied.
func (cmd *TargetPrintCmd) changed(ctx context.Context, pool *pgxpool.Pool, file target.File) ([]string, error) {
	registry, err := database.Once(ctx, pool, pgx.ReadOnly, printer.Registry)
	if err != nil {
		return nil, err
	}
	changed := printer.Changed(file, registry)
	if len(changed) == 0 {
		return nil, nil
	}
	err = withMigrator(ctx, &cmd.DatabaseFlags, migrate.Set{Files: os.DirFS(cmd.Dir), Table: printer.VersionTable}, func(m *migrate.Migrator) error {
		list, err := m.List(ctx)
		if slices.ContainsFunc(list, func(one migrate.Migration) bool { return one.AppliedAt.IsZero() }) {
			changed = nil // what is pending may make them anew
		}
		return err
	})
	return changed, err
}

func (so printedFiles) print(s *streams, dir string, unapplied int) error {
	text := ""
	for _, name := range so.Written {
		text += shown(name) + "\n"
	}
	for _, note := range so.Notes {
		text += shown(note) + "\n"
	}
	apply := "as the owner of the tables: orphan-cleaner target apply --dir " + shown(dir) + "; then, as a superuser: psql -f sql/roles.sql\n"
	switch {
	case len(so.Written) > 0:
		text += "review them, then " + apply
	case unapplied > 0:
		text += fmt.Sprintf("nothing to print; not applied: %d targets; %s", unapplied, apply)
	default:
		text += "nothing to print: the migrations in " + shown(dir) + " match the file and the tables, and are applied\n"
	}
	_, err := fmt.Fprint(s.out, text)
	return err
}
