package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// postgresRows are the faults of the database and of what stands before it.
func postgresRows() []row {
	return []row{
		{"killed before COMMIT", serverKilled},
		{"COMMIT never arrives", commitLost(neverArrives)},
		{"COMMIT done, its answer lost", commitLost(answerLost)},
		{"restarted", serverRestarted},
		{"read-only standby", readOnlyStandby},
		{"deadlock with the application", deadlock},
		{"lock timeout", lockTimeout},
		{"statement timeout", statementTimeout},
		{"disk full", diskFull},
		{"today's backup partition missing", partitionMissing},
		{"backup columns drifted", drifted},
		{"trigger dropped", triggerOff(`DROP TRIGGER conversation_members_audit_delete ON conversation_members`, "is not there")},
		{"trigger disabled", triggerOff(`ALTER TABLE conversation_members DISABLE TRIGGER conversation_members_audit_delete`, "is disabled")},
		{"session_replication_role = replica", replicaRole},
		{"a grant missing", grantMissing},
		{"TRUNCATE", truncate},
		{"behind PgBouncer", behindPgBouncer},
		{"PgBouncer restarted meanwhile", pgBouncerRestarted},
		{"no index on user_id", noIndex},
		{"crashed between two pages of the sweep", crashedBetweenPages},
		{"failed over, the run's id used again", failedOver},
		{"the network goes black while staging", goneBlack},
		{"staging locked", stagingLocked},
		{"synchronous_commit = off", synchronousCommitOff},
		{"statement_timeout of the role", hostileDefaults(`SET statement_timeout = '500ms'`)},
		{"default_transaction_read_only", hostileDefaults(`SET default_transaction_read_only = on`)},
		{"a trigger raises for one user's rows", rowsKept(triggerKeeps, "kept for accounting", `DROP TRIGGER keep ON conversation_members`)},
		{"a trigger swallows one user's rows", rowsKept(triggerSwallows, "a trigger or rule keeps them", `DROP TRIGGER keep ON conversation_members`)},
		{"a rule keeps one user's rows", ruleKept},
		{"row-level security hides half", rowsHidden},
		{"a foreign key keeps one user's rows", rowsKept(keyKeeps, "notes_fkey", `DROP TABLE witness.notes`)},
		{"impossible dates in the shadow table", impossibleDates},
		{"ESC and CR in what it holds", controlCharacters},
	}
}

// stopped is a run that stopped itself after a step, whole process and all.
func (w *world) stopped(step string, more ...string) *process {
	w.t.Helper()
	p := w.failing(step+"=stop", more...)
	name, _, _ := strings.Cut(step, ":")
	p.stopsAfter(name)
	return p
}

// stopsAfter waits until the program has stopped itself: one that is woken before
// that sleeps on.
func (p *process) stopsAfter(step string) {
	p.t.Helper()
	p.says("failpoint: after " + step + ": stop")
	eventually(p.t, "the program has stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if err != nil {
			p.t.Fatal(err)
		}
		return strings.Contains(string(stat), ") T ")
	})
}

// goOn wakes a run that has stopped and waits for its end.
func (p *process) goOn() ended {
	p.t.Helper()
	p.signal(syscall.SIGCONT)
	return p.wait()
}

// after injects a fault while a run is stopped after a step.
func (w *world) after(step string, fault func()) ended {
	w.t.Helper()
	p := w.stopped(step)
	fault()
	return p.goOn()
}

func serverKilled(w *world) {
	cluster := w.ownCluster(pgtemp.Options{})
	e := w.after("chunk:2", func() {
		if err := cluster.Crash(); err != nil {
			w.t.Fatal(err)
		}
		w.restart(cluster)
		w.sound()
		if gone := w.count(`conversation_members_backup`); gone != chunkRows {
			w.t.Errorf("%d members are gone, want those of the first chunk, %d", gone, chunkRows)
		}
	})
	w.expect(e, want{exit: 0, state: "succeeded", shows: "Database in the way, trying again", gone: all})
	w.converges()

	// Before the ledger is written, staging forgets: it is unlogged.
	w.ownLedger()
	e = w.after("verify", func() {
		if err := cluster.Crash(); err != nil {
			w.t.Fatal(err)
		}
		w.restart(cluster)
	})
	w.expect(e, want{exit: 1, state: "failed", shows: "a crash of the server emptied it", gone: all})
	w.sameLedger()
	w.converges()
}

