package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// Whom the runbook names.
const (
	deletedByMistake = "6f1e0c52-8f4e-4c7b-9a53-0d3e7b1f2a10"
	wantsErasure     = "2b9d1c7e-3a64-4f0b-9c1d-5e8f7a6b4c21"
	livingUser       = "a7c4e2d0-15b8-4d9f-8e36-7b2c9f0d1e32"
)

// runbookWorld is what a runbook is for: a messaging-service with a history, its
// auth-service with a database of its own, people who may do this or that, a
// `serve`, and a shell in which the runbook's blocks are run.
//
//	users 1 to 5    deleted 40 days ago; run 42 deleted their 15 members in 3 conversations;
//	                user 1 is the one deleted by mistake, user 2 wants to be erased
//	users 6 to 8    deleted ten days ago
//	user 9          deleted 40 days ago, on hold
//	users 10 to 12  deleted since; their 6 members are due: run 43 was refused
//	users 13 to 15  living, until [givens] has it otherwise
//	others          living, 20 is the one whom the runbook names
//
// Beside it a fleet of three shards of 20 users each, 4 of them newly missing: its run 1 was refused.
type runbookWorld struct {
	*world
	authDB     *pgtemp.Cluster
	dir, log   string
	logins     map[string]string // connection strings
	substitute *strings.Replacer
}

func newRunbookWorld(t *testing.T, authDB *pgtemp.Cluster) *runbookWorld {
	t.Helper()
	w := &runbookWorld{world: &world{DB: testdb.New(t), auth: newAuth(t)}, authDB: authDB, dir: t.TempDir()}
	w.log = filepath.Join(w.dir, "orphan-cleaner.log")
	w.env = w.envOf(w.URL)
	w.Exec(`INSERT INTO users (id, username, created_at, deleted_at)
		SELECT CASE n WHEN 1 THEN $1::uuid WHEN 2 THEN $2::uuid WHEN 20 THEN $3::uuid ELSE md5('user ' || n)::uuid END, 'user' || n, now() - interval '400 days',
			CASE WHEN n IN (1, 2, 3, 4, 5, 9) THEN now() - interval '40 days' WHEN n IN (6, 7, 8) THEN now() - interval '10 days' END
		FROM generate_series(1, 200) AS n`, deletedByMistake, wantsErasure, livingUser)
	w.Exec("INSERT INTO conversations (id, name) SELECT md5('conversation ' || n)::uuid, 'c' || n FROM generate_series(1, 20) AS n")
	w.Exec(`INSERT INTO conversation_members (conversation_id, user_id, role, joined_at, last_read_at, user_public_key)
		SELECT md5('conversation ' || c)::uuid, u.id, CASE WHEN u.n = c THEN 'owner' ELSE 'member' END,
			now() - interval '90 days', now() - interval '50 days', 'key of ' || u.n
		FROM (SELECT id, substr(username, 5)::int AS n FROM users) AS u, generate_series(1, 20) AS c
		WHERE CASE WHEN u.n <= 5 THEN c <= 3 WHEN u.n < 20 THEN c IN (4, 5) ELSE c = 1 + u.n % 20 END`)
	w.Exec("UPDATE conversations AS c SET member_count = (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)")
	w.Exec("INSERT INTO orphan_cleaner.holds (user_id, reason) SELECT id, 'a lawsuit' FROM users WHERE username = 'user9'")
	w.auth.Add(w.users(t, "deleted_at IS NULL")...)
	w.Roles(rolesFile)
	w.logins = map[string]string{
		"oncall": w.Login(restorer, runner, "pg_monitor"), "runner": w.Login(runner), "migrator": w.Login(migrator),
		"reader": w.Login(reader), "dba": w.URL,
	}

	// The cleaner inside messaging-service, which somebody forgot to switch off.
	w.Psql("-d", w.URL+"&application_name=messaging-service", "-c", "DELETE FROM conversation_members WHERE user_id = md5('user 200')::uuid")

	w.nextRun(42)
	w.Settle()
	if r := w.ran(t, exitDone); r["members_deleted"] != 15.0 || r["conversations"] != 3.0 {
		t.Fatalf("run 42: %v", r)
	}
	w.died(t, 10, 12)
	if r := w.ran(t, exitRefused, "--max-delete-rows=5"); r["breaker"] != "delete-rows" || r["run_id"] != 43.0 {
		t.Fatalf("run 43: %v", r)
	}
	w.shell(t)
	w.addFleet(t)
	return w
}

