package main

import (
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestExitStatus(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -TERM $$": 128 + 15} {
		got, err := exitStatus(exec.CommandContext(t.Context(), "/bin/sh", "-c", script).Run())
		if err != nil || got != want {
			t.Errorf("%s: status %d, error %v, want status %d", script, got, err, want)
		}
	}
}

// The command sees a migrated database, and its status comes back.
func TestRun(t *testing.T) {
	// run changes the environment for the command; t.Setenv puts it back.
	for _, name := range []string{"DATABASE_URL", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE"} {
		t.Setenv(name, "")
	}
	t.Setenv("PATH", "/usr/bin:/bin")
	status, err := run(config{
		database: "messaging",
		migrate:  true,
		command: []string{"/bin/sh", "-c", `
			test "$(psql -qAtc 'SELECT count(*) FROM conversation_members' "$DATABASE_URL")" = 0 &&
			test "$(psql -qAtc 'SELECT count(*) FROM orphan_cleaner.runs')" = 0 && exit 7`},
	})
	if err != nil || status != 7 {
		t.Errorf("status %d, error %v, want status 7", status, err)
	}
}

func TestRunNoSuchCommand(t *testing.T) {
	for _, name := range []string{"DATABASE_URL", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE"} {
		t.Setenv(name, "")
	}
	t.Setenv("PATH", "/usr/bin:/bin")
	if status, err := run(config{database: "messaging", command: []string{"/nonexistent"}}); err == nil || status != exitFailed {
		t.Errorf("status %d, error %v", status, err)
	}
}