// ownLedger takes the ledger as it is now for what it was.
func (w *world) ownLedger() {
	w.t.Helper()
	w.exec(`DROP TABLE witness.ledger`)
	w.exec(`CREATE TABLE witness.ledger AS TABLE orphan_cleaner.candidates`)
}

func (w *world) restart(cluster *pgtemp.Cluster) {
	w.t.Helper()
	if err := cluster.Restart(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.pool.Reset()
}

func serverRestarted(w *world) {
	cluster := w.ownCluster(pgtemp.Options{})
	e := w.after("chunk:2", func() { w.restart(cluster) })
	w.expect(e, want{exit: 0, state: "succeeded", shows: "Database in the way, trying again", gone: all})
	w.converges()
}

func commitLost(fault commitFault) func(w *world) {
	return func(w *world) {
		p := w.proxied(fault, 2)
		e := w.run()
		if err := p.struck(); err != nil {
			w.t.Fatal(err)
		}
		w.expect(e, want{exit: 0, state: "succeeded", shows: "Database in the way, trying again", gone: all})
		// Nothing is counted twice, nor forgotten.
		if r, err := e.result(); err != nil || r.MembersDeleted != due+1 {
			w.t.Errorf("%d members deleted, want %d (%v)", r.MembersDeleted, due+1, err)
		}
		w.converges()
	}
}

func readOnlyStandby(w *world) {
	primary := w.ownCluster(pgtemp.Options{})
	replica := standby(w.t, primary)
	w.env = []string{"DATABASE_URL=" + replica.URL("messaging")}
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "the server is a standby: it takes no writes", gone: nothing})
	if e := spawn(w.t, w.settings(), w.program, "check").wait(); e.status != 1 || !strings.Contains(e.stdout, "FAIL  primary: the server is a standby") {
		w.t.Errorf("check: %s", e)
	}
	if e := spawn(w.t, w.settings(), w.program, "pause", "--reason=test").wait(); e.status != 1 || !strings.Contains(e.stderr, "fix: point DATABASE_URL at the primary") {
		w.t.Errorf("pause: %s", e)
	}
	// A dry run only reads.
	w.expect(w.run("--dry-run"), want{exit: 0, state: "succeeded", gone: nothing})
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "the server is a standby: it takes no writes", gone: nothing})
	// The dry run of a fleet is the first half of a run: its sums are of shards that can be swept.
	f := &fleet{world: w, shards: []*world{w}, dir: w.t.TempDir()}
	f.reach(0, replica.URL("messaging"))
	f.put("fleet.yaml", "shards: [{name: shard-0, url_file: shard-0}]\n")
	if e := f.run(); e.status != 1 || !strings.Contains(e.stderr, "1 of 1 shards could not be verified") {
		w.t.Errorf("fleet: %s", e)
	}
	w.env = []string{"DATABASE_URL=" + w.url}
	w.converges()
}

// inOrder are the ctids of the due members, as one chunk takes them.
const inOrder = `SELECT m.ctid FROM conversation_members AS m JOIN witness.due AS d USING (conversation_id, user_id) ORDER BY m.ctid`

// locks holds a due member, counted in the order of the sweep, in a session of
// the application.
func (w *world) locks(offset int) (session pgx.Tx, conversation, user uuid.UUID) {
	w.t.Helper()
	session, err := w.pool.Begin(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = session.Rollback(context.Background()) }) // a second time it does nothing
	err = session.QueryRow(context.Background(), `SELECT conversation_id, user_id FROM conversation_members
		WHERE ctid = (`+inOrder+` OFFSET $1 LIMIT 1) FOR UPDATE`, offset).Scan(&conversation, &user)
	if err != nil {
		w.t.Fatal(err)
	}
	return session, conversation, user
}

// waitsInDelete waits until the delete of a run waits for a lock.
func (w *world) waitsInDelete() {
	w.t.Helper()
	eventually(w.t, "the delete waits for a lock", func() bool {
		return w.count(`pg_stat_activity WHERE datname = current_database() AND application_name = 'orphan-cleaner'
			AND wait_event_type = 'Lock' AND query LIKE '%RunSweepChunk%'`) > 0
	})
}

