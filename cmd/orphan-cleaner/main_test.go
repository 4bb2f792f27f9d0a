package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// asProgram in the environment makes this test binary the program itself, with the race
// detector in it where the tests have it.
const asProgram = "ORPHAN_CLEANER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "1" {
		main()
		return
	}
	testdb.Main(cleared{m})
}

// cleared removes the program when the tests are done with it.
type cleared struct{ *testing.M }

func (c cleared) Run() int {
	code := c.M.Run()
	if err := built.remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// built is the program as the image has it, for the tests that start it a thousand times:
// with the race detector a start takes five times as long, and most of a test is starts.
var built builtProgram

type builtProgram struct {
	once sync.Once
	dir  string
	err  error
}

const builtVersion = "v1.2.3-4-gabc"

// path builds the program at its first use.
func (p *builtProgram) path(t *testing.T) string {
	t.Helper()
	p.once.Do(func() {
		if p.dir, p.err = os.MkdirTemp("", "orphan-cleaner-built-"); p.err != nil {
			return
		}
		build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.version="+builtVersion, "-o", p.dir, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as TestImage compiles it
		if said, err := build.CombinedOutput(); err != nil {
			p.err = fmt.Errorf("%w: %s", err, said)
		}
	})
	if p.err != nil {
		t.Fatalf("building the program: %v", p.err)
	}
	return filepath.Join(p.dir, "orphan-cleaner")
}

func (p *builtProgram) remove() error { return os.RemoveAll(p.dir) }

// races are the commands whose goroutines meet in this package and not in those that have
// tests of their own: they are started with the race detector.
func races(args []string) bool { return len(args) > 0 && (args[0] == "serve" || args[0] == "fleet") }

// limit bounds whatever a test waits for.
const limit = 3 * time.Minute

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
	return logTime.ReplaceAllString(o.text.String(), "")
}

// logTime is before each line of the log, unless the journal takes it.
var logTime = regexp.MustCompile(`(?m)^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ `)

// start starts orphan-cleaner with these settings and nothing else of ours or of
// PostgreSQL's in its environment. It is killed when the test ends before it.
func start(t *testing.T, env []string, args ...string) *started {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !races(args) {
		path = built.path(t)
	}
	p := &started{cmd: exec.Command(path, args...), stdout: &output{}, stderr: &output{}, exited: make(chan struct{})}
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

// wideLimits let a small table lose a large part of itself on its first day.
func wideLimits() (env []string) {
	for _, share := range []string{"NEW_MISSING_SHARE", "NEW_MISSING_RATE", "CANDIDATE_SHARE", "DELETE_SHARE", "DELETE_SHARE_7D", "DELETE_SHARE_30D"} {
		env = append(env, "ORPHAN_CLEANER_MAX_"+share+"=1")
	}
	return env
}

// newWorld has users with one member each, in conversations of ten. The first
// dead of them went 40 days ago, as the shadow knows, and their members are due.
func newWorld(t *testing.T, users, dead int) *world {
	t.Helper()
	w := &world{DB: testdb.New(t), auth: newAuth(t)}
	w.fill(t, "user ", users, dead)
	return w
}

// fill makes the users, whose ids are of their numbers and a prefix.
func (w *world) fill(t *testing.T, prefix string, users, dead int) {
	t.Helper()
	w.env = w.envOf(w.URL)
	w.Exec(`INSERT INTO users (id, username, created_at, deleted_at)
		SELECT md5($3 || n)::uuid, 'user' || n, now() - interval '400 days',
			CASE WHEN n <= $2::int THEN now() - interval '40 days' - make_interval(mins => n) END
		FROM generate_series(1, $1::int) AS n`, users, dead, prefix)
	w.Exec(`INSERT INTO conversations (id) SELECT md5('conversation ' || n)::uuid FROM generate_series(0, $1::int / 10) AS n`, users)
	w.Exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT md5('conversation ' || n / 10)::uuid, md5($2 || n)::uuid, now() - interval '60 days'
		FROM generate_series(1, $1::int) AS n`, users, prefix)
	w.auth.Add(w.users(t, "deleted_at IS NULL")...)
	w.dead = w.users(t, "deleted_at IS NOT NULL")
	w.Settle()
}

// envOf are the settings of a program with this database URL.
func (w *world) envOf(url string) []string {
	return append([]string{"DATABASE_URL=" + url, "AUTH_SERVICE_URL=" + w.auth.URL()}, wideLimits()...)
}

// longMissing has every run of the last 40 days find these users missing.
func (w *world) longMissing(users ...uuid.UUID) {
	w.Exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence)
		SELECT u, now() - interval '40 days', now() - interval '1 hour', 1, 960, 'sightings' FROM unnest($1::uuid []) AS u`, users)
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
		WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('orphan_cleaner')) AND relkind IN ('r', 'p') ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	of := []string{"SELECT 'table', 'contents'"} // there may be no table
	for _, table := range tables {
		if slices.Contains(leftOut, table) {
			of = append(of, "SELECT '"+table+"', 'left out'")
		} else {
			of = append(of, fmt.Sprintf(`SELECT '%[1]s', count(*) || ' rows, md5 ' || md5(coalesce(string_agg(h, '' ORDER BY h), ''))
				FROM (SELECT md5("a whole row"::text) AS h FROM %[1]s AS "a whole row") AS hashes`, table))
		}
	}
	return strings.Join(db.Snapshot("("+strings.Join(of, " UNION ALL ")+") AS tables"), "\n")
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

// A disk that is full is no success, whatever should have been written.
func TestUnwritten(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("this system has no /dev/full")
	}
	t.Cleanup(func() { _ = full.Close() })
	for _, args := range [][]string{{"--version"}, {"version"}, {"--help"}, {"run", "--help"}, {"help", "run"}, {"help", "--man"}, {"completion", "bash"}} {
		var told strings.Builder
		if status := execute(t.Context(), args, full, &told); status != exitFailed || told.String() != "orphan-cleaner: write /dev/full: no space left on device\n" {
			t.Errorf("%v: exit status %d, %s", args, status, &told)
		}
	}
}
