package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/prune"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// pruneHistory makes partitions of the past with rows in each: backups of the
// last days, audit of the last months. Each backup row has its audit row.
func (w *world) pruneHistory(days, months, rows int) {
	w.Exec(`SELECT orphan_cleaner.partition_add('conversation_members_backup', 'conversation_members_backup_' || to_char(d, 'YYYYMMDD'),
			d AT TIME ZONE 'UTC', (d + interval '1 day') AT TIME ZONE 'UTC')
		FROM (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') - make_interval(days => n) AS d FROM generate_series(1, $1::int) AS n) AS past`, days)
	w.Exec(`SELECT orphan_cleaner.partition_add('conversation_members_audit', 'conversation_members_audit_' || to_char(m, 'YYYYMM'),
			m AT TIME ZONE 'UTC', (m + interval '1 month') AT TIME ZONE 'UTC')
		FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(months => n) AS m FROM generate_series(1, $1::int) AS n) AS past`, months)
	w.Exec(`INSERT INTO conversation_members_backup (conversation_id, user_id, role, joined_at, is_muted, backed_up_at, run_id)
		SELECT gen_random_uuid(), gen_random_uuid(), 'member', p.lower_bound, false, p.lower_bound + interval '1 hour', 1
		FROM orphan_cleaner.partitions() AS p, generate_series(1, $1::int)
		WHERE p.parent = 'conversation_members_backup' AND p.upper_bound <= now()`, rows)
	w.Exec(`INSERT INTO conversation_members_audit (conversation_id, user_id, deleted_at, deleted_by, application, run_id, txid)
		SELECT conversation_id, user_id, backed_up_at, 'runner', 'orphan-cleaner', run_id, 1 FROM conversation_members_backup`)
	w.Exec(`INSERT INTO conversation_members_audit (conversation_id, user_id, deleted_at, deleted_by, application, txid)
		SELECT gen_random_uuid(), gen_random_uuid(), p.lower_bound + interval '1 hour', 'app', 'messaging-service', 1
		FROM orphan_cleaner.partitions() AS p, generate_series(1, $1::int)
		WHERE p.parent = 'conversation_members_audit' AND p.upper_bound <= now()`, rows)
}

// attached are the names of all partitions of a parent.
func (w *world) attached(parent string) testdb.Snapshot {
	return w.Snapshot("(SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '" + parent + "'::regclass) AS p")
}

// past are the names that the partitions of a parent have which ended before a
// window: reckoned here, not in the database.
func past(t *testing.T, w *world, parent string, window time.Duration) (names []string) {
	t.Helper()
	now := testdb.One[time.Time](w.DB, "SELECT now()").UTC()
	for _, row := range w.attached(parent) {
		name := strings.Trim(row, "()")
		layout, months := "20060102", 0
		if parent == "conversation_members_audit" {
			layout, months = "200601", 1
		}
		from, err := time.Parse(layout, name[strings.LastIndex(name, "_")+1:])
		if err != nil {
			continue // the DEFAULT partition
		}
		if !from.AddDate(0, months, 1-months).After(now.Add(-window)) {
			names = append(names, name)
		}
	}
	return names
}

func (w *world) prune(t *testing.T, status int, args ...string) prune.Result {
	t.Helper()
	var result prune.Result
	e := program(t, w.env, append([]string{"prune", "--json"}, args...)...).expect(t, status)
	if err := json.Unmarshal([]byte(e.stdout), &result); err != nil {
		t.Fatalf("%v: %s", err, e)
	}
	return result
}

// verdictOn is why a partition is kept.
func verdictOn(t *testing.T, result prune.Result, name string) string {
	t.Helper()
	for _, p := range result.Partitions {
		if p.PartitionName == name {
			return p.KeptBecause
		}
	}
	t.Fatalf("nothing is said of %s", name)
	return ""
}

