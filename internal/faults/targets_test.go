package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
)

// targetRows are met by a database with five targets: members, and a content service.
func targetRows() []row {
	return []row{
		{"a dry run over five targets", withContent(dryOverTargets)},
		{"one target over its limit", withContent(approvedOverTargets)},
		{"a hold on rows of five targets", withContent(heldInTargets)},
		{"a key that cascades into a target", withContent(cascadesIntoTarget)},
		{"kill -9 between two targets", withContent(killedInTargets)},
		{"overtaken before five targets", withContent(overtakenInTargets)},
		{"half of five targets' users", withContent(answers(authfake.Half, want{exit: 3, state: "refused", shows: "breaker new-missing-share"}))},
		{"everybody alive the second time", withContent(aliveAgain)},
		{"few users a day with most likes", withContent(dripOfLikes)},
	}
}

// content is a target beside conversation_members. Rows of one user are told apart by key.
type content struct {
	name, key string
	isUpdated bool // a post is not deleted, but marked and emptied
}

func contents() []content {
	return []content{{"likes", "post_id", false}, {"bookmarks", "post_id", false}, {"comments", "id", false}, {"posts", "id", true}}
}

const contentTables = `
	CREATE TABLE public.likes (post_id uuid, user_id uuid, created_at timestamptz NOT NULL, PRIMARY KEY (post_id, user_id));
	CREATE TABLE public.bookmarks (post_id uuid, user_id uuid, created_at timestamptz NOT NULL, PRIMARY KEY (user_id, post_id));
	CREATE TABLE public.comments (id uuid PRIMARY KEY, user_id uuid, created_at timestamptz NOT NULL, body text NOT NULL DEFAULT 'so,"\');
	CREATE TABLE public.posts (id uuid PRIMARY KEY, user_id uuid, created_at timestamptz NOT NULL, body text NOT NULL DEFAULT 'so,"\', deleted_at timestamptz)`

const contentFile = `targets:
  - {name: likes, table: public.likes, user: user_id, key: [post_id, user_id], age: created_at, action: delete}
  - {name: bookmarks, table: public.bookmarks, user: user_id, key: [user_id, post_id], age: created_at, action: delete}
  - {name: comments, table: public.comments, user: user_id, key: [id], age: created_at, action: delete}
  - name: posts
    table: public.posts
    user: user_id
    key: [id]
    age: created_at
    action: update
    where: deleted_at IS NULL
    set: {deleted_at: now(), body: "''"}
    after: [comments]
    retention: 35d
`

// withContent adds the content service, by the migrations that the program prints, and 50 users
// without members, of whom four went 40 days ago.
func withContent(meet func(w *world)) func(w *world) {
	return func(w *world) {
		w.exec(contentTables)
		dir := filepath.Join(w.t.TempDir(), "targets")
		if e := spawn(w.t, w.settings(), w.program, "target", "print", w.file("targets.yaml", []byte(contentFile)), "--dir", dir).wait(); e.status != 0 {
			w.t.Fatal(e)
		}
		w.exec(`CREATE TABLE public.orphan_cleaner_targets_goose (version_id bigint)`) // goose's own
		files, err := filepath.Glob(filepath.Join(dir, "*.sql"))
		if err != nil || len(files) < len(contents()) {
			w.t.Fatalf("printed: %q (%v)", files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				w.t.Fatal(err)
			}
			up, _, _ := strings.Cut(string(text), "-- +goose Down")
			w.exec(strings.ReplaceAll(up, "CONCURRENTLY", "")) // several statements are one transaction
		}
		authors := collect[uuid.UUID](w, `SELECT md5('author ' || u)::uuid FROM generate_series(1, 50) AS u`)
		w.dead, w.living = slices.Concat(w.dead, authors[:4]), slices.Concat(w.living, authors[4:])
		w.auth.Add(authors[4:]...)
		w.exec(`INSERT INTO orphan_cleaner.candidates (user_id, first_missing_at, last_missing_at, last_missing_run, sightings, evidence)
			SELECT u, now() - interval '40 days', now() - interval '1 hour', (SELECT max(run_id) FROM orphan_cleaner.runs), 900, 'sightings' FROM unnest($1::uuid[]) AS u`, authors[:4])
		for _, c := range contents() {
			w.write(c, 3, w.dead...)
			w.write(c, 3, w.living...)
			w.exec(`UPDATE `+c.name+` SET created_at = now() - interval '5 days' WHERE ctid = (SELECT ctid FROM `+c.name+` WHERE user_id = $1 LIMIT 1)`, w.young)
		}
		w.contents = contents()
		w.witness()
		w.settle()
		meet(w)
	}
}

