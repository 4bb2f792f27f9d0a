package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/conform"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/source/sqlsource"
)

// CheckCmd is `check`.
type CheckCmd struct {
	DatabaseFlags `group:"Database"`
	AuthFlags     `group:"auth-service"`
	CanaryFlags   `group:"Run"`
	TargetsFlag   `group:"Run"`
	EventFlags    `group:"Events"`
	LogFlags      `group:"Log"`
	MetricsAddr   string `help:"Check whether serve could listen here, such as :9091." env:"ORPHAN_CLEANER_METRICS_ADDR" placeholder:"ADDR"`
	Source        bool   `help:"Test auth-service itself against the contract, for whoever writes one: with ORPHAN_CLEANER_CANARY_ALIVE, a user who exists; needs no database."`
	JSON          bool   `name:"json" help:"Print a JSON array."`
}

// Run prints a line per check and fails when one of them failed.
func (cmd *CheckCmd) Run(ctx context.Context, s *streams) error {
	if cmd.Source {
		return cmd.conform(ctx, s)
	}
	latest, err := migrate.Latest()
	if err != nil {
		return err
	}
	url, err := cmd.url()
	if err != nil {
		return err
	}
	log := cmd.logger(s)
	if _, err := cmd.sinks(s.out, log); err != nil {
		return err
	}
	client, probes, err := dialProbed(ctx, cmd.AuthFlags, cmd.CanaryFlags, log)
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	if cmd.RedisURL != "" {
		probes = append(probes, cmd.redisProbe(log))
	}
	if slices.ContainsFunc(cmd.Events, func(sink string) bool { return strings.HasPrefix(sink, "file:") }) {
		probes = append(probes, cmd.filesProbe)
	}
	if cmd.DatabaseURLFile != "" {
		probes = append(probes, fileProbe("DATABASE_URL_FILE", cmd.DatabaseURLFile))
	}
	if cmd.RedisURLFile != "" {
		probes = append(probes, fileProbe("REDIS_URL_FILE", cmd.RedisURLFile))
	}
	if cmd.MetricsAddr != "" {
		probes = append(probes, portProbe(cmd.MetricsAddr))
	}
	var findings check.Findings
	if pool, err := cmd.open(ctx); err != nil {
		findings = append(findings, failure("database", strings.TrimSuffix(oneLine(err), "; "+database.ConnectionHint(err)), database.ConnectionHint(err)))
		for _, probe := range probes {
			findings = append(findings, probe(ctx))
		}
	} else {
		defer pool.Close()
		probes = append([]check.Probe{poolerProbe(url), connectionsProbe(pool), encryptionProbe("database-tls", "DATABASE_URL", pool)}, probes...)
		if bySQL, isSQL := client.(*sqlsource.Source); isSQL {
			probes = append(probes, sameDatabaseProbe(pool, bySQL.Pool()))
		}
		beside := check.New(pool, log, latest)
		probes = append(probes, cmd.targetsProbes(pool)...)
		probes = append(probes, beside.Limits, beside.MemberCounts, beside.ShadowKeys)
		findings = check.New(pool, log, latest, probes...).Check(ctx, false)
	}
	return cmd.print(s, findings)
}

// conform tests the source of truth alone.
func (cmd *CheckCmd) conform(ctx context.Context, s *streams) error {
	alive, dead, err := cmd.canaries()
	if err != nil {
		return err
	}
	if len(alive) == 0 {
		return fmt.Errorf("%w: check --source needs a user who exists: add --canary-alive=UUID", errUsage)
	}
	log := cmd.logger(s)
	client, err := cmd.dial(ctx, log)
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	shouting, err := cmd.dialAs(ctx, source.Config{Logger: log, UpperCase: true})
	if err != nil {
		return err
	}
	defer closeClient(shouting, log)
	test := conform.Test{Source: client, UpperCase: shouting, Alive: alive, Dead: dead, TargetP99: time.Duration(cmd.AuthServiceTargetP99)}
	return cmd.print(s, test.Run(ctx))
}

// print prints a line per check and how many are what, and fails when one of them failed.
func (cmd *CheckCmd) print(s *streams, findings check.Findings) (err error) {
	if cmd.JSON {
		err = printJSON(s.out, findings)
	} else {
		var b strings.Builder
		counts, sums := map[string]int{}, []string(nil)
		for _, f := range findings {
			fmt.Fprintf(&b, "%-4s  %s: %s\n", f.Status, f.Name, shown(f.Message))
			if f.Hint != "" {
				fmt.Fprintf(&b, "      hint: %s\n", shown(f.Hint))
			}
			counts[f.Status]++
		}
		for _, status := range []string{check.OK, check.Warn, check.Fail} {
			if counts[status] > 0 {
				sums = append(sums, fmt.Sprintf("%d %s", counts[status], status))
			}
		}
		fmt.Fprintln(&b, strings.Join(sums, ", "))
		_, err = fmt.Fprint(s.out, b.String())
	}
	if err != nil {
		return fmt.Errorf("writing the findings: %w", err)
	}
	if err := findings.Err("check"); err != nil {
		return shownError{err}
	}
	return nil
}
