package model_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/settings"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// stage is what one history after another plays on: emptying its tables takes
// 20 ms, cloning a database for each would take 200.
type stage struct {
	admin   *pgxpool.Pool // the application, the operators and whoever looks
	url     string
	wire    *wire
	auth    *authfake.Server
	client  *authclient.Client
	auditor *auditor
	schema  int64
	tally   *tally
}

func newStage(t *testing.T, count *tally) *stage {
	t.Helper()
	db := testdb.New(t)
	db.Targets("likes", "posts")
	db.Script(`CREATE FUNCTION count_members() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			UPDATE conversations SET member_count = member_count + CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END WHERE id = coalesce(new.conversation_id, old.conversation_id);
			RETURN NULL;
		END $$;
		CREATE TRIGGER count_members AFTER INSERT OR DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION count_members()`)
	s := &stage{admin: db.Pool, url: db.URL, auditor: newAuditor(), tally: count}
	var err error
	if s.auth, err = authfake.Start(authfake.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.auth.Stop)
	s.auth.SetFaultFunc(s.auditor.serve)
	s.client, err = authclient.Dial(source.Config{
		URL: s.auth.URL(), Timeout: 2 * time.Second, MaxAttempts: 2,
		BackoffInitial: time.Millisecond, BackoffMax: 2 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.client.Close() })
	if s.schema, err = migrate.Latest(); err != nil {
		t.Fatal(err)
	}
	if s.wire, err = newWire(t.Context(), s.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.wire.pool.Close() })
	return s
}

// revive gives the stage a new runner process in place of a killed one.
func (s *stage) revive() error {
	s.wire.pool.Close()
	var err error
	s.wire, err = newWire(context.Background(), s.url)
	return err
}

// history is one random history: a model, and the two databases it describes.
type history struct {
	*stage
	*model
	t         *rapid.T
	cut       cut
	rules     rules
	hasRows   bool               // in likes and posts, too; then runs check everybody
	byRowKey  map[string]key     // see rowKeys
	counter   string             // who keeps member_count, by the choice of orphan-cleaner effects
	everybody bool               // runs check everybody, whatever the rules
	lie       string             // the fault that auth-service has until further notice
	lost      map[uuid.UUID]bool // living users whom auth-service leaves out until further notice
	runs      int                // runners so far
	// lastRefused is the newest refused run, 0 if none.
	lastRefused int64
	approvable  bool // can it be approved?
}

// cut is how a history's runs cut the work.
type cut struct{ batch, concurrency, sweeps, page, chunk, attempts int }

const conversations = 5