// write makes so many old rows of each of the users.
func (w *world) write(c content, perUser int, users ...uuid.UUID) {
	w.t.Helper()
	w.exec(`INSERT INTO `+c.name+` (`+c.key+`, user_id, created_at)
		SELECT gen_random_uuid(), u, now() - interval '60 days' FROM unnest($1::uuid[]) AS u, generate_series(1, $2::int)`, users, perUser)
}

// witnessContents writes down what the content service has, and which of it may go.
func (w *world) witnessContents() {
	w.t.Helper()
	for _, c := range w.contents {
		w.exec(`CREATE TABLE witness.` + c.name + ` AS TABLE public.` + c.name)
		w.exec(`CREATE TABLE witness.due_` + c.name + ` AS SELECT ` + c.key + ` AS key, user_id FROM public.` + c.name + ` WHERE false`)
	}
	w.dueContents(slices.DeleteFunc(slices.Clone(w.dead), func(id uuid.UUID) bool { return id == w.held })...)
}

// dueContents lets old rows of users go.
func (w *world) dueContents(users ...uuid.UUID) {
	w.t.Helper()
	for _, c := range w.contents {
		w.exec(`INSERT INTO witness.due_`+c.name+` SELECT `+c.key+`, user_id FROM public.`+c.name+`
			WHERE user_id = ANY ($1) AND created_at < now() - interval '35 days'`, users)
	}
}

// isThere is a condition on a row of what may go: it has not.
func (c content) isThere() string {
	there := `EXISTS (SELECT FROM public.` + c.name + ` AS m WHERE (m.` + c.key + `, m.user_id) = (d.key, d.user_id)`
	if c.isUpdated {
		there += ` AND m.deleted_at IS NULL`
	}
	return there + `)`
}

// goneContents is how many of the rows that may go are gone, and how many may.
func (w *world) goneContents() (gone, of int64) {
	w.t.Helper()
	for _, c := range w.contents {
		gone += w.count(`witness.due_` + c.name + ` AS d WHERE NOT ` + c.isThere())
		of += w.count(`witness.due_` + c.name)
	}
	return gone, of
}

// soundContents asserts I1 and I3 of each further target, row by row, and that what the limits
// go by is what was deleted: I8.
func (w *world) soundContents() {
	w.t.Helper()
	for _, c := range w.contents {
		became, kept, key := `SELECT row FROM gone WHERE false`, `row`, `row ->> 'user_id', row ->> '`+c.key+`'`
		if c.isUpdated {
			became, kept = `SELECT (row || '{"body": ""}') - 'deleted_at' FROM gone`, `row - 'created_at'`
		}
		differ := func(wrong, one, other string) string {
			return ` UNION ALL SELECT '` + c.name + `: ` + wrong + `', x::text FROM ((` + one + `) EXCEPT ALL (` + other + `)) AS x`
		}
		kin := func(of string) string { return `SELECT ` + key + `, run_id FROM ` + of }
		w.none("I1, I3 or I8 does not hold", `SELECT * FROM (
			WITH gone AS MATERIALIZED (SELECT to_jsonb(a) AS row FROM witness.`+c.name+` AS a EXCEPT ALL SELECT to_jsonb(b) FROM public.`+c.name+` AS b),
			appeared AS MATERIALIZED (SELECT to_jsonb(b) AS row FROM public.`+c.name+` AS b EXCEPT ALL SELECT to_jsonb(a) FROM witness.`+c.name+` AS a),
			backup AS MATERIALIZED (SELECT to_jsonb(b) AS row, b.run_id FROM orphan_cleaner.`+c.name+`_backup AS b),
			audit AS MATERIALIZED (SELECT to_jsonb(a) AS row, a.run_id FROM orphan_cleaner.`+c.name+`_audit AS a WHERE a.run_id IS NOT NULL)
			SELECT '`+c.name+`: done and not marked' AS wrong, row::text FROM appeared WHERE row -> 'deleted_at' = 'null'`+
			differ("changed or appeared", `SELECT row - 'deleted_at' FROM appeared`, became)+
			differ("lost", became, `SELECT row - 'deleted_at' FROM appeared`)+
			differ("gone and was not due", `SELECT `+key+` FROM gone`, `SELECT user_id::text, key::text FROM witness.due_`+c.name)+
			differ("gone and not backed up as it was", `SELECT `+kept+` FROM gone`, `SELECT row - '{run_id,backed_up_at,set_to}'::text[] FROM backup`)+
			differ("backed up and not gone, or twice", `SELECT row - '{run_id,backed_up_at,set_to}'::text[] FROM backup`, `SELECT `+kept+` FROM gone`)+
			differ("audited and not backed up by that run", kin("audit"), kin("backup"))+
			differ("backed up and not audited by that run", kin("backup"), kin("audit"))+
			differ("a run that counts other than it deleted", `SELECT run_id, rows_deleted FROM orphan_cleaner.run_targets WHERE target = '`+c.name+`' AND rows_deleted > 0`, `SELECT run_id, count(*) FROM audit GROUP BY run_id`)+
			differ("windows that count other than was deleted", `SELECT count(*) FROM audit`, `SELECT coalesce(sum(rows_deleted + rows_approved), 0)::bigint FROM orphan_cleaner.hours WHERE target = '`+c.name+`'`)+
			`) AS wrong`)
	}
}

