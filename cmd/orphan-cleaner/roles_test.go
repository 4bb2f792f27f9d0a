package main

import (
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

const rolesFile = "../../sql/roles.sql"

// The groups of sql/roles.sql that somebody can be a member of.
const (
	migrator = "orphan_cleaner_migrator"
	runner   = "orphan_cleaner_runner"
	restorer = "orphan_cleaner_restorer"
	reader   = "orphan_cleaner_reader"
	// both gives members back and may take them again.
	both = restorer + ", " + runner
)

// commandRole says which roles may give a command, by the grants of sql/roles.sql;
// everybody else is told that permission is denied, or by check what is lacking.
type commandRole struct {
	args   []string
	may    []string
	before string // brings about what the command wants to find
}

// oldPartition makes a backup partition as orphan_cleaner.partitions_ensure() would have.
const oldPartition = `DO $$ BEGIN
	SET LOCAL ROLE orphan_cleaner_owner;
	PERFORM orphan_cleaner.partition_add('conversation_members_backup', 'conversation_members_backup_20200101', '2020-01-01Z', '2020-01-02Z');
END $$`

func commandRoles(w *world) []commandRole {
	all := []string{migrator, runner, restorer, both, reader}
	user := "--user=" + w.dead[0].String()
	return []commandRole{
		{[]string{"check"}, []string{migrator, runner, both}, ""},
		{[]string{"migrate", "status"}, all, ""},
		{[]string{"migrate", "drift"}, all, ""},
		{[]string{"migrate", "settle-clock"}, []string{migrator}, ""},
		{[]string{"status"}, all, ""},
		{[]string{"report"}, []string{migrator, restorer, both, reader}, ""},
		{[]string{"hold", "list"}, all, ""},
		{[]string{"run", "--dry-run"}, []string{migrator, runner, both}, ""},
		{[]string{"bench", "--read-only", "--call-repeat=2"}, []string{migrator, runner, both}, ""},
		{[]string{"hold", "add", user, "--reason=a lawsuit"}, []string{migrator, restorer, both}, ""},
		{[]string{"hold", "remove", "1"}, []string{migrator, restorer, both}, "UPDATE orphan_cleaner.holds SET lifted_at = CASE WHEN hold_id > 1 THEN now() END"},
		{[]string{"pause", "--reason=an experiment"}, []string{migrator, restorer, both}, "UPDATE orphan_cleaner.pauses SET resumed_at = now()"},
		{[]string{"resume"}, []string{migrator, restorer, both}, "INSERT INTO orphan_cleaner.pauses (reason) SELECT 'x' WHERE NOT EXISTS (SELECT FROM orphan_cleaner.pauses WHERE resumed_at IS NULL)"},
		{[]string{"limits", "list"}, all, ""},
		{[]string{"target", "check"}, all, ""},
		{[]string{"effects", "list"}, all, ""},
		{[]string{"effects", "set", "counter=unread"}, []string{migrator}, ""},
		{[]string{"target", "list"}, all, ""},
		{[]string{"target", "print", "testdata/no_targets.yaml", "--dir=testdata/no_targets"}, all, ""},
		{[]string{"limits", "pin", "delete-rows=1000"}, []string{migrator}, ""},
		{[]string{"limits", "unpin", "delete-rows"}, []string{migrator}, ""},
		{[]string{"approve", "1", "--yes"}, []string{migrator}, ""},
		{[]string{"prune"}, []string{migrator}, ""},
		{[]string{"prune", "--execute"}, []string{migrator}, oldPartition},
		{[]string{"run"}, []string{migrator, runner, both}, ""},
		{[]string{"restore", user}, []string{migrator, restorer, both}, ""},
		{[]string{"restore", user, "--execute"}, []string{migrator, restorer, both}, ""},
		{[]string{"restore", "--revert=RESTORE"}, all, ""},
		{[]string{"restore", "--revert=RESTORE", "--execute"}, []string{migrator, both}, ""},
	}
}

// Each command works under the roles that are meant for it, and under no other.
func TestRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	living := w.living()
	w.Roles(rolesFile)
	env := map[string][]string{}
	for _, group := range []string{migrator, runner, restorer, both, reader} {
		env[group] = w.envOf(w.Login(group))
	}
	program(t, env[runner], "run", "--max-delete-members=14").expect(t, exitRefused)

	for _, c := range commandRoles(w) {
		for i, arg := range c.args {
			if strings.Contains(arg, "RESTORE") {
				c.args[i] = strings.ReplaceAll(arg, "RESTORE", testdb.One[string](w.DB, "SELECT min(run_id)::text FROM orphan_cleaner.runs WHERE members_restored > 0"))
			}
		}
		command := strings.Join(c.args, " ")
		// What is planned, and who failed when, is recorded of everybody who may.
		for group := range env {
			if slices.Contains(c.may, group) {
				continue
			}
			before := contents(t, w.DB, "orphan_cleaner.runs", "orphan_cleaner.restores")
			e := program(t, env[group], c.args...)
			if e.status != exitFailed || !strings.Contains(e.stdout+e.stderr, "permission denied") && !strings.Contains(e.stdout+e.stderr, " lacks ") {
				t.Errorf("%s gives the command %s: %s", group, command, e)
			}
			if after := contents(t, w.DB, "orphan_cleaner.runs", "orphan_cleaner.restores"); after != before {
				t.Errorf("%s changed the database by %s:\n%s\nwas\n%s", group, command, after, before)
			}
		}
		for _, group := range c.may {
			if c.before != "" {
				w.Exec(c.before)
			}
			if strings.Contains(command, "--revert") {
				w.Settle()
			}
			if e := program(t, env[group], c.args...); e.status != exitDone {
				t.Errorf("%s cannot give the command %s: %s", group, command, e)
			}
		}
		if command == "run" {
			gone(t, w, living, 15)
		}
	}
	if n := w.Count("pg_class WHERE relname = 'conversation_members_backup_20200101'"); n != 0 {
		t.Error("the partition that could be pruned is left")
	}
	if n := w.Count("conversation_members WHERE user_id = $1", w.dead[0]); n != 0 {
		t.Errorf("%d members are there after the restore was taken back", n)
	}
	if n := w.Count("orphan_cleaner.restores WHERE state = 'reverted'"); n != 1 {
		t.Errorf("%d members were restored and deleted again", n)
	}
}

