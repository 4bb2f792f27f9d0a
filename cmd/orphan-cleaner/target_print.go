package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

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
	folder, err := printer.Read(cmd.Dir)
	if errors.Is(err, printer.ErrFolder) {
		return fmt.Errorf("%w: %w", errUsage, err)
	} else if err != nil {
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
	return so.print(s, cmd.Dir)
}

func (so printedFiles) print(s *streams, dir string) error {
	text := ""
	for _, name := range so.Written {
		text += shown(name) + "\n"
	}
	for _, note := range so.Notes {
		text += shown(note) + "\n"
	}
	if len(so.Written) == 0 {
		text += "nothing to print: the migrations in " + shown(dir) + " are those of the file and of the tables\n"
	} else {
		text += "review them, then as the owner of the tables: cd " + shown(dir) + " && goose up; then psql -f sql/roles.sql\n"
	}
	_, err := fmt.Fprint(s.out, text)
	return err
}