// deadlock: the application holds a member that a chunk comes to, and waits for one that the chunk
// has. The chunk gives way before PostgreSQL looks for a victim, who would be the application.
func deadlock(w *world) {
	// Not a second, which the machine may stand still for: then both times are over at once.
	w.setForDatabase(`SET deadlock_timeout = '20s'`)
	app, _, _ := w.locks(3)
	w.exec(`CREATE FUNCTION witness.meet() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN -- until the other one waits, or has ended
			WHILE EXISTS (SELECT FROM pg_locks AS l WHERE l.relation = 'public.conversation_members'::regclass AND l.mode = 'RowShareLock' AND l.pid <> pg_backend_pid()
				AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
				AND NOT EXISTS (SELECT FROM pg_locks AS w WHERE w.pid = l.pid AND NOT w.granted))
			LOOP
				PERFORM pg_sleep(0.01);
			END LOOP;
			RETURN old;
		END $$`)
	user := one[uuid.UUID](w, `SELECT user_id FROM conversation_members WHERE ctid = (`+inOrder+` OFFSET 1 LIMIT 1)`)
	w.exec(fmt.Sprintf(`CREATE TRIGGER meet BEFORE DELETE ON conversation_members FOR EACH ROW WHEN (old.user_id = '%s') EXECUTE FUNCTION witness.meet()`, user))
	p := w.begin(wholeChunk)
	eventually(w.t, "the chunk has locked members", func() bool {
		return w.count(`pg_stat_activity WHERE datname = current_database() AND application_name = 'orphan-cleaner' AND wait_event = 'PgSleep'`) > 0
	})
	if _, err := app.Exec(context.Background(), `UPDATE conversation_members SET is_muted = is_muted
		WHERE ctid = (`+inOrder+` LIMIT 1)`); err != nil {
		w.t.Errorf("the application was the victim: %v", err)
	} else if err := app.Commit(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	e := p.wait()
	w.holds("I10")
	w.expect(e, want{exit: 0, state: "succeeded", shows: "lock timeout", gone: some})
	left := w.count(`witness.due`) - w.gone() // what the application changed a moment ago may wait for the next run
	w.changed(e, left, min(left, 1))
	w.bounded()
	w.exec(`DROP TRIGGER meet ON conversation_members`)
	w.converges()
}

func lockTimeout(w *world) {
	app, _, _ := w.locks(12)
	e := w.run()
	w.expect(e, want{exit: 1, state: "incomplete", shows: "users without a valid response, 1 blocked", gone: some})
	w.bounded()
	if !strings.Contains(e.stderr, "lock timeout") {
		w.t.Errorf("the cause is not named: %s", e)
	}
	if err := app.Rollback(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.converges()
}

// statementTimeout: a trigger of the application that hangs in the delete. Each
// attempt is cut off, though the database itself would wait without end.
func statementTimeout(w *world) {
	w.ownCluster(pgtemp.Options{}) // others would wait for its transactions
	w.exec(`CREATE FUNCTION witness.hang() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(100); RETURN coalesce(old, new); END'`)
	w.setForDatabase(`SET statement_timeout = 0`)
	w.exec(`CREATE TRIGGER hang BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION witness.hang()`)
	e := w.begin().waitFor(4 * time.Minute)
	w.expect(e, want{exit: 1, state: "incomplete", shows: "statement timeout", gone: untouched})
	w.bounded()
	w.exec(`DROP TRIGGER hang ON conversation_members`)
	w.converges()
}

// diskFull: the backup's partition of today lies on a file system of a few
// megabytes, which somebody else fills.
func diskFull(w *world) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			w.t.Fatal("only root can mount a file system to fill")
		}
		w.t.Skip("only root can mount a file system to fill")
	}
	cluster := w.ownCluster(pgtemp.Options{})
	small := filepath.Join(cluster.Dir(), "small")
	if err := os.Mkdir(small, 0o777); err != nil {
		w.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=4m,mode=0777"); errors.Is(err, syscall.EPERM) {
		w.t.Skip("mounting a small file system is not permitted here, not even to root: a container without CAP_SYS_ADMIN")
	} else if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		// Lazily: the server, which stops later, has files open there.
		if err := syscall.Unmount(small, 2); err != nil {
			w.t.Error(err)
		}
	})
	place := filepath.Join(small, "tablespace")
	if err := os.Mkdir(place, 0o700); err != nil {
		w.t.Fatal(err)
	}
	server := serverUser(w.t, cluster)
	if err := os.Chown(place, int(server.Uid), int(server.Gid)); err != nil {
		w.t.Fatal(err)
	}
	w.exec(`CREATE TABLESPACE small LOCATION '` + place + `'`)
	w.exec(`ALTER TABLE ` + w.today() + ` SET TABLESPACE small`)
	filler := filepath.Join(small, "filler")
	if err := fill(filler); err != nil {
		w.t.Fatal(err)
	}
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "No space left on device", gone: untouched})
	if err := os.Remove(filler); err != nil {
		w.t.Fatal(err)
	}
	w.converges()
}

