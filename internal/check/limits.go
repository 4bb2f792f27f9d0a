package check

import (
	"context"
	"slices"
	"strings"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// readHint is what helps where a table of ours cannot be read.
func readHint(err error) string {
	switch {
	case database.Code(err) == database.NoPrivilege:
		return "psql -f sql/roles.sql, then the GRANT to the role as above"
	case database.Transient(err):
		return database.ConnectionHint(err)
	}
	return "orphan-cleaner migrate up; psql -f sql/roles.sql"
}

// Limits warns while a runner's own flags decide: its login, stolen, could raise
// every limit. No run looks at it: it would say so every hour.
func (c *Preflight) Limits(ctx context.Context) Finding {
	const name = "limits"
	pins, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) ([]db.OrphanCleanerLimit, error) { return q.LimitList(ctx) })
	if err != nil {
		return Finding{name, Warn, "whether they are pinned cannot be read: " + err.Error(), readHint(err)}
	}
	var free []string
	for _, name := range settings.BoundNames() {
		if !slices.ContainsFunc(pins, func(p db.OrphanCleanerLimit) bool { return p.Name == name }) {
			free = append(free, name)
		}
	}
	if len(free) > 0 {
		return Finding{name, Warn, "not pinned: " + strings.Join(free, ", ") + "; a stolen runner login could raise them", "orphan-cleaner limits pin --defaults"}
	}
	return Finding{name, OK, "all are pinned", ""}
}