// No command is left out of commandRoles but those that need no database of
// messaging-service, or are tested by TestMigrateByRoles, TestServeByRoles and those of internal/printer.
func TestRolesOfEachCommand(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&CLI{})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, 1, 1)
	for _, leaf := range parser.Model.Leaves(true) {
		command := strings.Join(strings.Fields(strings.Split(leaf.FullPath(), "<")[0])[1:], " ")
		switch command {
		case "config", "version", "help", "completion", "migrate up", "migrate down", "target apply", "serve":
			continue
		}
		if strings.HasPrefix(command, "fleet ") {
			continue
		}
		found := false
		for _, c := range commandRoles(w) {
			found = found || strings.HasPrefix(strings.Join(c.args, " ")+" ", command+" ")
		}
		if !found {
			t.Errorf("nothing says under which roles %q works", command)
		}
	}
}

// Under the grants of sql/roles.sql the migrator drops old partitions and lets the
// backup follow conversation_members, and the runner backs the new column up; it
// can do neither of the two itself.
func TestLedgerByRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	w.pruneHistory(93, 15, 2)
	w.Exec("ALTER TABLE conversation_members ADD COLUMN nickname text DEFAULT 'x'")
	w.Roles(rolesFile)
	living, url := w.living(), w.Login(migrator)
	byMigrator, byRunner := w.envOf(url), w.envOf(w.Login(runner))

	before := contents(t, w.DB)
	if e := program(t, byRunner, "prune", "--execute").expect(t, exitFailed); !strings.Contains(e.stderr, "permission denied") || !strings.Contains(e.stderr, "owner of the tables") {
		t.Errorf("%s", e)
	}
	if contents(t, w.DB) != before {
		t.Error("a prune by the runner changed something")
	}
	program(t, byMigrator, "prune", "--execute").expect(t, exitDone)
	if n := len(past(t, w, "conversation_members_backup", 90*day)); n != 0 {
		t.Errorf("%d old backups are left", n)
	}

	dir := keepMigration(t, program(t, byRunner, "migrate", "drift", "--print").expect(t, exitDone).stdout)
	for url, may := range map[string]bool{w.Login(runner): false, url: true} {
		if _, err := embeddedGoose(t, url, dir).Up(t.Context()); (err == nil) != may {
			t.Errorf("the migration: %v", err)
		}
	}
	kept := w.Count("conversation_members_backup")
	program(t, byRunner, "run").expect(t, exitDone)
	if diff := living.Diff(w.living()); diff != "" {
		t.Errorf("members of living users changed:\n%s", diff)
	}
	if n := w.Count("conversation_members_backup WHERE nickname = 'x'"); n != 15 || w.Count("conversation_members_backup") != kept+15 {
		t.Errorf("%d members are backed up with the new column", n)
	}
}

