package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/nova-social/orphan-cleaner/internal/database"
)

// explained is an error with what the server says besides, and the command that
// fixes it.
type explained struct {
	error
	more string
}

func (e explained) Error() string {
	said := e.error.Error()
	if strings.Contains(e.more, "; fix: ") {
		said = strings.Replace(said, "; see: orphan-cleaner check", "", 1)
	}
	return said + e.more
}
func (e explained) Unwrap() error { return e.error }

// explain adds to an error of the database, in one line, the server's DETAIL and
// HINT where it has not said them; which GRANT the login lacks; that the database is
// not migrated, or is another one. The command is given in its words, such as "hold add".
func explain(err error, login, command string) error {
	said := database.SaidIn(err)
	if done, already := errors.AsType[explained](err); said == nil || already && done.more != "" {
		return err
	}
	var more strings.Builder
	for _, part := range []struct{ label, text string }{{"; detail: ", said.Detail}, {"; where: ", said.Where}, {"; hint: ", said.Hint}} {
		if part.text != "" && !strings.Contains(err.Error(), part.text) {
			more.WriteString(part.label + part.text)
		}
	}
	isMigrate := strings.HasPrefix(command, "migrate")
	switch said.SQLState {
	case database.NoPrivilege:
		if said.Hint == "" && !strings.HasPrefix(command, "fleet ") { // which says whose login it needs
			group := groupRole(command)
			fmt.Fprintf(&more, "; role %s may not do this; fix: DATABASE_URL of a member of %s, or GRANT %s TO %s, after psql -f sql/roles.sql; a member already: it has NOINHERIT, ALTER ROLE %[4]s INHERIT, REVOKE and GRANT again", login, group, group, login)
		}
	case database.ReadOnly, featureNotSupported:
		if said.SQLState == database.ReadOnly || strings.HasSuffix(said.Message, " during recovery") {
			more.WriteString("; the server takes no writes: it is a standby, or default_transaction_read_only is on; fix: point DATABASE_URL at the primary, or ALTER ROLE " + login + " RESET default_transaction_read_only")
		}
	case undefinedTable, undefinedSchema, undefinedFunction:
		switch ours := ourName.MatchString(said.Message); {
		case ours && !isMigrate:
			more.WriteString("; the database is not migrated to this version; fix: orphan-cleaner migrate up")
		case !ours && strings.Contains(said.Message, "public.conversation_members"):
			more.WriteString("; this is not messaging-service's database; fix: point DATABASE_URL at it")
		}
	}
	if more.Len() == 0 {
		return err
	}
	return explained{err, more.String()}
}

// ourName is a name that a migration makes.
var ourName = regexp.MustCompile(`\borphan_cleaner(_goose)?\b|\bconversation_members_(audit|backup)|\bdeleted_members_list\b`)

const (
	featureNotSupported = "0A000"

	undefinedTable    = "42P01"
	undefinedSchema   = "3F000"
	undefinedFunction = "42883"
)

// groupRole is the role of sql/roles.sql whose members may give a command.
func groupRole(command string) string {
	switch command {
	case "check", "run", "serve", "bench", "target check":
		return "orphan_cleaner_runner"
	case "restore", "pause", "resume", "hold add", "hold remove":
		return "orphan_cleaner_restorer"
	case "status", "report", "hold list", "limits list", "effects list", "target list":
		return "orphan_cleaner_reader"
	default: // migrate, approve, limits pin, prune
		return "orphan_cleaner_migrator"
	}
}

// commandWords are the words of the command without its arguments.
func commandWords(kctx *kong.Context) string {
	words, _, _ := strings.Cut(kctx.Command(), " <")
	return words
}

// login is the role that the command's database URL names.
func login(kctx *kong.Context) string {
	const unknown = "of DATABASE_URL"
	flags, has := kctx.Selected().Target.Addr().Interface().(interface{ url() (string, error) })
	if !has {
		return unknown
	}
	value, err := flags.url()
	if err != nil {
		return unknown
	}
	cfg, err := database.ParseConfig(value)
	if err != nil {
		return unknown
	}
	return cfg.ConnConfig.User
}
