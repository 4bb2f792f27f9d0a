package authclient_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The client of auth-service knows no database, by whatever detour.
func TestImportsNoDatabase(t *testing.T) {
	deps, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(deps), "google.golang.org/grpc\n") {
		t.Fatalf("these are not our imports:\n%s", deps)
	}
	for _, path := range strings.Fields(string(deps)) {
		if path == "database/sql" || strings.HasPrefix(path, "github.com/jackc/") || strings.HasSuffix(path, "/gen/db") {
			t.Errorf("imports %s", path)
		}
	}
}
