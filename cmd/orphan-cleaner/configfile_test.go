package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// configuration is a file with this text.
func configuration(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The file sets what neither the environment nor a flag sets, for every command,
// and config says in which line.
func TestConfigFile(t *testing.T) {
	t.Parallel()
	path := configuration(t, `# settings of the cleaner
retention: 40d
max-gap: 6d
concurrency: 4
max-delete-share: 0.02
canary-alive:
  - a
  - b
restore-window: 100d   # of prune
restore-hold: 3d
database-url: postgres://runner:`+hidden+`@from-file/messaging
`)
	for name, got := range map[string]map[string]effective{
		"flag":        shownSettings(t, []string{"ORPHAN_CLEANER_MAX_GAP=5d"}, "--config", path, "--concurrency=3"),
		"environment": shownSettings(t, []string{"ORPHAN_CLEANER_MAX_GAP=5d", "ORPHAN_CLEANER_CONFIG=" + path}, "--concurrency=3"),
	} {
		for setting, want := range map[string][3]string{
			"retention":        {"40d", "file", path + ":2"},
			"max-gap":          {"5d", "environment", ""},
			"concurrency":      {"3", "flag", ""},
			"max-delete-share": {"0.02", "file", path + ":5"},
			"canary-alive":     {"a,b", "file", path + ":7"},
			"restore-window":   {"100d", "file", path + ":9"},
			"restore-hold":     {"3d", "file", path + ":10"},
			"audit-window":     {"400d", "default", ""},
			"database-url":     {"postgres://runner@from-file/messaging", "file", path + ":11"},
		} {
			if is := [3]string{got[setting].Value, got[setting].From, got[setting].At}; is != want {
				t.Errorf("file by %s: %s is %q, want %q", name, setting, is, want)
			}
		}
	}
}

// A run goes by the file, and a URL from the environment wins over the file's name of a file.
func TestRunByConfigFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	path := configuration(t, "max-delete-rows: 14\ndatabase-url-file: /nowhere/url\n")
	e := program(t, w.env, "run", "--config="+path).expect(t, exitRefused)
	if !strings.Contains(e.stderr, "delete-rows") {
		t.Errorf("%s", e)
	}
	program(t, w.env, "run", "--config="+path, "--max-delete-rows=15").expect(t, exitDone)
}

// A mistake in the file is refused with its line and, where there is one, the name
// that was meant: in one line, before anything is done.
func TestConfigFileRefuses(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"interval: 2h\nretentoin: 30d\n":              `:2: there is no setting "retentoin", did you mean retention?`,
		"execute: true\n":                             `:1: there is no setting "execute"`,
		"yes: true\n":                                 `:1: there is no setting "yes"`,
		"\n\nretention: 30\n":                         `:3: retention: "30" is not a duration`,
		"restore-window: x\n":                         `:1: restore-window: "x" is not a duration`,
		"log-format: xml\n":                           `:1: log-format is "xml", it must be one of: text, json`,
		"retention: 30d\nretention: 3d\n":             `already defined at line 1`,
		"retention:\n":                                `:1: retention wants one value`,
		"retention: [30d, 40d]\n":                     `:1: retention wants one value`,
		"retention: {days: 30}\n":                     `:1: retention wants one value`,
		"- retention\n":                               "want lines such as `retention: 30d`: yaml: construct errors: line 1: this seq is not what belongs here",
		"retention: 30d\n---\nmax-gap: 1d":            "more than one YAML document",
		"max-delete-rows: 5\nmax-delete-members: 7\n": ":2: max-delete-members is max-delete-rows by another name: remove one",
		"breakers:\n  max-gap: 7d\n":                  `there is no setting "breakers" that others stand under: begin each line with a setting, such as`,
		"ORPHAN_CLEANER_RETENTION: 30d\n":             `:1: there is no setting "ORPHAN_CLEANER_RETENTION", did you mean retention?`,
		"MAX_DELETE_ROWS: 30\n":                       `:1: there is no setting "MAX_DELETE_ROWS", did you mean max-delete-rows?`,
		"database-max-connections: " + hidden:         `:1: database-max-connections`,
	} {
		path := configuration(t, text)
		e := program(t, nil, "status", "--config="+path).expect(t, exitUsage)
		if !strings.Contains(e.stderr, path) || !strings.Contains(e.stderr, says) || strings.Count(e.stderr, "\n") != 1 || e.stdout != "" {
			t.Errorf("%q: want %q: %s", text, says, e)
		}
	}
	e := program(t, nil, "run", "--config=/nowhere/config.yaml").expect(t, exitUsage)
	if !strings.Contains(e.stderr, "/nowhere/config.yaml") {
		t.Errorf("%s", e)
	}
	program(t, []string{"ORPHAN_CLEANER_CONFIG=/nowhere/config.yaml"}, "help", "run").expect(t, exitDone)
	program(t, nil, "run", "--config="+configuration(t, "# nothing\n"), "--help").expect(t, exitDone)
}

// config shows what is pinned, and that a stricter pin is what binds.
func TestConfigShowsPins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 1)
	program(t, w.env, "limits", "pin", "retention=60d", "delete-share=0.2").expect(t, exitDone)
	got := shownSettings(t, w.env, "--max-delete-share=0.05")
	for name, want := range map[string][3]string{
		"retention": {"60d", "pin", "60d"}, "max-delete-share": {"0.05", "flag", "0.2"}, "max-gap": {"7d", "default", ""},
	} {
		if is := [3]string{got[name].Value, got[name].From, got[name].Pin}; is != want {
			t.Errorf("%s is %q, want %q", name, is, want)
		}
	}
	e := program(t, []string{"DATABASE_URL=postgres://u@127.0.0.1:1/m"}, "config").expect(t, exitDone)
	if !strings.Contains(e.stderr, "the pins are not known") || strings.Count(e.stderr, "\n") != 1 {
		t.Errorf("%s", e)
	}
}