// byAge is the name of the backup partition of some days ago.
func byAge(w *world, days int) string {
	return testdb.One[string](w.DB, "SELECT 'conversation_members_backup_' || to_char((now() AT TIME ZONE 'UTC')::date - $1::int, 'YYYYMMDD')", days)
}

// Four months of backups and two years of audit: the preview changes nothing,
// prune drops exactly what is past its window, and the next run finds the partitions it needs, whatever zone and datestyle the sessions have.
func TestPrune(t *testing.T) {
	t.Parallel()
	for _, settings := range []string{"UTC/ISO, MDY", "Pacific/Kiritimati/German", "America/Los_Angeles/SQL, DMY"} {
		t.Run(settings, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 300, 15)
			cut := strings.LastIndex(settings, "/")
			w.Exec(fmt.Sprintf("ALTER DATABASE %s SET timezone = '%s'", w.Name, settings[:cut]))
			w.Exec(fmt.Sprintf("ALTER DATABASE %s SET datestyle = '%s'", w.Name, settings[cut+1:]))
			w.Pool.Reset()
			w.pruneHistory(130, 24, 50)
			w.Exec("CREATE TABLE conversation_members_backup_20200101 (LIKE conversation_members_backup)") // not attached
			// DDL is looked at by somebody else, who qualifies no name.
			w.Exec("CREATE FUNCTION looks() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM conversations LIMIT 1; END $$")
			w.Exec("CREATE EVENT TRIGGER looks ON ddl_command_end EXECUTE FUNCTION looks()")
			backups, audits := past(t, w, "conversation_members_backup", 90*day), past(t, w, "conversation_members_audit", 400*day)
			if len(backups) < 39 || len(audits) < 10 {
				t.Fatalf("%d backups and %d audit months are past their window: this test shows nothing", len(backups), len(audits))
			}
			before := contents(t, w.DB)
			preview := w.prune(t, exitDone)
			var would []string
			var bytes int64
			for _, p := range preview.Partitions {
				if p.KeptBecause == "" {
					would = append(would, p.PartitionName)
					bytes += p.Bytes
				}
			}
			slices.Sort(would)
			want := slices.Sorted(slices.Values(slices.Concat(backups, audits)))
			if !slices.Equal(would, want) {
				t.Errorf("the preview would drop:\n%s", testdb.Snapshot(want).Diff(would))
			}
			if contents(t, w.DB) != before {
				t.Error("a preview changed something")
			}

			keptBackups := w.Snapshot("conversation_members_backup WHERE tableoid::regclass::text <> ALL ($1)", backups)
			keptAudit := w.Snapshot("conversation_members_audit WHERE tableoid::regclass::text <> ALL ($1)", audits)
			result := w.prune(t, exitDone, "--execute")
			if result.Dropped != len(want) || result.BytesGivenBack != bytes || bytes == 0 {
				t.Errorf("says it dropped %d partitions and freed %d bytes, not %d and %d", result.Dropped, result.BytesGivenBack, len(want), bytes)
			}
			if n := w.Count("pg_class WHERE relname = ANY ($1)", want); n != 0 {
				t.Errorf("%d of them are still there", n)
			}
			if diff := keptBackups.Diff(w.Snapshot("conversation_members_backup")); diff != "" {
				t.Errorf("the other backups:\n%s", diff)
			}
			if diff := keptAudit.Diff(w.Snapshot("conversation_members_audit")); diff != "" {
				t.Errorf("the other audit:\n%s", diff)
			}
			if w.Count("pg_class WHERE relname = 'conversation_members_backup_20200101'") != 1 {
				t.Error("a table that is no partition was dropped")
			}
			if again := w.prune(t, exitDone, "--execute"); again.Dropped != 0 || again.BytesGivenBack != 0 {
				t.Errorf("a second prune: %+v", again)
			}

			// The days ahead are there still, and the next run makes what is not.
			w.Exec("DROP TABLE " + byAge(w, -7))
			program(t, w.env, "run").expect(t, exitDone)
			if n := w.Count("orphan_cleaner.partitions() WHERE upper_bound > now() AND parent = 'conversation_members_backup'"); n != 8 {
				t.Errorf("%d backup partitions from today on, not 8", n)
			}
		})
	}
}