// fill writes until there is no space left.
func fill(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = file.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(err, file.Close())
	}
	return file.Close()
}

// today is the backup's partition of today.
func (w *world) today() string {
	w.t.Helper()
	return one[string](w, `SELECT 'conversation_members_backup_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')`)
}

// partitionMissing: its place is taken by a table of that name, so that the run
// cannot make it. First before the run, then while it sweeps.
func partitionMissing(w *world) {
	today := w.today()
	detach := func() { w.exec(`ALTER TABLE conversation_members_backup DETACH PARTITION ` + today) }
	detach()
	e := w.run()
	w.expect(e, want{exit: 1, state: "failed", shows: "partitions that somebody detached", gone: nothing})
	w.fix(e)

	e = w.after("checked-again", detach)
	w.expect(e, want{exit: 1, state: "incomplete", shows: "no partition of relation", gone: untouched})
	w.exec(`DROP TABLE ` + today)
	w.exec(`SELECT orphan_cleaner.partitions_ensure(7)`)
	w.converges()
}

func drifted(w *world) {
	e := w.after("checked-again", func() { w.exec(`ALTER TABLE conversation_members ADD nickname text`) })
	w.expect(e, want{exit: 1, state: "incomplete", shows: "nickname", gone: untouched})
	w.ownLedger()
	e = w.run()
	w.expect(e, want{exit: 1, state: "failed", shows: "nickname (text in conversation_members, not there in its backup)", gone: nothing})
	w.fix(e)
	w.converges()
}

var hintPattern = regexp.MustCompile(`hint: (?:as the owner of .*?: )?((?:CREATE|ALTER).*?)(?:, or .*)?(?: \(\d more.*)?$`)

// fix does what the message of a failed preflight says.
func (w *world) fix(e ended) {
	w.t.Helper()
	r, err := e.result()
	if err != nil {
		w.t.Fatal(err)
	}
	found := hintPattern.FindStringSubmatch(r.Error)
	if found == nil {
		w.t.Fatalf("the message has no hint in SQL: %s", r.Error)
	}
	for statement := range strings.SplitSeq(found[1], ";") {
		w.exec(statement)
	}
}

// triggerOff takes the audit trigger away, while a run sweeps and before one.
func triggerOff(statement, shows string) func(w *world) {
	return func(w *world) {
		e := w.after("checked-again", func() { w.exec(statement) })
		w.expect(e, want{exit: 1, state: "failed", shows: "count proof failed", gone: untouched})
		w.ownLedger()
		e = w.run()
		w.expect(e, want{exit: 1, state: "failed", shows: shows, gone: nothing})
		w.fix(e)
		w.converges()
	}
}

func replicaRole(w *world) {
	w.setForDatabase(`SET session_replication_role = 'replica'`)
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "session_replication_role is replica", gone: nothing})
	w.setForDatabase(`RESET session_replication_role`)

	// New sessions in mid-run have it, and delete nothing.
	e := w.after("checked-again", func() {
		w.setForDatabase(`SET session_replication_role = 'replica'`)
		w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'orphan-cleaner'`)
	})
	w.expect(e, want{exit: 1, state: "failed", shows: "session_replication_role is replica", gone: untouched})
	w.setForDatabase(`RESET session_replication_role`)
	w.converges()
}

func (w *world) setForDatabase(setting string) {
	w.t.Helper()
	w.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I ` + strings.ReplaceAll(setting, "'", "''") + `', current_database()); END $$`)
	w.pool.Reset()
}

