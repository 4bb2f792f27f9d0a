package cleaner

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

func tid(block uint32, offset uint16) pgtype.TID {
	return pgtype.TID{BlockNumber: block, OffsetNumber: offset, Valid: true}
}

// A spot is what it was made of, and comes where its row comes in the table.
func TestSpots(t *testing.T) {
	t.Parallel()
	var spots []spot
	for _, block := range []uint32{0, 1, 70_000, 1<<32 - 2} {
		for _, offset := range []uint16{1, 255, 1169} {
			for _, user := range []int{0, 1, mostDue - 1} {
				s := spotOf(tid(block, offset), user)
				if s.place() != tid(block, offset) || s.user() != user {
					t.Errorf("block %d, row %d, user %d: %v, %d", block, offset, user, s.place(), s.user())
				}
				spots = append(spots, s)
			}
		}
	}
	if !slices.IsSorted(spots) {
		t.Errorf("not in the order of the table: %v", spots)
	}
}

// Some users of a page are chosen, by their fates; a page that is cut keeps the
// members of those it keeps.
func TestChooseAndCut(t *testing.T) {
	t.Parallel()
	var page duePage
	for i, places := range [][]pgtype.TID{{tid(2, 2)}, nil, {}, {tid(1, 5), tid(9, 1)}} {
		page.add(db.SightingDuePageRow{UserID: uuid.UUID{byte(i)}, Places: places, IsLeaving: i == 3})
	}
	isChosen, fated := page.choose([]uuid.UUID{{0}, {1}, {3}})
	if !slices.Equal(isChosen, []bool{true, true, false, true}) {
		t.Errorf("chosen: %v", isChosen)
	}
	for which, want := range map[fate]uuid.UUID{staying: {0}, unknown: {1}, leaving: {3}} {
		if !slices.Equal(fated[which], []uuid.UUID{want}) {
			t.Errorf("fate %d: %v", which, fated[which])
		}
	}
	page.cut(3)
	if len(page.users) != 3 || len(page.fates) != 3 || !slices.Equal(page.spots, []spot{spotOf(tid(2, 2), 0)}) {
		t.Errorf("cut: %+v", page)
	}
}