// What somebody may still need is kept, and the verdict says who.
func TestPruneKeeps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 1)
	w.pruneHistory(102, 16, 3)
	names := map[string]string{}
	for what, age := range map[string]int{"user": 93, "conversation": 94, "expired": 95, "lifted": 96, "two": 97, "free": 98, "alive": 100, "missing": 101} {
		names[what] = byAge(w, age)
	}
	hold := func(what, column, extra string) {
		w.Exec(fmt.Sprintf("INSERT INTO orphan_cleaner.holds (%[1]s, reason, until, lifted_at) SELECT %[1]s, 'a lawsuit', %[2]s FROM %[3]s LIMIT 1", column, extra, names[what]))
	}
	hold("user", "user_id", "NULL, NULL")
	hold("conversation", "conversation_id", "now() + interval '1 day', NULL")
	hold("expired", "user_id", "now() - interval '1 minute', NULL")
	hold("lifted", "user_id", "NULL, now()")
	hold("two", "user_id", "NULL, NULL")
	hold("two", "conversation_id", "NULL, NULL")
	w.Exec("INSERT INTO orphan_cleaner.rechecks (user_id, deleted_at, alive_at) SELECT user_id, backed_up_at, now() FROM " + names["alive"])
	w.Exec("INSERT INTO orphan_cleaner.rechecks (user_id, deleted_at) SELECT user_id, backed_up_at FROM " + names["missing"])
	// Not one UTC day, not its name, not with an end: not ours.
	w.Exec(`ALTER TABLE conversation_members_backup DETACH PARTITION ` + byAge(w, 99))
	w.Exec(`ALTER TABLE ` + byAge(w, 99) + ` RENAME TO conversation_members_backup_x`)
	w.Exec(fmt.Sprintf(`DO $$ BEGIN EXECUTE format('ALTER TABLE conversation_members_backup ATTACH PARTITION conversation_members_backup_x FOR VALUES FROM (%%L) TO (%%L)',
		date_trunc('day', now(), 'UTC') - interval '%d days', date_trunc('day', now(), 'UTC') - interval '%d days'); END $$`, 99, 98))
	w.Exec(`CREATE TABLE conversation_members_backup_20000101 PARTITION OF conversation_members_backup FOR VALUES FROM (MINVALUE) TO ('2000-01-02 00:00+00')`)
	w.Exec(`CREATE TABLE conversation_members_backup_20010101 PARTITION OF conversation_members_backup FOR VALUES FROM ('2001-01-01 00:00+00') TO ('2001-01-01 23:00+00')`)
	oldest := past(t, w, "conversation_members_audit", 400*day)[0]

	preview := w.prune(t, exitDone)
	for name, want := range map[string]string{
		names["user"]: "hold 1", names["conversation"]: "hold 2", names["expired"]: "", names["lifted"]: "",
		names["two"]: "hold 5 and 1 more", names["free"]: "",
		names["alive"]: "3 users alive again", names["missing"]: "",
		"conversation_members_backup_x":        "not made by orphan-cleaner",
		"conversation_members_backup_20010101": "not made by orphan-cleaner",
		byAge(w, 0):                            "within the window",
		byAge(w, 90):                           "within the window",
		byAge(w, 91):                           "",
		oldest:                                 "backups of its time", // that of 2001
	} {
		if got := verdictOn(t, preview, name); got != want {
			t.Errorf("%s is kept because of %q, not %q", name, got, want)
		}
	}
	result := w.prune(t, exitDone, "--execute")
	if result.Dropped == 0 || w.Count("pg_class WHERE relname = 'conversation_members_backup_20000101'") != 1 {
		t.Errorf("%d partitions were dropped, or one without a beginning", result.Dropped)
	}
	for _, p := range preview.Partitions {
		there := w.Count("pg_class WHERE relname = $1", p.PartitionName) == 1
		if there != (p.KeptBecause != "") {
			t.Errorf("%s: there %t, though the preview said %q", p.PartitionName, there, p.KeptBecause)
		}
	}
}

