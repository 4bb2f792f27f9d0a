package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// installed is a directory with this program under its name, for a shell's PATH.
func installed(t *testing.T) (dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n%s=1 exec %s \"$@\"\n", asProgram, self)
	if err := os.WriteFile(filepath.Join(dir, "orphan-cleaner"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCompletions(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&CLI{}, kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"hold ":                       "add list remove",
		"hold rem":                    "remove",
		"re":                          "report resume restore",
		"limits pin --de":             "--defaults",
		"run --log-format ":           "text json",
		"run --log-format j":          "json",
		"run --config ":               "", // a file
		"run --dry-run --log-level d": "debug",
		"--ver":                       "--version",
		"restore --exec":              "--execute",
		"report --month hold --cs":    "--csv", // hold is the month
		"nonsense --x":                "",
	} {
		var got []string
		for _, c := range completions(parser.Model.Node, strings.Split(line, " ")) {
			got = append(got, c.word)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// The scripts do what they should in the shells that are installed; all are printed.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()
	dir := installed(t)
	for shell, script := range map[string]string{
		"bash": `source <(orphan-cleaner completion bash); complete -p orphan-cleaner
			COMP_WORDS=(orphan-cleaner hold rem); COMP_CWORD=2; _orphan_cleaner; echo "found: ${COMPREPLY[*]}"`,
		"zsh": `compdef() { :; }; _files() { :; }; _describe() { print -r "found: ${(P)2}"; }
			source <(orphan-cleaner completion zsh); words=(orphan-cleaner hold rem); CURRENT=3; _orphan-cleaner`,
		"fish": `orphan-cleaner completion fish | source; echo "found: "(complete --do-complete "orphan-cleaner hold rem")`,
	} {
		printed := program(t, nil, "completion", shell).expect(t, exitDone).stdout
		if !strings.Contains(printed, "orphan-cleaner completion "+shell) {
			t.Errorf("the script of %s: %s", shell, printed)
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("%s is not installed", shell)
			continue
		}
		cmd := exec.Command(shell, "-c", script)
		cmd.Env = append(slices.Clone(os.Environ()), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "found: remove") {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
	program(t, nil, "completion", "tcsh").expect(t, exitUsage)
}

// The manual page has every command and flag, and groff finds nothing wrong with it.
func TestManual(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&CLI{}, kong.Name("orphan-cleaner"), kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	page := program(t, nil, "help", "--man").expect(t, exitDone).stdout
	for _, leaf := range parser.Model.Leaves(true) {
		_, section, found := strings.Cut(page, "\n.SS "+roff(strings.TrimPrefix(leaf.FullPath(), "orphan-cleaner ")))
		section, _, _ = strings.Cut(section, "\n.SS ")
		if !found || !strings.Contains(section, "\nExample:\n") {
			t.Errorf("no section of %s, or no example in it", leaf.FullPath())
		}
		for _, flag := range leaf.Flags {
			if !strings.Contains(section, roff("--"+flag.Name)) {
				t.Errorf("%s has no --%s", leaf.FullPath(), flag.Name)
			}
		}
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed")
	}
	cmd := exec.Command(groff, "-man", "-ww", "-z", "-Tutf8")
	cmd.Stdin = strings.NewReader(page)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}
