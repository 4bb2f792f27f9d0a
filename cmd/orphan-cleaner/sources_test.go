package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// example is one of docs/sources.md: its blocks by language.
func example(t *testing.T, name string) map[string]string {
	t.Helper()
	_, rest, found := strings.Cut(page(t, "docs/sources.md"), "<!-- example: "+name+" -->\n")
	if !found {
		t.Fatalf("docs/sources.md has no example %s", name)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	blocks := map[string]string{}
	for _, block := range regexp.MustCompile("(?s)```(\\w+)\n(.*?)```\n").FindAllStringSubmatch(rest, -1) {
		blocks[block[1]] = block[2]
	}
	return blocks
}

// shell runs a block in which orphan-cleaner is this program. It returns what the block
// printed, and what it exported.
func shell(t *testing.T, script string) (out string, env []string) {
	t.Helper()
	dir := installed(t)
	cmd := exec.Command("bash", "-euc", script+"\nenv >"+dir+"/env")
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir}
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, script, text)
	}
	exported, err := os.ReadFile(dir + "/env")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(exported)) {
		if strings.HasPrefix(line, "AUTH_SERVICE_") {
			env = append(env, strings.TrimSpace(line))
		}
	}
	return string(text), env
}

// startExample is the HTTP source of the page under way, and its address.
func startExample(t *testing.T, code string, living []uuid.UUID) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var ids strings.Builder
	for _, id := range living {
		fmt.Fprintln(&ids, id)
	}
	for name, text := range map[string]string{"source.go": strings.ReplaceAll(code, "127.0.0.1:8080", address), "users.txt": ids.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "source"), filepath.Join(dir, "source.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as other tests do: compiled once
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the example: %v\n%s", err, out)
	}
	server := exec.Command(filepath.Join(dir, "source"))
	server.Dir = dir
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // it was killed
	})
	eventually(t, "the example listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return address
}

// swept is what a run did to the members, and what tells of it.
type swept struct {
	left, audit, backup testdb.Snapshot
	result              map[string]any
}

