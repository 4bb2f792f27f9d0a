package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/target"
)

// HoldCmd is `hold`.
type HoldCmd struct {
	Add    HoldAddCmd    `cmd:"" help:"Never clean a user or a conversation, until the hold is lifted or expires."`
	List   HoldListCmd   `cmd:"" help:"List the holds in force."`
	Remove HoldRemoveCmd `cmd:"" help:"Lift a hold."`
}

// HoldAddCmd is `hold add`.
type HoldAddCmd struct {
	DatabaseFlags `group:"Database"`
	User          string `help:"Keep all members of this user." placeholder:"UUID"`
	Conversation  string `help:"Keep all members of this conversation." placeholder:"UUID"`
	Reason        string `help:"Why; shown by hold list." required:""`
	Until         string `help:"When it ends by itself: a date (2027-01-31, UTC), a time (RFC 3339) or a duration (30d)." placeholder:"WHEN"`
	JSONFlag
}

func (cmd *HoldAddCmd) params() (p db.HoldAddParams, err error) {
	if (cmd.User == "") == (cmd.Conversation == "") {
		return p, fmt.Errorf("%w: give either --user or --conversation", errUsage)
	}
	flag, subject, target := "--user", cmd.User, &p.UserID
	if cmd.Conversation != "" {
		flag, subject, target = "--conversation", cmd.Conversation, &p.ConversationID
	}
	id, err := uuid.Parse(subject)
	if err != nil || len(subject) != len(uuid.Nil.String()) {
		return p, fmt.Errorf("%w: %s %q is not a UUID", errUsage, flag, subject)
	}
	*target = &id
	if p.Reason, err = reasonOf(cmd.Reason); err != nil {
		return p, err
	}
	if cmd.Until == "" {
		return p, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, cmd.Until); err == nil {
			p.Until = &at
			return p, nil
		}
	}
	var lasting Duration
	if err := lasting.UnmarshalText([]byte(cmd.Until)); err != nil {
		return p, fmt.Errorf("%w: --until %q is neither a date, nor an RFC 3339 time, nor a duration such as 30d", errUsage, cmd.Until)
	}
	p.Lasting = new(time.Duration(lasting))
	return p, nil
}

// Run places the hold. When it returns, no chunk that could miss it is in flight.
func (cmd *HoldAddCmd) Run(ctx context.Context, s *streams) error {
	params, err := cmd.params()
	if err != nil {
		return err
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	id, err := database.Once(ctx, pool, pgx.ReadWrite, func(ctx context.Context, q *db.Queries) (int64, error) { return q.HoldAdd(ctx, params) })
	if err == nil && id == 0 {
		return fmt.Errorf("%w: --until %s is over already (a date means its first moment, UTC): nothing is held", errUsage, cmd.Until)
	}
	if err != nil {
		return fmt.Errorf("placing the hold: %w; see: orphan-cleaner check", err)
	}
	members, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) (int64, error) { return heldMembers(ctx, q, id) })
	if err != nil {
		return err
	}
	if members == 0 {
		if _, err := fmt.Fprintf(s.err, "orphan-cleaner: warning: hold %d keeps nobody: its user or conversation has no members; is the id right? If not: orphan-cleaner hold remove %d\n", id, id); err != nil {
			return err
		}
	}
	return cmd.say(s, map[string]any{"hold_id": id, "members": members},
		"hold %d is in force and keeps %d members; lift it with: orphan-cleaner hold remove %d", id, members, id)
}

// heldMembers counts the members that a hold keeps.
func heldMembers(ctx context.Context, q *db.Queries, id int64) (int64, error) {
	holds, err := q.HoldList(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the holds: %w", err)
	}
	for _, h := range holds {
		if h.HoldID == id {
			return h.Members, nil
		}
	}
	return 0, nil
}

// listedHold is a hold, and the rows that it keeps in each target where it keeps any.
type listedHold struct {
	db.HoldListRow
	Targets []heldRows `json:"targets"`
}

type heldRows struct {
	Target string `json:"target"`
	Rows   int64  `json:"rows"`
}

func holdsRead(ctx context.Context, q *db.Queries) ([]listedHold, error) {
	holds, err := q.HoldList(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := q.HoldTargets(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]listedHold, len(holds))
	for i, h := range holds {
		list[i] = listedHold{h, []heldRows{}}
		for _, k := range kept {
			if k.HoldID == h.HoldID {
				list[i].Targets = append(list[i].Targets, heldRows{k.Target, k.RowCount})
			}
		}
		if h.ConversationID != nil && h.Members > 0 {
			list[i].Targets = append(list[i].Targets, heldRows{target.Members().Name, h.Members})
		}
	}
	return list, nil
}

