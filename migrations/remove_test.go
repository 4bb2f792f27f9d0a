package migrations_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// What docs/dba-review.md says about removing all of it leaves messaging-service's schema as it was, evidence
// or not, and the evidence in files.
func TestRemoveAllOfIt(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/dba-review.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)\n## Remove all of it\n.*?```sql\n(.*?)```").FindSubmatch(text)
	if block == nil {
		t.Fatal("the page has no such block")
	}
	db, before := testdb.New(t), dump(t, testdb.NewBare(t))
	db.Exec(deleteUser, members(db, 3))
	db.Exec("INSERT INTO orphan_cleaner.pauses (reason) VALUES ('an incident')")

	dir := t.TempDir()
	script := filepath.Join(dir, "remove.sql")
	if err := os.WriteFile(script, []byte(strings.ReplaceAll(string(block[1]), " TO '", " TO '"+dir+"/")), 0o600); err != nil {
		t.Fatal(err)
	}
	db.Psql("-f", script)
	if after := dump(t, db); after != before {
		t.Errorf("the schema is\n%s\nbefore the first migration it was\n%s", after, before)
	}
	audit, err := os.ReadFile(filepath.Join(dir, "conversation_members_audit.csv"))
	if err != nil || strings.Count(string(audit), "\n") != 4 { // a header and three rows
		t.Errorf("of the audit there is, %v:\n%s", err, audit)
	}
}