// Each example of docs/sources.md passes `check --source` as it is printed, and the same
// members are cleaned through each: the same rows, the same audit, the same calls.
func TestSources(t *testing.T) {
	t.Parallel()
	const living = "a7c4e2d0-15b8-4d9f-8e36-7b2c9f0d1e32"
	through := func(kind string) swept {
		w := newWorld(t, 300, 15)
		w.Exec(`UPDATE users SET id = $1 WHERE id = md5('user 300')::uuid`, living)
		w.Exec(`UPDATE conversation_members SET user_id = $1 WHERE user_id = md5('user 300')::uuid`, living)
		w.auth.Add(uuid.MustParse(living))
		blocks := example(t, kind)
		script := strings.ReplaceAll(blocks["sh"], "auth-service:9080", w.auth.Addr())
		switch kind {
		case "sql":
			auth := testdb.NewEmpty(t)
			auth.Exec(`CREATE TABLE users (id uuid PRIMARY KEY, email text, deleted_at timestamptz)`)
			auth.Exec(`INSERT INTO users (id, deleted_at) SELECT unnest($1::uuid[]), NULL`, w.users(t, "deleted_at IS NULL"))
			auth.Exec(`INSERT INTO users (id, deleted_at) SELECT unnest($1::uuid[]), now()`, w.dead)
			auth.Psql("-v", "ON_ERROR_STOP=1", "-c", blocks["sql"])
			t.Cleanup(func() { auth.Psql("-c", "DROP OWNED BY orphan_cleaner_asks", "-c", "DROP ROLE orphan_cleaner_asks") })
			script = strings.ReplaceAll(script, "postgresql://orphan_cleaner_asks@auth-db:5432/auth?sslmode=verify-full", auth.URLAs("orphan_cleaner_asks"))
		case "http":
			_, body, _ := strings.Cut(blocks["go"], "\n)\n\n")
			if n := strings.Count(body, "\n"); n == 0 || n > 20 {
				t.Errorf("the example has %d lines beside its imports", n)
			}
			address := startExample(t, blocks["go"], w.users(t, "deleted_at IS NULL"))
			script = strings.ReplaceAll(script, "127.0.0.1:8080", address)
		}
		out, env := shell(t, script)
		if n := len(regexp.MustCompile(`(?m)^ok  |^warn  slow answers`).FindAllString(out, -1)); n != 9 {
			t.Errorf("%s: check --source says\n%s", kind, out)
		}
		w.Settle()
		env = append(append([]string{"DATABASE_URL=" + w.URL}, env...), wideLimits()...)
		e := program(t, env, "run", "--json").expect(t, exitDone)
		gone(t, w, w.living(), 15)
		result := e.result(t)
		for _, name := range []string{"seconds", "run_id"} {
			delete(result, name)
		}
		return swept{
			left:   w.Snapshot("conversation_members"),
			audit:  w.Snapshot("(SELECT conversation_id, user_id, role, run_id FROM conversation_members_audit) AS a"),
			backup: w.Snapshot("(SELECT conversation_id, user_id, role, run_id FROM conversation_members_backup) AS b"),
			result: result,
		}
	}
	want := through("grpc")
	if want.result["batch_calls"] != 4.0 || want.result["members_deleted"] != 15.0 {
		t.Fatalf("by gRPC: %v", want.result)
	}
	for _, kind := range []string{"sql", "http"} {
		got := through(kind)
		for name, diff := range map[string]string{
			"members": keys(want.left).Diff(keys(got.left)), "audit": want.audit.Diff(got.audit), "backup": want.backup.Diff(got.backup),
		} {
			if diff != "" {
				t.Errorf("%s: %s differ:\n%s", kind, name, diff)
			}
		}
		if fmt.Sprint(got.result) != fmt.Sprint(want.result) {
			t.Errorf("%s: %v\nby gRPC: %v", kind, got.result, want.result)
		}
	}
}

// keys are rows without the times at which a world was made.
func keys(rows testdb.Snapshot) testdb.Snapshot {
	var short testdb.Snapshot
	for _, row := range rows {
		short = append(short, strings.Join(strings.SplitN(row, ",", 4)[:3], ","))
	}
	return short
}

