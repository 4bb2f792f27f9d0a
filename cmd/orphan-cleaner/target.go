package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/internal/printer"
	"github.com/nova-social/orphan-cleaner/internal/target"
)

// TargetCmd is `target`.
type TargetCmd struct {
	Apply TargetApplyCmd `cmd:"" help:"Apply the printed migrations that are not applied yet."`
	Check TargetCheckCmd `cmd:"" help:"Compare targets.yaml with the database, and list columns that look like user ids and are in no target."`
	List  TargetListCmd  `cmd:"" help:"List the targets of the database, and whether their functions are those that were printed."`
	Print TargetPrintCmd `cmd:"" help:"Write the goose migrations that make the tables of targets.yaml targets, or what they lack."`
}

// TargetCheckCmd is `target check`.
type TargetCheckCmd struct {
	DatabaseFlags `group:"Database"`
	File          string   `arg:"" optional:"" help:"targets.yaml; without it conversation_members is the only target."`
	Retention     Duration `help:"The retention of the runs: a target's may only be longer." env:"ORPHAN_CLEANER_RETENTION" default:"30d"`
	JSON          bool     `name:"json" help:"Print one JSON object."`
}

// errLeft is returned where a column is neither a target nor ignored.
var errLeft = errors.New("columns look like user ids and are neither targets nor ignored: add each to targets.yaml, see docs/targets.md")

// errDisagree is returned where what the file declares is not what the database has.
var errDisagree = errors.New("file, registry and functions of the targets disagree: no run with --targets until that is settled")

// Run prints what is left to be decided, and fails when something is.
func (cmd *TargetCheckCmd) Run(ctx context.Context, s *streams) error {
	var file target.File
	if cmd.File != "" {
		var err error
		if file, err = target.Load(cmd.File); err != nil {
			return usageOfFile(err)
		}
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	notes, err := file.Validate(ctx, pool, time.Duration(cmd.Retention))
	if err != nil {
		return usageOfFile(err)
	}
	found, err := file.FindReferences(ctx, pool)
	if err != nil {
		return err
	}
	found.Notes = append(found.Notes, notes...)
	if cmd.File != "" {
		disagree, unapplied, err := printer.Compare(ctx, pool, file)
		if err != nil {
			return usageOfFile(err)
		}
		found.Disagree = append(found.Disagree, append(disagree, unapplied...)...)
	}
	if cmd.JSON {
		err = printJSON(s.out, found)
	} else {
		err = cmd.print(s, found)
	}
	switch {
	case err != nil:
		return err
	case len(found.Disagree) > 0:
		return errDisagree
	case len(found.Left) > 0:
		return fmt.Errorf("%d left: %w", len(found.Left), errLeft)
	}
	return nil
}

// usageOfFile makes errors in a file one of usage: nothing was begun.
func usageOfFile(err error) error {
	if _, is := errors.AsType[*target.Error](err); is {
		return usageError{err}
	}
	return err
}

// usageError is errUsage without its words: each line of the error begins with its place in the file.
type usageError struct{ error }

func (e usageError) Unwrap() []error { return []error{e.error, errUsage} }

func (cmd *TargetCheckCmd) print(s *streams, found target.References) error {
	var b strings.Builder
	if len(found.Left) > 0 {
		t := newTable("Columns that look like user ids and are neither targets nor ignored", "column", "type", "found by", "rows", "known users")
		for _, r := range found.Left {
			rows, known := "?", "not sampled"
			if r.RowsEstimate != nil {
				rows = fmt.Sprint(*r.RowsEstimate)
			}
			if r.Sampled != nil {
				known = fmt.Sprintf("%d of %d", *r.Known, *r.Sampled)
			}
			t.AppendRow(table.Row{r.Column, r.Type, strings.Join(r.Reasons, ", "), rows, known})
		}
		if err := printTable(s.out, t); err != nil {
			return err
		}
		b.WriteString("\nFor targets.yaml, to be decided for each:\n\n")
		for _, list := range []struct{ name, entry string }{{"targets:\n", "- name:"}, {"ignore:\n", "- column:"}} {
			for _, r := range found.Left {
				if strings.HasPrefix(r.Stanza, list.entry) {
					b.WriteString(list.name)
					list.name = "" // once
					for line := range strings.Lines(r.Stanza) {
						b.WriteString("  " + shown(strings.TrimSuffix(line, "\n")) + "\n")
					}
				}
			}
		}
		b.WriteString("\n")
	}
	for _, r := range found.Left {
		if r.NotSampled != "" {
			fmt.Fprintf(&b, "not sampled: %s: %s\n", shown(r.Column), shown(r.NotSampled))
		}
	}
	for _, u := range found.Unsampled {
		fmt.Fprintf(&b, "not judged, only its values could tell: %s: %s\n", shown(u.Column), shown(u.Reason))
	}
	for _, line := range found.Disagree {
		fmt.Fprintln(&b, shown(line))
	}
	for _, note := range found.Notes {
		fmt.Fprintln(&b, shown(note))
	}
	fmt.Fprintf(&b, "targets: %d, ignored: %d, left: %d; json, views and foreign tables are not looked into\n", len(found.Targets), len(found.Ignored), len(found.Left))
	_, err := fmt.Fprint(s.out, b.String())
	return err
}
