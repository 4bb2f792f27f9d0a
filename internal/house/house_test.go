// Package house holds the tree to the sizes in which a reader finds the way.
package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// What a rule counts of the files that its pattern matches.
const (
	files    = "files"
	lines    = "lines in one file"
	allLines = "lines in all of them"
)

// Tests and generated code do not count. A pattern matches a path or a file's name.
func TestSizes(t *testing.T) {
	t.Parallel()
	tracked := trackedFiles(t)
	for _, rule := range []struct {
		pattern string
		what    string
		most    int
	}{
		{"cmd/*/main.go", lines, 40},
		{"*.go", lines, 300},
		{"internal/run/*.go", allLines, 900},
		{"migrations/*.sql", files, 12},
		// Functions stand in the file of their concept, and there are twelve.
		{"migrations/*.sql", lines, 550},
		{"README.md", lines, 200},
	} {
		counted := map[string]int{}
		for _, file := range tracked {
			if generated := strings.HasPrefix(file, "gen/"); generated || strings.HasSuffix(file, "_test.go") || !matches(t, rule.pattern, file) {
				continue
			}
			switch rule.what {
			case files:
				counted[rule.pattern]++
			case lines:
				counted[file] = lineCount(t, file)
			case allLines:
				counted[rule.pattern] += lineCount(t, file)
			}
		}
		if len(counted) == 0 {
			t.Errorf("%s matches no file", rule.pattern)
		}
		for name, n := range counted {
			if n > rule.most {
				t.Errorf("%s: %d %s, at most %d", name, n, rule.what, rule.most)
			}
		}
	}
}

func TestRoot(t *testing.T) {
	t.Parallel()
	entries := map[string]bool{}
	for _, file := range trackedFiles(t) {
		entry, _, _ := strings.Cut(file, "/")
		entries[entry] = true
	}
	if n, most := len(entries), 24; n == 0 || n > most {
		t.Errorf("the root has %d entries, at most %d", n, most)
	}
}

// Every query goes through database.Queries, so that each error names it.
func TestQueriesNameThemselves(t *testing.T) {
	t.Parallel()
	const only = "internal/database/said.go"
	found := false
	for _, file := range trackedFiles(t) {
		if path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		makes := strings.Contains(string(text), " db.New(")
		found = found || makes && file == only
		if makes && file != only {
			t.Errorf("%s: db.New: its errors would not name the query: database.Queries", file)
		}
	}
	if !found {
		t.Errorf("%s makes no queries: this test shows nothing", only)
	}
}

// trackedFiles is what git knows of and is there.
func trackedFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "--deduplicate")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing the files: %v", err)
	}
	var tracked []string
	for file := range strings.Lines(string(out)) {
		file = strings.TrimSpace(file)
		if _, err := os.Stat(filepath.Join(root, file)); err == nil {
			tracked = append(tracked, file)
		}
	}
	return tracked
}

func matches(t *testing.T, pattern, file string) bool {
	t.Helper()
	for _, name := range []string{file, path.Base(file)} {
		matched, err := path.Match(pattern, name)
		if err != nil {
			t.Fatalf("%s: %v", pattern, err)
		}
		if matched {
			return true
		}
	}
	return false
}

func lineCount(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// A table is data: but for the printer, the registry and what is generated no Go file knows the name of one. Where
// the first one is named all the same, the reason stands here.
func TestGoNamesNoTable(t *testing.T) {
	t.Parallel()
	const name = "conversation_members"
	reasons := map[string]string{
		"internal/target/target.go":     "the registry's entry that is built in",
		"internal/result/rows.go":       "which target the runbook's figures of members are about",
		"internal/migrate/migrate.go":   "before the first migration it tells messaging-service's database from others",
		"internal/check/check.go":       "a sentence: the same, and the audit of the runbook",
		"internal/check/drift.go":       "a sentence: the backup that is not printed, and its columns",
		"internal/check/tempfiles.go":   "a sentence: whose rows are collected for the audit",
		"internal/lab/demo/demo.go":     "a sentence of the demo",
		"internal/lab/floor/floor.go":   "the table of the floor, which knows nothing of ours",
		"cmd/lab/floor.go":              "the default of the same",
		"cmd/orphan-cleaner/drift.go":   "a sentence: as internal/check/drift.go",
		"cmd/orphan-cleaner/migrate.go": "a sentence of the help: as internal/check/drift.go",
		"cmd/orphan-cleaner/help.go":    "an example: as internal/check/drift.go",
		"cmd/orphan-cleaner/explain.go": "an error that names it is one of another service's database",
		"cmd/orphan-cleaner/target.go":  "a sentence of the help: what is built in",
	}
	for _, file := range trackedFiles(t) {
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "gen/") || strings.HasPrefix(file, "internal/printer/") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		isNamed := false
		ast.Inspect(parsed, func(n ast.Node) bool {
			literal, is := n.(*ast.BasicLit)
			isNamed = isNamed || is && strings.Contains(literal.Value, name)
			return true
		})
		if reason := reasons[file]; isNamed != (reason != "") {
			t.Errorf("%s names %s: %t; the reason here: %q", file, name, isNamed, reason)
		}
		delete(reasons, file)
	}
	for file := range reasons {
		t.Errorf("there is no %s", file)
	}
}
