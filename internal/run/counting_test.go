package run_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// The application keeps conversations.member_count by a trigger of its own, and people
// join and leave meanwhile. Chunks of several connections deadlock in it, as they meet
// the same conversations in another order: they are tried again, and all end.
func TestApplicationsCountingTrigger(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.cfg.SweepConnections, w.cfg.BatchSize, w.cfg.ChunkRows = 4, 5, 60
	users := w.people(300, 12)
	gone := users[:120]
	// Every second user's rows lie in the opposite order.
	w.db.Exec(`WITH moved AS (
			DELETE FROM conversation_members AS m USING unnest($1::uuid[]) WITH ORDINALITY AS u (id, n) WHERE m.user_id = u.id RETURNING m.*, u.n
		)
		INSERT INTO conversation_members (conversation_id, user_id, joined_at)
		SELECT conversation_id, user_id, joined_at FROM moved
		ORDER BY n / 5, CASE WHEN n / 5 % 2 = 0 THEN conversation_id END, CASE WHEN n / 5 % 2 = 1 THEN conversation_id END DESC`, gone)
	w.db.Exec(`UPDATE conversations AS c SET member_count = (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)`)
	w.db.Exec(`CREATE FUNCTION public.count_members() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			UPDATE conversations SET member_count = member_count + CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END
			WHERE id = CASE TG_OP WHEN 'INSERT' THEN NEW.conversation_id ELSE OLD.conversation_id END;
			-- Long enough for the chunks to meet.
			PERFORM pg_sleep(0.002) WHERE TG_OP = 'DELETE';
			RETURN NULL;
		END $$`)
	w.db.Exec(`CREATE TRIGGER count_members AFTER INSERT OR DELETE ON conversation_members FOR EACH ROW EXECUTE FUNCTION public.count_members()`)
	w.db.Exec(fmt.Sprintf(`ALTER DATABASE %s SET deadlock_timeout = '20ms'`, w.db.Name))
	w.db.Pool.Reset()
	w.missingFor(40, gone...)
	conversations := testdb.One[[]uuid.UUID](w.db, `SELECT array_agg(id ORDER BY id) FROM conversations`)

	w.db.Settle()
	// The application's transactions each touch one conversation.
	ctx, stop := context.WithCancel(context.Background())
	var application errgroup.Group
	var joined, left, victims atomic.Int64
	// With its own trigger the application may be in a deadlock of others, as it waits for the row that they want. It tries again.
	exec := func(sql string, args ...any) (int64, error) {
		for {
			did, err := w.db.Pool.Exec(context.Background(), sql, args...)
			if database.Code(err) != database.Deadlock {
				return did.RowsAffected(), err
			}
			victims.Add(1)
		}
	}
	for n := range 2 {
		application.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			for ctx.Err() == nil {
				conversation, user := conversations[random.IntN(len(conversations))], users[120+n*90+random.IntN(90)]
				did, err := exec(`DELETE FROM conversation_members WHERE conversation_id = $1 AND user_id = $2`, conversation, user)
				if err != nil {
					return err
				}
				left.Add(did)
				if did, err = exec(`INSERT INTO conversation_members (conversation_id, user_id, joined_at)
					VALUES ($1, $2, now()) ON CONFLICT DO NOTHING`, conversation, user); err != nil {
					return err
				}
				joined.Add(did)
			}
			return nil
		})
	}
	testdb.Eventually(t, 20e9, "the application is at work", func() bool { return joined.Load() > 10 })
	w.isBusy = true
	r, err := w.run()
	stop()
	if err := application.Wait(); err != nil {
		t.Errorf("the application met an error: %v", err)
	}
	if w.must(r, err); r.MembersDeleted+r.MembersChanged != 120*12 || r.UsersBlocked != 0 {
		t.Errorf("%+v", r)
	}
	if n := w.db.Count(`conversations AS c WHERE member_count <> (SELECT count(*) FROM conversation_members AS m WHERE m.conversation_id = c.id)`); n != 0 {
		t.Errorf("%d conversations have a wrong count", n)
	}
	if w.membersOf(gone...) != r.MembersChanged {
		t.Errorf("%d members of deleted users are left, %+v", w.membersOf(gone...), r)
	}
	deadlocks := func() int64 {
		return testdb.One[int64](w.db, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`)
	}
	testdb.Eventually(t, 20e9, "the server has counted a deadlock", func() bool { return deadlocks() > 0 })
	// Once they have met, chunks go one by one: those in flight are all that may meet again.
	if n := victims.Load(); n > 2*4 {
		t.Errorf("the application was in %d deadlocks", n)
	}
	t.Logf("%d deadlocks, %d of them the application's; %d joined and %d left meanwhile", deadlocks(), victims.Load(), joined.Load(), left.Load())
}
