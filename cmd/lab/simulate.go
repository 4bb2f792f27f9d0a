package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/nova-social/orphan-cleaner/internal/lab/simulate"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// SimulateCmd is `simulate`.
type SimulateCmd struct {
	Only     string `help:"Play histories whose group or name contains it." placeholder:"TEXT"`
	Large    bool   `help:"Play those of two million rows, too."`
	Parallel int    `help:"Histories played at the same time." default:"2"`
	Rows     int    `help:"Rows of a table that otherwise has 20,000: for a quick look."`
	Results  string `help:"Keep what came of each history in a file, and play none that is in it." placeholder:"FILE"`
	Markdown string `help:"Write the tables between the marks of a document." placeholder:"FILE"`
}

// Run plays and shows.
func (cmd *SimulateCmd) Run(ctx context.Context, s *streams) error {
	results := &simulate.Results{}
	if cmd.Results != "" {
		var err error
		if results, err = simulate.OpenResults(cmd.Results); err != nil {
			return err
		}
	}
	outcomes, err := simulate.Run(ctx, simulate.Options{
		Histories: simulate.Histories(cmd.Only, cmd.Large, cmd.Rows), Parallel: cmd.Parallel, Limits: settings.DefaultLimits(), Results: results,
		Say: func(format string, args ...any) { fmt.Fprintf(s.err, format+"\n", args...) },
	})
	// What was played before an error is shown, but written to no document.
	if _, writeErr := io.WriteString(s.out, simulate.Markdown(outcomes)); err != nil || writeErr != nil || cmd.Markdown == "" {
		return errors.Join(err, writeErr)
	}
	return simulate.WriteMarkdown(cmd.Markdown, outcomes)
}