// Nothing goes while a restore is open or runs are paused, nor what an open run
// proves itself by, nor the audit that restoring a kept backup reads.
func TestPruneWaitsForOthers(t *testing.T) {
	t.Parallel()
	open := func(kind, started string) string {
		return `INSERT INTO orphan_cleaner.runs (kind, phase, lease, host, version, settings, heartbeat_at, started_at)
			VALUES ('` + kind + `', 'sweep', '1 hour', 'test:1', 'test', '{}', now(), ` + started + ")"
	}
	for name, c := range map[string]struct {
		before string
		verdict,
		auditVerdict string // on what would go otherwise
	}{
		"a restore":            {open("restore", "now()"), "restore 1 is open", "restore 1 is open"},
		"a run":                {open("clean", "now()"), "", ""},
		"a run that takes":     {open("clean", "now() - interval '95 days'"), "clean 1 is open", ""},
		"a pause":              {"INSERT INTO orphan_cleaner.pauses (reason) VALUES ('an incident')", "runs are paused", "runs are paused"},
		"an old backup's hold": {"INSERT INTO orphan_cleaner.holds (user_id, reason) SELECT user_id, 'x' FROM conversation_members_backup", "hold 1", "backups of its time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 100, 0)
			w.pruneHistory(0, 16, 3)
			w.Exec(`SELECT orphan_cleaner.partition_add('conversation_members_backup', 'conversation_members_backup_' || to_char(d, 'YYYYMMDD'),
				d AT TIME ZONE 'UTC', (d + interval '1 day') AT TIME ZONE 'UTC')
				FROM (SELECT (now() AT TIME ZONE 'UTC')::date - n AS d FROM generate_series(91, 92) AS n
					UNION ALL SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '15 months')::date) AS past`)
			w.Exec(`INSERT INTO conversation_members_backup (conversation_id, user_id, backed_up_at, run_id)
				SELECT gen_random_uuid(), gen_random_uuid(), lower_bound, 1 FROM orphan_cleaner.partitions()
				WHERE parent = 'conversation_members_backup' AND upper_bound < now() - interval '300 days'`)
			backup := testdb.One[string](w.DB, "SELECT partition_name FROM orphan_cleaner.partitions() WHERE parent = 'conversation_members_backup' ORDER BY lower_bound LIMIT 1")
			audit := testdb.One[string](w.DB, "SELECT 'conversation_members_audit_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '15 months', 'YYYYMM')")
			young := byAge(w, 91)
			w.Exec(c.before)
			preview := w.prune(t, exitDone)
			if name == "a run that takes" { // longer than the backup of its first day is kept
				backup = young
			}
			if got := verdictOn(t, preview, backup); got != c.verdict {
				t.Errorf("%s is kept because of %q, not %q", backup, got, c.verdict)
			}
			if got := verdictOn(t, preview, audit); got != c.auditVerdict {
				t.Errorf("%s is kept because of %q, not %q", audit, got, c.auditVerdict)
			}
			w.prune(t, exitDone, "--execute")
			for partition, verdict := range map[string]string{backup: c.verdict, audit: c.auditVerdict} {
				if there := w.Count("pg_class WHERE relname = $1", partition) == 1; there != (verdict != "") {
					t.Errorf("%s: there %t, though it was said %q", partition, there, verdict)
				}
			}
		})
	}
}

