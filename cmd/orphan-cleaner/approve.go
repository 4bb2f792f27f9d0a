package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/term"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// ApproveCmd is `approve RUN`.
type ApproveCmd struct {
	DatabaseFlags `group:"Database"`
	Refused       int64    `arg:"" name:"run" help:"Number of the refused run, from status."`
	Yes           bool     `help:"Do not ask."`
	Revoke        bool     `help:"Revoke an approval that no run has used."`
	Expires       Duration `help:"How long the approval waits for a run." env:"ORPHAN_CLEANER_APPROVAL_EXPIRES" aliases:"approval-expires" default:"24h"`
	JSONFlag
}

// Run shows what it approves, asks, and records who approved it.
func (cmd *ApproveCmd) Run(ctx context.Context, s *streams) error {
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if cmd.Revoke {
		return cmd.revoke(ctx, pool, s)
	}
	if cmd.JSON && !cmd.Yes {
		return fmt.Errorf("%w: --json asks nobody; add --yes", errUsage)
	}
	sum, targets, err := cmd.show(ctx, pool, s)
	if err != nil {
		return err
	}
	if !cmd.Yes {
		if err := confirm(s); err != nil {
			return err
		}
	}
	given, err := database.Once(ctx, pool, pgx.ReadWrite, func(ctx context.Context, q *db.Queries) (db.ApprovalGiveRow, error) {
		return q.ApprovalGive(ctx, db.ApprovalGiveParams{RunID: cmd.Refused, ApprovedBy: osUser(), Lasting: time.Duration(cmd.Expires)})
	})
	if database.Code(err) == database.UniqueViolation {
		return fmt.Errorf("%w: run %d has an approval; to give a new one: orphan-cleaner approve %d --revoke", errUsage, cmd.Refused, cmd.Refused)
	}
	if err != nil {
		return fmt.Errorf("approving: %w", err)
	}
	return cmd.say(s, map[string]any{
		"run_id": cmd.Refused, "approval_id": given.ApprovalID, "expires_at": given.ExpiresAt.UTC(), "breaker": sum.Breaker,
		"users_due": sum.UsersDue, "members_due": sum.Members, "conversations": sum.Conversations, "users_new": sum.UsersNew, "targets": targets,
	}, "run %d is approved until %s UTC; the next run uses it, once: orphan-cleaner run", cmd.Refused, given.ExpiresAt.UTC().Format(time.DateTime))
}

func (cmd *ApproveCmd) show(ctx context.Context, pool *pgxpool.Pool, s *streams) (sum db.RefusalSummaryRow, targets []db.RefusalTargetsRow, err error) {
	sum, err = database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) (db.RefusalSummaryRow, error) {
		return q.RefusalSummary(ctx, cmd.Refused)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return sum, nil, fmt.Errorf("%w: there is no run %d; see: orphan-cleaner status", errUsage, cmd.Refused)
	}
	if err != nil {
		return sum, nil, fmt.Errorf("reading run %d: %w; see: orphan-cleaner check", cmd.Refused, err)
	}
	if sum.State != "refused" || sum.Breaker == nil {
		return sum, nil, fmt.Errorf("%w: run %d was not refused (%s), and only a refused run can be approved; see: orphan-cleaner status", errUsage, cmd.Refused, sum.State)
	}
	if sum.Kind != "clean" {
		return sum, nil, fmt.Errorf("%w: run %d was a revert, and nobody can approve one; if it is right: orphan-cleaner restore --revert, with a higher --max-%s", errUsage, cmd.Refused, *sum.Breaker)
	}
	if !settings.Approvable(*sum.Breaker) {
		return sum, nil, fmt.Errorf("%w: run %d was refused by %s, which nobody can approve: it doubts auth-service or the clock; correct that, then orphan-cleaner run",
			errUsage, cmd.Refused, *sum.Breaker)
	}
	targets, err = database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]db.RefusalTargetsRow, error) {
		return q.RefusalTargets(ctx, cmd.Refused)
	})
	if err != nil {
		return sum, nil, fmt.Errorf("reading the targets of run %d: %w; see: orphan-cleaner check", cmd.Refused, err)
	}
	if cmd.JSON {
		return sum, targets, nil
	}
	largest, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) ([]db.RefusalLargestRow, error) {
		return q.RefusalLargest(ctx, cmd.Refused)
	})
	if err != nil {
		return sum, nil, fmt.Errorf("reading run %d: %w", cmd.Refused, err)
	}
	t := newTable(fmt.Sprintf("Run %d, refused by %s", cmd.Refused, *sum.Breaker), "", "")
	t.AppendRows([]table.Row{
		{"users whose members will be deleted", sum.UsersDue},
		{"  members, as of now", sum.Members},
		{"  of conversations", sum.Conversations},
	})
	for _, r := range targets[1:] {
		t.AppendRow(table.Row{"  rows of " + r.Target + ", as of now", r.RowCount})
	}
	t.AppendRow(table.Row{"users newly missing, whose clocks start", sum.UsersNew})
	if sum.UsersNew > 0 {
		t.AppendRow(table.Row{"  when they are due no limit counts their rows", ""})
	}
	if err := printTable(s.out, t); err != nil || len(largest) == 0 {
		return sum, targets, err
	}
	t = newTable("The largest", "user", "members")
	for _, u := range largest {
		t.AppendRow(table.Row{u.UserID, u.Members})
	}
	return sum, targets, printTable(s.out, t)
}

func (cmd *ApproveCmd) revoke(ctx context.Context, pool *pgxpool.Pool, s *streams) error {
	revoked, err := database.Once(ctx, pool, pgx.ReadWrite, func(ctx context.Context, q *db.Queries) (int64, error) {
		return q.ApprovalRevoke(ctx, db.ApprovalRevokeParams{RunID: cmd.Refused, RevokedBy: osUser()})
	})
	if err != nil {
		return fmt.Errorf("revoking: %w; see: orphan-cleaner check", err)
	}
	if revoked == 0 {
		return fmt.Errorf("%w: run %d has no approval that could be revoked; see: orphan-cleaner status", errUsage, cmd.Refused)
	}
	return cmd.say(s, map[string]any{"run_id": cmd.Refused, "revoked": true}, "the approval of run %d is revoked", cmd.Refused)
}

// confirm asks on a terminal; without one somebody must have said --yes.
func confirm(s *streams) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return fmt.Errorf("%w: stdin is not a terminal, so nobody can confirm; add --yes", errUsage)
	}
	if _, err := fmt.Fprint(s.out, "Delete the members of the users due? Type yes: "); err != nil {
		return err
	}
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if strings.TrimSpace(line) != "yes" {
		return errors.Join(fmt.Errorf("%w: not approved", errUsage), err)
	}
	return nil
}

func osUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}
