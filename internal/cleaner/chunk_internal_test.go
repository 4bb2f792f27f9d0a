package cleaner

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

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

// Each member is in one chunk, in the order of the table, and its user with it.
func TestCutter(t *testing.T) {
	t.Parallel()
	var members []db.MemberPlacesRow
	for at := range uint16(25) {
		members = append(members, db.MemberPlacesRow{Place: pgtype.TID{BlockNumber: 7, OffsetNumber: at, Valid: true}, UserID: uuid.UUID{byte(at)}})
	}
	cut := &cutter{connections: 2, left: members}
	var seen []db.MemberPlacesRow
	for _, want := range []int{10, 10, 5} {
		c, ok := cut.next(10)
		if !ok || len(c.places) != want || len(c.users) != want {
			t.Fatalf("%d places and %d users in a chunk, not %d", len(c.places), len(c.users), want)
		}
		for i := range c.places {
			seen = append(seen, db.MemberPlacesRow{Place: c.places[i], UserID: c.users[i]})
		}
	}
	if !slices.Equal(seen, members) {
		t.Errorf("the chunks hold %v", seen)
	}
	if _, ok := cut.next(10); ok {
		t.Error("there is a chunk more")
	}
	cut = &cutter{connections: 2, left: members}
	cut.stop()
	if _, ok := cut.next(10); ok {
		t.Error("there is a chunk after the end")
	}
}