// A restore that begins while the drop waits for its lock gets the partition
// back; a hold is placed before prune looks or after it dropped.
func TestPruneLooksAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 0)
	w.pruneHistory(92, 1, 3)
	ctx := context.WithoutCancel(t.Context())
	const drop = "SELECT coalesce(orphan_cleaner.prune_drop($1, '90 days', '400 days'), 'dropped')"
	user := testdb.One[string](w.DB, "SELECT user_id::text FROM "+byAge(w, 92)+" LIMIT 1")
	for _, meanwhile := range []string{
		`INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, phase, lease, host, version, settings) VALUES (now(), now(), 'restore', 'restore', '1 hour', 'test:1', 'test', '{}')`,
		"INSERT INTO orphan_cleaner.rechecks (user_id, alive_at) VALUES ('" + user + "', now() - interval '1 hour')",
	} {
		code := ""
		for range 20 { // until the reader was quicker than the lock_timeout
			if code = w.dropBeside(ctx, t, drop, meanwhile); code != "55P03" {
				break
			}
		}
		if code != "40001" {
			t.Errorf("%s: the drop ended with SQLSTATE %q", meanwhile, code)
		}
		if n := w.Count(byAge(w, 92)); n != 3 {
			t.Fatalf("%d rows are left", n)
		}
	}

	// A hold that is being placed is waited for, and seen by the next try.
	tx, err := w.Pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO orphan_cleaner.holds (user_id, reason) VALUES ($1, 'in the nick of time')", user); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Pool.Exec(ctx, drop, byAge(w, 92)); database.Code(err) != "55P03" {
		t.Errorf("a hold that is being placed is not waited for: %v", err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if verdict := testdb.One[string](w.DB, drop, byAge(w, 92)); verdict != "hold 1" {
		t.Errorf("the verdict is %q", verdict)
	}
	for name, want := range map[string]string{
		byAge(w, 1): "within the window", "conversation_members": "no such partition is attached", "orphan_cleaner.runs": "no such partition is attached",
		"conversation_members_audit_default": "not made by orphan-cleaner",
	} {
		if verdict := testdb.One[string](w.DB, drop, name); verdict != want {
			t.Errorf("%s: the verdict is %q, not %q", name, verdict, want)
		}
	}
}

// A heartbeat later than the drop's transaction is no clock that was set back; one in the future is.
func TestPruneAndTheClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 0)
	w.pruneHistory(92, 1, 3)
	tx, err := w.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	drop := func() (verdict string) {
		err = tx.QueryRow(t.Context(), "SELECT orphan_cleaner.prune_drop($1, '90 days', '400 days')", byAge(w, 1)).Scan(&verdict)
		return verdict
	}
	if _, err := tx.Exec(t.Context(), "SELECT now()"); err != nil {
		t.Fatal(err)
	}
	w.Exec(`INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, phase, lease, host, version, settings)
		VALUES (now(), clock_timestamp(), 'clean', 'sweep', '1 hour', 'test:1', 'test', '{}')`)
	if verdict := drop(); err != nil || verdict != "within the window" {
		t.Errorf("beside a run that beats: %q, %v", verdict, err)
	}
	w.Exec("UPDATE orphan_cleaner.runs SET heartbeat_at = clock_timestamp() + interval '1 hour'")
	if drop(); database.Code(err) != "OC012" {
		t.Errorf("after a run of the future: %v", err)
	}
}

