package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
)

// CheckCmd is `check`.
type CheckCmd struct {
	DatabaseFlags `group:"Database"`
	AuthFlags     `group:"auth-service"`
	CanaryFlags   `group:"Run"`
	LogFlags      `group:"Log"`
	MetricsAddr   string `help:"Check whether serve could listen here, such as :9091." env:"ORPHAN_CLEANER_METRICS_ADDR" placeholder:"ADDR"`
	RedisURL      string `help:"messaging-service's Redis, pinged because its environment names it; nothing here uses it." env:"REDIS_URL" placeholder:"URL"`
	JSON          bool   `name:"json" help:"Print a JSON array."`
}

// Run prints a line per check and fails when one of them failed.
func (cmd *CheckCmd) Run(ctx context.Context, s *streams) error {
	latest, err := migrate.Latest()
	if err != nil {
		return err
	}
	url, err := cmd.url()
	if err != nil {
		return err
	}
	alive, dead, err := cmd.canaries()
	if err != nil {
		return err
	}
	log := cmd.logger(s)
	client, err := cmd.dial(log)
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	probes := []check.Probe{
		authProbe(client, cmd.AuthServiceURL), plaintextProbe(cmd.AuthServiceURL), canaryProbe(client, alive, dead),
	}
	if cmd.RedisURL != "" {
		probes = append(probes, redisProbe(cmd.RedisURL))
	}
	if cmd.DatabaseURLFile != "" {
		probes = append(probes, fileProbe(cmd.DatabaseURLFile))
	}
	if cmd.MetricsAddr != "" {
		probes = append(probes, portProbe(cmd.MetricsAddr))
	}
	var findings check.Findings
	if pool, err := cmd.open(ctx); err != nil {
		findings = append(findings, check.Finding{Name: "database", Status: check.Fail, Message: strings.TrimSuffix(oneLine(err), "; "+databaseHint), Hint: databaseHint})
		for _, probe := range probes {
			findings = append(findings, probe(ctx))
		}
	} else {
		defer pool.Close()
		probes = append([]check.Probe{poolerProbe(url), connectionsProbe(pool), encryptionProbe(pool)}, probes...)
		probes = append(probes, check.New(pool, log, latest).Limits)
		findings = check.New(pool, log, latest, probes...).Check(ctx, false)
	}
	if cmd.JSON {
		err = printJSON(s.out, findings)
	} else {
		var b strings.Builder
		for _, f := range findings {
			fmt.Fprintf(&b, "%-4s  %s: %s\n", f.Status, f.Name, shown(f.Message))
			if f.Hint != "" {
				fmt.Fprintf(&b, "      hint: %s\n", shown(f.Hint))
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
