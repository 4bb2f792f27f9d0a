package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// hidden is the password of every database URL here, and the token of every
// URL that could carry one: nothing may show it.
const hidden = "hunter2-correct-horse"

// setting is one setting of `run` with values that its documentation accepts and
// values that it refuses.
type setting struct {
	env       string
	good, bad []string
}

func (s setting) flag() string {
	return "--" + strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(s.env, "ORPHAN_CLEANER_")), "_", "-")
}

// named says whether a message names the setting, by flag or by environment.
func (s setting) named(message string) bool {
	bare := strings.TrimPrefix(s.env, "ORPHAN_CLEANER_")
	return strings.Contains(message, s.flag()) || strings.Contains(message, bare) || strings.Contains(message, s.env)
}

// runSettings are those of `run`. Nothing listens at the good URLs.
func runSettings(dir string) []setting {
	const closed = "127.0.0.1:1"
	durations := []string{"1s", "30d", "1d12h", "90s", "36500d"}
	notDurations := []string{"30", "0s", "-1d", "1d-12h", "1w", "36501d", "NaN", "1.5d", "30 d", "9223372036854775807h"}
	numbers := []string{"one", "1.5", "1e3", "", "99999999999999999999", "-99999999999999999999", " 1", "0x"}
	shares := []string{"-0.1", "1.1", "NaN", "Inf", "-Inf", "half", "1e400"}
	id, other := "6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10", uuid.Nil.String()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			panic(err)
		}
		return path
	}
	// A bad number may be well formed; the empty one of the environment is no number either.
	number := func(name string, good, bad []string) setting {
		return setting{env: "ORPHAN_CLEANER_" + name, good: good, bad: slices.Concat(bad, numbers)}
	}
	duration := func(name string, good, bad []string) setting {
		return setting{env: name, good: slices.Concat(good, durations), bad: slices.Concat(bad, notDurations)}
	}
	share := func(name string) setting {
		return setting{env: "ORPHAN_CLEANER_" + name, good: []string{"0", "1", "0.5", "1e-9"}, bad: shares}
	}
	return []setting{
		{
			env: "DATABASE_URL",
			good: []string{
				"postgres://runner:" + hidden + "@" + closed + "/messaging", "postgresql://runner@" + closed + "/messaging?password=" + hidden,
			},
			bad: []string{
				"mysql://runner:" + hidden + "@h/db", "postgres://runner:" + hidden + "@h:port/db", "postgres://%zz:" + hidden + "@h/db",
				"runner:" + hidden + "@h", "host=h password=" + hidden,
			},
		},
		{
			env: "DATABASE_URL_FILE",
			good: []string{
				file("url", "postgres://runner:"+hidden+"@"+closed+"/messaging\n"),
			},
			bad: []string{
				filepath.Join(dir, "not there"), dir, file("empty", "\n"), file("wrong", "mysql://runner:"+hidden+"@h/db"),
				"postgres://runner:" + hidden + "@h/db",
			},
		},
		{env: "DATABASE_MAX_CONNECTIONS", good: []string{"8", "2147483647"}, bad: slices.Concat([]string{"1", "0", "-1", "2147483648"}, numbers)},
		{env: "DATABASE_MIN_CONNECTIONS", good: []string{"0", "2"}, bad: slices.Concat([]string{"-1", "2147483648"}, numbers)},
		{
			env: "AUTH_SERVICE_URL", good: []string{"http://" + closed, "https://" + closed, "http://localhost"},
			bad: []string{"ftp://h", "auth-service:9080", "http://", "http://h:port", "http://u:" + hidden + "@h:1", "http://h:99999", "http://h/path"},
		},
		{env: "AUTH_SERVICE_METHOD", good: []string{"nova.identity_service.v2.AuthService/GetUsersByIds"}, bad: []string{"GetUsersByIds", "a b/c", "/"}},
		duration("AUTH_SERVICE_TIMEOUT", nil, nil),
		{env: "AUTH_SERVICE_TOKEN_FILE", good: []string{file("token", hidden)}, bad: []string{filepath.Join(dir, "not there"), dir, file("no token", "")}},
		{env: "ORPHAN_CLEANER_MAX_QPS", good: []string{"0", "1", "0.5", "1e6"}, bad: []string{"-1", "NaN", "Inf", "fast", "1e400"}},
		duration("ORPHAN_CLEANER_INTERVAL", nil, []string{"1ms", "999ms"}),
		number("BATCH_SIZE", []string{"1", "100", "99"}, []string{"0", "101", "-1"}),
		{
			env: "ORPHAN_CLEANER_RETENTION", good: []string{"1d", "30d", "24h", "36500d"},
			bad: slices.Concat([]string{"1s", "23h59m59s"}, notDurations),
		},
		{env: "ORPHAN_CLEANER_ALLOW_SHORT_RETENTION", good: []string{"false"}, bad: []string{"perhaps", "2"}},
		number("CONCURRENCY", []string{"1", "64"}, []string{"0", "65", "-1"}),
		duration("ORPHAN_CLEANER_MAX_GAP", nil, nil),
		{
			env: "ORPHAN_CLEANER_CHECK_EVERY", good: []string{"24h", "1m", "30d", "1d12h"},
			bad: slices.Concat([]string{"59s", "30d1s", "40d"}, notDurations),
		},
		share("MAX_NEW_MISSING_SHARE"), share("MAX_NEW_MISSING_RATE"), share("MAX_CANDIDATE_SHARE"),
		share("MAX_DELETE_SHARE"), share("MAX_DELETE_SHARE_7D"), share("MAX_DELETE_SHARE_30D"),
		{env: "ORPHAN_CLEANER_MAX_HISTORY", good: []string{"0", "2.5", "1e9"}, bad: []string{"-1", "NaN", "Inf", "often"}},
		number("MAX_DELETE_ROWS", []string{"0", "1", "9007199254740992"}, []string{"-1", "9223372036854775808"}),
		number("MAX_RECENTLY_ACTIVE", []string{"0", "5", "9007199254740992"}, []string{"-1"}),
		{env: "ORPHAN_CLEANER_CANARY_ALIVE", good: []string{id, id + "," + strings.ToUpper(id)}, bad: []string{"me", id + ",me", id + ";" + id, id[1:], ","}},
		{env: "ORPHAN_CLEANER_CANARY_DEAD", good: []string{other}, bad: []string{"me", "," + other, other + " " + id}},
		{
			env: "ORPHAN_CLEANER_LEASE", good: []string{"1s", "1m", "1h"},
			bad: slices.Concat([]string{"1ms", "999ms", "1h1s", "30d"}, notDurations),
		},
		number("CHUNK_ROWS", []string{"1", "100000"}, []string{"0", "100001", "-1"}),
		{env: "ORPHAN_CLEANER_CHUNK_TIME", good: []string{"1ms", "100ms", "10s"}, bad: slices.Concat([]string{"999us", "10s1ms"}, notDurations)},
		{env: "ORPHAN_CLEANER_NICE_RATIO", good: []string{"0", "0.5", "100"}, bad: []string{"-0.1", "100.1", "NaN", "Inf", "nice"}},
		duration("ORPHAN_CLEANER_MAX_LAG", nil, nil),
		{env: "ORPHAN_CLEANER_METRICS_TEXTFILE", good: []string{filepath.Join(dir, "run.prom"), filepath.Join(dir, "not there", "run.prom")}},
		{
			env:  "ORPHAN_CLEANER_PUSHGATEWAY_URL",
			good: []string{"http://" + closed, "http://u:" + hidden + "@" + closed}, bad: []string{"pushgateway:9091", "http://", "ftp://h", "http://u:" + hidden + "@h:port"},
		},
		{
			env:  "ORPHAN_CLEANER_HEALTHCHECK_URL",
			good: []string{"http://" + closed + "/ping/" + hidden}, bad: []string{"hc-ping.com/x", "https://", "http://h:port/" + hidden},
		},
		{env: "ORPHAN_CLEANER_LOG_FORMAT", good: []string{"text", "json"}, bad: []string{"xml", "JSON", " text"}},
		{env: "ORPHAN_CLEANER_LOG_LEVEL", good: []string{"debug", "info", "warn", "error"}, bad: []string{"loud", "INFO", "-4"}},
	}
}