// others says what a hold keeps beside members, which have a column of their own.
func (h listedHold) others() string {
	var list []string
	for _, k := range h.Targets {
		if k.Target != target.Members().Name {
			list = append(list, fmt.Sprintf("%s %d", k.Target, k.Rows))
		}
	}
	return strings.Join(list, ", ")
}

// HoldListCmd is `hold list`.
type HoldListCmd struct {
	DatabaseFlags `group:"Database"`
	JSON          bool `name:"json" help:"Print a JSON array."`
}

// Run lists the holds in force.
func (cmd *HoldListCmd) Run(ctx context.Context, s *streams) error {
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	holds, err := database.Once(ctx, pool, pgx.ReadOnly, holdsRead)
	if err != nil {
		return fmt.Errorf("reading the holds: %w; see: orphan-cleaner check", err)
	}
	if cmd.JSON {
		return printJSON(s.out, holds)
	}
	// Beside the other columns there is no room for a reason on a narrow terminal.
	width := columns(s.out)
	below := width > 0 && width < 110
	header := []any{"hold", "on", "members", "until (UTC)", "reason"}
	if below {
		header = header[:4]
	}
	t, restored := newTable("Holds in force", header...), ""
	for _, h := range holds {
		number, subject, until := any(h.HoldID), "", "lifted by hand"
		switch {
		case h.UserID != nil:
			subject = "user " + h.UserID.String()
		case h.ConversationID != nil:
			subject = "conversation " + h.ConversationID.String()
		case h.RunID != nil:
			subject = fmt.Sprintf("%d users of restore %d", h.Users, *h.RunID)
			number, restored = "", fmt.Sprint(*h.RunID) // each of them is a hold of its own
		}
		if h.Until != nil {
			until = h.Until.UTC().Format("2006-01-02 15:04")
		}
		if !below {
			t.AppendRow(table.Row{number, subject, h.Members, until, h.Reason})
			continue
		}
		t.AppendRow(table.Row{number, subject, h.Members, until})
		t.AppendRow(table.Row{"", h.Reason, "", ""})
	}
	list := &sheet{to: s.out}
	list.table(t)
	for _, h := range holds {
		if others := h.others(); others != "" {
			list.line("hold %d keeps rows of other targets, too: %s", h.HoldID, others)
		}
	}
	if restored != "" {
		list.line("Lift those of a restore:  orphan-cleaner hold remove --restore %s", restored)
	}
	return list.print()
}

// HoldRemoveCmd is `hold remove`.
type HoldRemoveCmd struct {
	DatabaseFlags `group:"Database"`
	Hold          int64 `arg:"" optional:"" help:"Number of the hold, from hold list."`
	Restore       int64 `help:"Lift all holds that this restore placed." placeholder:"RUN"`
	JSONFlag
}

// Run lifts a hold, or those of a restore.
func (cmd *HoldRemoveCmd) Run(ctx context.Context, s *streams) error {
	if (cmd.Hold == 0) == (cmd.Restore == 0) {
		return fmt.Errorf("%w: give either the number of a hold or --restore RUN", errUsage)
	}
	pool, err := cmd.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	what, params := fmt.Sprintf("hold %d", cmd.Hold), db.HoldLiftParams{HoldID: &cmd.Hold}
	if cmd.Restore != 0 {
		what, params = fmt.Sprintf("hold of restore %d", cmd.Restore), db.HoldLiftParams{RestoreRun: &cmd.Restore, RestoredToo: true}
	}
	lifted, err := database.Once(ctx, pool, pgx.ReadWrite, func(ctx context.Context, q *db.Queries) (int64, error) { return q.HoldLift(ctx, params) })
	if err != nil {
		return fmt.Errorf("lifting the hold: %w; see: orphan-cleaner check", err)
	}
	if lifted == 0 {
		return fmt.Errorf("%w: there is no %s that could be lifted; see: orphan-cleaner hold list", errUsage, what)
	}
	object := map[string]any{"holds_lifted": lifted}
	if cmd.Restore != 0 {
		return cmd.say(s, object, "%d holds of restore %d are lifted", lifted, cmd.Restore)
	}
	return cmd.say(s, object, "hold %d is lifted", cmd.Hold)
}
