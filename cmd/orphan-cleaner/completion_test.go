package main

import (
	"context"
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
	dir = t.TempDir()
	if err := os.Symlink(built.path(t), filepath.Join(dir, "orphan-cleaner")); err != nil {
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
		"run --log-format=":           "--log-format=text --log-format=json",
		"run --log-format=j":          "--log-format=json",
		"run --config=a":              "", // a file
		"run --log-format=json --lo":  "--log-format --log-level",
		"completion z":                "zsh",
		"completion zsh ":             "",
		"help ho":                     "hold",
		"help hold re":                "remove",
		"help --m":                    "--man",
		"effects set o":               "owners=report owners=keep owners=promote",
		"effects set owners=keep cou": "counter=on counter=trigger counter=unread",
		"effects --js":                "--json",
		"limits pin delete-share":     "delete-share= delete-share-7d= delete-share-30d=",
		"limits unpin --json re":      "retention recently-active",
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

// The scripts do what they should in the shells that are installed; all are printed. Where the
// program knows nothing, files are offered.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()
	path, home := installed(t)+":"+os.Getenv("PATH"), t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "remote.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	lines := [][2]string{ // what is typed, and what its last word becomes
		{"orphan-cleaner hold re", "remove"},
		{"orphan-cleaner run --log-format j", "json"},
		{"orphan-cleaner run --log-format=j", "--log-format=json"},
		{"orphan-cleaner limits pin rete", "retention="},
		{"orphan-cleaner effects set owners=k", "owners=keep"},
		{"orphan-cleaner run --config re", "remote.yaml"},
		{"orphan-cleaner run --config=re", "--config=remote.yaml"},
		{"orphan-cleaner target print re", "remote.yaml"},
	}
	for shell, script := range map[string]string{
		// As readline calls it, which falls back on files where there is no reply.
		"bash": `source <(orphan-cleaner completion bash); complete -p orphan-cleaner | grep -q -- '-o default' || exit 1
			while read -r line; do
				read -ra COMP_WORDS <<<"${line//=/ = }"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _orphan_cleaner
				[[ ${COMPREPLY[*]} ]] || COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
				cut=${line##* }; [[ $cut == *=* ]] && cut=${cut%%=*}= || cut=; echo "found: $cut${COMPREPLY[*]}"
			done 2> >(grep -v compopt >&2)`,
		"zsh": `orphan-cleaner completion zsh > _orphan-cleaner; zmodload zsh/zpty; zpty z zsh -f -i
			zpty -w z 'fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; unsetopt beep
				tested() { zle complete-word; print -r -- "<fo""und: ${${BUFFER% }##* }>"; BUFFER= }; zle -N tested; bindkey "^I" tested; print rea""dy'
			zpty -r -m z said '*ready*'
			while read -r line; do zpty -n -w z $line$'\t'; zpty -r -m z said '*<found: *>*'; print -r -- "${${said##*<}%%>*}"; done; zpty -d z`,
		"fish": `orphan-cleaner completion fish | source; while read line; echo "found: "(string join -- ' ' (complete --do-complete $line | string replace -r '\t.*' '')); end`,
	} {
		printed := program(t, nil, "completion", shell).expect(t, exitDone).stdout
		if !strings.Contains(printed, "orphan-cleaner completion "+shell) {
			t.Errorf("the script of %s: %s", shell, printed)
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("%s is not installed", shell)
			continue
		}
		cmd := exec.CommandContext(ctx, shell, "-c", script)
		cmd.Dir, cmd.Env = home, append(slices.Clone(os.Environ()), "PATH="+path, "HOME="+home, "TERM=xterm")
		var typed, want strings.Builder
		for _, line := range lines {
			fmt.Fprintln(&typed, line[0])
			fmt.Fprintln(&want, strings.TrimSpace("found: "+line[1]))
		}
		cmd.Stdin = strings.NewReader(typed.String())
		out, err := cmd.CombinedOutput()
		if got := withoutBlanks(string(out)); err != nil || got != want.String() {
			t.Errorf("%s: %v\n%s\nwant\n%s", shell, err, got, &want)
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