// What runs recorded while the database's clock was ahead refuses all others until then, or
// until the migrator settles it. Nobody becomes due by that.
func TestSettleClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 0)
	w.auth.Delete(w.users(t, "deleted_at IS NULL LIMIT 1")...)
	program(t, w.env, "run").expect(t, exitDone)
	w.Exec("UPDATE orphan_cleaner.runs SET started_at = now() + interval '95 days', heartbeat_at = now() + interval '95 days', finished_at = now() + interval '95 days'")
	w.Exec("UPDATE orphan_cleaner.hours SET hour = date_trunc('hour', now()) + interval '95 days'")
	w.Exec("UPDATE orphan_cleaner.candidates SET first_missing_at = now() + interval '95 days', last_missing_at = now() + interval '95 days'")
	if e := program(t, w.env, "run"); e.status == exitDone || !strings.Contains(e.stderr, "clock") {
		t.Errorf("beside a run of the future: %s", e)
	}
	if e := program(t, w.env, "migrate", "settle-clock").expect(t, exitDone); !strings.Contains(e.stdout, "1 runs") {
		t.Errorf("%s", e)
	}
	program(t, w.env, "run").expect(t, exitDone)
	if n := w.Count("orphan_cleaner.candidates WHERE first_missing_at BETWEEN now() - interval '1 hour' AND now()"); n != 1 {
		t.Errorf("%d clocks started when it was settled", n)
	}
	if n := w.Count("orphan_cleaner.hours WHERE hour > now()"); n != 0 {
		t.Errorf("%d hours of the future are left", n)
	}
}

// dropBeside does something while a drop, which has looked, waits for whoever
// reads the partition. It returns how the drop ended.
func (w *world) dropBeside(ctx context.Context, t *testing.T, drop, meanwhile string) (code string) {
	t.Helper()
	reader, err := w.Pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(ctx, "SELECT count(*) FROM "+byAge(w, 92)); err != nil {
		t.Fatal(err)
	}
	dropper, err := w.Pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer dropper.Release()
	partition, ended := byAge(w, 92), make(chan error, 1)
	go func() {
		_, err := dropper.Exec(ctx, drop, partition)
		ended <- err
	}()
	pid := dropper.Conn().PgConn().PID()
	eventually(t, "the drop waits", func() bool {
		return w.Count("pg_locks WHERE pid = $1 AND NOT granted", pid) > 0 || len(ended) > 0
	})
	w.Exec(meanwhile)
	if err := reader.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	err = <-ended
	w.Exec("UPDATE orphan_cleaner.runs SET state = 'succeeded', finished_at = now() WHERE state = 'running'")
	w.Exec("DELETE FROM orphan_cleaner.rechecks")
	return database.Code(err)
}

// Whoever holds a lock for long keeps prune from a partition, not the
// application from deleting: it waits less than what would cost it the audit.
func TestPruneLetsDeletesPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 1)
	w.pruneHistory(95, 20, 20)
	ctx := context.WithoutCancel(t.Context())
	long, err := w.Pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// The application in the middle of a long transaction: it has written to the audit.
	if _, err := long.Exec(ctx, "DELETE FROM conversation_members WHERE ctid = (SELECT min(ctid) FROM conversation_members)"); err != nil {
		t.Fatal(err)
	}
	p := start(t, w.env, "prune", "--execute", "--json")
	deleted, warned := 0, 0
	for done := false; !done; {
		if w.leave(t) != nil {
			warned++
		}
		deleted++
		select {
		case <-p.exited:
			done = true
		default:
			done = deleted == 250
		}
	}
	e := p.wait(t).expect(t, exitFailed)
	// Who waits less is cancelled later on a machine that stands still: some few.
	if t.Logf("%d deletes of the application beside prune, %d were warned", deleted, warned); 4*warned > deleted {
		t.Errorf("the application was warned %d times of %d", warned, deleted)
	}
	if n := len(past(t, w, "conversation_members_backup", 90*day)); n != 0 {
		t.Errorf("%d backups past their window are left, which nobody was in the way of", n)
	}
	if len(past(t, w, "conversation_members_audit", 400*day)) == 0 || !strings.Contains(e.stderr, "somebody was in the way") {
		t.Errorf("the audit was dropped beneath a transaction, or nothing is said: %s", e)
	}
	if err := long.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if result := w.prune(t, exitDone, "--execute"); result.Dropped == 0 || len(past(t, w, "conversation_members_audit", 400*day)) != 0 {
		t.Errorf("the next prune: %+v", result)
	}
}

