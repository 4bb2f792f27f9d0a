package cleaner

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// dueUser is due, and had so many members when it was staged.
type dueUser struct {
	id      uuid.UUID
	members int64
	// from is the first conversation that is left to do: who has more members than
	// a chunk takes is taken in parts.
	from uuid.UUID
}

func newDueUser(row db.CandidateDuePageRow) dueUser {
	if row.Members == nil { // staging forgot; perhaps they are many
		return dueUser{id: row.UserID, members: math.MaxInt64}
	}
	return dueUser{id: row.UserID, members: *row.Members}
}

// chunk is what one transaction deletes: all members of some users, or those of
// one user in a range of conversations.
type chunk struct {
	users         []uuid.UUID
	members       int64     // of whole users, when they were staged; -1 of a part
	from, through uuid.UUID // conversations, both included
	rest          []dueUser // what is left of the users then
}

// nextChunk takes as many users as the pace allows, or a part of the first one.
func (r *run) nextChunk(ctx context.Context, users []dueUser) (chunk, error) {
	rows := r.pace.rows()
	c := chunk{from: uuid.Nil, through: uuid.Max}
	for i, user := range users {
		if user.members > rows {
			if i == 0 {
				return r.partOf(ctx, user, users[1:])
			}
			c.rest = users[i:]
			break
		}
		rows -= user.members
		c.members += user.members
		c.users = append(c.users, user.id)
	}
	return c, nil
}

// partOf is the next part of a user; others come after it.
func (r *run) partOf(ctx context.Context, user dueUser, others []dueUser) (chunk, error) {
	c := chunk{users: []uuid.UUID{user.id}, members: -1, from: user.from, through: uuid.Max, rest: others}
	end, err := read(ctx, r.Cleaner, "reading a user's conversations", func(ctx context.Context, q *db.Queries) (uuid.UUID, error) {
		return q.MemberConversationEnd(ctx, db.MemberConversationEndParams{UserID: user.id, FromConversation: user.from, MaxRows: r.pace.rows()})
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return c, nil // the last part
	}
	if err == nil && end != uuid.Max {
		c.through, user.from = end, idAfter(end)
		c.rest = append([]dueUser{user}, others...)
	}
	return c, err
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