// counted is what a run reports of its targets, members first.
func (w *world) counted(e ended) (due, deleted []int64) {
	w.t.Helper()
	var did struct {
		Targets []struct {
			Name    string
			Due     int64 `json:"rows_due"`
			Deleted int64 `json:"rows_deleted"`
		}
	}
	lines := strings.Split(strings.TrimSpace(e.stdout), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &did); err != nil || len(did.Targets) != 1+len(w.contents) {
		w.t.Fatalf("%v: %s", err, e)
	}
	for _, t := range did.Targets {
		due, deleted = append(due, t.Due), append(deleted, t.Deleted)
	}
	return due, deleted
}

// dryOverTargets: it writes nothing, and says of each target what the run after it does.
func dryOverTargets(w *world) {
	before := w.fingerprint()
	e := w.run("--dry-run")
	w.expect(e, want{exit: 0, state: "succeeded", gone: nothing})
	if after := w.fingerprint(); after != before || w.count(`orphan_cleaner.runs`) != 1 {
		w.t.Errorf("a dry run changed something: %s, was %s", after, before)
	}
	due, none := w.counted(e)
	if slices.Max(none) != 0 {
		w.t.Errorf("a dry run says that it deleted %d", none)
	}
	e = w.run()
	w.expect(e, want{exit: 0, state: "succeeded", gone: all})
	if _, deleted := w.counted(e); !slices.Equal(due, deleted) || slices.Min(deleted) == 0 {
		w.t.Errorf("a dry run said %d, the run deleted %d", due, deleted)
	}
	w.converges()
}

// approvedOverTargets: too much of one target is due. No target loses a row, until the run is approved;
// then all that it covers is done, and counts in no window afterwards.
func approvedOverTargets(w *world) {
	w.write(w.contents[1], 40, w.dead[:3]...)
	w.witness()
	w.settle()
	w.expect(w.run(), want{exit: 3, state: "refused", shows: "rows of bookmarks are due", gone: nothing})
	w.approve()
	w.expect(w.run(), want{exit: 0, state: "succeeded", gone: all})
	w.holds("I8")
	w.none("what was approved counts in a window", `SELECT target, rows_deleted FROM orphan_cleaner.hours WHERE rows_deleted > 0`)
	w.converges()
}

// keeps takes all rows of a user off the list of those that may go.
func (w *world) keeps(user uuid.UUID) {
	w.t.Helper()
	w.spare(`user_id = $1`, user)
	for _, c := range w.contents {
		w.exec(`DELETE FROM witness.due_`+c.name+` WHERE user_id = $1`, user)
	}
}

// cascadesIntoTarget: likes hang on comments, which are swept later. Where they are due they are gone by then.
// Where they are a living user's, the one whose comment it is is blocked in all targets, and the key is named.
func cascadesIntoTarget(w *world) {
	const like = `INSERT INTO likes (post_id, user_id, created_at) SELECT min(id::text)::uuid, $1, now() - interval '60 days' FROM comments WHERE user_id = $2`
	blocked := w.dead[0]
	w.exec(like, w.living[0], blocked)
	w.exec(like, w.dead[1], w.dead[1])
	w.exec(`ALTER TABLE likes ADD CONSTRAINT hangs_on FOREIGN KEY (post_id) REFERENCES comments ON DELETE CASCADE NOT VALID`)
	w.witness()
	w.keeps(blocked)
	w.settle()
	e := w.run(wholeChunk) // in parts, a user is done up to the part that is refused
	w.expect(e, want{exit: 1, state: "incomplete", shows: "CASCADE, hangs_on, or by a trigger, onto public.likes", gone: all})
	if r, err := e.result(); err != nil || r.UsersBlocked != 1 {
		w.t.Errorf("%d users are blocked (%v)", r.UsersBlocked, err)
	}
	w.exec(`ALTER TABLE likes DROP CONSTRAINT hangs_on`)
	w.due(blocked)
	w.converges()
}