// `check --source` says what is wrong with a source, and why.
func TestCheckSourceSays(t *testing.T) {
	t.Parallel()
	living := uuid.New()
	lookup := func(r *http.Request, most int) (users []string) {
		body, _ := io.ReadAll(r.Body)
		for i, found := range regexp.MustCompile(`[0-9a-fA-F-]{36}`).FindAllString(string(body), -1) {
			if i < most && found == living.String() {
				users = append(users, `{"id": "`+found+`"}`)
			}
		}
		return users
	}
	for name, test := range map[string]struct {
		body func(r *http.Request) string
		says []string
		exit int
	}{
		"cut at 100": {func(r *http.Request) string {
			return `{"users": [` + strings.Join(lookup(r, 100), ",") + `], "complete": true}`
		}, []string{"FAIL  one too many: of 101 users, the last is left out", "warn  upper case", "ok    empty list", "ok    full batch"}, exitFailed},
		"cut at 50": {func(r *http.Request) string {
			return `{"users": [` + strings.Join(lookup(r, 50), ",") + `], "complete": true}`
		}, []string{"FAIL  full batch: " + living.String() + " is left out, and exists", "FAIL  concurrent"}, exitFailed},
		"not complete": {func(r *http.Request) string {
			return `{"users": [` + strings.Join(lookup(r, 200), ",") + `]}`
		}, []string{`FAIL  known: no valid response of auth-service for a batch of 1 users (not_complete)`, "FAIL  empty list"}, exitFailed},
		"knows nobody": {func(*http.Request) string { return `{"users": [], "complete": true}` }, []string{"FAIL  known", "ok    unknown"}, exitFailed},
		"text ids": {func(r *http.Request) string {
			return `{"users": [` + strings.Join(lookup(r, 200), ",") + `], "complete": true}`
		}, []string{"warn  upper case", "hint: compare ids as uuid"}, exitDone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, test.body(r))
			}))
			defer server.Close()
			e := program(t, []string{"AUTH_SERVICE_URL=rest+" + server.URL}, "check", "--source", "--canary-alive="+living.String()).expect(t, test.exit)
			for _, part := range test.says {
				if !strings.Contains(e.stdout, part) {
					t.Errorf("it does not say %q:\n%s", part, e)
				}
			}
		})
	}
	// What net/http logs by itself is a line of ours, and only for who debugs.
	short := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}of nobody")
		_, _ = io.Copy(io.Discard, buffered) // until the client has read it, and goes
	}))
	defer short.Close()
	for level, want := range map[string]bool{"info": false, "debug": true} {
		e := program(t, []string{"AUTH_SERVICE_URL=rest+" + short.URL, "ORPHAN_CLEANER_LOG_LEVEL=" + level}, "check", "--source", "--canary-alive="+living.String()).expect(t, exitFailed)
		if strings.Contains(e.stderr, "DEBUG orphan_cleaner: Unsolicited response") != want || strings.Contains(e.stderr, "Unsolicited") != want {
			t.Errorf("at %s: %s", level, e)
		}
	}
	e := program(t, []string{"AUTH_SERVICE_URL=rest+http://127.0.0.1:1"}, "check", "--source").expect(t, exitUsage)
	if !strings.Contains(e.stderr, "add --canary-alive=UUID") {
		t.Errorf("without a user who exists: %s", e)
	}
}

// What is wrong with a source in itself is refused: exit status 2, one line, nothing changed.
func TestWrongSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 30, 1)
	w.Exec(`CREATE TABLE guests (id bigint PRIMARY KEY)`)
	before := contents(t, w.DB)
	password := strings.Replace(w.URL, "//postgres@", "//postgres:"+secretCore+"@", 1)
	if password == w.URL {
		t.Fatalf("no user in %s", w.URL)
	}
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	canary := "ORPHAN_CLEANER_CANARY_ALIVE=" + testdb.One[string](w.DB, "SELECT min(id::text) FROM users")
	for name, test := range map[string]struct {
		env, args []string
		says      []string
	}{
		"scheme":           {[]string{"AUTH_SERVICE_URL=mysql://u:" + secretCore + "@db/users"}, nil, []string{"AUTH_SERVICE_URL", "scheme other than http, https, postgresql, rest+http and rest+https"}},
		"writes":           {[]string{"AUTH_SERVICE_URL=" + password, "AUTH_SERVICE_QUERY=DELETE FROM users WHERE id = ANY($1) RETURNING id"}, nil, []string{"AUTH_SERVICE_QUERY: it writes"}},
		"another type":     {[]string{"AUTH_SERVICE_URL=" + password, "AUTH_SERVICE_QUERY=SELECT id FROM guests WHERE id = ANY($1)"}, nil, []string{"AUTH_SERVICE_QUERY: it must have one parameter"}},
		"NULL":             {[]string{"AUTH_SERVICE_URL=" + password, "AUTH_SERVICE_QUERY=SELECT NULL::uuid FROM users WHERE id = ANY($1)", canary}, nil, []string{"AUTH_SERVICE_QUERY: the query returns NULL"}},
		"too many rows":    {[]string{"AUTH_SERVICE_URL=" + password, "AUTH_SERVICE_QUERY=SELECT u.id FROM users AS u, users AS o WHERE u.id = ANY($1)", canary}, nil, []string{"AUTH_SERVICE_QUERY: the query returns more than the 1 users"}},
		"no table":         {[]string{"AUTH_SERVICE_URL=" + password, "AUTH_SERVICE_QUERY=SELECT id FROM accounts WHERE id = ANY($1)"}, []string{"serve", "--metrics-addr=127.0.0.1:0"}, []string{"AUTH_SERVICE_QUERY", "does not exist"}},
		"password in ps":   {nil, []string{"run", "--auth-service-url=" + password}, []string{"seen by everybody in ps", "AUTH_SERVICE_URL", "--auth-service-url-file"}},
		"file of a writer": {[]string{"AUTH_SERVICE_URL_FILE=" + file, "AUTH_SERVICE_QUERY=SELECT id FROM users WHERE id = ANY($1) FOR UPDATE"}, nil, []string{"AUTH_SERVICE_QUERY: it writes, or locks rows"}},
		"file missing":     {[]string{"AUTH_SERVICE_URL_FILE=/nowhere/url"}, nil, []string{"AUTH_SERVICE_URL_FILE", "/nowhere/url"}},
		"port":             {[]string{"AUTH_SERVICE_URL=postgresql://u:" + secretCore + "@db:99999999/auth"}, nil, []string{"AUTH_SERVICE_URL"}},
		"proxy":            {[]string{"AUTH_SERVICE_PROXY=http://proxy:3128"}, nil, []string{"AUTH_SERVICE_PROXY"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := test.args
			if args == nil {
				args = []string{"run"}
			}
			e := program(t, append(slices.Clone(w.env), test.env...), args...).expect(t, exitUsage)
			if strings.Count(e.stderr, "\n") != 1 || e.stdout != "" {
				t.Errorf("want one line on stderr alone, got %s", e)
			}
			for _, part := range test.says {
				if !strings.Contains(e.stderr, part) {
					t.Errorf("the message does not say %q: %s", part, e.stderr)
				}
			}
			noSecret(t, e)
		})
	}
	t.Cleanup(func() {
		if after := contents(t, w.DB); after != before {
			t.Errorf("a wrong source changed the database:\n%s\nwas\n%s", after, before)
		}
	})
}

