package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/prune"
)

// PruneCmd is `prune`.
type PruneCmd struct {
	DatabaseFlags `group:"Database"`
	LogFlags      `group:"Log"`
	RestoreWindow Duration `help:"How long backups are kept, a day or longer." env:"ORPHAN_CLEANER_RESTORE_WINDOW" default:"90d"`
	AuditWindow   Duration `help:"How long the audit is kept; not shorter than the restore window." env:"ORPHAN_CLEANER_AUDIT_WINDOW" default:"400d"`
	Execute       bool     `help:"Do it. Without it, only show what would be dropped."`
	JSON          bool     `name:"json" help:"Print one JSON object."`
}

func (cmd *PruneCmd) config() (prune.Config, error) {
	cfg := prune.DefaultConfig()
	cfg.RestoreWindow, cfg.AuditWindow = time.Duration(cmd.RestoreWindow), time.Duration(cmd.AuditWindow)
	switch {
	case cfg.RestoreWindow < day:
		return cfg, fmt.Errorf("%w: ORPHAN_CLEANER_RESTORE_WINDOW is %s, under one day: backups would be dropped before anybody notices a mistake", errUsage, cmd.RestoreWindow)
	case cfg.AuditWindow < cfg.RestoreWindow:
		return cfg, fmt.Errorf("%w: ORPHAN_CLEANER_AUDIT_WINDOW is %s, shorter than ORPHAN_CLEANER_RESTORE_WINDOW, %s: restoring a backup reads the audit of its time",
			errUsage, cmd.AuditWindow, cmd.RestoreWindow)
	}
	return cfg, nil
}

// Run shows, or drops, the partitions past their window.
func (cmd *PruneCmd) Run(ctx context.Context, s *streams) error {
	cfg, err := cmd.config()
	if err != nil {
		return err
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	pruner := prune.New(pool, cmd.logger(s), cfg)
	do := pruner.Look
	if cmd.Execute {
		if err := check.Clock(ctx, pool); err != nil {
			return err
		}
		do = pruner.Execute
	}
	result, err := do(ctx)
	if database.Code(err) == database.NoPrivilege {
		err = fmt.Errorf("%w: prune runs as the owner of the tables, not as the role of the runs", err)
	}
	if err != nil {
		err = fmt.Errorf("pruning: %w", err)
	}
	if err != nil && len(result.Partitions) == 0 {
		return fmt.Errorf("%w; see: orphan-cleaner check", err)
	}
	if cmd.JSON {
		return errors.Join(err, printJSON(s.out, result))
	}
	return errors.Join(err, cmd.print(s, result))
}

// print shows the partitions past their window and those that are not of ours;
// the others it counts.
func (cmd *PruneCmd) print(s *streams, result prune.Result) error {
	t := newTable("Past their window", "partition", "of", "rows", "size", "verdict")
	within := 0
	var size int64
	for _, p := range result.Partitions {
		if p.KeptBecause == "within the window" {
			within++
			continue
		}
		of := p.LowerBound.UTC().Format("2006-01")
		if p.UpperBound.Sub(p.LowerBound) <= day {
			of = p.LowerBound.UTC().Format(time.DateOnly)
		}
		verdict := "drop"
		switch {
		case p.Dropped:
			verdict = fmt.Sprintf("dropped in %.1f ms", p.Millis)
		case p.KeptBecause != "":
			verdict = "kept: " + p.KeptBecause
		}
		if p.KeptBecause == "" {
			size += p.Bytes
		}
		rows := "?"
		if p.RowsEstimate >= 0 {
			rows = strconv.FormatInt(p.RowsEstimate, 10)
		}
		t.AppendRow(table.Row{p.PartitionName, of, rows, progress.FormatBytes(p.Bytes), verdict})
	}
	text := &sheet{to: s.out}
	if t.Length() > 0 {
		text.table(t)
	}
	if cmd.Execute {
		text.line("freed %s: dropped %d partitions, %d are within their window;\n"+
			"forgot %d users of old refusals, %d deleted users, %d members of old restores",
			progress.FormatBytes(result.BytesGivenBack), result.Dropped, within, result.RefusedUsers, result.RecheckedUsers, result.RestoredRows)
	} else {
		text.line("would free %s; %d partitions are within their window; nothing was changed: add --execute", progress.FormatBytes(size), within)
	}
	return text.print()
}
