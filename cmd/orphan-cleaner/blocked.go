package main

import (
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/internal/status"
)

// shownBlocked is how many of them a table has.
const shownBlocked = 10

// printBlocked names the first of them; nothing where nobody is.
func printBlocked(w io.Writer, users []status.BlockedUser) error {
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
		if len(users) == status.MaxBlocked {
			more += ", or even more"
		}
		more += ": orphan-cleaner status --json"
	}
	_, err := fmt.Fprintf(w, "BLOCKED: %d users%s; everybody else is cleaned, and each run tries them again\n", len(first), more)
	return err
}
