package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/blocked"
)

// blockedUser is a user whose rows something in the database refuses to delete.
type blockedUser struct {
	BlockedSince time.Time `json:"blocked_since"`
	blocked.User
}

// maxBlocked bounds how many of them are read, and shownBlocked how many a table has.
const (
	maxBlocked   = 1000
	shownBlocked = 10
)

// readBlocked reads them, longest first.
func readBlocked(ctx context.Context, q *db.Queries) ([]blockedUser, error) {
	rows, err := q.CandidateBlocked(ctx, maxBlocked)
	if err != nil {
		return nil, err
	}
	users := make([]blockedUser, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.BlockedBy, &users[i].User); err != nil {
			return nil, fmt.Errorf("reading why user %s is blocked: %w", row.UserID, err)
		}
		users[i].UserID, users[i].BlockedSince = row.UserID, row.BlockedSince.UTC()
	}
	return users, nil
}

// printBlocked names the first of them; nothing where nobody is.
func printBlocked(w io.Writer, users []blockedUser) error {
	if len(users) == 0 {
		return nil
	}
	first := users[:min(len(users), shownBlocked)]
	list := newTable("Blocked: the database refuses to delete their rows", "user", "rows", "since (UTC)", "constraint", "of table")
	for _, u := range first {
		list.AppendRow(table.Row{u.UserID, u.Rows, u.BlockedSince.Format(time.DateTime), shown(u.Constraint), shown(u.Table)})
	}
	if err := printTable(w, list); err != nil {
		return err
	}
	for i, u := range first {
		because := u.Message + " (SQLSTATE " + u.SQLState + ")"
		if u.Detail != "" {
			because += "; detail: " + u.Detail
		}
		if u.Where != "" {
			because += "; where: " + u.Where
		}
		if u.Hint != "" {
			because += "; hint: " + u.Hint
		}
		if i > 0 && first[i-1].Said == u.Said {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", u.UserID, shown(because)); err != nil {
			return err
		}
	}
	more := ""
	if len(users) > len(first) {
		more = fmt.Sprintf(" and %d more", len(users)-len(first))
		if len(users) == maxBlocked {
			more += ", or even more"
		}
		more += ": orphan-cleaner status --json"
	}
	_, err := fmt.Fprintf(w, "BLOCKED: %d users%s; everybody else is cleaned, and each run tries them again\n", len(first), more)
	return err
}
