package cleaner

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/nova-social/orphan-cleaner/gen/db"
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
	mu          sync.Mutex
	left        []db.MemberPlacesRow // in the order of the table
}

// next is a chunk of at most so many members; false when none is left. Towards the
// end chunks grow smaller, so that no connection waits for another's last one.
func (c *cutter) next(members int64) (chunk, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := int64(len(c.left))
	taken := c.left[:min(left, members, max(left/int64(c.connections), firstRows))]
	c.left = c.left[len(taken):]
	next := chunk{places: make([]pgtype.TID, len(taken)), users: make([]uuid.UUID, len(taken))}
	for i, member := range taken {
		next.places[i], next.users[i] = member.Place, member.UserID
	}
	slices.SortFunc(next.users, compare)
	next.users = slices.Compact(next.users)
	return next, len(taken) > 0
}

// stop leaves what is left.
func (c *cutter) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = nil
}

const (
	firstRows = 1000 // of the first chunk, while nobody knows how fast this database is
	fewRows   = 100  // a chunk of fewer says little about speed
)

// pace finds out how many members a transaction may delete to last as long as
// it should. A slow chunk halves them at most, a fast one doubles them.
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
	p.now = int64(min(max(fit, float64(p.now)/2), 2*float64(p.now)))
	p.now = min(max(p.now, fewRows), p.most)
}
