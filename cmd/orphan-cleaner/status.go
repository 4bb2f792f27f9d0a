package main

import (
	"context"
	"fmt"
	"io"
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
		switch {
		case err != nil && cmd.Watch > 0 && ctx.Err() != nil: // interrupted while it reads, not while it waits
			return nil
		case err != nil:
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
			err = printStatus(s.out, st)
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

func printStatus(w io.Writer, st status.Status) error {
	s := &sheet{to: w}
	s.line("%s; %s (UTC)\n", paint(w, verdictColor(st.Verdict), st.Verdict.State), st.Verdict.Text)
	s.table(runsTable(st.Runs, len(st.Targets) > 1))
	for _, r := range st.Runs {
		if r.Error != nil {
			s.line("run %d: %s", r.RunID, shown(*r.Error))
		}
	}
	for _, r := range st.Runs {
		if text := ownersText(r.OwnersLost, r.OwnersKept, r.ConversationsEmptied); text != "" {
			s.line("run %d: %s", r.RunID, text)
		}
	}
	if len(st.Targets) > 1 {
		targets := newTable("Targets, in the last run", "target", "due", "deleted", "young", "held", "changed", "blocked", "deleted by all", "of candidates")
		for i, t := range st.Targets {
			targets.AppendRow(table.Row{t.Target, t.Due, t.Deleted, t.KeptYoung, t.Held, t.Changed, t.Blocked, t.DeletedTotal, st.Rows[i].RowCount})
		}
		s.table(targets)
	}
	backlog := newTable("Backlog", "retention ends", "users", "members")
	for _, b := range st.Backlog {
		when := b.DueOn
		if b.IsDue {
			when = "due now"
		}
		backlog.AppendRow(table.Row{when, b.Users, b.Members})
	}
	s.table(backlog)
	s.blocked(st.Blocked)
	for _, c := range st.Coverage {
		since := "some users have never been checked"
		if c.IsWhole {
			since = fmt.Sprintf("every user has been checked since %s UTC", c.CheckedSince.UTC().Format(time.DateTime))
		}
		fmt.Fprintf(s, "%s; %d of %d users of this cycle are checked", since, c.UsersSoFar, c.Users)
		if c.UsersUnknown > 0 {
			fmt.Fprintf(s, ", the next one checks %d unknown ones again", c.UsersUnknown)
		}
		s.WriteByte('\n')
	}
	if n := len(st.Alive); n > 0 {
		restore := "orphan-cleaner restore --resurrected --execute"
		if n == 1 {
			restore = "orphan-cleaner restore --user " + st.Alive[0].UserID.String() + " --execute"
		}
		s.line("ALIVE AGAIN: %d users whose members were deleted; restore them: %s", n, restore)
	}
	for _, r := range st.Refused {
		admits := st.ApproveCommand(time.Now(), r.RunID) + " admits its users"
		if r.Breaker != nil && !settings.Approvable(*r.Breaker) {
			admits = "it cannot be approved: correct what " + *r.Breaker + " doubts"
		}
		s.line("REFUSED run %d, not settled yet: orphan-cleaner run --dry-run looks again, %s", r.RunID, admits)
	}
	for _, a := range st.Approvals {
		s.line("APPROVED run %d by %s until %s UTC; the next run uses it; revoke it: orphan-cleaner approve %d --revoke",
			a.RunID, shown(a.ApprovedBy), a.ExpiresAt.UTC().Format(time.DateTime), a.RunID)
	}
	for _, p := range st.Paused {
		s.line("PAUSED by %s since %s UTC: %s; resume with: orphan-cleaner resume",
			shown(p.PausedBy), p.PausedAt.UTC().Format(time.DateTime), shown(p.Reason))
	}
	if w := st.Window; w != nil && w.Open {
		s.line("window %s: open now, sweeps delete", w.Window)
	} else if w != nil {
		s.line("window %s: closed, what is due waits until %s UTC", w.Window, w.OpensAt.Format("Mon 2006-01-02 15:04"))
	}
	for _, e := range st.Events {
		if e.Events == 0 {
			continue
		}
		why := ""
		if e.Error != "" {
			why = ": " + shown(e.Error)
		}
		s.line("EVENTS WAIT for the sink %s: %d, the oldest for %s%s", shown(e.Sink), e.Events, Duration(time.Duration(e.OldestAge)*time.Second), why)
	}
	if st.Holds > 0 {
		s.line("holds in force: %d; see: orphan-cleaner hold list", st.Holds)
	}
	return s.print()
}
