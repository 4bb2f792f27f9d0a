package cleaner

import (
	"cmp"
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// turn is whom a run asks about: everybody, or those whose turn it is and all
// candidates. Whose turn it is decides [db.Queries.CoverageShare].
type turn struct {
	ranges []*askedRange // in the order of ids
	void   []span        // users without a correct answer; see stage
}

// askedRange is one range of user ids: those before until, where zeros stand for
// the end.
type askedRange struct {
	from, until uuid.UUID
	maxUsers    int64 // 0: all of them
	expected    int64 // users when it was last asked about
	asked       int64 // users now
	end         uuid.UUID
}

// span is the users of one batch that are neighbours in one range.
type span struct {
	at            int // the range
	first, last   uuid.UUID
	before, users int64 // users of the range in front of it and in it
}

// isWhole says whether the run asks about everybody.
func (t *turn) isWhole() bool {
	at := uuid.Nil
	for _, a := range t.ranges {
		if a.from != at || a.maxUsers > 0 {
			return false
		}
		at = a.until
	}
	return at == uuid.Nil && len(t.ranges) > 0
}

// takeShare finds out whom to ask about, and says so where that is not everybody.
func (r *run) takeShare(ctx context.Context) error {
	every := r.cfg.CheckEvery
	if r.approval.ApprovalID != 0 {
		// The users that were approved are in a refusal, not in the ledger: who is
		// no candidate yet would wait for a turn, and the approval for nobody.
		every = 0
	}
	turns, err := read(ctx, r.Cleaner, "reading whose turn it is", func(ctx context.Context, q *db.Queries) ([]db.CoverageShareRow, error) {
		return q.CoverageShare(ctx, db.CoverageShareParams{CheckEvery: every, BatchSize: int64(r.cfg.BatchSize)})
	})
	if err != nil {
		return err
	}
	users, all := int64(0), int64(0)
	for _, row := range turns {
		r.turn.ranges = append(r.turn.ranges, &askedRange{from: row.FromUser, until: row.UntilUser, maxUsers: row.MaxUsers, expected: row.Users})
		all = row.AllUsers
		if row.MaxUsers > 0 {
			row.Users = min(row.Users, row.MaxUsers)
		}
		users += row.Users
	}
	if !r.turn.isWhole() {
		r.log.Info("Checking a share of the users, and all candidates", "users_about", users, "of_about", all, "check_every", every)
	}
	return nil
}

// note adds a user to a batch, and to its spans where a range holds the user.
func (t *turn) note(b *batch, user uuid.UUID, at int) {
	b.ids = append(b.ids, user)
	if at == elsewhere {
		return
	}
	if last := len(b.spans) - 1; last >= 0 && b.spans[last].at == at {
		b.spans[last].last = user
		b.spans[last].users++
		return
	}
	b.spans = append(b.spans, span{at: at, first: user, last: user, before: t.ranges[at].asked, users: 1})
}

// taker is told of each user to be asked about, and by which range.
type taker func(user uuid.UUID, at int) error

// elsewhere is a user in none of the ranges that are scanned.
const elsewhere = -1

// scanRange takes the users of a range, page by page.
func (r *run) scanRange(ctx context.Context, at int, take taker) error {
	a := r.turn.ranges[at]
	a.end = a.until
	left := idRange{from: a.from, through: idBefore(a.until)}
	for more := true; more; {
		most := int64(r.cfg.PageUsers)
		if a.maxUsers > 0 {
			most = min(most, a.maxUsers-a.asked)
		}
		page, err := read(ctx, r.Cleaner, "reading user ids", func(ctx context.Context, q *db.Queries) (db.MemberUserPageRow, error) {
			return q.MemberUserPage(ctx, db.MemberUserPageParams{FromUser: left.from, ThroughUser: left.through, MaxUsers: most})
		})
		if err != nil {
			return err
		}
		r.report(func(p *Progress) { p.MembersSeen += page.Members })
		for _, user := range page.Users {
			if err := take(user, at); err != nil {
				return err
			}
			a.asked++
		}
		if int64(len(page.Users)) < most {
			return nil
		}
		if left, more = left.after(page.Users[len(page.Users)-1]); more && a.asked == a.maxUsers {
			a.end = left.from
			return nil
		}
	}
	return nil
}

// takeCandidates takes the candidates that no range holds, those who are members
// still: the ledger is whole after each run, and whoever is due is found out.
func (r *run) takeCandidates(ctx context.Context, take taker) error {
	left := allIDs()
	for more := true; more; {
		page, err := read(ctx, r.Cleaner, "reading candidates", func(ctx context.Context, q *db.Queries) ([]db.CandidateMemberPageRow, error) {
			return q.CandidateMemberPage(ctx, db.CandidateMemberPageParams{
				FromUser: left.from, ThroughUser: left.through, MaxUsers: int64(r.cfg.PageUsers),
			})
		})
		if err != nil {
			return err
		}
		for _, c := range page {
			if c.Members == 0 || r.turn.holds(c.UserID) {
				continue
			}
			r.report(func(p *Progress) { p.MembersSeen += c.Members })
			if err := take(c.UserID, elsewhere); err != nil {
				return err
			}
		}
		if len(page) < r.cfg.PageUsers {
			return nil
		}
		left, more = left.after(page[len(page)-1].UserID)
	}
	return nil
}

// holds says whether a user is in a part that was scanned.
func (t *turn) holds(user uuid.UUID) bool {
	i, exact := slices.BinarySearchFunc(t.ranges, user, func(a *askedRange, user uuid.UUID) int { return compare(a.from, user) })
	if !exact {
		i--
	}
	return i >= 0 && isBefore(user, t.ranges[i].end)
}

// written is what became of the share, for the run's own record. Users without a
// correct answer keep the time of their last one, and are next whatever happens.
func (t *turn) written(runID int64) db.CoverageWriteParams {
	params := db.CoverageWriteParams{RunID: runID}
	add := func(from, until uuid.UUID, users int64, checked, unknown bool) {
		last := len(params.FromUsers) - 1
		// What was checked together is one row from now on: void batches must not
		// leave the ids in more and more pieces.
		if checked && last >= 0 && params.AreChecked[last] && params.UntilUsers[last] == from {
			params.UntilUsers[last] = until
			params.Users[last] += users
			return
		}
		params.FromUsers, params.UntilUsers = append(params.FromUsers, from), append(params.UntilUsers, until)
		params.Users = append(params.Users, users)
		params.AreChecked, params.AreUnknown = append(params.AreChecked, checked), append(params.AreUnknown, unknown)
	}
	slices.SortFunc(t.void, func(a, b span) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.before, b.before)) })
	void := t.void
	for at, a := range t.ranges {
		from, done := a.from, int64(0)
		for len(void) > 0 && void[0].at == at {
			first := void[0]
			last := first
			for void = void[1:]; len(void) > 0 && void[0].at == at && void[0].before == last.before+last.users; void = void[1:] {
				last = void[0]
			}
			if first.before > done {
				add(from, first.first, first.before-done, true, false)
				from = first.first
			}
			until := idAfter(last.last)
			unknown := last.before + last.users - first.before
			if done = last.before + last.users; done == a.asked {
				until = a.end
			}
			add(from, until, unknown, false, true)
			from = until
		}
		if done < a.asked || a.asked == 0 {
			add(from, a.end, a.asked-done, true, false)
		}
		if a.end != a.until {
			add(a.end, a.until, max(a.expected-a.asked, 0), false, false)
		}
	}
	return params
}
