package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// findings runs `check` and returns its lines by name.
func findings(t *testing.T, env []string, status int, flags ...string) map[string]map[string]string {
	t.Helper()
	e := program(t, env, append([]string{"check", "--json"}, flags...)...).expect(t, status)
	var list []map[string]string
	if err := json.Unmarshal([]byte(e.stdout), &list); err != nil {
		t.Fatalf("%v: %s", err, e)
	}
	found := map[string]map[string]string{}
	for _, f := range list {
		if found[f["name"]] != nil {
			t.Errorf("two lines %s", f["name"])
		}
		found[f["name"]] = f
		if (f["status"] == "ok") != (f["hint"] == "") {
			t.Errorf("%s is %s, and its hint is %q", f["name"], f["status"], f["hint"])
		}
	}
	return found
}

// is fails the test unless a finding has this status, and says that.
func is(t *testing.T, found map[string]map[string]string, name, status string, parts ...string) {
	t.Helper()
	f := found[name]
	if f == nil || f["status"] != status {
		t.Errorf("%s is %v, want %s", name, f, status)
	}
	for _, part := range parts {
		if !strings.Contains(f["message"]+" "+f["hint"], part) {
			t.Errorf("%s does not say %q: %v", name, part, f)
		}
	}
}

// Another environment's auth-service answers in perfect form; canaries tell.
func TestCheckCanaries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	living := w.users(t, "deleted_at IS NULL LIMIT 1")[0]
	env := append(slices.Clone(w.env), "ORPHAN_CLEANER_CANARY_ALIVE="+living.String(), "ORPHAN_CLEANER_CANARY_DEAD="+w.dead[0].String())
	is(t, findings(t, w.env, exitDone), "canaries", "warn", "none is configured", "ORPHAN_CLEANER_CANARY_ALIVE=")
	is(t, findings(t, env, exitDone), "canaries", "ok", "1 living and 1 deleted")
	// So does each run.
	for _, environment := range [][]string{w.env, env} {
		e := program(t, environment, "run", "--dry-run").expect(t, exitDone)
		if warns := strings.Contains(e.stderr, "No canary is configured"); warns != (len(environment) == len(w.env)) {
			t.Errorf("the run warns: %t; %s", warns, e)
		}
	}
	elsewhere := newAuth(t)
	elsewhere.Add(w.dead[0], uuid.New())
	is(t, findings(t, append(env, "AUTH_SERVICE_URL="+elsewhere.URL()), exitFailed), "canaries", "FAIL",
		living.String()+" of ORPHAN_CLEANER_CANARY_ALIVE is missing", w.dead[0].String()+" of ORPHAN_CLEANER_CANARY_DEAD is present", "AUTH_SERVICE_URL")
	program(t, w.env, "check", "--canary-alive=who").expect(t, exitUsage)
}

// The name and DNS are said where they are found, not again for the canaries.
func TestCheckNameDoesNotResolve(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	env := append(slices.Clone(w.env), "AUTH_SERVICE_URL=http://auth-service.invalid:9080", "ORPHAN_CLEANER_CANARY_ALIVE="+uuid.NewString())
	const dns = "DNS does not resolve the name auth-service.invalid"
	found := findings(t, env, exitFailed)
	is(t, found, "auth-service", "FAIL", dns, "AUTH_SERVICE_URL")
	is(t, found, "canaries", "FAIL", "not checked")
	if n := strings.Count(fmt.Sprint(found), dns); n != 1 {
		t.Errorf("said %d times: %v", n, found)
	}
	// The runbook's line about the connection, and the end of the run.
	e := program(t, env, "run").expect(t, exitFailed)
	if strings.Count(e.stderr, dns) != 2 || strings.Contains(e.stderr, "Preflight check failed") {
		t.Errorf("want it said by two lines: %s", e)
	}
}