func (s *stage) newHistory(t *rapid.T) *history {
	h := &history{stage: s, t: t, lost: map[uuid.UUID]bool{}, model: &model{
		living: map[person]bool{}, shadow: map[person]moment{}, members: map[key]*member{}, marked: map[key]int64{},
		ledger: map[person]candidate{}, refusals: map[int64]map[person]bool{},
		rechecks: map[person]bool{}, closed: map[conversation]bool{}, restores: map[int64]restored{}, started: map[int64]moment{},
		lastEnd: -1 << 62, known: map[person]moment{}, heard: map[person]bool{}, unknown: map[person]bool{},
	}}
	persons := rapid.SampledFrom([]int{4, 12, 30, 70}).Draw(t, "persons")
	for p := range persons {
		h.ids = append(h.ids, id("person", p))
	}
	s.auditor.reset(h.ids)
	h.reset()
	h.hasRows = rapid.Bool().Draw(t, "rows in several targets")
	h.byRowKey = h.rowKeys()
	s.auth.Delete(h.ids...)
	for c := range conversations {
		h.exec(`INSERT INTO conversations (id, name) VALUES ($1, 'c')`, id("conversation", c))
	}
	h.counter = rapid.SampledFrom([]string{"on", "trigger", "unread"}).Draw(t, "counter")
	h.exec(`INSERT INTO orphan_cleaner.effects (name, choice) VALUES ('counter', $1) ON CONFLICT (name) DO UPDATE SET choice = excluded.choice`, h.counter)
	h.exec(`ALTER TABLE conversation_members ` + map[bool]string{true: "ENABLE", false: "DISABLE"}[h.counter == "trigger"] + ` TRIGGER count_members`)
	switch rapid.SampledFrom([]string{"deleted_at", "deleted_at", "no deleted_at", "no table"}).Draw(t, "shadow table") {
	case "deleted_at":
		h.hasShadow = true
	case "no deleted_at":
		h.exec(`ALTER TABLE users DROP COLUMN deleted_at`)
	case "no table":
		h.exec(`DROP TABLE users`)
	}
	const day = 24 * hour
	h.rules = rules{
		retention: rapid.SampledFrom([]moment{30 * day, 30 * day, day}).Draw(t, "retention"),
		maxGap:    rapid.SampledFrom([]moment{7 * day, 7 * day, 40 * day}).Draw(t, "max gap"),
	}
	h.drawLimits()
	// The last two persons may be canaries, and are ordinary people all the same.
	if rapid.IntRange(0, 3).Draw(t, "canaries") == 3 {
		h.rules.alive = []person{person(persons - 1)}
		h.rules.dead = []person{person(persons - 2)}
	}
	// 26 batches at most, and two of rechecks: then a tenth of invalid ones is fewer than make a run stop
	// checking, and which of them came in a row does not matter.
	least := (persons + 25) / 26
	batches := []int{least, least, least + 1, 7, 100}
	if h.rules.checkEvery > 0 { // no part is smaller than a batch
		batches = batches[:3]
	}
	h.cut = cut{
		batch:       rapid.SampledFrom(batches).Draw(t, "batch"),
		concurrency: rapid.IntRange(1, 3).Draw(t, "concurrency"),
		sweeps:      rapid.IntRange(1, 2).Draw(t, "sweep connections"),
		page:        rapid.IntRange(1, 20).Draw(t, "page"),
		chunk:       rapid.SampledFrom([]int{1, 2, 5, 2000}).Draw(t, "chunk"),
		attempts:    rapid.IntRange(2, 3).Draw(t, "attempts"),
	}
	h.people(persons)
	return h
}

// drawLimits draws what is drawn again in the middle of a history: the limits, mostly
// so high that a run passes, and CHECK_EVERY.
func (h *history) drawLimits() {
	share := func(name string, low float64) float64 { return draw(h, "max "+name, 1, 1, 1, low) }
	h.rules.limits = settings.Limits{
		"new-missing-share": draw(h, "max new-missing-share", 0.1, 1, 1), "new-missing-rate": share("new-missing-rate", 0.05),
		"candidate-share": share("candidate-share", 0.3), "delete-share": share("delete-share", 0.2),
		"delete-share-7d": share("delete-share-7d", 0.3), "delete-share-30d": share("delete-share-30d", 0.4),
		"delete-rows": draw[float64](h, "max delete-rows", 100_000, 100_000, 100_000, 6, 0), "history": 10,
		"recently-active": draw[float64](h, "max recently-active", 1000, 1000, 5, 1),
	}
	if h.rules.checkEvery = drawCheckEvery(h.t); h.hasRows {
		h.rules.checkEvery = 0
	}
}

// people fills the conversations: most persons live, and some have been gone
// for a while already.
func (h *history) people(persons int) {
	for p := range person(persons) {
		joins := rapid.IntRange(0, 3).Draw(h.t, "memberships")
		for n := range joins {
			h.addMember(key{conversation((int(p)*3 + n) % conversations), p, h.drawTable()}, drawAge(h.t))
		}
		kind := rapid.IntRange(0, 9).Draw(h.t, "lives")
		if kind < 6 || slices.Contains(h.rules.alive, p) {
			h.live(p)
			continue
		}
		if kind > 6 {
			h.shadowDeleted(p, drawAge(h.t))
		}
	}
}

func drawAge(t *rapid.T) moment {
	return hour * rapid.SampledFrom([]moment{90 * 24, 60 * 24, 40 * 24, 31 * 24, 30 * 24, 29 * 24, 48, 24, 0}).Draw(t, "hours ago")
}

// drawCheckEvery is around the times that pass between runs, so that some
// check everybody and some a part.
func drawCheckEvery(t *rapid.T) moment {
	return hour * rapid.SampledFrom([]moment{0, 24, 48, 5 * 24, 20 * 24}).Draw(t, "check every hours")
}