// FuzzSettings gives `run` random settings, by flag and by environment. Either
// all of it is right, and the configuration keeps every documented bound and
// reads back the same from how it is printed; or the program ends with exit
// status 2 and one line that names a setting that is wrong, and has done
// nothing. It never shows a password.
func FuzzSettings(f *testing.F) {
	args := os.Args
	all := runSettings(f.TempDir())
	for _, s := range all {
		// What the environment of the test says is not what is tested.
		f.Setenv(s.env, "")
		if err := os.Unsetenv(s.env); err != nil {
			f.Fatal(err)
		}
	}
	f.Cleanup(func() { os.Args = args })
	// All is right, and then one thing after the other is not: by environment, and by flag
	// the first of each and what holds the password, which either way must not be shown.
	right := bytes.Repeat([]byte{isGood, 0}, len(all))
	right[2] = isAbsent // the file that would take the place of the URL
	f.Add(right)
	for i, s := range all {
		for value := range s.good {
			also := bytes.Clone(right)
			also[2*i], also[2*i+1] = isGood, byte(value)
			f.Add(also)
		}
		for value, text := range s.bad {
			kinds := []byte{isBad}
			if value == 0 || strings.Contains(text, hidden) {
				kinds = append(kinds, isBad|byFlag)
			}
			for _, kind := range kinds {
				wrong := bytes.Clone(right)
				wrong[2*i], wrong[2*i+1] = kind, byte(value)
				f.Add(wrong)
			}
		}
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		given := &givenSettings{args: []string{"run"}}
		given.read(t, all, script)
		os.Args = append([]string{"orphan-cleaner"}, given.args...)

		var stdout, stderr bytes.Buffer
		status := execute(t.Context(), given.args, &stdout, &stderr)

		if strings.Contains(stdout.String()+stderr.String(), hidden) {
			t.Fatalf("the password is shown:\n%s%s", &stdout, &stderr)
		}
		switch status {
		case exitUsage:
			line, rest, _ := strings.Cut(stderr.String(), "\n")
			if !strings.HasPrefix(line, "orphan-cleaner: ") || rest != "" || stdout.Len() > 0 {
				t.Fatalf("not one line:\n%s%s", &stdout, &stderr)
			}
			if len(given.wrong) == 0 && !given.unclear {
				t.Fatalf("refused, and nothing is wrong: %s", line)
			}
			named := slices.ContainsFunc(given.wrong, func(s setting) bool { return s.named(line) })
			if !named && !given.unclear {
				t.Fatalf("wrong are %s, and the message names none of them: %s", given, line)
			}
		case exitFailed:
			// The settings are right, and no database is there.
			if len(given.wrong) > 0 {
				t.Fatalf("accepted, and wrong are %s:\n%s", given, &stderr)
			}
			cmd := parseRun(t, given.args)
			cfg, err := cmd.config()
			if err != nil {
				t.Fatal(err)
			}
			inBounds(t, cmd, cfg)
			printsBack(t, cmd, cfg)
		default:
			t.Fatalf("exit status %d:\n%s%s", status, &stdout, &stderr)
		}
	})
}