// The port of serve: free, taken by one, taken by somebody else.
func TestCheckPort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	if found := findings(t, w.env, exitDone); found["metrics-addr"] != nil {
		t.Errorf("nobody asked: %v", found["metrics-addr"])
	}
	is(t, findings(t, w.env, exitDone, "--metrics-addr="+address), "metrics-addr", "ok", "is free")
	r := startServe(t, w.env)
	is(t, findings(t, w.env, exitDone, "--metrics-addr="+strings.TrimPrefix(r.url, "http://")), "metrics-addr", "ok", "an orphan-cleaner")
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	env := append(slices.Clone(w.env), "ORPHAN_CLEANER_METRICS_ADDR="+other.Listener.Addr().String())
	is(t, findings(t, env, exitFailed), "metrics-addr", "FAIL", "taken by another program", "METRICS_ADDR")
	is(t, findings(t, w.env, exitFailed, "--metrics-addr=nonsense"), "metrics-addr", "FAIL", ":9091")
}

// Redis is messaging-service's: pinged, and no more than a warning.
func TestCheckRedis(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	is(t, findings(t, append(w.env, "REDIS_URL=redis://u:s3cret@127.0.0.1:1/0"), exitDone), "redis", "warn", "127.0.0.1:1", "does not need it")
	found := findings(t, append(w.env, "REDIS_URL=http://u:s3cret@host"), exitDone)
	is(t, found, "redis", "warn", "redis://host:6379/0")
	if strings.Contains(fmt.Sprint(found), "s3cret") {
		t.Errorf("a password is shown: %v", found["redis"])
	}
	// A run does not look at it.
	program(t, append(w.env, "REDIS_URL=nonsense"), "run").expect(t, exitDone)

	server := testdb.Needed(t, "make fault-tools", "redis-server")
	port := testdb.FreePort(t)
	cmd := exec.Command(server, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	running(t, cmd, regexp.MustCompile("Ready to accept connections"))
	is(t, findings(t, append(w.env, fmt.Sprintf("REDIS_URL=redis://127.0.0.1:%d", port)), exitDone), "redis", "ok", "answers")
}

// The pool against what the server, the role and the database allow.
func TestCheckConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	is(t, findings(t, w.env, exitDone), "connections", "ok", "8 at most", "in use")
	is(t, findings(t, append(w.env, "DATABASE_MAX_CONNECTIONS=299"), exitFailed), "connections", "FAIL", "the server takes 29", "messaging-service's replicas × its DATABASE_MAX_CONNECTIONS")
	is(t, findings(t, append(w.env, "DATABASE_MAX_CONNECTIONS=297"), exitDone), "connections", "warn", "only ", "max_connections")
	w.Exec("ALTER DATABASE " + w.Name + " CONNECTION LIMIT 7")
	is(t, findings(t, w.env, exitFailed), "connections", "FAIL", "this database has a limit of 7")
}

// Encryption matters as soon as the way leaves the machine.
func TestCheckPlaintext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	found := findings(t, w.env, exitDone)
	is(t, found, "auth-service-tls", "ok")
	is(t, found, "database-tls", "ok")
	is(t, found, "clock-skew", "ok")
	is(t, found, "pooler", "ok", "none in between")
	// An address that is not loopback, though it need not answer.
	is(t, findings(t, append(w.env, "AUTH_SERVICE_URL=http://auth-service.invalid:9080", "AUTH_SERVICE_TIMEOUT=100ms"), exitFailed),
		"auth-service-tls", "warn", "plaintext to auth-service.invalid:9080", "https://")
	outside := outsideAddress(t)
	u, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	door := newDoorAt(t, net.JoinHostPort(outside, "0"), u.Host)
	door.set(true)
	u.Host = door.listener.Addr().String()
	is(t, findings(t, append(w.env, "DATABASE_URL="+u.String()), exitDone), "database-tls", "warn", "is not encrypted", "sslmode=verify-full")
}

// outsideAddress is one of this machine that is not loopback.
func outsideAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