func id(kind string, n int) uuid.UUID {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, n))
	return uuid.Must(uuid.FromBytes(sum[:16]))
}

func (h *history) exec(statement string, args ...any) int64 {
	tag, err := h.admin.Exec(context.Background(), statement, args...)
	if err != nil {
		h.t.Fatalf("%s: %v", statement, err)
	}
	return tag.RowsAffected()
}

// reset empties the databases of what the history before left.
func (h *history) reset() {
	h.exec(`DO $$
		DECLARE
			old text;
		BEGIN
			-- Partitions of days that only a history knew.
			FOR old IN
				SELECT inhrelid::regclass::text FROM pg_inherits
				WHERE inhparent::regclass::text ~ '_backup$'
					AND right(inhrelid::regclass::text, 8)::date NOT BETWEEN current_date AND current_date + 8
				UNION ALL
				SELECT inhrelid::regclass::text FROM pg_inherits
				WHERE inhparent::regclass::text ~ '_audit$'
					AND inhrelid::regclass::text !~ '_default$'
					AND to_date(right(inhrelid::regclass::text, 6), 'YYYYMM') NOT BETWEEN current_date - 31 AND current_date + 62
			LOOP
				EXECUTE 'DROP TABLE ' || old;
			END LOOP;
			DELETE FROM conversation_members;
			DELETE FROM likes;
			DELETE FROM posts;
			DELETE FROM conversations;
			-- The audit of these deletes goes with the rest. Many partitions: TRUNCATE would take ten times as long.
			DELETE FROM conversation_members_audit;
			DELETE FROM conversation_members_backup;
			DELETE FROM orphan_cleaner.likes_audit;
			DELETE FROM orphan_cleaner.likes_backup;
			DELETE FROM orphan_cleaner.posts_audit;
			DELETE FROM orphan_cleaner.posts_backup;
			TRUNCATE orphan_cleaner.runs, orphan_cleaner.run_targets, orphan_cleaner.candidates, orphan_cleaner.sightings, orphan_cleaner.holds, orphan_cleaner.approvals,
				orphan_cleaner.refusals, orphan_cleaner.pauses, orphan_cleaner.restores, orphan_cleaner.rechecks, orphan_cleaner.coverage,
				orphan_cleaner.unknowns, orphan_cleaner.hours RESTART IDENTITY;
			DROP TABLE IF EXISTS users;
			CREATE TABLE users (id uuid PRIMARY KEY, username text NOT NULL, created_at timestamptz, deleted_at timestamptz);
		END $$`)
}

// live creates a user in auth-service, or brings one back.
func (h *history) live(p person) {
	h.auth.Add(h.ids[p])
	h.living[p] = true
}

// die deletes a user in auth-service.
func (h *history) die(p person) {
	h.auth.Delete(h.ids[p])
	delete(h.living, p)
}

// shadowDeleted writes down in the shadow table that a user was deleted a while ago,
// or something that cannot be: that is no evidence, or not yet.
func (h *history) shadowDeleted(p person, ago moment) {
	if !h.hasShadow {
		return
	}
	h.tick()
	form := draw(h, "shadow says", "%s", "%s", "%s", "'infinity'", "now() + interval '1 day'", "%s - interval '3 years'")
	statement := `INSERT INTO users (id, username, created_at, deleted_at)
		VALUES ($1, 'x', now() - interval '1 year', ` + strings.ReplaceAll(form, "%s", "now() - make_interval(hours => $2::int)") + `)
		ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at, deleted_at = excluded.deleted_at`
	delete(h.shadow, p)
	switch form {
	case "%s":
		h.shadow[p] = h.now - ago
	case "now() + interval '1 day'":
		h.shadow[p] = h.now + 24*hour
	}
	if strings.Contains(form, "%s") {
		h.exec(statement, h.ids[p], hours(ago))
	} else {
		h.exec(statement, h.ids[p])
	}
}

func hours(m moment) int { return int(m / hour) }

