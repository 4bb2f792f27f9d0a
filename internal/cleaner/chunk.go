package cleaner

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// chunk is what one transaction deletes: members that lie next to each other in
// the table, so that a sweep reads and writes each page of it once.
type chunk struct {
	places []pgtype.TID
	users  []uuid.UUID // whose members they are, by id
}

// cutter cuts members into chunks, for several connections at once.
type cutter struct {
	connections int
	users       []uuid.UUID // whose members there are, by id
	isChosen    []bool      // of the users; empty: all of them

	mu    sync.Mutex
	spots []spot // in the order of the table
	left  int64  // of them, of chosen users
}

func newCutter(connections int, users []uuid.UUID, spots []spot, isChosen []bool) *cutter {
	c := &cutter{connections: connections, users: users, spots: spots, isChosen: isChosen}
	for _, s := range spots {
		if c.chose(s) {
			c.left++
		}
	}
	return c
}

func (c *cutter) chose(s spot) bool { return len(c.isChosen) == 0 || c.isChosen[s.user()] }

// next is a chunk of at most so many members; false when none is left. Towards the
// end chunks grow smaller, so that no connection waits for another's last one.
func (c *cutter) next(members int64) (chunk, bool) {
	taken := c.take(members)
	if len(taken) == 0 {
		return chunk{}, false
	}
	next := chunk{places: make([]pgtype.TID, len(taken))}
	whose := make([]int, len(taken))
	for i, s := range taken {
		next.places[i], whose[i] = s.place(), s.user()
	}
	slices.Sort(whose)
	whose = slices.Compact(whose)
	next.users = make([]uuid.UUID, len(whose))
	for i, user := range whose {
		next.users[i] = c.users[user]
	}
	return next, true
}

func (c *cutter) take(members int64) []spot {
	c.mu.Lock()
	defer c.mu.Unlock()
	members = min(members, c.left, max(c.left/int64(c.connections), lastRows))
	taken := make([]spot, 0, members)
	for int64(len(taken)) < members {
		if c.chose(c.spots[0]) {
			taken = append(taken, c.spots[0])
		}
		c.spots = c.spots[1:]
	}
	c.left -= members
	return taken
}

// stop leaves what is left.
func (c *cutter) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = 0
}

const (
	firstRows = 1000 // of the first chunk, while nobody knows how fast this database is
	lastRows  = 2500 // of the last chunks, which connections share: less is not worth a transaction
	fewRows   = 100  // a chunk of fewer says little about speed
)

// pace finds out how many members a transaction may delete to last as long as
// it should. A slow chunk halves them at most, a fast one makes them four times as many.
type pace struct {
	target time.Duration
	most   int64

	mu  sync.Mutex
	now int64
}

func newPace(cfg Config) *pace {
	return &pace{target: cfg.ChunkTarget, most: int64(cfg.ChunkRows), now: min(firstRows, int64(cfg.ChunkRows))}
}

func (p *pace) rows() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// note learns from a chunk that was committed.
func (p *pace) note(rows int64, took time.Duration) {
	if rows < fewRows && took < p.target {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fit := float64(rows) * p.target.Seconds() / max(took.Seconds(), 1e-6)
	p.now = int64(min(max(fit, float64(p.now)/2), 4*float64(p.now)))
	p.now = min(max(p.now, fewRows), p.most)
}
