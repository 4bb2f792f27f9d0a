package check

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// ErrNoBackup is returned where there is no backup to compare.
var ErrNoBackup = errors.New("there is no conversation_members beside a conversation_members_backup here: run orphan-cleaner migrate up")

// Drift is one column in which the backup differs from conversation_members.
// What to do about it comes from the query, whole statements.
type Drift struct{ db.PreflightDriftRow }

// String says what differs.
func (d Drift) String() string {
	there := func(typeName string) string {
		if typeName == "" {
			return "not there"
		}
		return typeName
	}
	text := fmt.Sprintf("%s (%s in conversation_members, %s in its backup)", d.ColumnName, there(d.MembersType), there(d.BackupType))
	switch d.Kind {
	case "clash":
		text += ": the backup has a column of its own by that name"
	case "needed":
		text += ": orphan-cleaner itself reads it"
	}
	return text
}

// Fix is what brings the backup along, a statement or two, or what to do instead.
func (d Drift) Fix() string {
	switch {
	case d.UpSettle != "":
		return d.Up + "; " + d.UpSettle
	case d.Up != "":
		return d.Up
	case d.Kind == "clash":
		return "rename " + d.ColumnName + " in conversation_members: no run can back it up"
	default:
		return "use an orphan-cleaner that knows the new " + d.ColumnName + ", or give conversation_members the old one again"
	}
}

// Drift compares the backup's columns with those of conversation_members. The
// statements of the result belong in one transaction, in this order.
func (c *Preflight) Drift(ctx context.Context) ([]Drift, error) {
	objects, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (db.PreflightObjectsRow, error) {
		return q.PreflightObjects(ctx)
	})
	if err != nil {
		return nil, err
	}
	if !objects.HasMembers || strings.Contains(objects.ObjectsMissing, "conversation_members_backup") {
		return nil, ErrNoBackup
	}
	return ask(ctx, c, func(ctx context.Context, q *db.Queries) ([]Drift, error) {
		if err := q.PreflightQualify(ctx); err != nil {
			return nil, err
		}
		rows, err := q.PreflightDrift(ctx)
		drift := make([]Drift, len(rows))
		for i, row := range rows {
			drift[i] = Drift{row}
		}
		return drift, err
	})
}

func (c *Preflight) checkDrift(ctx context.Context, f *Findings) {
	const name = "backup-columns"
	drift, err := c.Drift(ctx)
	if err != nil {
		f.add(name, Fail, err.Error(), unreadHint(err))
		return
	}
	var differ, hint []string
	for _, d := range drift {
		differ, hint = append(differ, d.String()), append(hint, d.Fix())
	}
	f.verdict(len(drift) == 0, name, "take every column of conversation_members", "the backup's columns differ: "+strings.Join(differ, ", "),
		"as the owner of the backup, after orphan-cleaner migrate drift --print, which checks that no value changes: "+strings.Join(hint, "; "))
}
