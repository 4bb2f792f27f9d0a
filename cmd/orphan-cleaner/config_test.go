package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// shownSettings are what `config --json` prints, by name.
func shownSettings(t *testing.T, env []string, args ...string) map[string]effective {
	t.Helper()
	e := program(t, env, append([]string{"config", "--json"}, args...)...).expect(t, exitDone)
	if strings.Contains(e.stdout+e.stderr, hidden) {
		t.Errorf("a secret is shown: %s", e)
	}
	var list []effective
	if err := json.Unmarshal([]byte(e.stdout), &list); err != nil {
		t.Fatalf("%v: %s", err, e)
	}
	settings := map[string]effective{}
	for _, s := range list {
		if _, twice := settings[s.Name]; twice {
			t.Errorf("%s is shown twice", s.Name)
		}
		settings[s.Name] = s
	}
	return settings
}

func TestConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("postgres://filed:"+hidden+"@f/messaging\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := shownSettings(t, []string{
		"DATABASE_URL=postgres://runner@h/messaging", "DATABASE_URL_FILE=" + file, "ORPHAN_CLEANER_RETENTION=40d", "ORPHAN_CLEANER_MAX_GAP=36h",
		"ORPHAN_CLEANER_RESTORE_WINDOW=100d", "ORPHAN_CLEANER_LOG_FORMAT=", "ORPHAN_CLEANER_EVENTS_FROM=7",
	}, "--retention", "50d", "--canary-alive", "a,b", "--log-format=json")
	for _, want := range []effective{
		{Name: "database-url", Value: "postgres://filed@f/messaging", From: "file", At: file, Environment: "DATABASE_URL"},
		{Name: "database-url-file", Value: file, From: "environment", Environment: "DATABASE_URL_FILE"},
		{Name: "retention", Value: "50d", From: "flag", Environment: "ORPHAN_CLEANER_RETENTION"},
		{Name: "max-gap", Value: "1d12h", From: "environment", Environment: "ORPHAN_CLEANER_MAX_GAP"},
		{Name: "canary-alive", Value: "a,b", From: "flag", Environment: "ORPHAN_CLEANER_CANARY_ALIVE"},
		{Name: "batch-size", Value: "100", From: "default", Environment: "ORPHAN_CLEANER_BATCH_SIZE"},
		{Name: "check-every", Value: "", From: "default", Environment: "ORPHAN_CLEANER_CHECK_EVERY"},
		{Name: "log-format", Value: "json", From: "flag", Environment: "ORPHAN_CLEANER_LOG_FORMAT"},
		{Name: "restore-window", Value: "100d", From: "environment", Environment: "ORPHAN_CLEANER_RESTORE_WINDOW"},
		{Name: "events-from", Value: "7", From: "environment", Environment: "ORPHAN_CLEANER_EVENTS_FROM"},
		{Name: "audit-window", Value: "400d", From: "default", Environment: "ORPHAN_CLEANER_AUDIT_WINDOW"},
	} {
		if got[want.Name] != want {
			t.Errorf("%+v, want %+v", got[want.Name], want)
		}
	}
	if from := shownSettings(t, nil)["events-from"]; from.Value != "" {
		t.Errorf("what is not set is %+v", from)
	}
}

// Every setting of every command is shown, under the name of its flag where
// `config` takes it.
func TestConfigIsComplete(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&CLI{}, kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for name, s := range shownSettings(t, nil) {
		shown[s.Environment] = name
	}
	for _, leaf := range parser.Model.Leaves(false) {
		for _, flag := range leaf.Flags {
			if len(flag.Envs) == 0 {
				continue
			}
			name, ok := shown[flag.Envs[0]]
			if !ok || leaf.Name == "config" && name != flag.Name {
				t.Errorf("--%s of %s is shown as %q", flag.Name, leaf.Name, name)
			}
		}
	}
}

func TestConfigTable(t *testing.T) {
	t.Parallel()
	e := program(t, []string{
		"ORPHAN_CLEANER_RETENTION=40d", "ORPHAN_CLEANER_CANARY_ALIVE=" + strings.Repeat("6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10,", 9),
		"DATABASE_URL=postgres://runner:" + hidden + "@127.0.0.1:1/messaging",
	}, "config", "--max-qps=5").expect(t, exitDone)
	for _, want := range [][]string{
		{"database-url", "postgres://runner@127.0.0.1:1/messaging", "environment", "DATABASE_URL"},
		{"retention", "40d", "environment", "ORPHAN_CLEANER_RETENTION"},
		{"max-qps", "5", "flag", "--max-qps"},
		{"batch-size", "100", "default"},
	} {
		found := false
		for line := range strings.Lines(e.stdout) {
			found = found || strings.Join(strings.Fields(line), " ") == strings.Join(want, " ")
		}
		if !found {
			t.Errorf("no line %q in\n%s", want, e.stdout)
		}
	}
}

// A wrong value is refused, also that of a setting that another command has.
func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	for _, env := range []string{"ORPHAN_CLEANER_RETENTION=40", "ORPHAN_CLEANER_RESTORE_WINDOW=40", "DATABASE_URL=mysql://u:" + hidden + "@h/db", "DATABASE_URL_FILE=/nowhere"} {
		name, _, _ := strings.Cut(env, "=")
		e := program(t, []string{env}, "config").expect(t, exitUsage)
		if !strings.Contains(e.stderr, name) || strings.Contains(e.stderr, hidden) || e.stdout != "" {
			t.Errorf("%s: %s", env, e)
		}
	}
}

func TestWithoutSecrets(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"": "",
		"postgres://runner:" + hidden + "@db:5432/messaging":                              "postgres://runner@db:5432/messaging",
		"postgresql://runner@h1:1,h2:2/messaging?password=" + hidden + "&sslmode=require": "postgresql://runner@h1:1,h2:2/messaging?sslmode=require",
		"postgres://h/db?sslpassword=" + hidden + "&sslrootcert=ca.pem&options=" + hidden: "postgres://h/db?sslrootcert=ca.pem",
		"postgres://runner:12/" + hidden + "@h/db":                                        "[not shown]",
		"postgres://runner:12?" + hidden + "@h/db":                                        "[not shown]",
		"postgres://runner:12#" + hidden + "@h/db":                                        "[not shown]",
		"postgres://runner:%zz" + hidden + "@h/db":                                        "[not shown]",
		"host=h password=" + hidden:                                                       "[not shown]",
		"redis://:" + hidden + "@redis:6379/0":                                            "redis://redis:6379/…",
		"https://" + hidden + "@push.example/metrics":                                     "https://push.example/…",
		"https://hc-ping.com/" + hidden:                                                   "https://hc-ping.com/…",
		"http://auth-service:9080":                                                        "http://auth-service:9080",
		"http://auth-service:9080/?token=" + hidden + "#" + hidden:                        "http://auth-service:9080",
	} {
		if got := withoutSecrets(given); got != want {
			t.Errorf("%s is shown as %s, want %s", given, got, want)
		}
	}
}
