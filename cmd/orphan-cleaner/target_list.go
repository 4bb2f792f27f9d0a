package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/printer"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/target"
)

// TargetListCmd is `target list`.
type TargetListCmd struct {
	DatabaseFlags `group:"Database"`
	JSON          bool `name:"json" help:"Print a JSON array."`
}

// Run shows the registry, in the order of the sweep.
func (cmd *TargetListCmd) Run(ctx context.Context, s *streams) error {
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	pins := settings.Limits{}
	registry, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]printer.Registered, error) {
		limits, err := q.LimitList(ctx)
		if err != nil {
			return nil, fmt.Errorf("reading the limits: %w", err)
		}
		for _, l := range limits {
			pins[l.Name] = l.Value
		}
		return printer.Registry(ctx, q)
	})
	if err != nil {
		return err
	}
	for i := range registry {
		registry[i].InForce = registry[i].With(pins)
	}
	if cmd.JSON {
		return printJSON(s.out, registry)
	}
	t := newTable("Targets, in the order of the sweep", "name", "table", "column", "action", "retention", "limits", "functions", "applied (UTC)", "by")
	for _, r := range registry {
		retention, state := "the run's", "built in"
		if r.Retention > 0 {
			// 0 where none is pinned: a retention is the longer one.
			retention = limitInForce("retention", float64(r.Retention), max(float64(r.Retention), pins["retention"]))
		}
		switch {
		case r.Disagrees() != "", r.Drifted() != "":
			state = "CHANGED"
		case r.IsPrinted():
			state = "as printed"
		}
		var limits []string
		for _, name := range slices.Sorted(maps.Keys(r.Limits)) {
			limits = append(limits, name+" "+limitInForce(name, r.Limits[name], r.InForce[name]))
		}
		t.AppendRow(table.Row{r.Name, r.Table, r.Column, r.Action, retention, strings.Join(limits, ", "), state, r.AppliedAt.UTC().Format(time.DateTime), r.AppliedBy})
	}
	return printTable(s.out, t)
}

// limitInForce is a limit of a target, which may be a pin that is stricter than its own.
func limitInForce(name string, own, inForce float64) string {
	if inForce == own {
		return settings.BoundText(name, own)
	}
	return fmt.Sprintf("%s (pinned; %s in the file)", settings.BoundText(name, inForce), settings.BoundText(name, own))
}

// TargetsFlag names the file whose targets those of the database must be.
type TargetsFlag struct {
	Targets string `help:"targets.yaml: no run while its targets are not those of the database." env:"ORPHAN_CLEANER_TARGETS" placeholder:"FILE"`
}

// Validate refuses a wrong file before anything begins. Each run reads it again.
func (f TargetsFlag) Validate() error {
	if f.Targets == "" {
		return nil
	}
	_, err := target.Load(f.Targets)
	if err == nil {
		return nil
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("%s; every error: orphan-cleaner target check %s", first, f.Targets)
}

// targetsProbes compares the file, where one is named, with the registry and the functions.
func (f TargetsFlag) targetsProbes(pool *pgxpool.Pool) []check.Probe {
	if f.Targets == "" {
		return nil
	}
	return []check.Probe{func(ctx context.Context) check.Finding {
		const name, hint = "targets-file", "orphan-cleaner target check FILE"
		var disagree, unapplied []string
		file, err := target.Load(f.Targets)
		if err == nil {
			disagree, unapplied, err = printer.Compare(ctx, pool, file)
		}
		if err != nil {
			return failure(name, oneLine(err), hint)
		}
		if disagree = append(disagree, unapplied...); len(disagree) > 0 {
			return failure(name, strings.Join(disagree, "; "), hint)
		}
		return fine(name, fmt.Sprintf("%d targets, as in %s", len(file.Targets), f.Targets))
	}}
}
