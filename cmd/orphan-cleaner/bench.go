package main

import (
	"context"
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/speed"
)

// BenchCmd is `bench --read-only`.
type BenchCmd struct {
	ReadOnly      bool `help:"Make a dry run and measure the calls; changes nothing. There is no other kind."`
	CallRepeat    int  `help:"How often the runbook's table 5.1 is measured; 0: not at all." default:"100"`
	JSON          bool `name:"json" help:"Print one JSON object: all figures."`
	DatabaseFlags `group:"Database"`
	AuthFlags     `group:"auth-service"`
	CleanerFlags  `group:"Run"`
	LogFlags      `group:"Log"`
}

// Run measures the scan and the calls of somebody's own servers.
func (cmd *BenchCmd) Run(ctx context.Context, s *streams) error {
	if !cmd.ReadOnly {
		return fmt.Errorf("%w: bench only reads, and wants to hear that you know: add --read-only; the comparison on throw-away servers is `make bench` in the source tree", errUsage)
	}
	if cmd.CallRepeat < 0 || cmd.CallRepeat > 100_000 {
		return fmt.Errorf("%w: --call-repeat must be 0 to 100000", errUsage)
	}
	cfg, err := cmd.config()
	if err != nil {
		return err
	}
	if _, err := cmd.url(); err != nil {
		return err
	}
	log := cmd.logger(s)
	client, err := cmd.dial(ctx, log)
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	latest, err := migrate.Latest()
	if err != nil {
		return err
	}
	preflight := check.New(pool, log, latest, authProbe(client, cmd.AuthServiceURL)).ForRun(true)
	report, err := speed.Measure(ctx, pool, client, log, cfg, cmd.CallRepeat, preflight)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(s.out, report)
	}
	return printSpeed(s.out, report)
}

func printSpeed(w io.Writer, r speed.Report) error {
	s := &sheet{to: w}
	s.line("Read-only: nothing was changed. %d users, %d members; verified in %.2f s: %.0f users a second, %d calls.\n",
		r.DryRun.UsersChecked, r.DryRun.MembersTotal, r.Phases["verify"], r.UsersPerSecond, r.DryRun.BatchCalls)
	t := newTable("Runbook 5.1, checking users (ms)", "users", "calls", "runbook P50", "P99", "here P50", "P99", "times")
	for _, c := range r.Calls {
		t.AppendRow(table.Row{c.Users, c.Calls, c.RunbookP50, c.RunbookP99, fmt.Sprintf("%.1f", c.P50), fmt.Sprintf("%.1f", c.P99), c.Samples})
	}
	s.table(t)
	return s.print()
}
