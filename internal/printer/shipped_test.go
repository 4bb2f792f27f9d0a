package printer_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/printer"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// The migrations by which tests make targets are what is printed: runs, restores, reverts,
// prunes and squawk meet the printer's own text.
func TestTargetsOfTestsArePrinted(t *testing.T) {
	t.Parallel()
	const folder = "../testdb/targets"
	d, dir := testdb.New(t), t.TempDir()
	d.Targets()
	file, err := os.ReadFile(filepath.Join(folder, "targets.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range printed(t, d, dir, string(file)) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		of := strings.TrimSuffix(strings.TrimPrefix(name[len("00000_"):], "create_"), "_target.sql")
		golden := filepath.Join(folder, strings.TrimSuffix(of, ".sql")+".sql")
		if *printer.Update {
			if err := os.WriteFile(golden, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if kept, err := os.ReadFile(golden); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("%s is not what is printed, %v: go test ./internal/printer -run %s -update", golden, err, t.Name())
		}
	}
}
