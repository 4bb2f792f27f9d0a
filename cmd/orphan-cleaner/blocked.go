package main

import (
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/internal/status"
)

// shownBlocked is how many of them a table has.
const shownBlocked = 10

// blocked names the first of them; nothing where nobody is.
func (s *sheet) blocked(users []status.BlockedUser) {
	if len(users) == 0 {
		return
	}
	first := users[:min(len(users), shownBlocked)]
	list := newTable("Blocked: the database refuses to delete their rows", "user", "rows", "since (UTC)", "constraint", "of table")
	for _, u := range first {
		list.AppendRow(table.Row{u.UserID, u.Rows, u.BlockedSince.Format(time.DateTime), shown(u.Constraint), shown(u.Table)})
	}
	s.table(list)
	for i, u := range first {
		if i > 0 && first[i-1].Said == u.Said {
			continue
		}
		because := u.Message + " (SQLSTATE " + u.SQLState + ")"
		for _, part := range []struct{ label, text string }{{"; detail: ", u.Detail}, {"; where: ", u.Where}, {"; hint: ", u.Hint}} {
			if part.text != "" {
				because += part.label + part.text
			}
		}
		s.line("%s: %s", u.UserID, shown(because))
	}
	more := ""
	if len(users) > len(first) {
		more = fmt.Sprintf(" and %d more", len(users)-len(first))
		if len(users) == status.MaxBlocked {
			more += ", or even more"
		}
		more += ": orphan-cleaner status --json"
	}
	s.line("BLOCKED: %d users%s; everybody else is cleaned, and each run tries them again", len(first), more)
}
