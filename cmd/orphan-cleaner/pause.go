package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// PauseCmd is `pause`.
type PauseCmd struct {
	DatabaseFlags `group:"Database"`
	Reason        string `help:"Why; shown by status." required:""`
	JSONFlag
}

// reasonOf is a reason as it is kept: lists, logs and the status page show all of it.
func reasonOf(given string) (string, error) {
	const most = 500
	reason := strings.TrimSpace(given)
	switch {
	case reason == "":
		return "", fmt.Errorf("%w: --reason is empty", errUsage)
	case len(reason) > most:
		return "", fmt.Errorf("%w: --reason has %d bytes, %d at most: name the ticket that has the rest", errUsage, len(reason), most)
	}
	return reason, nil
}

// Run pauses all runs. When it returns, no chunk is in flight.
func (cmd *PauseCmd) Run(ctx context.Context, s *streams) error {
	reason, err := reasonOf(cmd.Reason)
	if err != nil {
		return err
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	switch _, err := database.Once(ctx, pool, pgx.ReadWrite, func(ctx context.Context, q *db.Queries) (int64, error) { return q.PauseBegin(ctx, reason) }); {
	case database.Code(err) == database.UniqueViolation:
		pauses, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]db.PauseInForceRow, error) { return q.PauseInForce(ctx) })
		if err != nil || len(pauses) == 0 {
			return fmt.Errorf("%w: runs are paused already", errUsage)
		}
		return fmt.Errorf("%w: runs are paused already, by %s since %s: %s", errUsage,
			pauses[0].PausedBy, pauses[0].PausedAt.UTC().Format(time.RFC3339), pauses[0].Reason)
	case err != nil:
		return fmt.Errorf("pausing: %w; see: orphan-cleaner check", err)
	}
	return cmd.say(s, map[string]any{"paused": true, "reason": reason}, "all runs are paused; resume with: orphan-cleaner resume")
}

// ResumeCmd is `resume`.
type ResumeCmd struct {
	DatabaseFlags `group:"Database"`
	JSONFlag
}

// Run allows runs again.
func (cmd *ResumeCmd) Run(ctx context.Context, s *streams) error {
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	ended, err := database.Once(ctx, pool, pgx.ReadWrite, func(ctx context.Context, q *db.Queries) (int64, error) { return q.PauseEnd(ctx) })
	if err != nil {
		return fmt.Errorf("resuming: %w; see: orphan-cleaner check", err)
	}
	message := "runs may go on"
	if ended == 0 {
		message = "runs were not paused"
	}
	return cmd.say(s, map[string]any{"paused": false, "was_paused": ended != 0}, "%s", message)
}
