package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/status"
	"github.com/nova-social/orphan-cleaner/internal/wait"
)

// StatusCmd is `status`.
type StatusCmd struct {
	DatabaseFlags `group:"Database"`
	Retention     Duration `help:"The retention that decides what is due." env:"ORPHAN_CLEANER_RETENTION" default:"30d"`
	Runs          int32    `help:"How many runs to show." default:"10"`
	Days          int32    `help:"How many days of the backlog to show." default:"31"`
	Interval      Duration `help:"Time between runs, which says when the next one is due." env:"ORPHAN_CLEANER_INTERVAL" default:"1h"`
	WindowFlag
	Watch Duration `help:"Show it again this often, such as 5s, until interrupted." placeholder:"DURATION"`
	JSON  bool     `name:"json" help:"Print one JSON object."`
}

// Run shows recent runs and the backlog; it only reads.
func (cmd *StatusCmd) Run(ctx context.Context, s *streams) error {
	if cmd.Runs < 1 || cmd.Days < 1 {
		return fmt.Errorf("%w: --runs and --days must be 1 or more", errUsage)
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	for {
		st, err := database.Once(ctx, pool, pgx.ReadOnly, cmd.read)
		if err != nil {
			return err
		}
		if cmd.Watch > 0 && isTerminal(s.out) {
			if _, err := fmt.Fprint(s.out, clearScreen); err != nil {
				return err
			}
		}
		if cmd.JSON {
			err = printJSON(s.out, st)
		} else {
			err = printStatus(s, st)
		}
		if err != nil || cmd.Watch == 0 || wait.For(ctx, time.Duration(cmd.Watch)) != nil {
			return err
		}
	}
}

const clearScreen = "\x1b[H\x1b[2J"

func (cmd *StatusCmd) read(ctx context.Context, q *db.Queries) (status.Status, error) {
	return status.Read(ctx, q, status.Ask{
		Retention: time.Duration(cmd.Retention), Interval: time.Duration(cmd.Interval), Runs: cmd.Runs, Days: cmd.Days, Window: cmd.Window,
	})
}

// runsTable leaves out what no run has, so that the usual table fits 80 columns.
func runsTable(runs []db.RunRecentRow, severalTargets bool) *titled {
	unknown, restored, blocked := false, false, false
	for _, r := range runs {
		unknown, restored, blocked = unknown || r.UsersUnknown > 0, restored || r.MembersRestored > 0, blocked || r.UsersBlocked > 0
	}
	line := func(unknownCell, restoredCell, blockedCell any, cells ...any) []any {
		for _, one := range []struct {
			is   bool
			cell any
		}{{unknown, unknownCell}, {restored, restoredCell}, {blocked, blockedCell}} {
			if one.is {
				cells = append(cells, one.cell)
			}
		}
		return cells
	}
	title := "Recent runs"
	if severalTargets {
		title += "; due, deleted and restored are members"
	}
	t := newTable(title, line("unknown", "restored", "blocked", "run", "state", "started (UTC)", "seconds", "checked", "due", "deleted", "calls")...)
	t.Style().Box.PaddingLeft = ""
	for _, r := range runs {
		name := fmt.Sprint(r.RunID)
		if r.IsRevert {
			name = "revert " + name
		} else if r.Kind != "clean" {
			name = r.Kind + " " + name
		}
		t.AppendRow(line(r.UsersUnknown, r.MembersRestored, r.UsersBlocked, name, r.State, r.StartedAt.UTC().Format("2006-01-02 15:04"),
			fmt.Sprintf("%.1f", r.Seconds), r.UsersChecked, r.MembersDue, r.MembersDeleted, r.BatchCalls))
	}
	return t
}

func printStatus(s *streams, st status.Status) error {
	if _, err := fmt.Fprintf(s.out, "%s; %s (UTC)\n\n", paint(s.out, verdictColor(st.Verdict), st.Verdict.State), st.Verdict.Text); err != nil {
		return err
	}
	if err := printTable(s.out, runsTable(st.Runs, len(st.Targets) > 1)); err != nil {
		return err
	}
	for _, r := range st.Runs {
		if r.Error != nil {
			if _, err := fmt.Fprintf(s.out, "run %d: %s\n", r.RunID, shown(*r.Error)); err != nil {
				return err
			}
		}
	}
	for _, r := range st.Runs {
		if text := ownersText(r.OwnersLost, r.OwnersKept, r.ConversationsEmptied); text != "" {
			if _, err := fmt.Fprintf(s.out, "run %d: %s\n", r.RunID, text); err != nil {
				return err
			}
		}
	}
	if len(st.Targets) > 1 {
		targets := newTable("Targets, in the last run", "target", "due", "deleted", "young", "held", "changed", "blocked", "deleted by all", "of candidates")
		for i, t := range st.Targets {
			targets.AppendRow(table.Row{t.Target, t.Due, t.Deleted, t.KeptYoung, t.Held, t.Changed, t.Blocked, t.DeletedTotal, st.Rows[i].RowCount})
		}
		if err := printTable(s.out, targets); err != nil {
			return err
		}
	}
	backlog := newTable("Backlog", "retention ends", "users", "members")
	for _, b := range st.Backlog {
		when := b.DueOn
		if b.IsDue {
			when = "due now"
		}
		backlog.AppendRow(table.Row{when, b.Users, b.Members})
	}
	if err := printTable(s.out, backlog); err != nil {
		return err
	}
	if err := printBlocked(s.out, st.Blocked); err != nil {
		return err
	}
	for _, c := range st.Coverage {
		since := "some users have never been checked"
		if c.IsWhole {
			since = fmt.Sprintf("every user has been checked since %s UTC", c.CheckedSince.UTC().Format(time.DateTime))
		}
		if _, err := fmt.Fprintf(s.out, "%s; %d of %d users of this cycle are checked", since, c.UsersSoFar, c.Users); err != nil {
			return err
		}
		if c.UsersUnknown > 0 {
			if _, err := fmt.Fprintf(s.out, ", the next one checks %d unknown ones again", c.UsersUnknown); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(s.out); err != nil {
			return err
		}
	}
	if n := len(st.Alive); n > 0 {
		restore := "orphan-cleaner restore --resurrected --execute"
		if n == 1 {
			restore = "orphan-cleaner restore --user " + st.Alive[0].UserID.String() + " --execute"
		}
		if _, err := fmt.Fprintf(s.out, "ALIVE AGAIN: %d users whose members were deleted; restore them: %s\n", n, restore); err != nil {
			return err
		}
	}
	for _, r := range st.Refused {
		admits := st.ApproveCommand(time.Now(), r.RunID) + " admits its users"
		if r.Breaker != nil && !settings.Approvable(*r.Breaker) {
			admits = "it cannot be approved: correct what " + *r.Breaker + " doubts"
		}
		if _, err := fmt.Fprintf(s.out, "REFUSED run %d, not settled yet: orphan-cleaner run --dry-run looks again, %s\n", r.RunID, admits); err != nil {
			return err
		}
	}
	for _, a := range st.Approvals {
		if _, err := fmt.Fprintf(s.out, "APPROVED run %d by %s until %s UTC; the next run uses it; revoke it: orphan-cleaner approve %d --revoke\n",
			a.RunID, shown(a.ApprovedBy), a.ExpiresAt.UTC().Format(time.DateTime), a.RunID); err != nil {
			return err
		}
	}
	for _, p := range st.Paused {
		if _, err := fmt.Fprintf(s.out, "PAUSED by %s since %s UTC: %s; resume with: orphan-cleaner resume\n",
			shown(p.PausedBy), p.PausedAt.UTC().Format(time.DateTime), shown(p.Reason)); err != nil {
			return err
		}
	}
	if w := st.Window; w != nil && w.Open {
		if _, err := fmt.Fprintf(s.out, "window %s: open now, sweeps delete\n", w.Window); err != nil {
			return err
		}
	} else if w != nil {
		if _, err := fmt.Fprintf(s.out, "window %s: closed, what is due waits until %s UTC\n", w.Window, w.OpensAt.Format("Mon 2006-01-02 15:04")); err != nil {
			return err
		}
	}
	for _, e := range st.Events {
		if e.Events == 0 {
			continue
		}
		why := ""
		if e.Error != "" {
			why = ": " + shown(e.Error)
		}
		if _, err := fmt.Fprintf(s.out, "EVENTS WAIT for the sink %s: %d, the oldest for %s%s\n", shown(e.Sink), e.Events, Duration(time.Duration(e.OldestAge)*time.Second), why); err != nil {
			return err
		}
	}
	if st.Holds > 0 {
		if _, err := fmt.Fprintf(s.out, "holds in force: %d; see: orphan-cleaner hold list\n", st.Holds); err != nil {
			return err
		}
	}
	return nil
}