// A script has two bytes for each setting: what kind of value it gets and how,
// and which one. A short script leaves the rest absent.
const (
	isGood   = 0
	isAbsent = 1
	isBad    = 2
	isAny    = 3 // the bytes that follow, as many as the second byte says
	byFlag   = 4
)

// givenSettings are those of one execution.
type givenSettings struct {
	args    []string
	wrong   []setting
	unclear bool // there is a value of which nobody says whether it is right
}

func (g *givenSettings) read(t *testing.T, all []setting, script []byte) {
	t.Helper()
	hasFile := false
	wrongURL, shownURL := false, false
	for _, s := range all {
		kind, flag, which := byte(isAbsent), false, 0
		if len(script) >= 2 {
			kind, flag, which = script[0]%4, script[0]&byFlag != 0, int(script[1])
			script = script[2:]
		}
		if kind == isAbsent {
			wrongURL = wrongURL || s.env == "DATABASE_URL"
			if s.env == "AUTH_SERVICE_URL" {
				g.wrong = append(g.wrong, s)
			}
			continue
		}
		var value string
		switch kind {
		case isGood:
			value = s.good[which%len(s.good)]
		case isBad:
			if len(s.bad) == 0 {
				continue // everything is right
			}
			value = s.bad[which%len(s.bad)]
		case isAny:
			length := min(which, len(script))
			// No environment holds a zero byte.
			value = strings.ReplaceAll(string(script[:length]), "\x00", "0")
			script = script[length:]
		}
		if flag {
			g.args = append(g.args, s.flag()+"="+value)
		} else {
			t.Setenv(s.env, value)
		}
		// An empty value of a text is as good as none.
		g.unclear = g.unclear || kind == isAny || value == ""
		switch s.env {
		case "DATABASE_URL":
			wrongURL = kind == isBad
			// A password on the command line is seen in ps.
			shownURL = flag && kind == isGood
		case "DATABASE_URL_FILE":
			hasFile = true
			if kind == isBad {
				g.wrong = append(g.wrong, s)
			}
		default:
			if kind == isBad && value != "" {
				g.wrong = append(g.wrong, s)
			}
		}
	}
	// A file takes the place of the URL, which then may be wrong unread.
	switch {
	case shownURL, wrongURL && !hasFile:
		g.wrong = append(g.wrong, all[0])
	case wrongURL:
		g.unclear = true
	}
}

