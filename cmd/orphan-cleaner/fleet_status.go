package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/fleet"
	"github.com/nova-social/orphan-cleaner/internal/fleet/queue"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/status"
)

// FleetStatusCmd is `fleet status`.
type FleetStatusCmd struct {
	FleetFlags `group:"Fleet"`
	Retention  Duration `help:"The retention that decides what is due." env:"ORPHAN_CLEANER_RETENTION" default:"30d"`
	Interval   Duration `help:"Time between runs, which says when the next one is due." env:"ORPHAN_CLEANER_INTERVAL" default:"1h"`
	WindowFlag
	LogFlags `group:"Log"`
	JSON     bool `name:"json" help:"Print one JSON object."`
}

// fleetStatus is what `fleet status` prints.
type fleetStatus struct {
	Control *queue.State  `json:"control"` // null: there is no control database
	Shards  []shardStatus `json:"shards"`
}

// shardStatus has the status of a shard, or why there is none.
type shardStatus struct {
	Shard  string         `json:"shard"`
	Status *status.Status `json:"status"`
	Error  string         `json:"error,omitempty"`
}

// Run shows a line per shard; it only reads.
func (cmd *FleetStatusCmd) Run(ctx context.Context, s *streams) error {
	file, err := cmd.load()
	if err != nil {
		return err
	}
	of := StatusCmd{Retention: cmd.Retention, Runs: 10, Days: 31, Interval: cmd.Interval, WindowFlag: cmd.WindowFlag}
	st := fleetStatus{}
	if file.ControlURL != "" {
		c, err := openControl(ctx, file, cmd.logger(s))
		if err != nil {
			return err
		}
		defer c.Close()
		state, err := c.State(ctx, 5)
		if err != nil {
			return fmt.Errorf("reading the control database: %w", err)
		}
		st.Control = &state
	}
	hints := strings.NewReplacer("orphan-cleaner check, then orphan-cleaner run --dry-run", "orphan-cleaner fleet check", "orphan-cleaner check", "orphan-cleaner fleet check",
		"settle-clock", "settle-clock with "+urlOfShard, "see below", "see: orphan-cleaner status with "+urlOfShard)
	st.Shards = fleet.Each(file.Shards, file.Workers, func(_ int, shard fleet.Shard) shardStatus {
		pool, err := cmd.openShard(ctx, shard)
		if err != nil {
			return shardStatus{Shard: shard.Name, Error: oneLine(err)}
		}
		defer pool.Close()
		read, err := database.Once(ctx, pool, pgx.ReadOnly, of.read)
		if err != nil {
			return shardStatus{Shard: shard.Name, Error: oneLine(err)}
		}
		read.Verdict.Text = hints.Replace(read.Verdict.Text)
		return shardStatus{Shard: shard.Name, Status: &read}
	})
	if cmd.JSON {
		return printJSON(s.out, st)
	}
	return st.print(s.out, time.Now())
}

// print shows what differs from shard to shard. The lag is since the last check of a user.
func (st fleetStatus) print(w io.Writer, now time.Time) error {
	if err := printControl(w, st.Control, now); err != nil {
		return err
	}
	t := newTable("", "shard", "state", "last run", "deleted", "due now", "waiting", "lag")
	for _, one := range st.Shards {
		if one.Status == nil {
			t.AppendRow(table.Row{one.Shard, "unknown", "", "", "", "", ""})
			continue
		}
		line := table.Row{one.Shard, one.Status.Verdict.State, "never", "", int64(0), int64(0), ""}
		if last := one.Status.LastClean(); last != nil {
			line[2], line[3] = status.Clock{Now: now, At: last.StartedAt}, last.MembersDeleted
		}
		var due, waiting int64
		for _, b := range one.Status.Backlog {
			if b.IsDue {
				due += b.Users
			} else {
				waiting += b.Users
			}
		}
		line[4], line[5] = due, waiting
		for _, c := range one.Status.Coverage {
			line[6] = Duration(time.Duration(c.SecondsSince) * time.Second)
		}
		t.AppendRow(line)
	}
	s := &sheet{to: w}
	s.table(t)
	for _, one := range st.Shards {
		said := one.Error
		if one.Status != nil && verdictColor(one.Status.Verdict) != text.FgGreen {
			said = one.Status.Verdict.Text
		}
		if said != "" {
			s.line("%s: %s", one.Shard, shown(said))
		}
	}
	return s.print()
}

// printControl shows the last runs of the fleet, and what keeps it from the next.
func printControl(w io.Writer, st *queue.State, now time.Time) error {
	if st == nil {
		return nil
	}
	t := newTable("Runs of the fleet", "run", "state", "started (UTC)", "seconds", "waves", "breaker")
	for _, r := range st.Runs {
		t.AppendRow(table.Row{r.FleetRun, r.State, r.StartedAt.UTC().Format("2006-01-02 15:04"), fmt.Sprintf("%.1f", r.Seconds), r.Waves, status.TextOf(r.Breaker)})
	}
	s := &sheet{to: w}
	s.table(t)
	for i, r := range st.Runs {
		if r.Error != "" {
			s.line("run %d: %s", r.FleetRun, shown(r.Error))
		}
		if i == 0 && r.Breaker != nil && settings.Approvable(*r.Breaker) {
			s.line("REFUSED run %d of the fleet: orphan-cleaner fleet approve %d admits what it found", r.FleetRun, r.FleetRun)
		}
	}
	for _, a := range st.Approvals {
		s.line("APPROVED run %d of the fleet by %s until %s UTC; the next run uses it", a.FleetRun, shown(a.ApprovedBy), status.Clock{Now: now, At: a.ExpiresAt})
	}
	for _, p := range st.Paused {
		s.line("PAUSED by %s since %s UTC: %s; resume with: orphan-cleaner fleet resume", shown(p.PausedBy), status.Clock{Now: now, At: p.PausedAt}, shown(p.Reason))
	}
	s.line("")
	return s.print()
}
