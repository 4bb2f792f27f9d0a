package cleaner

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
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

// Each member of a chosen user is in one chunk, in the order of the table, and its
// user with it.
func TestCutter(t *testing.T) {
	t.Parallel()
	users := make([]uuid.UUID, 40)
	isChosen := make([]bool, len(users))
	var spots []spot
	var want []pgtype.TID
	for user := range users {
		users[user] = uuid.UUID{byte(user)}
		isChosen[user] = user%4 != 0
	}
	for at := range uint16(80) {
		user := int(at) * 7 % len(users)
		spots = append(spots, spotOf(tid(7, at), user))
		if isChosen[user] {
			want = append(want, tid(7, at))
		}
	}
	cut := newCutter(2, users, spots, isChosen)
	var places []pgtype.TID
	for _, size := range []int{25, 25, 10} {
		c, ok := cut.next(25)
		if !ok || len(c.places) != size || !slices.IsSortedFunc(c.users, compare) {
			t.Fatalf("%d places and users %v in a chunk, not %d", len(c.places), c.users, size)
		}
		whose := map[uuid.UUID]bool{}
		for _, place := range c.places {
			whose[users[int(place.OffsetNumber)*7%len(users)]] = true
		}
		for _, user := range c.users {
			delete(whose, user)
		}
		if len(whose) > 0 {
			t.Errorf("the chunk does not name %v", whose)
		}
		places = append(places, c.places...)
	}
	if !slices.Equal(places, want) {
		t.Errorf("the chunks hold %v", places)
	}
	if _, ok := cut.next(10); ok {
		t.Error("there is a chunk more")
	}
	cut = newCutter(2, users, spots, nil)
	if cut.left != 80 {
		t.Errorf("%d members are left where all are chosen", cut.left)
	}
	cut.stop()
	if _, ok := cut.next(10); ok {
		t.Error("there is a chunk after the end")
	}
}

// The last chunks share what is left.
func TestCutterTapers(t *testing.T) {
	t.Parallel()
	spots := make([]spot, 12_500)
	cut := newCutter(2, []uuid.UUID{{}}, spots, nil)
	for i, want := range []int{6250, 3125, 2500, 625} {
		if c, _ := cut.next(10_000); len(c.places) != want {
			t.Errorf("chunk %d has %d members, not %d", i, len(c.places), want)
		}
	}
}
