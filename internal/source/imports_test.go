package source_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What all sources share knows none of them, and no kind of source, nor a run, knows
// another kind, by whatever detour.
func TestImports(t *testing.T) {
	t.Parallel()
	const ours = "github.com/nova-social/orphan-cleaner/"
	grpc, pgx := "google.golang.org/grpc", "github.com/jackc/pgx/v5"
	authclient, source := ours+"internal/authclient", ours+"internal/source"
	bySQL, byHTTP := source+"/sqlsource", source+"/httpsource"
	for of, not := range map[string][]string{
		source:                {grpc, pgx, authclient, bySQL, byHTTP},
		authclient:            {pgx, bySQL, byHTTP},
		byHTTP:                {grpc, pgx, authclient, bySQL},
		bySQL:                 {grpc, authclient, byHTTP},
		ours + "internal/run": {grpc, source, authclient, bySQL, byHTTP},
	} {
		out, err := exec.Command("go", "list", "-deps", of).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", of, err)
		}
		deps := strings.Fields(string(out))
		if !slices.Contains(deps, of) {
			t.Errorf("these are not the imports of %s: %v", of, deps)
		}
		for _, path := range not {
			if slices.Contains(deps, path) {
				t.Errorf("%s imports %s", of, path)
			}
		}
	}
}