// serve, too, makes its runs with the grants of a runner.
func TestServeByRoles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	living := w.living()
	w.Roles(rolesFile)
	s := startServe(t, w.envOf(w.Login(runner)))
	eventually(t, "a run has succeeded", func() bool { return w.Count("orphan_cleaner.runs WHERE state = 'succeeded'") > 0 })
	eventually(t, "the metrics say that nobody is due", func() bool {
		status, body := get(t, s.url+"/metrics")
		return status == http.StatusOK && strings.Contains(body, "\norphan_cleaner_due_members 0")
	})
	s.signal(t, syscall.SIGTERM)
	if e := s.wait(t).expect(t, exitDone); strings.Contains(e.stderr, "permission denied") {
		t.Errorf("a grant is missing: %s", e)
	}
	gone(t, w, living, 15)
}

// The owner of messaging-service's tables, who is no superuser, migrates as a
// member of orphan_cleaner_migrator, before and after what is ours has its owner.
func TestMigrateByRoles(t *testing.T) {
	t.Parallel()
	db, auth := testdb.NewBare(t), newAuth(t)
	db.Roles(rolesFile)
	url := db.Login(migrator)
	env := []string{"DATABASE_URL=" + url, "AUTH_SERVICE_URL=" + auth.URL()}
	if e := program(t, env, "migrate", "up").expect(t, exitFailed); !strings.Contains(e.stderr, "is not the owner of public.conversation_members, role postgres is") {
		t.Errorf("without being the owner of messaging-service's tables: %s", e)
	}
	owner, _, _ := strings.Cut(strings.TrimPrefix(url, "postgres://"), "@")
	for _, table := range []string{"conversations", "conversation_members", "users"} {
		db.Exec("ALTER TABLE " + table + " OWNER TO " + owner)
		t.Cleanup(func() { db.Exec("ALTER TABLE " + table + " OWNER TO postgres") })
	}
	program(t, env, "migrate", "up").expect(t, exitDone)
	db.Roles(rolesFile)
	program(t, []string{"DATABASE_URL=" + db.Login(runner), "AUTH_SERVICE_URL=" + auth.URL()}, "check").expect(t, exitDone)
	program(t, env, "migrate", "down").expect(t, exitDone)
	program(t, env, "migrate", "up").expect(t, exitDone)
	db.Roles(rolesFile)
	program(t, []string{"DATABASE_URL=" + db.Login(runner), "AUTH_SERVICE_URL=" + auth.URL()}, "check").expect(t, exitDone)
}
