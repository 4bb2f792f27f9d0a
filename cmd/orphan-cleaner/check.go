package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/cleaner"
)

// CheckCmd is `check`.
type CheckCmd struct {
	DatabaseFlags `group:"Database"`
	AuthFlags     `group:"auth-service"`
	LogFlags      `group:"Log"`
	JSON          bool `name:"json" help:"Print a JSON array."`
}

// Run prints a line per check and fails when one of them failed.
func (cmd *CheckCmd) Run(ctx context.Context, s *streams) error {
	cfg, err := finishConfig(cleaner.DefaultConfig())
	if err != nil {
		return err
	}
	if _, err := cmd.url(); err != nil {
		return err
	}
	log := cmd.logger(s)
	client, err := cmd.dial(log)
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	probe := authProbe(client, cmd.AuthServiceURL)
	var findings cleaner.Findings
	if pool, err := cmd.open(ctx); err != nil {
		findings = cleaner.Findings{{Name: "database", Status: cleaner.Fail, Message: strings.TrimSuffix(oneLine(err), "; "+databaseMend), Mend: databaseMend}, probe(ctx)}
	} else {
		defer pool.Close()
		findings = cleaner.New(pool, client, log, cfg, probe).Check(ctx, false)
	}
	if cmd.JSON {
		err = printJSON(s.out, findings)
	} else {
		var b strings.Builder
		for _, f := range findings {
			fmt.Fprintf(&b, "%-4s  %s: %s\n", f.Status, f.Name, f.Message)
			if f.Mend != "" {
				fmt.Fprintf(&b, "      mend: %s\n", f.Mend)
			}
		}
		_, err = fmt.Fprint(s.out, b.String())
	}
	if err != nil {
		return fmt.Errorf("writing the findings: %w", err)
	}
	if err := findings.Err(); err != nil {
		return shownError{err}
	}
	return nil
}
