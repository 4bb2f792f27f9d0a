package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// A transaction that was prepared and forgotten is older than every row since: a run finds them changed and leaves them,
// and from the second run on it says why.
func TestForgottenPreparedTransaction(t *testing.T) {
	t.Parallel()
	cluster := ownCluster(t, map[string]string{"max_prepared_transactions": "2"})
	db := testdb.NewBareOn(t, cluster)
	if err := inSession(t, db.URL, "BEGIN", "SELECT pg_current_xact_id()", "PREPARE TRANSACTION 'it''s forgotten'"); err != nil {
		t.Fatal(err)
	}
	w := newShaped(t, db, "SELECT")
	w.Roles(rolesFile)
	w.env = w.envOf(w.Login(runner))
	first := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
	if first["members_deleted"] != 0.0 || first["members_changed"] != float64(shapedDue) {
		t.Errorf("%v", first)
	}
	found := findings(t, w.env, exitDone)
	is(t, found, "old-transactions", "warn", "'it''s forgotten', prepared by postgres in database "+db.Name, "count as changed", "ROLLBACK PREPARED 'it''s forgotten'")
	if e := program(t, w.env, "run", "--json").expect(t, exitDone); !strings.Contains(e.stderr, "old-transactions") {
		t.Errorf("the run does not say it: %s", e)
	}
	w.Exec(found["old-transactions"]["hint"])
	is(t, findings(t, w.env, exitDone), "old-transactions", "ok")
	if last := program(t, w.env, "run", "--json").expect(t, exitDone).result(t); last["members_deleted"] != float64(shapedDue) {
		t.Errorf("%v", last)
	}
}

// Where each COMMIT would wait for a standby that is not there, a run does not begin.
func TestNoSynchronousStandby(t *testing.T) {
	t.Parallel()
	cluster := ownCluster(t, nil)
	w := newShaped(t, testdb.NewBareOn(t, cluster), "SELECT")
	w.Roles(rolesFile)
	w.env = w.envOf(w.Login(runner))
	set := func(names string) {
		t.Helper()
		w.Exec("ALTER SYSTEM SET synchronous_standby_names = '" + names + "'")
		w.Exec("SELECT pg_reload_conf()")
		eventually(t, "the server has read it", func() bool {
			return testdb.One[string](w.DB, "SELECT current_setting('synchronous_standby_names')") == names
		})
	}
	set("*")
	is(t, findings(t, w.env, exitFailed), "synchronous-standby", "FAIL", "each COMMIT waits for ever", "start the standby")
	if e := program(t, w.env, "run", "--json").expect(t, exitFailed); !strings.Contains(e.stderr, "no standby is connected") || w.Count("orphan_cleaner.runs") != 0 {
		t.Errorf("%s", e)
	}
	set("")
	program(t, w.env, "run").expect(t, exitDone)
}

// A copy of the database that was made while a run was open has that run, and its token. It is in the way of a run there
// for its lease, as anywhere; neither database notices the other.
func TestCopyWithAnOpenRun(t *testing.T) {
	t.Parallel()
	cluster := ownCluster(t, nil)
	w := newShaped(t, testdb.NewBareOn(t, cluster), "SELECT")
	w.Exec(`INSERT INTO orphan_cleaner.runs (kind, phase, started_at, heartbeat_at, lease, host, version, settings)
		VALUES ('clean', 'sweep', now(), now(), '1 hour', 'production:1', 'test', '{}')`)
	w.Pool.Reset()
	if err := inSession(t, cluster.URL("postgres"), "CREATE DATABASE staging TEMPLATE "+w.Name); err != nil {
		t.Fatal(err)
	}
	env := w.envOf(cluster.URL("staging"))
	if e := program(t, env, "run").expect(t, exitAnotherRun); !strings.Contains(e.stderr, "of production:1") {
		t.Errorf("%s", e)
	}
	if err := inSession(t, cluster.URL("staging"), "UPDATE orphan_cleaner.runs SET heartbeat_at = now() - interval '2 hours'"); err != nil {
		t.Fatal(err)
	}
	if ran := program(t, env, "run", "--json").expect(t, exitDone).result(t); ran["members_deleted"] != float64(shapedDue) {
		t.Errorf("%v", ran)
	}
	if n := w.Count("orphan_cleaner.runs WHERE state = 'running'"); n != 1 || w.Count("conversation_members") != 120 {
		t.Errorf("the original has %d open runs and %d members", n, w.Count("conversation_members"))
	}
}

