package faults

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// rowsKept: something in the database keeps the members of one user. Everybody
// else is cleaned.
func rowsKept(keep, shows, lift string) func(w *world) {
	return func(w *world) {
		w.exec(fmt.Sprintf(keep, w.dead[3]))
		e := w.run()
		w.expect(e, want{exit: 1, state: "incomplete", shows: shows, gone: some})
		r, err := e.result()
		if err != nil || r.UsersBlocked != 1 || r.MembersDeleted != due+1-perUser {
			w.t.Errorf("%d users blocked and %d members deleted, want 1 and %d (%v)", r.UsersBlocked, r.MembersDeleted, due+1-perUser, err)
		}
		if !strings.Contains(e.stderr, "first="+w.dead[3].String()) {
			w.t.Errorf("the user is not named: %s", e)
		}
		w.exec(lift)
		w.converges()
	}
}

// ruleKept: a rule made in mid-run keeps the members of one user, and the next run
// does not begin.
func ruleKept(w *world) {
	e := w.after("checked-again", func() {
		w.exec(fmt.Sprintf(`CREATE RULE keep AS ON DELETE TO conversation_members WHERE old.user_id = '%s' DO INSTEAD NOTHING`, w.dead[3]))
	})
	w.expect(e, want{exit: 1, state: "incomplete", shows: "a trigger or rule keeps them", gone: some})
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "keep ON DELETE DO INSTEAD", gone: some})
	w.exec(`DROP RULE keep ON conversation_members`)
	w.converges()
}

// rowsHidden: a policy hides half of the members from everybody but their owner, in
// mid-run and before one, until the owner of our functions may see all.
func rowsHidden(w *world) {
	cluster := w.ownCluster(pgtemp.Options{})
	w.asCleaner()
	w.roles(cluster)
	e := w.after("begin", func() {
		w.exec(`CREATE POLICY half ON conversation_members USING (user_id < '80000000-0000-0000-0000-000000000000')`)
		w.exec(`ALTER TABLE conversation_members ENABLE ROW LEVEL SECURITY`)
	})
	w.expect(e, want{exit: 1, state: "failed", shows: "role orphan_cleaner_owner, whose functions a run calls", gone: nothing})
	w.exec(`ALTER TABLE conversation_members DISABLE ROW LEVEL SECURITY`)
	e = w.after("preflight", func() { w.exec(`ALTER TABLE conversation_members ENABLE ROW LEVEL SECURITY`) })
	w.expect(e, want{exit: 1, state: "failed", shows: "query would be affected by row-level security policy", gone: nothing})

	w.exec(`ALTER ROLE orphan_cleaner_owner BYPASSRLS`)
	w.roles(cluster) // which takes it
	e = w.run()
	w.expect(e, want{exit: 0, state: "succeeded", shows: "count those that role cleaner sees", gone: all})
	w.holds("I4")
}

// What keeps the members of a user, named by %s.
const (
	triggerKeeps = `CREATE FUNCTION witness.keep() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN IF old.user_id = '%s' THEN RAISE EXCEPTION 'kept for accounting'; END IF; RETURN old; END$$;
		CREATE TRIGGER keep BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION witness.keep()`
	triggerSwallows = `CREATE FUNCTION witness.keep() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN IF old.user_id = '%s' THEN RETURN NULL; END IF; RETURN old; END$$;
		CREATE TRIGGER keep BEFORE DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION witness.keep()`
	keyKeeps = `CREATE TABLE witness.notes (conversation_id uuid, user_id uuid,
			CONSTRAINT notes_fkey FOREIGN KEY (conversation_id, user_id) REFERENCES conversation_members);
		INSERT INTO witness.notes SELECT conversation_id, user_id FROM conversation_members WHERE user_id = '%s'`
)