// addMember joins a person to a conversation.
func (h *history) addMember(k key, ago moment) {
	h.tick()
	h.tags++
	if k.table == members && h.closed[k.conversation] {
		h.openConversation(k.conversation)
	}
	h.appears(k.person)
	row := &member{key: k, tag: fmt.Sprintf("k%03d", h.tags), role: []string{"member", "admin", "owner"}[h.tags%3], muted: h.tags%2 == 0, joined: h.now - ago, written: h.step}
	if h.members[k] = row; k.table != members {
		h.insert(row, ago)
		return
	}
	var readAgo *int // hours
	switch h.tags % 5 {
	case 0:
		readAgo = new(0)
	case 1:
		readAgo = new(min(hours(ago), 48))
	case 2:
		readAgo = new(hours(ago))
	}
	if readAgo != nil {
		row.read = new(h.now - moment(*readAgo)*hour)
	}
	err := h.admin.QueryRow(context.Background(), `INSERT INTO conversation_members
			(conversation_id, user_id, role, joined_at, last_read_at, is_muted, user_public_key)
		VALUES ($1, $2, $3, now() - make_interval(hours => $4), now() - make_interval(hours => $7), $5, $6)
		RETURNING joined_at, last_read_at`,
		id("conversation", int(k.conversation)), h.ids[k.person], row.role, hours(ago), row.muted, row.tag, readAgo).Scan(&row.joinedAt, &row.lastRead)
	if err != nil {
		h.t.Fatalf("joining %s: %v", k, err)
	}
	h.count(k, 1)
}

// count is the application's own ±1, unless a trigger of its keeps the count.
func (h *history) count(k key, difference int) {
	if k.table == members && h.counter == "on" {
		h.exec(`UPDATE conversations SET member_count = member_count + $2 WHERE id = $1`, id("conversation", int(k.conversation)), difference)
	}
}

// appears notes that a person is about to have a membership: nobody without one is
// checked by a run.
func (h *history) appears(p person) {
	if len(h.membersOf(p)) > 0 {
		return
	}
	h.known[p] = h.now
	if len(h.passed) > 0 {
		// The clock was turned back: no run is let pass before it has caught up with that one.
		h.known[p] = max(h.now, h.passed[len(h.passed)-1].at)
	}
}

// leave is the application's own delete.
func (h *history) leave(k key) {
	h.tick()
	where, args := h.match(k)
	if n := h.exec(`DELETE FROM `+k.table.String()+` WHERE `+where, args...); n != 1 {
		h.t.Fatalf("%s should leave, and %d rows went", k, n)
	}
	h.count(k, -1)
	h.forget(k, 0, false)
}

// forget moves a member of the model to its audit.
func (h *history) forget(k key, run int64, approved bool) {
	h.gone = append(h.gone, deletion{*h.members[k], run, h.now, approved})
	if delete(h.members, k); k.table == posts && run != 0 {
		h.marked[k] = run
	}
}

// closeConversation deletes a conversation, its members with it.
func (h *history) closeConversation(c conversation) {
	h.tick()
	h.exec(`DELETE FROM conversations WHERE id = $1`, id("conversation", int(c)))
	h.closed[c] = true
	for _, k := range slices.Collect(maps.Keys(h.members)) {
		if k.isIn(c) {
			h.forget(k, 0, false)
		}
	}
}

// openConversation makes a deleted conversation again, by the same id.
func (h *history) openConversation(c conversation) {
	h.exec(`INSERT INTO conversations (id, name) VALUES ($1, 'c')`, id("conversation", int(c)))
	delete(h.closed, c)
}

// leaveLedger moves a person from the ledger to the list of rechecks.
func (h *history) leaveLedger(p person) {
	delete(h.ledger, p)
	h.rechecks[p] = false
}