// A prune while a run sweeps does it no harm, nor the run to it.
func TestPruneBesideARun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3000, 140)
	w.pruneHistory(130, 24, 20)
	backups := w.Snapshot("conversation_members_backup WHERE tableoid::regclass::text <> ALL ($1)", past(t, w, "conversation_members_backup", 90*day))
	living := w.living()
	p := start(t, w.env, "run", "--chunk-rows=1", "--json")
	eventually(t, "the run sweeps", func() bool { return w.Count("orphan_cleaner.runs WHERE members_deleted > 0") == 1 })
	result := w.prune(t, exitDone, "--execute")
	select {
	case <-p.exited:
		t.Log("the run had ended before prune did")
	default:
	}
	e := p.wait(t).expect(t, exitDone)
	if e.result(t)["members_deleted"] != 140.0 || result.Dropped == 0 {
		t.Errorf("prune dropped %d partitions, %s", result.Dropped, e)
	}
	if diff := living.Diff(w.living()); diff != "" {
		t.Errorf("members of living users changed:\n%s", diff)
	}
	if diff := backups.Diff(w.Snapshot("conversation_members_backup WHERE backed_up_at < date_trunc('day', now(), 'UTC')")); diff != "" {
		t.Errorf("backups within the window changed:\n%s", diff)
	}
	if n := w.Count("conversation_members_backup WHERE backed_up_at >= date_trunc('day', now(), 'UTC')"); n != 140 {
		t.Errorf("%d members backed up by the run", n)
	}
}

// Refusals that nobody will approve any more are forgotten, and no others.
func TestPruneForgetsRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 0)
	refused := func(age, approval string) int64 {
		id := testdb.One[int64](w.DB, `INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, state, phase, finished_at, lease, host, version, settings, breaker)
			VALUES (now() - $1::interval, now() - $1::interval, 'clean', 'refused', 'judge', now() - $1::interval, '1 minute', 'test:1', 'test', '{}', 'delete-share') RETURNING run_id`, age)
		w.Exec("INSERT INTO orphan_cleaner.refusals (run_id, user_id, is_due) SELECT $1, gen_random_uuid(), true FROM generate_series(1, 6000)", id)
		if approval != "" {
			w.Exec(`INSERT INTO orphan_cleaner.approvals (run_id, approved_by, approved_at, expires_at, used_at, used_by_run)
				SELECT $1, 'somebody', now() - interval '1 hour', `+approval, id)
		}
		return id
	}
	using := testdb.One[int64](w.DB, `INSERT INTO orphan_cleaner.runs (started_at, heartbeat_at, kind, phase, lease, host, version, settings)
		VALUES (now(), now(), 'clean', 'sweep', '1 hour', 'test:1', 'test', '{}') RETURNING run_id`)
	keep := []int64{
		refused("29 days", ""), refused("31 days", "now() + interval '1 hour', NULL, NULL"),
		refused("31 days", fmt.Sprintf("now() - interval '1 minute', now(), %d", using)),
	}
	refused("31 days", "")
	refused("31 days", "now() - interval '1 minute', NULL, NULL")
	kept := w.Snapshot("orphan_cleaner.refusals WHERE run_id = ANY ($1)", keep)
	before := w.Snapshot("orphan_cleaner.runs")
	if result := w.prune(t, exitDone); result.RefusedUsers != 0 || w.Count("orphan_cleaner.refusals") != 5*6000 {
		t.Errorf("a preview forgot: %+v", result)
	}
	if result := w.prune(t, exitDone, "--execute"); result.RefusedUsers != 2*6000 {
		t.Errorf("%d users forgotten", result.RefusedUsers)
	}
	if diff := kept.Diff(w.Snapshot("orphan_cleaner.refusals")); diff != "" {
		t.Errorf("other refusals:\n%s", diff)
	}
	if diff := before.Diff(w.Snapshot("orphan_cleaner.runs")); diff != "" {
		t.Errorf("the runs:\n%s", diff)
	}
}

