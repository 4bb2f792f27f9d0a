package check

import (
	"context"
	"fmt"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// checkTempFiles warns of a limit under which messaging-service's own delete of many
// members fails. Nobody but a superuser can change it: no setting of ours can.
func (c *Preflight) checkTempFiles(ctx context.Context, databaseName string, f *Findings) {
	const name = "temp-files"
	limits, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) ([]db.PreflightTempFilesRow, error) {
		return q.PreflightTempFiles(ctx)
	})
	switch {
	case err != nil:
		f.add(name, Warn, err.Error(), unreadHint(err))
	case len(limits) == 0:
		f.add(name, OK, "large enough for a delete of all members", "")
	default:
		least := limits[0]
		who, alter := "", "ALTER DATABASE "+databaseName
		if least.RoleName != "" {
			who, alter = " of role "+least.RoleName, "ALTER ROLE "+least.RoleName
		}
		f.add(name, Warn,
			fmt.Sprintf("temp_file_limit%s is %s, conversation_members has %s: one statement that deletes more than some %d members fails, since they are collected for the audit",
				who, least.TempFileLimit, least.TableSize, least.Members),
			"as a superuser: "+alter+" SET temp_file_limit = '…', or delete in smaller statements")
	}
}