// pass lets time pass, or turns the clock back where it is negative.
//
// The database's clock cannot be turned, so everything it has recorded is moved
// back instead, all of it by the same interval: members, conversations and the
// shadow table, runs, sums of hours, ledger, holds, approvals, pauses, audit and backup. To any
// rule, which compares a recorded time with now() or with another, this is the
// same. Rows of audit and backup move to the partitions of their new days,
// which are made for them.
func (h *history) pass(d moment) {
	h.tick()
	shift := time.Duration(hours(d)) * time.Hour
	var b strings.Builder
	b.WriteString("BEGIN;\n")
	parents := []struct{ table, column, unit, form, day string }{
		{"public.conversation_members_backup", "backed_up_at", "day", "YYYYMMDD", "1 day"},
		{"public.conversation_members_audit", "deleted_at", "month", "YYYYMM", "1 month"},
	}
	if h.hasRows {
		for _, name := range []string{"orphan_cleaner.likes", "orphan_cleaner.posts"} {
			for _, parent := range parents[:2] {
				parent.table = strings.Replace(parent.table, "public.conversation_members", name, 1)
				parents = append(parents, parent)
			}
		}
	}
	for _, parent := range parents {
		_, name, _ := strings.Cut(parent.table, ".")
		fmt.Fprintf(&b, `SELECT orphan_cleaner.partition_add('%[1]s', '%[7]s_' || to_char(d, '%[4]s'), d AT TIME ZONE 'UTC', (d + interval '%[5]s') AT TIME ZONE 'UTC')
			FROM (SELECT DISTINCT date_trunc('%[3]s', (%[2]s - interval '%[6]d hours') AT TIME ZONE 'UTC') AS d FROM %[1]s) AS days;
		`, parent.table, parent.column, parent.unit, parent.form, parent.day, hours(d), name)
	}
	for _, moved := range h.moved() {
		table, columns, _ := strings.Cut(moved, ": ")
		var sets []string
		for _, column := range strings.Split(columns, " ") {
			sets = append(sets, fmt.Sprintf("%[1]s = %[1]s - interval '%[2]d hours'", column, hours(d)))
		}
		fmt.Fprintf(&b, "UPDATE %s SET %s;\n", table, strings.Join(sets, ", "))
	}
	// By way of a time in which nothing lies: a row's new hour may be another row's old one.
	fmt.Fprintf(&b, "UPDATE orphan_cleaner.hours SET hour = hour + interval '1000 years';\n"+
		"UPDATE orphan_cleaner.hours SET hour = hour - interval '1000 years' - interval '%d hours';\n", hours(d))
	b.WriteString("COMMIT;")
	if _, err := h.admin.Exec(context.Background(), b.String(), pgx.QueryExecModeSimpleProtocol); err != nil {
		h.t.Fatalf("letting time pass: %v", err)
	}
	h.now += d
	for _, row := range h.members {
		row.move(shift)
	}
	for i := range h.gone {
		h.gone[i].move(shift)
	}
	for _, given := range h.restores {
		for k, row := range given {
			row.move(shift)
			given[k] = row
		}
	}
}

func (h *history) moved() []string {
	tables := []string{
		"conversations: created_at updated_at",
		"conversation_members: joined_at last_read_at",
		"orphan_cleaner.runs: started_at heartbeat_at finished_at scheduled_for judged_at",
		"orphan_cleaner.candidates: first_missing_at last_missing_at",
		"orphan_cleaner.holds: created_at until lifted_at",
		"orphan_cleaner.approvals: approved_at expires_at used_at revoked_at",
		"orphan_cleaner.pauses: paused_at resumed_at",
		"orphan_cleaner.restores: backed_up_at",
		"orphan_cleaner.rechecks: deleted_at checked_at alive_at",
		"orphan_cleaner.coverage: checked_at",
		"orphan_cleaner.unknowns: unknown_since",
		"conversation_members_audit: joined_at deleted_at",
		"conversation_members_backup: joined_at last_read_at backed_up_at",
	}
	if h.hasRows {
		// A mark is compared with its backup only.
		tables = append(tables, "likes: created_at", "posts: created_at", "orphan_cleaner.likes_audit: created_at deleted_at", "orphan_cleaner.posts_audit: created_at deleted_at",
			"orphan_cleaner.likes_backup: created_at backed_up_at", "orphan_cleaner.posts_backup: backed_up_at")
	}
	if h.hasShadow {
		tables = append(tables, "users: created_at deleted_at")
	}
	return tables
}

func (row *member) move(shift time.Duration) {
	row.joinedAt = row.joinedAt.Add(-shift)
	if row.lastRead != nil {
		row.lastRead = new(row.lastRead.Add(-shift))
	}
}

// discard is the log of runs: what they do is read from the database.
func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
