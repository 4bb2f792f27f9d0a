package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// Each command has a help with an example in it that starts with the command, and fits a terminal of
// 80 columns.
func TestHelp(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&CLI{}, kong.Name("orphan-cleaner"), kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	commands := []string{"", "migrate"}
	for _, leaf := range parser.Model.Leaves(false) {
		commands = append(commands, strings.TrimPrefix(leaf.FullPath(), "orphan-cleaner "))
	}
	if len(commands) < 10 {
		t.Fatalf("found only %q", commands)
	}
	for _, command := range commands {
		t.Run("command "+command, func(t *testing.T) {
			t.Parallel()
			e := program(t, nil, append(strings.Fields(command), "--help")...).expect(t, exitDone)
			_, example, found := strings.Cut(e.stdout, "\nExample:\n")
			if !found || !strings.Contains(example, strings.TrimSpace("orphan-cleaner "+command)) || e.stderr != "" {
				t.Errorf("%s", e)
			}
			for line := range strings.Lines(e.stdout) {
				if utf8.RuneCountInString(line) > 81 {
					t.Errorf("longer than 80 columns: %s", line)
				}
			}
		})
	}
}

// Without a command nothing was done, and a script is told so.
func TestNoCommand(t *testing.T) {
	t.Parallel()
	e := program(t, nil).expect(t, exitUsage)
	if help := program(t, nil, "--help").expect(t, exitDone); e.stdout != "" || e.stderr != help.stdout {
		t.Errorf("%s\nand --help: %s", e, help)
	}
}

// `help COMMAND` is COMMAND --help; what is no command is refused.
func TestHelpCommand(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"", "run", "hold", "hold add", "approve", "help"} {
		words := strings.Fields(command)
		help := program(t, nil, append([]string{"help"}, words...)...).expect(t, exitDone)
		if flag := program(t, nil, append(words, "--help")...); help.stdout != flag.stdout || help.stderr != "" {
			t.Errorf("help %s: %s\nand --help: %s", command, help, flag)
		}
	}
	if e := program(t, nil, "help", "rum").expect(t, exitUsage); !strings.Contains(e.stderr, "rum") || e.stdout != "" {
		t.Errorf("%s", e)
	}
}

// Every flag of run and serve can be set in the environment, so that a container needs
// no arguments.
func TestFlagsHaveEnvironmentNames(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&CLI{}, kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range parser.Model.Leaves(false) {
		if leaf.Name != "run" && leaf.Name != "serve" {
			continue
		}
		for _, flag := range leaf.Flags {
			if len(flag.Envs) == 0 && flag.Name != "dry-run" && flag.Name != "json" {
				t.Errorf("--%s has no name in the environment", flag.Name)
			}
		}
	}
}

// The program as the Makefile builds it knows its version.
func TestVersion(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"version", "--version"} {
		if e := program(t, nil, arg).expect(t, exitDone); e.stdout != builtVersion+"\n" {
			t.Errorf("%s: %s", arg, e)
		}
	}
}

// The help of a command with many settings has a title over each group of flags.
func TestHelpIsGrouped(t *testing.T) {
	t.Parallel()
	e := program(t, nil, "run", "--help").expect(t, exitDone)
	for _, group := range []string{"Database", "auth-service", "Retention", "Run", "Breakers", "Sweep", "Log", "Report"} {
		if !strings.Contains(e.stdout, "\n\n"+group+"\n  --") {
			t.Errorf("there is no group %s", group)
		}
	}
	_, ungrouped, _ := strings.Cut(e.stdout, "\nFlags:\n")
	ungrouped, _, _ = strings.Cut(ungrouped, "\n\nDatabase\n")
	if n := strings.Count(ungrouped, "\n"); n > 12 {
		t.Errorf("%d lines are in no group:\n%s", n, ungrouped)
	}
	if n := strings.Count(e.stdout, "\n"); n > 145 {
		t.Errorf("the help of run has %d lines", n)
	}
	commands := program(t, nil, "--help").expect(t, exitDone).stdout
	for _, group := range []string{"Runs", "On call", "Administration", "Help"} {
		if !strings.Contains(commands, "\n\n"+group+"\n  ") {
			t.Errorf("there is no group of commands %s:\n%s", group, commands)
		}
	}
}
