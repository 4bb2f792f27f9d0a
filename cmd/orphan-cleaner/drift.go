package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/internal/check"
)

// MigrateDriftCmd is `migrate drift`.
type MigrateDriftCmd struct {
	DatabaseFlags `group:"Database"`
	LogFlags      `group:"Log"`
	Print         bool `help:"Print a goose migration that brings the backup along, for review." xor:"format"`
	JSON          bool `name:"json" help:"Print a JSON array." xor:"format"`
}

// errDrift is returned where the columns differ.
var errDrift = errors.New("the backup's columns differ from those of conversation_members")

// Run shows how the backup's columns differ from those of conversation_members.
// It only reads.
func (cmd *MigrateDriftCmd) Run(ctx context.Context, s *streams) error {
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	drift, err := check.New(pool, cmd.logger(s), 0).Drift(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("comparing columns: %w", err)
	case cmd.JSON:
		if err := printJSON(s.out, driftLines(drift)); err != nil || len(drift) == 0 {
			return err
		}
		return shownError{errDrift}
	case len(drift) == 0:
		comment := ""
		if cmd.Print {
			comment = "-- "
		}
		_, err := fmt.Fprintln(s.out, comment+"no drift: the backup takes every column of conversation_members")
		return err
	case cmd.Print:
		return printDriftMigration(s.out, drift, time.Now())
	default:
		return errors.Join(printDrift(s.out, drift), shownError{errDrift})
	}
}

// driftLine is one column of `migrate drift --json`; a type is empty where the column is not there.
type driftLine struct {
	Column      string `json:"column"`
	Kind        string `json:"kind"`
	MembersType string `json:"members_type"`
	BackupType  string `json:"backup_type"`
	Fix         string `json:"fix"`
}

func driftLines(drift []check.Drift) []driftLine {
	lines := make([]driftLine, len(drift))
	for i, d := range drift {
		lines[i] = driftLine{d.ColumnName, d.Kind, d.MembersType, d.BackupType, d.Fix()}
	}
	return lines
}

func printDrift(w io.Writer, drift []check.Drift) error {
	t := newTable("Columns that differ", "column", "", "conversation_members", "its backup")
	for _, d := range drift {
		t.AppendRow(table.Row{d.ColumnName, d.Kind, d.MembersType, d.BackupType})
	}
	s := &sheet{to: w}
	s.table(t)
	for _, d := range drift {
		s.line("fix %s: %s", shown(d.ColumnName), shown(d.Fix()))
	}
	s.line("as a goose migration: orphan-cleaner migrate drift --print")
	return s.print()
}

//go:embed drift.sql.tmpl
var driftMigration string

// printDriftMigration writes the migration, whole or not at all.
func printDriftMigration(w io.Writer, drift []check.Drift, now time.Time) error {
	data := struct {
		Version           string
		Drift, Backwards  []check.Drift
		Rewrites, Refuses bool
	}{Version: now.UTC().Format("20060102150405"), Drift: drift, Backwards: slices.Clone(drift)}
	slices.Reverse(data.Backwards)
	for _, d := range drift {
		if d.Up == "" {
			return fmt.Errorf("no migration of the backup helps with %s; %s", d, d.Fix())
		}
		data.Rewrites = data.Rewrites || d.UpLoses != "" || d.UpSettle != ""
		data.Refuses = data.Refuses || d.DownLoses != ""
	}
	migration, err := template.New("drift").Parse(driftMigration)
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := migration.Execute(&text, data); err != nil {
		return err
	}
	_, err = io.WriteString(w, text.String())
	return err
}