// hostileDefaults: what the database sets for every session does not reach a run, which
// takes longer than a statement_timeout of theirs.
func hostileDefaults(setting string) func(w *world) {
	return func(w *world) {
		w.exec(`CREATE FUNCTION witness.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
			CREATE TRIGGER slow BEFORE DELETE ON conversation_members FOR EACH STATEMENT EXECUTE FUNCTION witness.slow()`)
		// What the client sets is stronger than what the database does.
		w.pool = open(w.t, w.url+"&statement_timeout=0&default_transaction_read_only=off")
		w.setForDatabase(setting)
		w.expect(w.run(), want{exit: 0, state: "succeeded", gone: all})
		w.lastRun()
		w.holds("I4")
	}
}

// impossibleDates: of users whom auth-service loses before they were seen alive, the shadow table
// tells dates that cannot be; of one whom it loses later, a date from before the user was
// restored. No clock starts by them.
func impossibleDates(w *world) {
	never, later := w.living[20:23], w.living[100:315]
	w.exec(`INSERT INTO users (id, username, created_at, deleted_at) SELECT d.id, 'u' || d.n, now() - interval '400 days', d.at::timestamptz
		FROM unnest($1::uuid[], ARRAY['0001-01-01Z', '1970-01-01 00:00:01Z', '-infinity', (now() - interval '40 days')::text]) WITH ORDINALITY AS d (id, at, n)`,
		append(slices.Clone(never), later[0]))
	w.auth.Delete(never...)
	w.expect(w.run(), want{exit: 0, state: "succeeded", gone: all})
	w.auth.Delete(later...)
	w.expect(w.run("--max-new-missing-share=1", "--max-new-missing-rate=1", "--max-candidate-share=1"), want{exit: 0, state: "succeeded", gone: all})
	if n := w.count(`orphan_cleaner.candidates WHERE user_id = ANY ($1) AND first_missing_at > now() - interval '1 hour'`, slices.Concat(never, later)); n != int64(len(never)+len(later)) {
		w.t.Errorf("%d clocks of %d begin now", n, len(never)+len(later))
	}
	w.note.shows = "the clock begins with the run"
	w.auth.Add(slices.Concat(never, later)...)
	w.converges("--max-new-missing-rate=1")
}

// controlCharacters: what comes from the database, also the error of a trigger, is shown on
// one line as text, by whatever command.
func controlCharacters(w *world) {
	const evil = "kept\x1b]0;owned\a\rfor\u202eaccounting\u009b2J\x7f\nrun 7: succeeded"
	clean := func(what, text string) {
		w.t.Helper()
		for line := range strings.Lines(text) {
			if at := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsGraphic(r) }); at >= 0 {
				w.t.Errorf("%s: %q", what, line)
			}
			if strings.HasPrefix(line, "run 7: succeeded") {
				w.t.Errorf("%s has a line of somebody else's", what)
			}
		}
	}
	w.exec(fmt.Sprintf(strings.Replace(triggerKeeps, "kept for accounting", evil, 1), w.dead[3]))
	e := w.run()
	w.expect(e, want{exit: 1, state: "incomplete", shows: `]0;owned\`, gone: some})
	w.note.shows = "\\x1b in place of ESC"
	clean("stderr of a run", e.stderr)
	clean("its result", e.stdout)
	w.exec(`DROP TRIGGER keep ON conversation_members`)
	w.exec(`UPDATE orphan_cleaner.holds SET reason = $1`, evil)
	w.exec(`INSERT INTO orphan_cleaner.pauses (reason, paused_by) VALUES ($1, $1)`, evil)
	port := fmt.Sprintf("127.0.0.1:%d", testdb.FreePort(w.t))
	server := w.serving(port)
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"report"}, {"hold", "list"}, {"check"}, {"run"}, {"pause", "--reason", evil}} {
		e := spawn(w.t, w.settings(), w.program, args...).wait()
		clean(strings.Join(args, " "), e.stdout+e.stderr)
	}
	eventually(w.t, "serve answers", func() bool { return get(w, "http://"+port+"/readyz") != "" })
	for _, path := range []string{"/readyz", "/healthz", "/"} {
		clean(path, strings.ReplaceAll(get(w, "http://"+port+path), "\t", " "))
	}
	server.signal(syscall.SIGTERM)
	clean("serve", server.wait().stderr)
	w.exec(`UPDATE orphan_cleaner.pauses SET resumed_at = now()`)
	w.converges()
}
