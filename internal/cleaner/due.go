package cleaner

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// duePage is a page of the due users of a run, in the order of their ids, with
// where staging saw the members that would go.
type duePage struct {
	users  []uuid.UUID
	fates  []fate // of each user
	spots  []spot // of the members of all of them, in the order of the table
	isLast bool
}

// fate is what staging knows of a due user.
type fate uint8

const (
	leaving fate = iota // all of its members would go
	staying             // it has members that would not
	unknown             // it has too many members to keep their places
)

const (
	// mostDue is how many users a page has at most; a spot has room for two.
	mostDue = 1_000_000
	// A page is read piece by piece: as it comes it takes five times the memory.
	pieceUsers, pieceMembers = 20_000, 100_000
	// listedAtOnce is how many members are listed at once at most.
	listedAtOnce = 100_000
)

// spot is a place in the table, and which user of a list has a member there, in one
// number: 32 bits of block, 11 of row, which is enough for blocks of 32 kB, 21 of user. Their order is that of the table.
type spot uint64

const rowBits, userBits = 11, 21

func spotOf(place pgtype.TID, user int) spot {
	return spot(place.BlockNumber)<<(rowBits+userBits) | spot(place.OffsetNumber)<<userBits | spot(user) //nolint:gosec // below mostDue
}

func (s spot) place() pgtype.TID {
	return pgtype.TID{
		BlockNumber: uint32(s >> (rowBits + userBits)), OffsetNumber: uint16(s >> userBits & (1<<rowBits - 1)), Valid: true,
	}
}

func (s spot) user() int { return int(s & (1<<userBits - 1)) }

// readDue reads the page of due users that begins with an id: as many as have
// PlacesAtOnce members and few more, in whole batches where others follow.
func (r *run) readDue(ctx context.Context, from uuid.UUID) (duePage, error) {
	page := r.newDuePage()
	for !page.isLast && len(page.users) < mostDue && len(page.spots) < r.cfg.PlacesAtOnce {
		piece, err := r.readDuePiece(ctx, from, r.cfg.PlacesAtOnce-len(page.spots))
		if err != nil {
			return page, err
		}
		if len(piece) == 0 {
			page.isLast = true
			break
		}
		for _, user := range piece {
			page.add(user)
		}
		last := piece[len(piece)-1].UserID
		page.isLast = last == uuid.Max
		from = idAfter(last)
	}
	if !page.isLast {
		page.cut(max(len(page.users)/r.cfg.BatchSize*r.cfg.BatchSize, r.cfg.BatchSize))
	}
	slices.Sort(page.spots)
	return page, nil
}

// newDuePage has room for what staging counted, so that nothing is copied as it grows.
func (r *run) newDuePage() duePage {
	users := min(r.facts.UsersDue, mostDue)
	members := min(r.facts.MembersDue, int64(r.cfg.PlacesAtOnce)+pieceMembers)
	return duePage{users: make([]uuid.UUID, 0, users), fates: make([]fate, 0, users), spots: make([]spot, 0, members)}
}

func (r *run) readDuePiece(ctx context.Context, from uuid.UUID, members int) ([]db.SightingDuePageRow, error) {
	return read(ctx, r.Cleaner, "reading due users", func(ctx context.Context, q *db.Queries) ([]db.SightingDuePageRow, error) {
		if err := q.SettingsForKeys(ctx); err != nil {
			return nil, err
		}
		return q.SightingDuePage(ctx, db.SightingDuePageParams{
			RunID: r.id, FromUser: from, MaxUsers: pieceUsers, MaxMembers: int64(min(pieceMembers, members)),
		})
	})
}

func (p *duePage) add(user db.SightingDuePageRow) {
	which := staying
	switch {
	case user.Places == nil:
		which = unknown
	case user.IsLeaving:
		which = leaving
	}
	for _, place := range user.Places {
		p.spots = append(p.spots, spotOf(place, len(p.users)))
	}
	p.users, p.fates = append(p.users, user.UserID), append(p.fates, which)
}

// cut leaves the first so many users.
func (p *duePage) cut(users int) {
	if users >= len(p.users) {
		return
	}
	p.users, p.fates = p.users[:users], p.fates[:users]
	p.spots = slices.DeleteFunc(p.spots, func(s spot) bool { return s.user() >= users })
}

// choose marks some users of the page, given by id, and sorts them by their fates.
func (p *duePage) choose(users []uuid.UUID) (isChosen []bool, fated [3][]uuid.UUID) {
	isChosen = make([]bool, len(p.users))
	for i, user := range p.users {
		if len(users) == 0 {
			break
		}
		if user == users[0] {
			isChosen[i], users = true, users[1:]
			fated[p.fates[i]] = append(fated[p.fates[i]], user)
		}
	}
	return isChosen, fated
}

// listMembers lists the members of users, given by id, behind a place, in the order
// of the table; more says that there may be others behind them.
func (r *run) listMembers(ctx context.Context, users []uuid.UUID, after pgtype.TID) (spots []spot, last pgtype.TID, more bool, err error) {
	most := min(r.cfg.PlacesAtOnce, listedAtOnce)
	listed, err := read(ctx, r.Cleaner, "listing members", func(ctx context.Context, q *db.Queries) ([]db.MemberPlacesRow, error) {
		if err := q.SettingsForPlaces(ctx); err != nil {
			return nil, err
		}
		return q.MemberPlaces(ctx, db.MemberPlacesParams{UserIds: users, After: after, MaxMembers: int64(most)})
	})
	if err != nil || len(listed) == 0 {
		return nil, after, false, err
	}
	spots = make([]spot, len(listed))
	for i, member := range listed {
		user, _ := slices.BinarySearchFunc(users, member.UserID, compare)
		spots[i] = spotOf(member.Place, user)
	}
	return spots, listed[len(listed)-1].Place, len(listed) == most, nil
}