// Departed users and restored members are forgotten with what they go by: the
// backups, and for restores the audit, too.
func TestPruneForgetsWithTheBackups(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 0)
	w.pruneHistory(95, 16, 1)
	w.Exec(`INSERT INTO orphan_cleaner.rechecks (user_id, deleted_at, alive_at)
		SELECT gen_random_uuid(), now() - make_interval(days => age), CASE WHEN age = 300 THEN now() END
		FROM unnest(ARRAY[1, 89, 92, 93, 200, 300]) AS age`)
	w.Exec(`INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings)
		SELECT 'restore', 'succeeded', 'restore', t.at, t.at, t.at, '1 minute', 'test:1', 'test', '{}'
		FROM unnest(ARRAY[410, 410, 50, 0]) AS age CROSS JOIN LATERAL (SELECT now() - make_interval(days => age)) AS t (at)`)
	w.Exec(`INSERT INTO orphan_cleaner.restores (run_id, user_id, conversation_id, deleted_run, backed_up_at, state)
		SELECT run, gen_random_uuid(), gen_random_uuid(), 1, now() - make_interval(days => age), 'restored'
		FROM (VALUES (1, 411), (1, 412), (2, 60), (3, 92)) AS v (run, age)`)
	rechecks := w.Snapshot("orphan_cleaner.rechecks WHERE deleted_at > now() - interval '91 days' OR alive_at IS NOT NULL")
	restores := w.Snapshot("orphan_cleaner.restores WHERE run_id > 1")
	result := w.prune(t, exitDone, "--execute")
	if result.RecheckedUsers != 3 || result.RestoredRows != 2 {
		t.Errorf("%d rechecked users and %d restored members forgotten", result.RecheckedUsers, result.RestoredRows)
	}
	if diff := rechecks.Diff(w.Snapshot("orphan_cleaner.rechecks")); diff != "" {
		t.Errorf("rechecks:\n%s", diff)
	}
	if diff := restores.Diff(w.Snapshot("orphan_cleaner.restores")); diff != "" {
		t.Errorf("restores:\n%s", diff)
	}
}

// Windows that would lose what is still needed are refused before anything is done.
func TestPruneArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 100, 0)
	w.pruneHistory(95, 2, 1)
	before := contents(t, w.DB)
	for _, c := range []struct{ args, env []string }{
		{args: []string{"--restore-window=23h"}},
		{args: []string{"--audit-window=89d"}},
		{args: []string{"--restore-window=500d"}},
		{args: []string{"--restore-window=0d"}},
		{env: []string{"ORPHAN_CLEANER_RESTORE_WINDOW=90"}},
		{env: []string{"ORPHAN_CLEANER_AUDIT_WINDOW=1d"}},
	} {
		program(t, slices.Concat(w.env, c.env), append([]string{"prune", "--execute"}, c.args...)...).expect(t, exitUsage)
	}
	if contents(t, w.DB) != before {
		t.Error("a refused prune changed something")
	}
	// The text fits a terminal and says what was not done.
	e := program(t, w.env, "prune").expect(t, exitDone)
	if !strings.Contains(e.stdout, "nothing was changed: add --execute") || !strings.Contains(e.stdout, byAge(w, 92)) || strings.Contains(e.stdout, byAge(w, 1)) {
		t.Errorf("%s", e)
	}
	done := program(t, w.env, "prune", "--execute").expect(t, exitDone)
	if !strings.Contains(done.stdout, "dropped in ") || !strings.Contains(done.stdout, "freed ") {
		t.Errorf("%s", done)
	}
	if wide := regexp.MustCompile(`(?m)^.{101,}$`).FindString(e.stdout + done.stdout); wide != "" {
		t.Errorf("a line of more than 100 columns: %s", wide)
	}
}
