package run_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// A member that changes between the second check and the delete stays, however it
// changes, and is counted; everybody else is deleted, and the next run looks again.
func TestMemberChangesBeforeTheDelete(t *testing.T) {
	const (
		update = `UPDATE conversation_members SET is_muted = NOT is_muted WHERE user_id = $1`
		read   = `UPDATE conversation_members SET last_read_at = now() WHERE user_id = $1`
	)
	committed := func(sql string) func(w *world, user uuid.UUID) func() {
		return func(w *world, user uuid.UUID) func() {
			return func() { w.db.Exec(sql, user) }
		}
	}
	for name, c := range map[string]struct {
		// prepare is called before the run; what it returns, before the second check is answered.
		prepare func(w *world, user uuid.UUID) func()
		isKept  bool // by the next run too
	}{
		"updated": {prepare: committed(update)},
		"read":    {prepare: committed(read), isKept: true},
		"left and rejoined, with the old joined_at": {prepare: func(w *world, user uuid.UUID) func() {
			return func() {
				w.db.Exec(`CREATE TABLE kept AS SELECT * FROM conversation_members WHERE user_id = $1`, user)
				w.db.Exec(`DELETE FROM conversation_members WHERE user_id = $1`, user)
				w.db.Exec(`INSERT INTO conversation_members SELECT * FROM kept`)
			}
		}},
		"in a subtransaction": {prepare: func(w *world, user uuid.UUID) func() {
			return func() {
				tx := w.inTheWay(`SAVEPOINT outer_one`)
				w.exec(tx, `SAVEPOINT inner_one`)
				w.exec(tx, update, user)
				w.exec(tx, `RELEASE SAVEPOINT inner_one`)
				w.commit(tx)
			}
		}},
		"in a subtransaction of one that began before the run": {prepare: func(w *world, user uuid.UUID) func() {
			tx := w.inTheWay(`SELECT pg_current_xact_id()`)
			w.exec(tx, `SAVEPOINT early`)
			w.exec(tx, update, user)
			w.exec(tx, `RELEASE SAVEPOINT early`)
			return func() { w.commit(tx) }
		}},
		"by a transaction that began before the run": {prepare: func(w *world, user uuid.UUID) func() {
			tx := w.inTheWay(update, user)
			return func() { w.commit(tx) }
		}},
		"beside a long transaction": {prepare: func(w *world, user uuid.UUID) func() {
			w.inTheWay(`SELECT pg_current_xact_id()`)
			return func() { w.db.Exec(update, user) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			users := w.people(300, 2)
			w.die(40, users[:3]...)
			w.db.Settle()
			r := w.must(w.runWith(t.Context(), w.before(4, c.prepare(w, users[0]))))
			if w.membersOf(users[0]) != 2 || w.membersOf(users[1:3]...) != 0 {
				t.Errorf("%d members of the one, %d of the others are there", w.membersOf(users[0]), w.membersOf(users[1:3]...))
			}
			if r.State != "succeeded" || r.MembersDue != 6 || r.MembersDeleted != 4 || r.MembersChanged != 2 || r.UsersBlocked != 0 {
				t.Errorf("%+v", r)
			}
			if n := testdb.One[int64](w.db, `SELECT members_changed FROM orphan_cleaner.runs WHERE run_id = $1`, r.RunID); n != 2 {
				t.Errorf("%d changed members on record", n)
			}
			if n := w.db.Count(`orphan_cleaner.candidates WHERE user_id = $1`, users[0]); n != 1 {
				t.Error("the user has left the ledger")
			}
			if strings.Contains(name, "long") {
				return
			}
			w.isBusy = false
			next := w.must(w.run())
			if kept := w.membersOf(users[0]) == 2; kept != c.isKept {
				t.Errorf("the next run: %+v", next)
			}
		})
	}
}

// A member that is read while the delete waits for its row stays: neither the
// version that was chosen nor the one that took its place is deleted.
func TestMemberChangesWhileTheDeleteWaits(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	var app errgroup.Group
	r, err := w.runWith(t.Context(), w.before(4, func() {
		tx := w.inTheWay(`UPDATE conversation_members SET last_read_at = now() WHERE user_id = $1`, users[0])
		app.Go(func() error {
			testdb.Eventually(t, 20*time.Second, "the delete waits", func() bool { return w.waiting("sweep_chunk") })
			return tx.Commit(context.Background())
		})
	}))
	if err := app.Wait(); err != nil {
		t.Fatal(err)
	}
	// The chunk is tried again in halves, with another snapshot and another check.
	if err != nil || r.MembersDeleted != 4 || r.MembersChanged != 2 || w.membersOf(users[0]) != 2 {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(4)
}

// waiting says whether a statement of ours waits for a lock.
func (w *world) waiting(function string) bool {
	return w.db.Count(`pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'`, function) > 0
}

// Transaction ids have 32 bits in a row and wrap around; the guard compares them
// with ones of 64. Waiting for a wraparound takes weeks, so its own expression is
// taken out of the function and fed.
func TestRowVersionGuardWraps(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	body := func(function string) string {
		return testdb.One[string](db, `SELECT prosrc FROM pg_proc WHERE oid = $1::regproc`, "orphan_cleaner."+function)
	}
	source := strings.NewReplacer("$3", "first_xid", "$4", "window_size").Replace(body("conversation_members_choose")) + body("conversation_members_delete")
	windows := regexp.MustCompile(`window_size bigint := ([^;]+);`).FindStringSubmatch(source)
	guards := regexp.MustCompile(`AND (\(m\.xmin.* >= window_size)`).FindAllStringSubmatch(source, -1)
	if windows == nil || len(guards) != 2 || guards[0][1] != guards[1][1] {
		t.Fatalf("the guard is not there, or not the same where rows are chosen and deleted: %v", guards)
	}
	query := strings.NewReplacer(
		"first_xid", "@first::bigint", "pg_snapshot_xmax(pg_current_snapshot())", "@newest::text", "m.xmin", "@version::text",
	).Replace(strings.ReplaceAll("SELECT "+guards[0][1], "window_size", "("+windows[1]+")"))
	const round = 1 << 32
	for name, c := range map[string]struct {
		version, first, newest uint64
		isOlder                bool
	}{
		"long before":                            {100, 2_000_000, 2_000_010, true},
		"right before":                           {1_999_999, 2_000_000, 2_000_010, true},
		"the oldest of those running":            {2_000_000, 2_000_000, 2_000_010, false},
		"between":                                {2_000_005, 2_000_000, 2_000_010, false},
		"the next one":                           {2_000_010, 2_000_000, 2_000_010, false},
		"begun while the delete waits":           {2_000_500, 2_000_000, 2_000_010, false},
		"one that runs for long":                 {2_000_500, 2_000_000, 400_000_000, false},
		"before one that runs for long":          {1_999_999, 2_000_000, 400_000_000, true},
		"in a later round":                       {6, 3*round + 7, 3*round + 9, true},
		"in a later round, changed":              {7, 3*round + 7, 3*round + 9, false},
		"of the round before":                    {round - 5, round + 5, round + 10, true},
		"right after the wrap, before":           {4, round + 5, round + 10, true},
		"right after the wrap, changed":          {5, round + 5, round + 10, false},
		"the wrap lies between, before it":       {round - 4, round - 3, round + 4, true},
		"the wrap lies between, changed before":  {round - 3, round - 3, round + 4, false},
		"the wrap lies between, changed after":   {3, round - 3, round + 4, false},
		"the wrap comes while the delete waits":  {3, round - 9, round - 8, false},
		"two thousand million ago":               {1, round / 2, round/2 + 3, true},
		"four thousand million ago, and frozen":  {3_000_000, 2*round + 10, 2*round + 12, true},
		"of the first transaction of a database": {3, round + 2_000_000, round + 2_000_010, true},
	} {
		var isOlder bool
		err := db.Pool.QueryRow(t.Context(), query, pgx.NamedArgs{
			"version": fmt.Sprint(c.version), "first": int64(c.first), "newest": fmt.Sprint(c.newest),
		}).Scan(&isOlder)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if isOlder != c.isOlder {
			t.Errorf("%s: version %d, checked from %d, newest %d: older is %v", name, c.version, c.first, c.newest, isOlder)
		}
	}
}
