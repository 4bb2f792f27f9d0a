package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// A misspelt setting is refused, with the name that was meant, before anything is
// done; its value is not shown.
func TestUnknownVariable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ given, says string }{
		{"RETENTOIN", "ORPHAN_CLEANER_RETENTOIN (did you mean ORPHAN_CLEANER_RETENTION?)"},
		{"MAX_DELETE_SHAR", "ORPHAN_CLEANER_MAX_DELETE_SHAR (did you mean ORPHAN_CLEANER_MAX_DELETE_SHARE?)"},
		{"CANARYALIVE", "ORPHAN_CLEANER_CANARYALIVE (did you mean ORPHAN_CLEANER_CANARY_ALIVE?)"},
		{"BATCHES_A_DAY", "ORPHAN_CLEANER_BATCHES_A_DAY; "},
		{"retention", "ORPHAN_CLEANER_retention (did you mean ORPHAN_CLEANER_RETENTION?)"},
		{"PORT", "ORPHAN_CLEANER_PORT; "},
	} {
		e := program(t, []string{settingPrefix + c.given + "=" + hidden}, "run").expect(t, exitUsage)
		if !strings.Contains(e.stderr, c.says) || strings.Count(e.stderr, "\n") != 1 || strings.Contains(e.stderr, hidden) {
			t.Errorf("%s: %s", c.given, e)
		}
	}
}

// Nobody reads a setting in lower case.
func TestLowerCaseVariable(t *testing.T) {
	t.Parallel()
	e := program(t, []string{"orphan_cleaner_retention=" + hidden}, "run").expect(t, exitUsage)
	if !strings.Contains(e.stderr, "orphan_cleaner_retention (did you mean ORPHAN_CLEANER_RETENTION?)") || strings.Contains(e.stderr, hidden) {
		t.Errorf("%s", e)
	}
}

// Help is there whatever the environment says.
func TestHelpWithUnknownVariable(t *testing.T) {
	t.Parallel()
	env := []string{"ORPHAN_CLEANER_RETENTOIN=30d"}
	for _, args := range [][]string{{"help", "run"}, {"run", "--help"}, {"version"}, {"--version"}} {
		if e := program(t, env, args...).expect(t, exitDone); e.stdout == "" || e.stderr != "" {
			t.Errorf("%v: %s", args, e)
		}
	}
}

// What the tests and Kubernetes put there is none of our settings, and every
// setting is known.
func TestKnownVariables(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&CLI{}, kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	kctx, err := parser.Parse([]string{"status"})
	if err != nil {
		t.Fatal(err)
	}
	environ := []string{
		"ORPHAN_CLEANER_TEST_SOAK=1h", "ORPHAN_CLEANERS=1", "orphan_cleaner=1", "PATH=/bin",
		"ORPHAN_CLEANER_SERVICE_HOST=10.0.0.11", "ORPHAN_CLEANER_SERVICE_PORT=9091", "ORPHAN_CLEANER_SERVICE_PORT_METRICS=9091",
		"ORPHAN_CLEANER_PORT=tcp://10.0.0.11:9091", "ORPHAN_CLEANER_PORT_9091_TCP=tcp://10.0.0.11:9091",
		"ORPHAN_CLEANER_PORT_9091_TCP_PROTO=tcp", "ORPHAN_CLEANER_PORT_9091_TCP_PORT=9091", "ORPHAN_CLEANER_PORT_9091_TCP_ADDR=10.0.0.11",
		"ORPHAN_CLEANER_METRICS_SERVICE_HOST=10.0.0.11",
	}
	names := settingNames(kctx.Model)
	if len(names) < 30 {
		t.Errorf("only %q", names)
	}
	for _, name := range names {
		environ = append(environ, name+"=")
	}
	if err := checkEnvironment(kctx, environ); err != nil {
		t.Error(err)
	}
}
