package check

import (
	"context"
	"fmt"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/printer"
)

// checkTargets looks whether the functions of each target are those that were printed, and its table what they were printed for.
func (c *Preflight) checkTargets(ctx context.Context, f *Findings) {
	const name = "targets"
	registry, err := ask(ctx, c, printer.Registry)
	if err != nil {
		f.add(name, Fail, err.Error(), "psql -f sql/roles.sql, then GRANT orphan_cleaner_runner to this role")
		return
	}
	var changed []string
	for _, r := range registry {
		for _, line := range []string{r.Disagrees(), r.Drifted()} {
			if line != "" {
				changed = append(changed, line)
			}
		}
	}
	f.verdict(len(changed) == 0, name, fmt.Sprintf("%d, with the functions and columns that were printed", len(registry)), strings.Join(changed, "; "),
		"orphan-cleaner target print FILE --dir DIR; orphan-cleaner target apply --dir DIR; psql -f sql/roles.sql")
}
