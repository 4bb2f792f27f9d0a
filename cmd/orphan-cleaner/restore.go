package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// RestoreCmd is `restore`.
type RestoreCmd struct {
	DatabaseFlags `group:"Database"`
	AuthFlags     `group:"auth-service (for --revert)"`
	LimitFlags    `group:"Limits (for --revert)"`
	CanaryFlags   `group:"Limits (for --revert)"`
	LogFlags      `group:"Log"`
	Deleted       *int64   `name:"run" help:"What this run deleted." placeholder:"RUN"`
	User          []string `help:"Members of these users." placeholder:"UUID,..." sep:"none"`
	Conversation  []string `help:"Members of these conversations." placeholder:"UUID,..." sep:"none"`
	Target        []string `help:"Rows of these targets only." placeholder:"NAME" sep:","`
	Since         *string  `help:"Deleted at this time or later: 2026-01-31, '2026-01-31 10:00' (UTC) or RFC 3339." placeholder:"TIME"`
	Until         *string  `help:"Deleted before this time." placeholder:"TIME"`
	Resurrected   bool     `help:"Members of the users whom runs found alive again (see status)."`
	Revert        int64    `help:"Undo a restore: delete its members again, where they are unchanged and auth-service still does not return their users." placeholder:"RUN"`
	Execute       bool     `help:"Do it. Without, only show what would be done."`
	Hold          Duration `help:"How long the users of restored members are on hold." env:"ORPHAN_CLEANER_RESTORE_HOLD" aliases:"restore-hold" default:"30d"`
	Lease         Duration `help:"A restore silent for longer is taken over." env:"ORPHAN_CLEANER_LEASE" default:"1m"`
	JSON          bool     `name:"json" help:"End with one JSON object on stdout."`
}

const defaultRestoreHold = Duration(30 * day)

// Run previews, restores or reverts.
func (cmd *RestoreCmd) Run(ctx context.Context, s *streams) error {
	chosen, err := cmd.selection()
	if err != nil {
		return err
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	log := cmd.logger(s)
	cfg, err := cmd.config(chosen)
	if err != nil {
		return err
	}
	if cmd.Deleted != nil {
		if err := aRunThatDeleted(ctx, pool, *cmd.Deleted); err != nil {
			return err
		}
	}
	if err := areTargets(ctx, pool, chosen.Targets); err != nil {
		return err
	}
	if cmd.Resurrected {
		if chosen.Users, err = resurrected(ctx, pool); err != nil {
			return err
		}
	}
	restorer := restore.New(pool, log, cfg)
	switch {
	case cmd.Revert != 0 && cmd.Execute:
		if err := check.Clock(ctx, pool); err != nil {
			return err
		}
		err = cmd.revert(ctx, s, log, restorer)
	case cmd.Revert != 0:
		err = cmd.previewRevert(ctx, s, restorer)
	case cmd.Execute:
		stop := cmd.watch(s, log, restorer)
		result, runErr := restorer.Restore(ctx, chosen)
		stop()
		err = cmd.show(s, log, result, s.explain(runErr))
	default:
		err = cmd.preview(ctx, s, restorer, chosen)
	}
	return err
}

func (cmd *RestoreCmd) config(chosen restore.Selection) (restore.Config, error) {
	cfg := restore.DefaultConfig()
	runner := finishConfig(settings.DefaultRun())
	var err error
	if runner.Limits, err = cmd.limits(); err != nil {
		return cfg, err
	}
	if cfg.CanaryAlive, cfg.CanaryDead, err = cmd.canaries(); err != nil {
		return cfg, err
	}
	cfg.Lease, cfg.Hold, cfg.Host, cfg.Version = time.Duration(cmd.Lease), time.Duration(cmd.Hold), runner.Host, runner.Version
	runner.Flags = map[string]any{
		"run": chosen.Run, "users": chosen.Users, "conversations": chosen.Conversations, "targets": chosen.Targets, "since": cmd.Since, "until": cmd.Until,
		"resurrected": cmd.Resurrected, "revert": cmd.Revert, "hold": cmd.Hold.String(),
	}
	cfg.Settings, err = runner.JSON()
	return cfg, err
}

// aRunThatDeleted refuses numbers that name no run, or a restore that took nothing.
func aRunThatDeleted(ctx context.Context, pool *pgxpool.Pool, id int64) error {
	sum, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) (db.RestoreSummaryRow, error) {
		return q.RestoreSummary(ctx, id)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: there is no run %d; see: orphan-cleaner status", errUsage, id)
	case err != nil:
		return fmt.Errorf("reading run %d: %w", id, err)
	case sum.Kind == "restore" && sum.MembersDeleted+sum.RowsDeleted == 0:
		return fmt.Errorf("%w: run %d is a restore; to undo it: orphan-cleaner restore --revert %d", errUsage, id, id)
	}
	return nil
}

func resurrected(ctx context.Context, pool *pgxpool.Pool) ([]uuid.UUID, error) {
	alive, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]db.RecheckAliveRow, error) { return q.RecheckAlive(ctx) })
	if err != nil {
		return nil, fmt.Errorf("reading who is alive again: %w", err)
	}
	users := make([]uuid.UUID, 0, len(alive))
	for _, user := range alive {
		users = append(users, user.UserID)
	}
	return users, nil
}

func (cmd *RestoreCmd) watch(s *streams, log *slog.Logger, r *restore.Restorer) func() {
	var in phaseClock
	return watchLine(s.err, func() string {
		p := r.Progress()
		if p.Of == 0 {
			return "reading the backups"
		}
		return fmt.Sprintf("%s%d of %d rows", share(p.Done, p.Of, in.spent("rows")), p.Done, p.Of)
	}, func() {
		p := r.Progress()
		log.Info("Restore under way", "rows_done", p.Done, "rows", p.Of)
	})
}

func (cmd *RestoreCmd) revert(ctx context.Context, s *streams, log *slog.Logger, r *restore.Restorer) error {
	client, err := cmd.dial(ctx, log)
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	stop := cmd.watch(s, log, r)
	result, runErr := r.Revert(ctx, cmd.Revert, client)
	stop()
	if errors.Is(runErr, restore.ErrNoRestore) {
		return fmt.Errorf("%w: %w", errUsage, runErr)
	}
	return cmd.show(s, log, result, s.explain(runErr))
}
