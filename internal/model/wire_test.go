package model_test

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/database"
)

// wire is the runner's way to the database. It knows each statement by the name
// of its query, and does at one of them what the history wants done there.
type wire struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	dead    bool
	conns   map[*tapped]struct{}
	counts  map[string]int
	work    map[*pgx.Conn]string // the query that each open transaction is for
	at      string               // where to act; "" nowhere
	nth     int
	act     func(conn *pgx.Conn)
	reached bool
	// Each chunk of a sweep reads it, from its DELETE to the end of its transaction; see between.
	chunks  sync.RWMutex
	deletes map[*pgx.Conn]bool
	// Whom the runs read to ask about, nil: nobody listens.
	onPage func(page)
	// How often a run wrote the ledger, over all of the wire's life.
	merges atomic.Int64
}

// errDead is what a killed runner meets: it can no longer reach the database.
var errDead = errors.New("the runner is dead")

// newWire opens a pool as the program does, through a wire.
func newWire(ctx context.Context, url string) (*wire, error) {
	w := &wire{conns: map[*tapped]struct{}{}, deletes: map[*pgx.Conn]bool{}}
	w.calm()
	cfg, err := database.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 6
	cfg.ConnConfig.Tracer = w
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return w.tap(conn)
	}
	w.pool, err = pgxpool.NewWithConfig(ctx, cfg)
	return w, err
}

func (w *wire) tap(conn net.Conn) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		_ = conn.Close()
		return nil, errDead
	}
	tapped := &tapped{Conn: conn, wire: w}
	w.conns[tapped] = struct{}{}
	return tapped, nil
}

// arm has act called right before the nth statement of a name.
func (w *wire) arm(at string, nth int, act func(conn *pgx.Conn)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts, w.work, w.reached = map[string]int{}, map[*pgx.Conn]string{}, false
	w.at, w.nth, w.act = at, nth, act
}

// between has something done while no chunk of a sweep is under way: what one of them
// deletes meanwhile would be judged by what held before, or by what holds afterwards.
func (w *wire) between(do func()) {
	w.chunks.Lock()
	defer w.chunks.Unlock()
	do()
}

// calm disarms it.
func (w *wire) calm() { w.arm("", 0, nil) }

// listen has every reading of user ids reported, nil: none.
func (w *wire) listen(onPage func(page)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onPage = onPage
}

// kill cuts the runner off for good, as kill -9 would.
func (w *wire) kill() {
	w.mu.Lock()
	w.dead = true
	var conns []*tapped
	for c := range w.conns {
		conns = append(conns, c)
	}
	w.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

var (
	queryName = regexp.MustCompile(`^-- name: (\w+)`)
	// The queries that give their transaction its name, so that its COMMIT can
	// be told from others.
	weighty = regexp.MustCompile(`^(RunBegin|CandidateMerge|MemberDeleteDue|RestoreStore|RestoreChunk|RevertChunk)$`)
)

// TraceQueryStart is pgx.QueryTracer.
func (w *wire) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	w.mu.Lock()
	name := w.name(conn, data.SQL)
	w.counts[name]++
	if name == "commit of CandidateMerge" {
		w.merges.Add(1)
	}
	if name == "MemberUserPage" && w.onPage != nil {
		w.onPage(page{data.Args[0].(uuid.UUID), data.Args[1].(uuid.UUID), data.Args[2].(int64)})
	}
	act := w.act
	if name != w.at || w.counts[name] != w.nth || w.reached {
		act = nil
	}
	if act != nil {
		w.reached = true
	}
	w.mu.Unlock()
	if act != nil {
		act(conn)
	}
	if name == "MemberDeleteDue" {
		w.chunks.RLock()
		w.mu.Lock()
		w.deletes[conn] = true
		w.mu.Unlock()
	}
	verb, _, _ := strings.Cut(name, " ")
	return context.WithValue(ctx, ends{}, verb == "commit" || verb == "rollback")
}

// ends says of a statement, in its context, that it ends a transaction.
type ends struct{}

// TraceQueryEnd is pgx.QueryTracer.
func (w *wire) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryEndData) {
	if ctx.Value(ends{}) != true {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deletes[conn] {
		delete(w.deletes, conn)
		w.chunks.RUnlock()
	}
}

// hasMerged says whether a run wrote the ledger since a count of merges.
func (w *wire) hasMerged(since int64) bool { return w.merges.Load() > since }

func (w *wire) name(conn *pgx.Conn, sql string) string {
	if match := queryName.FindStringSubmatch(sql); match != nil {
		if weighty.MatchString(match[1]) {
			w.work[conn] = match[1]
		}
		return match[1]
	}
	verb, _, _ := strings.Cut(sql, " ")
	if verb == "begin" {
		delete(w.work, conn)
	}
	if work := w.work[conn]; work != "" {
		return verb + " of " + work
	}
	return verb
}

// loseAnswer lets the next statement of a connection reach the server, and
// drops the connection when the server has answered.
func loseAnswer(conn *pgx.Conn) {
	if tapped, ok := conn.PgConn().Conn().(*tapped); ok {
		tapped.lose.Store(true)
	}
}

// tapped is one connection of the wire.
type tapped struct {
	net.Conn
	wire *wire
	lose atomic.Bool
}

func (t *tapped) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 && t.lose.Load() {
		_ = t.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func (t *tapped) Close() error {
	t.wire.mu.Lock()
	delete(t.wire.conns, t)
	t.wire.mu.Unlock()
	return t.Conn.Close()
}
