package cleaner

import (
	"context"
	"math"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// duePage is a page of the due users of a run, in the order of their ids, with
// where staging saw the members that would go.
type duePage struct {
	users  []db.SightingDuePageRow
	spots  []spot // of the members of all of them, in the order of the table
	isLast bool
}

// mostDue is how many users a page has at most; a spot has room for 65,536.
const mostDue = 50_000

// spot is a place in the table, and which user of the page has a member there, in
// one number: block, row and user. Their order is that of the table.
type spot uint64

func spotOf(place pgtype.TID, user int) spot {
	return spot(place.BlockNumber)<<32 | spot(place.OffsetNumber)<<16 | spot(user) //nolint:gosec // below mostDue
}

func (s spot) place() pgtype.TID {
	return pgtype.TID{BlockNumber: uint32(s >> 32), OffsetNumber: uint16(s >> 16), Valid: true} //nolint:gosec // cut on purpose
}

func (s spot) user() int { return int(s & math.MaxUint16) }

// readDue reads the page of due users that begins with an id: as many as have
// PlacesAtOnce members and few more, in whole batches where others follow.
func (r *run) readDue(ctx context.Context, from uuid.UUID) (duePage, error) {
	users, err := read(ctx, r.Cleaner, "reading due users", func(ctx context.Context, q *db.Queries) ([]db.SightingDuePageRow, error) {
		if err := q.SettingsForKeys(ctx); err != nil {
			return nil, err
		}
		return q.SightingDuePage(ctx, db.SightingDuePageParams{RunID: r.id, FromUser: from, MaxUsers: mostDue, MaxMembers: int64(r.cfg.PlacesAtOnce)})
	})
	if err != nil || len(users) == 0 {
		return duePage{isLast: true}, err
	}
	places := 0
	for _, user := range users {
		places += len(user.Places)
	}
	page := duePage{users: users, isLast: len(users) < mostDue && places < r.cfg.PlacesAtOnce || users[len(users)-1].UserID == uuid.Max}
	if batches := len(users) / r.cfg.BatchSize; !page.isLast && batches > 0 {
		page.users = users[:batches*r.cfg.BatchSize]
	}
	page.spots = make([]spot, 0, places)
	for i, user := range page.users {
		for _, place := range user.Places {
			page.spots = append(page.spots, spotOf(place, i))
		}
	}
	slices.Sort(page.spots)
	return page, nil
}

// membersOf picks out the members of some of its users, given in the same order.
func (p duePage) membersOf(users []db.SightingDuePageRow) []db.MemberPlacesRow {
	isChosen := make([]bool, len(p.users))
	for i, user := range p.users {
		if len(users) > 0 && user.UserID == users[0].UserID {
			isChosen[i] = true
			users = users[1:]
		}
	}
	members := make([]db.MemberPlacesRow, 0, len(p.spots))
	for _, s := range p.spots {
		if isChosen[s.user()] {
			members = append(members, db.MemberPlacesRow{Place: s.place(), UserID: p.users[s.user()].UserID})
		}
	}
	return members
}

// listMembers lists the members of users behind a place, in the order of the table:
// PlacesAtOnce of them, where there are more.
func (r *run) listMembers(ctx context.Context, users []uuid.UUID, after pgtype.TID) ([]db.MemberPlacesRow, error) {
	return read(ctx, r.Cleaner, "listing members", func(ctx context.Context, q *db.Queries) ([]db.MemberPlacesRow, error) {
		if err := q.SettingsForPlaces(ctx); err != nil {
			return nil, err
		}
		return q.MemberPlaces(ctx, db.MemberPlacesParams{UserIds: users, After: after, MaxMembers: int64(r.cfg.PlacesAtOnce)})
	})
}
