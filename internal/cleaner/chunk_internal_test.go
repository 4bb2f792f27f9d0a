package cleaner

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// Chunks come to last about as long as they should, whatever a member costs.
func TestPace(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	for perMember, want := range map[time.Duration]int64{
		time.Microsecond: int64(cfg.ChunkRows), 20 * time.Microsecond: 5000, time.Millisecond: 100, time.Second: fewRows,
	} {
		p := newPace(cfg)
		for range 20 {
			p.note(p.rows(), time.Duration(p.rows())*perMember)
		}
		if got := p.rows(); got < want*99/100 || got > want*101/100 {
			t.Errorf("at %s a member a chunk takes %d members, not %d", perMember, got, want)
		}
	}
}

// One slow chunk does not make all that follow tiny, a chunk of few members says
// nothing, and nothing exceeds CHUNK_ROWS.
func TestPaceIsSteady(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	p := newPace(cfg)
	p.note(p.rows(), time.Hour)
	if got := p.rows(); got != firstRows/2 {
		t.Errorf("a chunk takes %d members after a slow one, not %d", got, firstRows/2)
	}
	p.note(1, time.Microsecond)
	if got := p.rows(); got != firstRows/2 {
		t.Errorf("a chunk takes %d members after one of a single member, not %d", got, firstRows/2)
	}
	cfg.ChunkRows = 7
	p = newPace(cfg)
	p.note(1000, time.Microsecond)
	if got := p.rows(); got != 7 {
		t.Errorf("a chunk takes %d members, more than CHUNK_ROWS", got)
	}
}

// A chunk takes whole users while they fit.
func TestNextChunk(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.ChunkRows = 10
	r := &run{Cleaner: &Cleaner{cfg: cfg}, pace: newPace(cfg)}
	four := int64(4)
	var users []dueUser
	for range 5 {
		users = append(users, newDueUser(db.CandidateDuePageRow{UserID: uuid.New(), Members: &four}))
	}
	for _, want := range []int{2, 2, 1} {
		c, err := r.nextChunk(context.Background(), users)
		if err != nil || len(c.users) != want || c.users[0] != users[0].id || len(c.rest) != len(users)-want || c.from != uuid.Nil || c.through != uuid.Max {
			t.Fatalf("%d users in a chunk, %d left, not %d: %v", len(c.users), len(c.rest), want, err)
		}
		users = c.rest
	}
	if unknown := newDueUser(db.CandidateDuePageRow{}); unknown.members <= int64(cfg.ChunkRows) {
		t.Errorf("a user of whom nobody knows how many members it has counts %d", unknown.members)
	}
}