// The members' own database is no place to ask for users: `check` warns.
func TestCheckWarnsOfShadow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 30, 1)
	auth := testdb.NewEmpty(t)
	auth.Exec(`CREATE TABLE users (id uuid PRIMARY KEY, deleted_at timestamptz)`)
	for url, want := range map[string]string{
		w.URL:    "warn  auth-service-database: AUTH_SERVICE_URL is the members' own database",
		auth.URL: "ok    auth-service-database: is another than the members'",
	} {
		e := program(t, append(slices.Clone(w.env), "AUTH_SERVICE_URL="+url), "check")
		for _, part := range []string{want, "ok    auth-service-query", "ok    auth-service-tls", "ok    auth-service: SERVING at postgres"} {
			if !strings.Contains(e.stdout, part) {
				t.Errorf("check does not say %q: %s", part, e)
			}
		}
	}
}

// What gRPC logs by itself is no line of ours.
func TestNoLineOfGRPC(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			// Frames: SETTINGS, then GOAWAY with ENHANCE_YOUR_CALM.
			_, _ = conn.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x16\x07\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x0btoo_many_pings"))
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}()
	env := []string{"AUTH_SERVICE_URL=http://" + listener.Addr().String(), "ORPHAN_CLEANER_LOG_FORMAT=json", "ORPHAN_CLEANER_LOG_LEVEL=debug"}
	e := program(t, env, "check", "--source", "--auth-service-timeout=1s", "--canary-alive="+uuid.NewString()).expect(t, exitFailed)
	logged := false
	for line := range strings.Lines(e.stderr) {
		if logged = logged || strings.Contains(line, `"level":"DEBUG"`) && strings.Contains(line, "too_many_pings"); !json.Valid([]byte(line)) {
			t.Errorf("a line that is not ours: %q", line)
		}
	}
	if !logged {
		t.Errorf("gRPC has logged nothing: this test shows nothing: %s", e)
	}
}
