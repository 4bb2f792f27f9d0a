package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// asProgram in the environment makes this test binary the program itself: the
// tests start it as a process of its own, with the race detector in it where
// they have it.
const asProgram = "ORPHAN_CLEANER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "1" {
		main()
		return
	}
	testdb.Main(m)
}

// limit bounds whatever a test waits for.
const limit = 60 * time.Second

// ended is what a program left behind.
type ended struct {
	status         int
	stdout, stderr string
}

func (e ended) String() string {
	return fmt.Sprintf("exit status %d\nstdout:\n%s\nstderr:\n%s", e.status, e.stdout, e.stderr)
}

// started is a program under way.
type started struct {
	cmd            *exec.Cmd
	stdout, stderr *output
	exited         chan struct{}
}

// output is what a program wrote so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start starts orphan-cleaner with these settings and nothing else of ours or of
// PostgreSQL's in its environment. It is killed when the test ends before it.
func start(t *testing.T, env []string, args ...string) *started {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &started{cmd: exec.Command(self, args...), stdout: &output{}, stderr: &output{}, exited: make(chan struct{})}
	p.cmd.Env = append([]string{
		asProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(),
		"GORACE=atexit_sleep_ms=0", // by default each program would take a second longer to end
	}, env...)
	if bin := os.Getenv("ORPHAN_CLEANER_TEST_PG_BIN"); bin != "" {
		p.cmd.Env = append(p.cmd.Env, "ORPHAN_CLEANER_TEST_PG_BIN="+bin)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the status is read from ProcessState
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // an error means that it has ended
		<-p.exited
	})
	return p
}

// wait waits for the end of the program.
func (p *started) wait(t *testing.T) ended {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(limit):
		t.Fatalf("the program did not end within %s\nstdout:\n%s\nstderr:\n%s", limit, p.stdout, p.stderr)
	}
	e := ended{p.cmd.ProcessState.ExitCode(), p.stdout.String(), p.stderr.String()}
	if strings.Contains(e.stderr, "WARNING: DATA RACE") {
		t.Errorf("the program has a data race:\n%s", e.stderr)
	}
	return e
}

func (p *started) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// program runs orphan-cleaner to its end.
func program(t *testing.T, env []string, args ...string) ended {
	t.Helper()
	return start(t, env, args...).wait(t)
}

// expect fails the test unless the program ended with a status.
func (e ended) expect(t *testing.T, status int) ended {
	t.Helper()
	if e.status != status {
		t.Fatalf("want exit status %d, got %s", status, e)
	}
	return e
}

// result is the object that `run --json` ends with.
func (e ended) result(t *testing.T) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(e.stdout, "\n"), "\n")
	var object map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &object); err != nil {
		t.Fatalf("the last line of stdout is no JSON object: %v\n%s", err, e)
	}
	return object
}

// object is stdout as one JSON object.
func (e ended) object(t *testing.T) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(e.stdout), &object); err != nil {
		t.Fatalf("stdout is no JSON object: %v\n%s", err, e)
	}
	return object
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	testdb.Eventually(t, limit, what, holds)
}

// world is a messaging-service, its auth-service, and the settings to reach both.
type world struct {
	*testdb.DB
	auth *authfake.Server
	env  []string
	dead []uuid.UUID
}

// newWorld has users with one member each, in conversations of ten. The first
// dead of them went 40 days ago, as the shadow knows, and their members are due.
func newWorld(t *testing.T, users, dead int) *world {
	t.Helper()
	w := &world{DB: testdb.New(t), auth: newAuth(t)}
	w.env = []string{"DATABASE_URL=" + w.URL, "AUTH_SERVICE_URL=" + w.auth.URL()}
	w.Exec(`INSERT INTO users (id, username, deleted_at)
		SELECT md5('user ' || n)::uuid, 'user' || n, CASE WHEN n <= $2::int THEN now() - interval '40 days' END
		FROM generate_series(1, $1::int) AS n`, users, dead)
	w.Exec(`INSERT INTO conversations (id) SELECT md5('conversation ' || n)::uuid FROM generate_series(0, $1::int / 10) AS n`, users)
	w.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT md5('conversation ' || n / 10)::uuid, md5('user ' || n)::uuid, now() - interval '60 days'
		FROM generate_series(1, $1::int) AS n`, users)
	w.auth.Add(w.users(t, "deleted_at IS NULL")...)
	w.dead = w.users(t, "deleted_at IS NOT NULL")
	return w
}

// fault makes auth-service go wrong in a way that it knows by name.
func (w *world) fault(t *testing.T, name string) {
	t.Helper()
	fault, ok := authfake.Named(name)
	if !ok {
		t.Fatalf("no fault %s", name)
	}
	w.auth.SetFault(fault)
}

func newAuth(t *testing.T) *authfake.Server {
	t.Helper()
	auth, err := authfake.Start(authfake.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(auth.Stop)
	return auth
}

func (w *world) users(t *testing.T, where string) []uuid.UUID {
	t.Helper()
	rows, err := w.Pool.Query(t.Context(), "SELECT id FROM users WHERE "+where)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// living are the members that no run may touch.
func (w *world) living() testdb.Snapshot {
	return w.Snapshot("conversation_members WHERE user_id <> ALL ($1)", w.dead)
}

// contents is a fingerprint of every table and of which tables there are, but
// for the contents of those that are left out.
func contents(t *testing.T, db *testdb.DB, leftOut ...string) string {
	t.Helper()
	rows, err := db.Pool.Query(context.Background(), `SELECT oid::regclass::text FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, table := range tables {
		if slices.Contains(leftOut, table) {
			fmt.Fprintln(&b, table)
		} else {
			fmt.Fprintln(&b, table, db.Fingerprint(table))
		}
	}
	return b.String()
}

// openTemp is a temporary directory that the user who runs PostgreSQL may enter,
// also where the tests run as root.
func openTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "orphan-cleaner-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// nothingLeft waits until a directory is empty and no process names it.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	eventually(t, "nothing is left in "+dir, func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 0
	})
	eventually(t, "no process works in "+dir, func() bool { return len(processesIn(dir)) == 0 })
}

// processesIn are the command lines that name a directory; where there is no
// /proc it knows of none.
func processesIn(dir string) []string {
	var found []string
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if bytes.Contains(line, []byte(dir)) {
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}