func (g *givenSettings) String() string {
	var names []string
	for _, s := range g.wrong {
		names = append(names, s.env)
	}
	return strings.Join(names, ", ")
}

func parseRun(t *testing.T, args []string) *RunCmd {
	t.Helper()
	var cli CLI
	parser, err := kong.New(&cli, kong.Vars{"version": version})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &cli.Run
}

func inBounds(t *testing.T, cmd *RunCmd, cfg settings.Run) {
	t.Helper()
	within := func(name string, value, from, through float64) {
		if !(value >= from && value <= through) {
			t.Errorf("%s is %v, it must be %v to %v", name, value, from, through)
		}
	}
	within("batch size", float64(cfg.BatchSize), 1, 100)
	within("concurrency", float64(cfg.Concurrency), 1, 64)
	within("chunk rows", float64(cfg.ChunkRows), 1, 100_000)
	for name, limit := range cfg.Limits {
		most := 1.0
		switch name {
		case "delete-rows", "history", "recently-active":
			most = math.MaxFloat64
		}
		within(name, limit, 0, most)
	}
	within("nice ratio", cfg.NiceRatio, 0, 100)
	within("calls a second", cmd.MaxQPS, 0, math.MaxFloat64)
	within("interval", time.Duration(cmd.Interval).Seconds(), 1, math.MaxFloat64)
	within("lease", cfg.Lease.Seconds(), 1, math.MaxFloat64)
	within("gap", cfg.MaxGap.Seconds(), 1e-9, math.MaxFloat64)
	if cfg.CheckEvery != 0 {
		within("check every", cfg.CheckEvery.Seconds(), 60, 30*24*3600)
	}
	within("timeout", time.Duration(cmd.AuthServiceTimeout).Seconds(), 1e-9, math.MaxFloat64)
	if !cmd.AllowShortRetention {
		within("retention in hours", cfg.Retention.Hours(), 24, math.MaxFloat64)
	}
	within("retention", cfg.Retention.Seconds(), 1e-9, math.MaxFloat64)
	for _, id := range cfg.CanaryAlive {
		if slices.Contains(cfg.CanaryDead, id) {
			t.Errorf("canary %s is alive and dead", id)
		}
	}
}

// printsBack reads the settings again as each run keeps them in its row.
func printsBack(t *testing.T, cmd *RunCmd, cfg settings.Run) {
	t.Helper()
	args := []string{"run", "--retention=" + Duration(cfg.Retention).String(), "--max-gap=" + Duration(cfg.MaxGap).String()}
	for name, value := range cfg.Flags {
		args = append(args, fmt.Sprintf("--%s=%v", name, value))
	}
	for name, limit := range cfg.Limits {
		args = append(args, "--max-"+name+"="+strconv.FormatFloat(limit, 'f', -1, 64))
	}
	args = append(
		args, "--allow-short-retention="+strconv.FormatBool(cmd.AllowShortRetention), "--interval="+cmd.Interval.String(), "--auth-service-timeout="+cmd.AuthServiceTimeout.String(),
		"--max-qps="+strconv.FormatFloat(cmd.MaxQPS, 'g', -1, 64),
	)
	again := parseRun(t, args)
	if again.Interval != cmd.Interval || again.AuthServiceTimeout != cmd.AuthServiceTimeout || again.MaxQPS != cmd.MaxQPS {
		t.Errorf("printed and read again, %+v became %+v", cmd, again)
	}
	other, err := again.config()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	other.CanaryAlive, other.CanaryDead = cfg.CanaryAlive, cfg.CanaryDead
	if !reflect.DeepEqual(cfg, other) {
		t.Errorf("printed and read again,\n%+v became\n%+v", cfg, other)
	}
}