// addFleet has fleet.yaml, and the files that it names, where blocks are run.
func (w *runbookWorld) addFleet(t *testing.T) {
	t.Helper()
	var shards []*world
	for i := range 3 {
		shard := &world{DB: testdb.New(t), auth: w.auth}
		shard.fill(t, fmt.Sprintf("user of shard %d ", i), 20, 0)
		shard.Roles(rolesFile)
		w.auth.Delete(shard.users(t, "true ORDER BY id LIMIT 4")...)
		shards = append(shards, shard)
	}
	path, control := fleetOf(t, "", shards...), testdb.NewEmpty(t)
	env := append(withControl(t, path, control), "AUTH_SERVICE_URL="+w.auth.URL())
	program(t, env, "fleet", "run").expect(t, exitRefused)
	dir := filepath.Dir(path)
	if err := os.WriteFile(filepath.Join(dir, "control"), []byte(control.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fleet.yaml", "shards", "control"} {
		if err := os.Symlink(filepath.Join(dir, name), filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// ran makes a run, whose log is kept where the runbook looks for it.
func (w *runbookWorld) ran(t *testing.T, status int, flags ...string) map[string]any {
	t.Helper()
	e := program(t, w.env, append([]string{"run", "--json"}, flags...)...)
	log, err := os.OpenFile(w.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = log.WriteString(e.stderr)
	if err := errors.Join(err, log.Close()); err != nil {
		t.Fatal(err)
	}
	return e.expect(t, status).result(t)
}

// nextRun says which number the next run gets.
func (w *runbookWorld) nextRun(number int) {
	w.Exec(fmt.Sprintf("ALTER TABLE orphan_cleaner.runs ALTER COLUMN run_id RESTART WITH %d", number))
}

// died deletes users, five weeks ago.
func (w *runbookWorld) died(t *testing.T, from, to int) {
	t.Helper()
	w.Exec("UPDATE users SET deleted_at = now() - interval '35 days' WHERE substr(username, 5)::int BETWEEN $1 AND $2", from, to)
	dead := w.users(t, fmt.Sprintf("substr(username, 5)::int BETWEEN %d AND %d", from, to))
	w.longMissing(dead...)
	w.auth.Delete(dead...)
}

// givens are the states in which a block is run that says given="…".
// One that ends with its block says so to the block's t.
func (w *runbookWorld) givens() map[string]func(t *testing.T) {
	return map[string]func(t *testing.T){
		"run 47 was refused": func(t *testing.T) {
			t.Helper()
			w.died(t, 13, 15)
			w.nextRun(47)
			w.ran(t, exitRefused, "--max-delete-rows=5")
		},
		"a user is alive again": func(t *testing.T) {
			t.Helper()
			w.auth.Revive(uuid.MustParse(deletedByMistake))
			w.ran(t, exitDone)
		},
		"auth-service is not serving": func(t *testing.T) {
			t.Helper()
			w.auth.SetServing(false)
			t.Cleanup(func() { w.auth.SetServing(true) })
		},
		"auth-service answers with errors": func(t *testing.T) {
			t.Helper()
			w.fault(t, "in_band_error")
			t.Cleanup(func() { w.auth.SetFault(authfake.Fault{}) })
		},
		"auth-service has an empty database": func(t *testing.T) {
			t.Helper()
			w.fault(t, "nothing")
			t.Cleanup(func() { w.auth.SetFault(authfake.Fault{}) })
		},
		"recently-active refused a run": func(t *testing.T) {
			t.Helper()
			active := w.users(t, "substr(username, 5)::int BETWEEN 31 AND 40")
			w.Exec("UPDATE conversation_members SET last_read_at = now() WHERE user_id = ANY ($1)", active)
			w.longMissing(active[:8]...) // a run that is not refused would clean what run 47 was refused for
			w.auth.Delete(active[:8]...)
			t.Cleanup(func() { w.auth.Revive(active...) })
			if r := w.ran(t, exitRefused); r["breaker"] != "recently-active" {
				t.Fatal(r)
			}
		},
		"the audit's DEFAULT partition has rows": func(*testing.T) {
			w.Exec(`INSERT INTO conversation_members_audit (conversation_id, user_id, role, deleted_at, deleted_by, application, txid)
				SELECT md5('conversation 1')::uuid, md5('user gone ' || n)::uuid, 'member',
					date_trunc('month', (SELECT min(deleted_at) FROM conversation_members_audit WHERE run_id = 42), 'UTC') - interval '10 days', 'messaging', 'messaging-service', 1
				FROM generate_series(1, 2) AS n`)
		},
		"the next run is 60": func(*testing.T) { w.nextRun(60) },
		"conversation_members has a new column": func(*testing.T) {
			w.Exec("ALTER TABLE conversation_members ADD COLUMN nickname text")
		},
		"an old backup": func(*testing.T) {
			w.Exec(`CREATE TABLE conversation_members_backup_20240101 (LIKE conversation_members_backup INCLUDING ALL)`)
			w.Exec(`ALTER TABLE conversation_members_backup ATTACH PARTITION conversation_members_backup_20240101
				FOR VALUES FROM ('2024-01-01 00:00Z') TO ('2024-01-02 00:00Z')`)
			w.Exec("ALTER TABLE conversation_members_backup_20240101 OWNER TO orphan_cleaner_owner")
		},
	}
}

// shell makes the place in which blocks are run: the program and the tools on the
// PATH, the tree's folders, and what stands for the names that the runbook prints.
func (w *runbookWorld) shell(t *testing.T) {
	t.Helper()
	bin := filepath.Join(w.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	links := map[string]string{
		filepath.Join(w.Cluster().BinDir(), "psql"): filepath.Join(bin, "psql"), built.path(t): filepath.Join(bin, "orphan-cleaner"),
	}
	for _, name := range []string{"goose", "grpcurl"} {
		links[needTool(t, name)] = filepath.Join(bin, name)
	}
	for _, name := range []string{"sql", "migrations", ".env"} {
		path, err := filepath.Abs("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		links[path] = filepath.Join(w.dir, name)
	}
	for from, to := range links {
		if err := os.Symlink(from, to); err != nil {
			t.Fatal(err)
		}
	}
	serve := startServe(t, []string{"DATABASE_URL=" + w.logins["runner"], "AUTH_SERVICE_URL=" + w.auth.URL()})
	deleted := testdb.One[time.Time](w.DB, "SELECT min(deleted_at) FROM conversation_members_audit WHERE run_id = 42").UTC()
	const minute = "2006-01-02 15:04"

	// What the runbook prints, and what stands for it here. There is no other place.
	w.substitute = strings.NewReplacer(
		"getent hosts auth-service", "getent hosts localhost",
		"auth-service:9080", w.auth.Addr(),
		"http://localhost:9091", serve.url,
		"psql -h messaging-db -U postgres -d messaging", "psql -d '"+w.URL+"'",
		"/var/log/orphan-cleaner.log", w.log,
		"2025-11-07 10:00", deleted.Add(-time.Hour).Format(minute),
		"2025-11-07 11:00", deleted.Add(time.Hour).Format(minute),
		"_20251107", "_"+deleted.Format("20060102"),
		"--month 2025-11", "--month "+deleted.Format("2006-01"),
		"2025-11-01", deleted.AddDate(0, 0, 1-deleted.Day()).Format(time.DateOnly),
		"_202510", "_"+deleted.AddDate(0, 0, -deleted.Day()).Format("200601"),
		"2025-10-01", deleted.AddDate(0, -1, 1-deleted.Day()).Format(time.DateOnly),
		"2025-12-01", deleted.AddDate(0, 1, 1-deleted.Day()).Format(time.DateOnly),
	)
}

// needTool finds a tool where `make test` says it is, or on the PATH.
func needTool(t *testing.T, name string) string {
	t.Helper()
	places := []string{name}
	if pinned := os.Getenv("ORPHAN_CLEANER_TEST_" + strings.ToUpper(name)); pinned != "" {
		places = []string{pinned, name}
	}
	return testdb.Needed(t, "make tools prometheus", places...)
}

// do runs a block and returns what it printed and its exit status.
func (w *runbookWorld) do(t *testing.T, b block) (string, int) {
	t.Helper()
	as := b.as
	if as == "" {
		as = "oncall"
	}
	login, ok := w.logins[as]
	if !ok {
		t.Fatalf("nobody is %s", as)
	}
	if b.on == "auth-service" {
		login = w.authDB.URL("postgres")
	} else if b.on != "" {
		t.Fatalf("there is no database of %s", b.on)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	code := w.substitute.Replace(b.code)
	cmd := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", code)
	if b.language == "sql" {
		cmd = exec.CommandContext(ctx, filepath.Join(w.Cluster().BinDir(), "psql"), "-X", "-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-d", login, "-f", "-")
		cmd.Stdin = strings.NewReader(code)
	}
	cmd.Dir = w.dir
	cmd.Env = []string{
		"PATH=" + filepath.Join(w.dir, "bin") + ":" + os.Getenv("PATH"), "HOME=" + w.dir, "LC_ALL=C.UTF-8", "PGTZ=UTC",
		"DATABASE_URL=" + login, "AUTH_SERVICE_URL=" + w.auth.URL(), "ORPHAN_CLEANER_CANARY_ALIVE=" + livingUser,
	}
	out, err := cmd.CombinedOutput()
	if ended := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &ended) || !ended.Exited()) {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// Each block of the runbook that is marked so does what the runbook says, in both
// languages, in the order in which they are printed, on one database each.
func TestRunbook(t *testing.T) {
	t.Parallel()
	// Blocks build on what those before them did: all or none.
	needTool(t, "goose")
	needTool(t, "grpcurl")
	authDB := startAuthDB(t)
	for _, path := range []string{runbookEnglish, runbookChinese} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			blocks := blocksOf(t, path)
			w := newRunbookWorld(t, authDB)
			given := w.givens()
			for _, b := range blocks {
				if !b.run || b.language == "promql" {
					continue
				}
				t.Run(fmt.Sprintf("line %d", b.line), func(t *testing.T) {
					w.runBlock(t, b, given)
				})
			}
		})
	}
}

func (w *runbookWorld) runBlock(t *testing.T, b block, given map[string]func(t *testing.T)) {
	t.Helper()
	if b.given != "" {
		bringAbout, ok := given[b.given]
		if !ok {
			t.Fatalf("given %q: no such state", b.given)
		}
		bringAbout(t)
	}
	w.Settle() // what a block before it restored may be deleted by this one
	var out string
	var status int
	lacks := func(want string) bool { return !regexp.MustCompile("(?m)" + want).MatchString(out) }
	done := func() bool {
		out, status = w.do(t, b)
		return !slices.ContainsFunc(b.expect, lacks)
	}
	if strings.Contains(b.code, "localhost:9091") { // who asks again, as serve answers by what it has read within a second
		eventually(t, b.code, done)
	} else {
		done()
	}
	if status != b.exit {
		t.Errorf("exit status %d, not %d", status, b.exit)
	}
	for _, want := range b.expect {
		if lacks(want) {
			t.Errorf("it does not print %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s\nprints\n%s", b.code, out)
	}
}

// startAuthDB starts auth-service's database, with what the runbook's chapter 4.2
// looks at: connections of auth-service, and the statistics of its statements.
func startAuthDB(t *testing.T) *pgtemp.Cluster {
	t.Helper()
	cluster, err := pgtemp.Start(t.Context(), pgtemp.Options{
		MaxConnections: 20, Settings: map[string]string{"shared_preload_libraries": "pg_stat_statements"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	conn, err := pgx.Connect(t.Context(), cluster.URL("postgres")+"&application_name=auth-service")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for _, statement := range []string{
		"CREATE EXTENSION pg_stat_statements",
		"CREATE TABLE users (id uuid PRIMARY KEY, username text NOT NULL, deleted_at timestamptz)",
		"SELECT id, username /* get_users_by_ids */ FROM users WHERE id = ANY ('{}') AND deleted_at IS NULL",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return cluster
}

// The runbook's queries are answered by a Prometheus that scrapes a `serve`.
func TestRunbookPromQL(t *testing.T) {
	t.Parallel()
	needTool(t, "prometheus")
	w := newWorld(t, 300, 15)
	// A run a second, so that counters rise while they are looked at.
	r := startServe(t, w.env, "--interval=1s")
	prometheus := startPrometheus(t, r)
	for _, path := range []string{runbookEnglish, runbookChinese} {
		for _, b := range blocksOf(t, path) {
			if !b.run || b.language != "promql" {
				continue
			}
			for query := range strings.SplitSeq(b.withoutComments(), "\n\n") {
				if len(b.expect) == 0 {
					b.expect = []string{`\S`} // some sample
				}
				got := ""
				eventually(t, fmt.Sprintf("%s, line %d: prints %q:\n%s", path, b.line, b.expect, query), func() bool {
					got = prometheus.ask(t, query)
					return !slices.ContainsFunc(b.expect, func(want string) bool { return !regexp.MustCompile(want).MatchString(got) })
				})
				t.Logf("%s\n%s", query, got)
			}
		}
	}
}

// ask is the answer to a query, a sample a line, without those that are no number.
func (m *monitor) ask(t *testing.T, query string) string {
	t.Helper()
	var lines []string
	for _, sample := range m.query(t, query) {
		var labels []string
		for _, name := range slices.Sorted(maps.Keys(sample.labels)) {
			labels = append(labels, name+"="+sample.labels[name])
		}
		if !math.IsNaN(sample.value) {
			lines = append(lines, strings.Join(labels, ",")+" "+strconv.FormatFloat(sample.value, 'f', -1, 64))
		}
	}
	return strings.Join(lines, "\n")
}

// Both languages have the same blocks, in the same order, and enough of them.
func TestRunbookLanguages(t *testing.T) {
	t.Parallel()
	english, chinese := blocksOf(t, runbookEnglish), blocksOf(t, runbookChinese)
	for _, what := range differences(english, chinese) {
		t.Errorf("%s and %s: %s", runbookEnglish, runbookChinese, what)
	}
	run := 0
	for _, b := range english {
		if b.run {
			run++
		}
	}
	if run < 25 {
		t.Errorf("only %d blocks are run", run)
	}
	// Those of version 1.0, under which people look things up, stay where they were.
	for _, number := range strings.Fields("1. 1.1 1.2 2. 2.1 2.2 2.3 2.4 3. 3.1 3.2 3.3 4. 4.1 4.2 4.3 4.4 5. 5.1 5.2 6. 6.1 6.2 6.3 7. 7.1 7.2 8. 8.1 8.2 9. 10. 10.1 10.2") {
		if !slices.Contains(numbers(t, runbookEnglish), number) {
			t.Errorf("there is no chapter %s", number)
		}
	}
	if en, zh := numbers(t, runbookEnglish), numbers(t, runbookChinese); !slices.Equal(en, zh) {
		t.Errorf("the chapters are not the same:\n%q\n%q", en, zh)
	}
}

var headingPattern = regexp.MustCompile(`(?m)^##+ (.*)$`)

// numbers are the numbers of the chapters, and the names of alerts.
func numbers(t *testing.T, path string) (all []string) {
	t.Helper()
	for _, heading := range headingPattern.FindAllStringSubmatch(readFile(t, path), -1) {
		number, _, _ := strings.Cut(heading[1], " ")
		all = append(all, number)
	}
	return all
}

// Whatever may call somebody to the machine is in the runbook: each breaker, each
// exit status and each alert, under an anchor of its own. Links lead somewhere.
func TestRunbookIsComplete(t *testing.T) {
	t.Parallel()
	alerts := []string{
		"OrphanCleanerNoSuccess", "OrphanCleanerBreakerTripped", "OrphanCleanerBacklogAgeing", "OrphanCleanerUsersUnknown",
		"OrphanCleanerResurrectedUsers", "OrphanCleanerGrpcErrors", "OrphanCleanerGrpcSlow", "OrphanCleanerPausedTooLong",
		"OrphanCleanerPartitionsShort", "OrphanCleanerAuditDefaultRows", "OrphanCleanerDown",
	}
	// Where the rules are in the tree, each of them.
	if rules, err := os.ReadFile("../../deploy/prometheus/rules.yaml"); err == nil {
		for _, alert := range regexp.MustCompile(`(?m)alert: *(\w+)`).FindAllStringSubmatch(string(rules), -1) {
			alerts = append(alerts, alert[1])
		}
	}
	metrics := readFile(t, "../../docs/metrics.md")
	for _, path := range []string{runbookEnglish, runbookChinese} {
		text := readFile(t, path)
		for _, alert := range alerts {
			if !strings.Contains(text, "\n#### "+alert+"\n") {
				t.Errorf("%s has no heading for the alert %s", path, alert)
			}
		}
		for _, breaker := range settings.BreakerNames() {
			if !strings.Contains(text, "\n| `"+breaker+"` |") {
				t.Errorf("%s has no line for the breaker %s", path, breaker)
			}
		}
		for status := exitDone; status <= exitAnotherRun; status++ {
			if !strings.Contains(text, fmt.Sprintf("\n| %d |", status)) {
				t.Errorf("%s has no line for exit status %d", path, status)
			}
		}
		for _, metric := range regexp.MustCompile(`\b(orphan_cleaner|grpc_client)_\w+_(total|seconds|rows|members|users|open|paused|days|up|tripped|limit)\b`).FindAllString(text, -1) {
			if !strings.Contains(metrics, "| `"+metric+"` |") {
				t.Errorf("%s names the metric %s, docs/metrics.md does not", path, metric)
			}
		}
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
			checkLink(t, path, text, link[1])
		}
	}
}

// checkLink fails the test unless a link leads to a file or to a heading of the page.
func checkLink(t *testing.T, path, text, link string) {
	t.Helper()
	file, anchor, _ := strings.Cut(link, "#")
	if strings.HasPrefix(link, "https://") {
		return
	}
	if file != "" {
		path = filepath.Join(filepath.Dir(path), file)
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			if err != nil {
				t.Errorf("a link to %s: %v", link, err)
			}
			return
		}
		text = readFile(t, path)
	}
	if anchor == "" {
		return
	}
	for _, heading := range headingPattern.FindAllStringSubmatch(text, -1) {
		if anchorOf(heading[1]) == anchor {
			return
		}
	}
	t.Errorf("a link to %s: no heading has that anchor", link)
}

// anchorOf is GitHub's anchor of a heading.
func anchorOf(heading string) string {
	heading = strings.ToLower(regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(heading, ""))
	return strings.ReplaceAll(heading, " ", "-")
}
