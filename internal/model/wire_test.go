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
	// Is told each statement that is sent; nil: nobody listens.
	heard func(name string, args []any)
	// How often a run or a revert was judged, over all of the wire's life.
	merges atomic.Int64
}

// errDead is what a killed runner meets: it can no longer reach the database.
var errDead = errors.New("the runner is dead")

// newWire opens a pool as the program does, through a wire.
func newWire(ctx context.Context, url string) (*wire, error) {
	w := &wire{conns: map[*tapped]struct{}{}}
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

// calm disarms it.
func (w *wire) calm() { w.arm("", 0, nil) }

// listen has every statement reported right before it is sent, and returns who was
// told until now.
func (w *wire) listen(heard func(name string, args []any)) (before func(name string, args []any)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, w.heard = w.heard, heard
	return before
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
	weighty = regexp.MustCompile(`^(RunBegin|RunStage|RunJudge|RunSweepChunk|RunFinish|RestoreStore|RestoreChunk|RevertJudge|RevertChunk)$`)
)

// TraceQueryStart is pgx.QueryTracer.
func (w *wire) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	w.mu.Lock()
	name := w.name(conn, data.SQL)
	w.counts[name]++
	if name == "commit of RunJudge" || name == "commit of RevertJudge" {
		w.merges.Add(1)
	}
	act := w.act
	if name != w.at || w.counts[name] != w.nth || w.reached {
		act = nil
	}
	if act != nil {
		w.reached = true
	}
	heard := w.heard
	w.mu.Unlock()
	if act != nil {
		act(conn)
	}
	if heard != nil {
		heard(name, data.Args)
	}
	return ctx
}

// TraceQueryEnd is pgx.QueryTracer.
func (w *wire) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// hasMerged says whether a run or a revert was judged since a count of merges.
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
// drops the connection when the server has responded.
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