// With the least room for locks a run does its work beside a year of partitions. What reads all of them says what to do.
func TestFewLocks(t *testing.T) {
	t.Parallel()
	cluster := ownCluster(t, map[string]string{"max_locks_per_transaction": "10", "max_connections": "20"})
	w := newShaped(t, testdb.NewBareOn(t, cluster), "SELECT")
	for first := 1; first < 365; first += 10 { // making them takes locks, too
		w.Exec(`SELECT orphan_cleaner.partition_add('public.conversation_members_backup', 'conversation_members_backup_' || to_char(d, 'YYYYMMDD'), d, d + interval '1 day')
			FROM generate_series($1::int, $1::int + 9) AS n, LATERAL (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - make_interval(days => n)) AS p (d)`, first)
	}
	w.Settle()
	ran := program(t, w.env, "run", "--json").expect(t, exitDone).result(t)
	if ran["members_deleted"] != float64(shapedDue) {
		t.Errorf("%v", ran)
	}
	if err := inSession(t, w.URL, "DELETE FROM conversation_members WHERE user_id = md5('user 60')::uuid"); err != nil || w.Count("conversation_members_audit WHERE run_id IS NULL") != 2 {
		t.Errorf("the application: %v", err)
	}
	before := w.Snapshot("conversation_members")
	// More locks fit than were asked for, and how many depends on the machine. Others hold all but 200, fewer than there are partitions.
	others, err := pgx.Connect(t.Context(), w.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = others.Close(context.Background()) }() // the server ends it anyway
	if _, err := others.Exec(t.Context(), "SELECT pg_advisory_lock(n) FROM generate_series(1, 10000000) AS n"); err == nil || !strings.Contains(err.Error(), "53200") {
		t.Fatalf("locks without end: %v", err)
	}
	if _, err := others.Exec(t.Context(), "SELECT pg_advisory_unlock(n) FROM generate_series(1, 200) AS n"); err != nil {
		t.Fatal(err)
	}
	e := program(t, w.env, "restore", "--run", fmt.Sprint(ran["run_id"]), "--execute").expect(t, exitFailed)
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" || !strings.Contains(e.stderr, "increase max_locks_per_transaction") {
		t.Errorf("%s\n%s", diff, e)
	}
}

// What happens to the table in the middle of a sweep.
func TestSituationsInMidRun(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]struct {
		happens string
		says    string // empty: the run does all its work
		helps   string
	}{
		"our index is rebuilt":            {happens: `REINDEX INDEX CONCURRENTLY public.conversation_members_user_id`},
		"another index is built":          {happens: `CREATE INDEX CONCURRENTLY ON conversation_members (role, user_id)`},
		"users is made anew":              {happens: `DROP TABLE users; CREATE TABLE users (id uuid PRIMARY KEY, username text, created_at timestamptz, deleted_at timestamptz)`},
		"the key is made anew":            {happens: `ALTER TABLE conversation_members DROP CONSTRAINT conversation_members_pkey, ADD PRIMARY KEY (user_id, conversation_id)`},
		"a column is added":               {happens: `ALTER TABLE conversation_members ADD nickname text NOT NULL DEFAULT ''`, says: `column \"nickname\" of relation \"conversation_members_backup\" does not exist`, helps: `ALTER TABLE conversation_members_backup ADD nickname text`},
		"a column is renamed":             {happens: `ALTER TABLE conversation_members RENAME joined_at TO entered_at`, says: "joined_at does not exist", helps: `ALTER TABLE conversation_members RENAME entered_at TO joined_at`},
		"the table is moved out of sight": {happens: `CREATE SCHEMA archive; ALTER TABLE conversation_members SET SCHEMA archive`, says: "conversation_members", helps: `ALTER TABLE archive.conversation_members SET SCHEMA public`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sweepUsers, sweepDue)
			living := w.living()
			reached, released := make(chan struct{}), make(chan struct{})
			var once sync.Once
			w.auth.SetFaultFunc(func(_ context.Context, call int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
				if call > sweepVerifyCalls+sweepGroupCalls {
					once.Do(func() { close(reached) })
					<-released
				}
				return honest()
			})
			p := start(t, w.env, append(append([]string{}, sweepFlags...), "--auth-service-timeout=1m")...)
			select {
			case <-reached:
			case <-p.exited:
				t.Fatal(p.wait(t))
			}
			w.Psql("-qc", s.happens)
			close(released)
			e := p.wait(t)
			if s.says == "" {
				e.expect(t, exitDone)
				gone(t, w, living, sweepDue)
				return
			}
			if e.expect(t, exitFailed); !strings.Contains(e.stderr, s.says) {
				t.Errorf("it does not say %s: %s", s.says, lastLine(e.stderr))
			}
			w.Psql("-qc", s.helps)
			program(t, w.env, "run").expect(t, exitDone)
			if n := w.Count("conversation_members WHERE user_id = ANY ($1)", w.dead); n != 0 {
				t.Errorf("%d members are left", n)
			}
			if n := w.Count("conversation_members"); n != int64(len(living)) {
				t.Errorf("%d members, %d of living users", n, len(living))
			}
		})
	}
}