// Behind PgBouncer everything works but migrate, which says so; in statement
// mode nothing does, and check says that.
func TestPooler(t *testing.T) {
	t.Parallel()
	testdb.Needed(t, "make fault-tools", "pgbouncer", "/usr/sbin/pgbouncer")
	for mode, says := range map[string]string{"transaction": "in transaction mode", "session": "in session mode", "statement": "pool_mode = transaction"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 300, 15)
			living := w.living()
			env := append(slices.Clone(w.env), "DATABASE_URL="+bounced(t, w, mode))
			if mode == "statement" {
				found := findings(t, env, exitFailed)
				is(t, found, "database", "FAIL", says)
				is(t, found, "pooler", "FAIL", says)
				if e := program(t, env, "run").expect(t, exitFailed); !strings.Contains(e.stderr, says) {
					t.Errorf("%s", e)
				}
			} else {
				is(t, findings(t, env, exitDone), "pooler", "ok", says)
				if e := program(t, env, "target", "check", writeTargets(t, `targets: [{name: it, table: public.conversations, user: id, key: [id], age: none, action: delete, where: kind = 'x', after: [conversation_members]}]`)).expect(t, exitFailed); !strings.Contains(e.stdout, "target it is in the file and not in the registry") {
					t.Errorf("%s", e)
				}
				r := startServe(t, env)
				eventually(t, "a run behind the pooler", func() bool { return w.runsEnded() == 1 })
				gone(t, w, living, 15)
				r.all(t)
				r.signal(t, syscall.SIGTERM)
				r.wait(t).expect(t, exitDone)
			}
			for _, command := range []string{"status", "up"} {
				if mode == "session" {
					program(t, env, "migrate", command).expect(t, exitDone)
				} else if e := program(t, env, "migrate", command).expect(t, exitFailed); !strings.Contains(e.stderr, "pooler") || !strings.Contains(e.stderr, "DATABASE_URL") {
					t.Errorf("%s", e)
				}
			}
		})
	}
}

// bounced puts a PgBouncer of its own before the database, and returns its URL.
func bounced(t *testing.T, w *world, mode string) string {
	t.Helper()
	u, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	asRoot := ""
	if os.Geteuid() == 0 {
		asRoot = "user = postgres\n"
	}
	port := testdb.FreePort(t)
	config := filepath.Join(openTemp(t), "pgbouncer.ini")
	if err := os.WriteFile(config, fmt.Appendf(nil, `[databases]
* = host=127.0.0.1 port=%s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = 20
%s`, u.Port(), port, mode, asRoot), 0o644); err != nil {
		t.Fatal(err)
	}
	running(t, exec.Command(testdb.Needed(t, "make fault-tools", "pgbouncer", "/usr/sbin/pgbouncer"), config), regexp.MustCompile("process up"))
	u.Host = fmt.Sprintf("127.0.0.1:%d", port)
	return u.String()
}

// running starts a server, waits until it says that it is ready, and ends it
// with the test.
func running(t *testing.T, cmd *exec.Cmd, ready *regexp.Regexp) {
	t.Helper()
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	eventually(t, cmd.Path+" is ready", func() bool { return ready.MatchString(out.String()) })
}

// Clocks that are seconds apart are worth a word; a minute apart, nothing is done.
func TestCheckClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 3)
	living := w.living()
	// The database's time, as every statement of ours asks for it: the planner inlines a function in SQL.
	for _, c := range []struct{ off, status, says string }{
		{"0", "ok", "agree"}, {"20 seconds", "warn", "ahead of"}, {"-20 seconds", "warn", "behind"}, {"31 days", "FAIL", "ahead of"}, {"-2 days", "FAIL", "behind"},
	} {
		w.Exec("CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz STABLE LANGUAGE sql AS $$ SELECT pg_catalog.statement_timestamp() + interval '" + c.off + "' $$")
		status := exitDone
		if c.status == "FAIL" {
			status = exitFailed
		}
		is(t, findings(t, w.env, status), "clock-skew", c.status, c.says)
		if c.status == "FAIL" {
			if e := program(t, w.env, "run").expect(t, exitFailed); !strings.Contains(e.stderr, "clock-skew") {
				t.Errorf("%s", e)
			}
		}
	}
	gone(t, w, living, 0)
}
