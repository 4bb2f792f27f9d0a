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
		for _, offset := range []uint16{1, 255, 300} {
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

// Of a page, the members of some of its users come out, in the order of the table.
func TestMembersOfAGroup(t *testing.T) {
	t.Parallel()
	first, second, third := uuid.UUID{1}, uuid.UUID{2}, uuid.UUID{3}
	page := duePage{
		users: []db.SightingDuePageRow{{UserID: first}, {UserID: second}, {UserID: third}},
		spots: []spot{spotOf(tid(1, 5), 2), spotOf(tid(2, 1), 1), spotOf(tid(2, 2), 0), spotOf(tid(9, 1), 2)},
	}
	want := []db.MemberPlacesRow{{Place: tid(1, 5), UserID: third}, {Place: tid(2, 2), UserID: first}, {Place: tid(9, 1), UserID: third}}
	if got := page.membersOf([]db.SightingDuePageRow{{UserID: first}, {UserID: third}}); !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if got := page.membersOf(nil); len(got) != 0 {
		t.Errorf("members of nobody: %v", got)
	}
}
