package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/fleet/queue"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

// openControl is for the commands that work on the control database.
func openControl(ctx context.Context, file fleet.File, log *slog.Logger) (*queue.Control, error) {
	if file.ControlURL == "" {
		return nil, fmt.Errorf("%w: %s has no control_url, and this needs a control database: see docs/scale.md", errUsage, file.Path)
	}
	c, err := queue.Open(ctx, file.ControlURL, log)
	if err != nil {
		return nil, fmt.Errorf("%w: control_url: %w", errUsage, err)
	}
	return c, nil
}

// controlFinding says whether the control database is there, migrated and ours to read.
func controlFinding(ctx context.Context, file fleet.File, log *slog.Logger) check.Finding {
	const name = "control"
	c, err := openControl(ctx, file, log)
	if err == nil {
		defer c.Close()
		_, err = c.State(ctx, 1)
	}
	if err == nil {
		err = c.Clock(ctx)
	}
	switch {
	case errors.Is(err, run.ErrPreflight):
		return failure(name, oneLine(err), "")
	case err != nil:
		return failure(name, oneLine(err), "check control_url, and: orphan-cleaner fleet migrate")
	}
	return fine(name, "its tables are there")
}

// FleetControlFlags are those of the commands that work on the control database.
type FleetControlFlags struct {
	FleetFlags `group:"Fleet"`
	LogFlags   `group:"Log"`
	JSONFlag
}

func (f *FleetControlFlags) control(ctx context.Context, s *streams) (*queue.Control, error) {
	file, err := f.load()
	if err != nil {
		return nil, err
	}
	return openControl(ctx, file, f.logger(s))
}

// FleetApproveCmd is `fleet approve RUN`.
type FleetApproveCmd struct {
	FleetControlFlags
	Refused int64    `arg:"" name:"run" help:"Number of the refused run, from fleet status."`
	Yes     bool     `help:"Do not ask."`
	Revoke  bool     `help:"Revoke an approval that no run has used."`
	Expires Duration `help:"How long the approval waits for a run." env:"ORPHAN_CLEANER_APPROVAL_EXPIRES" aliases:"approval-expires" default:"24h"`
}

// Run shows what it approves, asks, and records who approved it.
func (cmd *FleetApproveCmd) Run(ctx context.Context, s *streams) error {
	c, err := cmd.control(ctx, s)
	if err != nil {
		return err
	}
	defer c.Close()
	if cmd.Revoke {
		return cmd.revoke(ctx, c, s)
	}
	r, err := c.Result(ctx, cmd.Refused)
	if errors.Is(err, queue.ErrNoRun) {
		err = fmt.Errorf("%w: %w", errUsage, err)
	}
	if err != nil {
		return fmt.Errorf("%w; see: orphan-cleaner fleet status", err)
	}
	if !cmd.Yes {
		if cmd.JSON {
			return fmt.Errorf("%w: --json asks nobody; add --yes", errUsage)
		}
		if err := printFleet(s.out, r); err != nil {
			return err
		}
		if err := confirm(s); err != nil {
			return err
		}
	}
	expires, err := c.Approve(ctx, cmd.Refused, osUser(), time.Duration(cmd.Expires))
	if database.Code(err) == "OC011" {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err != nil {
		return fmt.Errorf("approving: %w", err)
	}
	return cmd.say(s, map[string]any{"fleet_run": cmd.Refused, "expires_at": expires.UTC(), "sums": r.Sums},
		"run %d of the fleet is approved until %s UTC; the next run uses it, once: orphan-cleaner fleet run", cmd.Refused, expires.UTC().Format(time.DateTime))
}

func (cmd *FleetApproveCmd) revoke(ctx context.Context, c *queue.Control, s *streams) error {
	was, err := c.Revoke(ctx, cmd.Refused, osUser())
	if err != nil {
		return fmt.Errorf("revoking: %w", err)
	}
	if !was {
		return fmt.Errorf("%w: run %d of the fleet has no approval that could be revoked; see: orphan-cleaner fleet status", errUsage, cmd.Refused)
	}
	return cmd.say(s, map[string]any{"fleet_run": cmd.Refused, "revoked": true}, "the approval of run %d of the fleet is revoked", cmd.Refused)
}

// FleetPauseCmd is `fleet pause`.
type FleetPauseCmd struct {
	FleetControlFlags
	Reason string `help:"Why; shown by fleet status." required:""`
}

// Run pauses the fleet. A shard whose pass is under way comes to its end.
func (cmd *FleetPauseCmd) Run(ctx context.Context, s *streams) error {
	reason, err := reasonOf(cmd.Reason)
	if err != nil {
		return err
	}
	c, err := cmd.control(ctx, s)
	if err != nil {
		return err
	}
	defer c.Close()
	switch err := c.Pause(ctx, osUser(), reason); {
	case database.Code(err) == database.UniqueViolation:
		return fmt.Errorf("%w: the fleet is paused already; see: orphan-cleaner fleet status", errUsage)
	case err != nil:
		return fmt.Errorf("pausing the fleet: %w", err)
	}
	return cmd.say(s, map[string]any{"paused": true, "reason": reason},
		"the fleet is paused before its next shard; to stop a sweep under way: orphan-cleaner pause with the URL of that shard; resume with: orphan-cleaner fleet resume")
}

// FleetResumeCmd is `fleet resume`.
type FleetResumeCmd struct{ FleetControlFlags }

// Run allows runs again.
func (cmd *FleetResumeCmd) Run(ctx context.Context, s *streams) error {
	c, err := cmd.control(ctx, s)
	if err != nil {
		return err
	}
	defer c.Close()
	was, err := c.Resume(ctx, osUser())
	if err != nil {
		return fmt.Errorf("resuming the fleet: %w", err)
	}
	message := "the fleet may go on"
	if !was {
		message = "the fleet was not paused"
	}
	return cmd.say(s, map[string]any{"paused": false, "was_paused": was}, "%s", message)
}

// FleetMigrateCmd is `fleet migrate`.
type FleetMigrateCmd struct{ FleetControlFlags }

// Run makes what is missing in the control database; it may be one of the shards.
func (cmd *FleetMigrateCmd) Run(ctx context.Context, s *streams) error {
	file, err := cmd.load()
	if err != nil {
		return err
	}
	c, err := openControl(ctx, file, cmd.logger(s))
	if err != nil {
		return err
	}
	c.Close()
	if err := queue.Migrate(ctx, file.ControlURL, cmd.logger(s)); err != nil {
		return err
	}
	return cmd.say(s, map[string]any{"migrated": true}, "the control database is up to date; the grants of workers: psql -f sql/fleet_roles.sql")
}
