package events_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/events"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

// asRelay in the environment makes this test binary a relay to Redis that dies as soon
// as Redis has a page and the cursor has not moved.
const asRelay = "ORPHAN_CLEANER_TEST_AS_RELAY"

func TestMain(m *testing.M) {
	if os.Getenv(asRelay) == "1" {
		relayAndDie()
		return
	}
	testdb.Main(m)
}

func relayAndDie() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		panic(err)
	}
	sink, err := events.NewRedis(os.Getenv("REDIS_URL"), streams())
	if err != nil {
		panic(err)
	}
	events.Patiently(events.New(pool, slog.New(slog.DiscardHandler), nil, deadly{sink})).Flush(ctx)
	fmt.Println("it lives")
}

// deadly kills its process once the sink has all.
type deadly struct{ events.Sink }

func (d deadly) Deliver(ctx context.Context, told []events.Event) (int, error) {
	if n, err := d.Sink.Deliver(ctx, told); err != nil {
		return n, err
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {} // until the signal is delivered
}

// place is a database with finished runs, and a relay to sinks.
type place struct {
	*testdb.DB
	t   *testing.T
	log lockedBuffer
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newPlace(t *testing.T) *place {
	t.Helper()
	t.Parallel()
	return &place{DB: testdb.New(t), t: t}
}

// relay is one as the runner has it, with no right but its own.
func (p *place) relay(sinks ...events.Sink) *events.Relay {
	p.t.Helper()
	relay := events.Patiently(events.New(p.Pool, slog.New(slog.NewTextHandler(&p.log, nil)), nil, sinks...))
	relay.Begin(p.t.Context())
	return relay
}

// isEmpty says whether the sinks have all events of the runs that are over.
func (p *place) isEmpty() bool {
	p.t.Helper()
	return p.Count("orphan_cleaner.event_cursors AS c JOIN orphan_cleaner.runs AS r ON r.run_id >= c.run_id") == 0
}

// run makes a run in a state that deleted members: so many users, each of so many conversations.
func (p *place) run(state string, conversations, users int) (id int64) {
	p.t.Helper()
	id = testdb.One[int64](p.DB, `INSERT INTO orphan_cleaner.runs (kind, state, phase, started_at, heartbeat_at, finished_at, lease, host, version, settings, members_deleted)
		VALUES ('clean', $1, 'finish', now() - interval '1 minute', now(), CASE WHEN $1 <> 'running' THEN now() END, '1 minute', 'test:1', 'test', '{}', $2)
		RETURNING run_id`, state, conversations*users)
	p.Exec(`INSERT INTO conversation_members_audit (conversation_id, user_id, role, joined_at, deleted_at, deleted_by, application, run_id, txid)
		SELECT md5('conversation ' || c)::uuid, md5('user ' || u)::uuid, 'member', now() - interval '1 year', now() - interval '30 seconds', 'test', 'test', $1, 1
		FROM generate_series(1, $2::int) AS c, generate_series(1, $3::int) AS u`, id, conversations, users)
	return id
}

// memory is a sink that keeps what it gets, and fails when told to.
type memory struct {
	mu    sync.Mutex
	got   []events.Event
	fails func(told []events.Event) (int, error)
}

func (*memory) Name() string { return "memory" }
func (*memory) Close() error { return nil }

func (m *memory) Deliver(_ context.Context, told []events.Event) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := len(told), error(nil)
	if m.fails != nil {
		n, err = m.fails(told)
	}
	m.got = append(m.got, told[:n]...)
	return n, err
}

func (p *place) lapse() {
	p.Exec("UPDATE orphan_cleaner.event_cursors SET leased_until = now() - interval '1 second'")
}

func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