// heldInTargets: a user's hold, placed between check and delete, keeps the rows of all targets.
func heldInTargets(w *world) {
	user := w.dead[0]
	e := w.after("checked-again", func() {
		if added := spawn(w.t, w.settings(), w.program, "hold", "add", "--reason", "court order", "--user", user.String()).wait(); added.status != 0 {
			w.t.Fatal(added)
		}
		w.keeps(user)
	})
	w.expect(e, want{exit: 0, state: "succeeded", gone: all})
	w.converges()
}

// killedInTargets: while the chunk has deleted members, likes and bookmarks and waits for a comment, and on
// either side of a COMMIT. A chunk is done in all targets, or in none.
func killedInTargets(w *world) {
	app, err := w.pool.Begin(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = app.Rollback(context.Background()) }() // a second time it does nothing
	if _, err := app.Exec(context.Background(), `SELECT FROM comments WHERE user_id = ANY ($1) FOR UPDATE`, w.dead); err != nil {
		w.t.Fatal(err)
	}
	p := w.begin(wholeChunk)
	w.waitsInDelete()
	p.signal(syscall.SIGKILL)
	if e := p.wait(); e.signal != syscall.SIGKILL {
		w.t.Fatal(e)
	}
	if err := app.Rollback(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.sessionsEnd()
	w.sound()
	if gone := w.gone(); gone != 0 {
		w.t.Errorf("%d rows of a chunk that was never committed are gone", gone)
	}
	w.leaseEnds()
	for _, step := range []string{"chunk:2", "commit:2"} {
		if e := w.failing(step + "=kill").wait(); e.signal != syscall.SIGKILL {
			w.t.Fatalf("the run was not killed after %s: %s", step, e)
		}
		w.sessionsEnd()
		w.sound()
		w.leaseEnds()
	}
	w.note.exit, w.note.state, w.note.shows = "killed", "abandoned", "a chunk is done in all targets or in none"
	w.converges()
}

// overtakenInTargets: a run that sleeps past its lease with a chunk at hand wakes when another has taken
// over, and was killed: its token opens no target any more.
func overtakenInTargets(w *world) {
	ghost := w.stopped("checked-again")
	w.leaseEnds()
	if e := w.failing("begin=kill").wait(); e.signal != syscall.SIGKILL {
		w.t.Fatal(e)
	}
	e := ghost.goOn()
	if gone := w.gone(); gone != 0 || e.status != 1 || !strings.Contains(e.stderr, "silent for longer than its lease and was taken over") {
		w.t.Errorf("%d rows are gone: %s", gone, e)
	}
	w.sound()
	w.leaseEnds()
	w.note.exit, w.note.state, w.note.shows = "1", "abandoned", "silent for longer than its lease"
	w.converges()
}

// aliveAgain: everybody who was missing is there when checked again before the delete.
func aliveAgain(w *world) {
	e := w.after("judge", func() { w.auth.Revive(w.dead...) })
	w.expect(e, want{exit: 0, state: "succeeded", gone: untouched})
	if _, deleted := w.counted(e); slices.Max(deleted) != 0 {
		w.t.Errorf("deleted: %d", deleted)
	}
	// Missing once more, all clocks start anew.
	w.auth.Delete(w.dead...)
	w.expect(w.run(), want{exit: 0, state: "succeeded", gone: untouched})
}

// dripOfLikes: two users a day, whose likes are many, fall due. Each day would pass by itself; the week of
// that one target does not, and then no target loses a row.
func dripOfLikes(w *world) {
	const limit, passing = 0.05, 1 // of the likes in a week; days
	likes := w.contents[0]
	w.write(likes, 25, w.living[:8]...)
	w.witness()
	of := w.count(`public.likes`)
	w.lastRun()
	for day := range 4 {
		w.dayPasses()
		w.die(w.living[2*day : 2*day+2]...)
		switch {
		case day < passing:
			w.lastRun()
		case day == passing:
			w.expect(w.run(), want{exit: 3, state: "refused", shows: "rows of likes are due or were deleted within 7 days", gone: nothing})
		default:
			w.expect(w.run(), want{exit: 3, state: "refused", shows: "rows of likes are due", gone: nothing})
		}
	}
	if gone := w.count(`orphan_cleaner.likes_audit`); float64(gone) > limit*float64(of) {
		w.t.Errorf("%d of %d likes are gone within a week", gone, of)
	}
	w.holds("I8")
	w.approve()
	w.converges()
}

// approve admits what the last run found.
func (w *world) approve() {
	w.t.Helper()
	run := one[int64](w, `SELECT max(run_id) FROM orphan_cleaner.runs`)
	if e := spawn(w.t, w.settings(), w.program, "approve", fmt.Sprint(run), "--yes").wait(); e.status != 0 {
		w.t.Fatal(e)
	}
}
