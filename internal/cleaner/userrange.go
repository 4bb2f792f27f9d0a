package cleaner

import "github.com/google/uuid"

// userRange is a range of user ids, both ends included: from moves on as the
// work proceeds, so what is left of the work is always a range again.
type userRange struct{ from, through uuid.UUID }

func allUsers() userRange { return userRange{from: uuid.Nil, through: uuid.Max} }

// after is what is left of the range behind id; ok is false when that is nothing.
func (u userRange) after(id uuid.UUID) (rest userRange, ok bool) {
	if id == u.through {
		return u, false
	}
	return userRange{from: idAfter(id), through: u.through}, true
}