var lacksPattern = regexp.MustCompile(`lacks (.*?); hint`)

// grantMissing: a login that may do nothing learns in one message all that it
// lacks, and that roles.sql grants it; with all of it but one it still does nothing.
func grantMissing(w *world) {
	cluster := w.ownCluster(pgtemp.Options{})
	w.asCleaner()
	w.exec(`GRANT SELECT ON public.orphan_cleaner_goose TO cleaner`)
	e := w.run()
	w.expect(e, want{exit: 1, state: "failed", shows: "lacks EXECUTE on orphan_cleaner.assess", gone: nothing})
	lacks := lacksPattern.FindStringSubmatch(e.stderr)
	if len(lacks) < 2 || !strings.Contains(lacks[1], "EXECUTE on orphan_cleaner.sweep_chunk") || !strings.Contains(lacks[1], "USAGE on schema orphan_cleaner") {
		w.t.Errorf("the grants are not listed: %s", e)
	}

	w.roles(cluster)
	const sweep = `EXECUTE ON FUNCTION orphan_cleaner.sweep_chunk`
	w.exec(`REVOKE ` + sweep + ` FROM orphan_cleaner_runner`)
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "role cleaner lacks EXECUTE on orphan_cleaner.sweep_chunk;", gone: nothing})
	w.exec(`GRANT ` + sweep + ` TO orphan_cleaner_runner`)

	// A grant revoked in mid-run: the login's own, and one of the functions' owner.
	e = w.after("checked-again", func() { w.exec(`REVOKE ` + sweep + ` FROM orphan_cleaner_runner`) })
	w.expect(e, want{exit: 1, state: "failed", shows: "permission denied for function sweep_chunk", gone: untouched})
	w.exec(`GRANT ` + sweep + ` TO orphan_cleaner_runner`)
	e = w.after("checked-again", func() { w.exec(`REVOKE DELETE ON conversation_members FROM orphan_cleaner_owner`) })
	w.expect(e, want{exit: 1, state: "incomplete", shows: "permission denied for table conversation_members", gone: untouched})
	w.exec(`GRANT DELETE ON conversation_members TO orphan_cleaner_owner`)
	w.converges()
}

func truncate(w *world) {
	e := w.after("checked-again", func() {
		for _, statement := range []string{`TRUNCATE conversation_members`, `TRUNCATE conversations CASCADE`} {
			_, err := w.pool.Exec(context.Background(), statement)
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || !strings.Contains(refused.Message, "is refused") || refused.Hint == "" {
				w.t.Errorf("%s: %v", statement, err)
			}
		}
	})
	w.expect(e, want{exit: 0, state: "succeeded", gone: all})
	w.converges()
}

// behindPgBouncer: the run does the same, and counts the same, as one without.
func behindPgBouncer(w *world) {
	other := &world{t: w.t, program: w.program, note: note{held: map[string]bool{}}, auth: w.auth}
	db := testdb.New(w.t)
	other.url, other.pool, other.env = db.URL, db.Pool, []string{"DATABASE_URL=" + db.URL}
	other.populate()
	direct, err := other.run().result()
	if err != nil {
		w.t.Fatal(err)
	}

	w.bounced()
	e := w.run()
	w.expect(e, want{exit: 0, state: "succeeded", gone: all})
	pooled, err := e.result()
	if err != nil {
		w.t.Fatal(err)
	}
	if pooled != direct {
		w.t.Errorf("by way of PgBouncer %+v, without %+v", pooled, direct)
	}
	w.converges()
}

func pgBouncerRestarted(w *world) {
	b := w.bounced()
	e := w.after("chunk:2", b.restart)
	w.expect(e, want{exit: 0, state: "succeeded", shows: "Database in the way, trying again", gone: all})
	w.converges()
}

func noIndex(w *world) {
	w.exec(`DROP INDEX conversation_members_user_id`)
	e := w.run()
	w.expect(e, want{exit: 1, state: "failed", shows: "no valid index on conversation_members(user_id)", gone: nothing})
	w.fix(e)
	w.converges()
}
