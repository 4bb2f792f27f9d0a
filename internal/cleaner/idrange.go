package cleaner

import (
	"cmp"
	"encoding/binary"

	"github.com/google/uuid"
)

// idRange is a range of ids, of users or of conversations, both ends included:
// from moves on as the work proceeds, so what is left of the work is always a
// range again.
type idRange struct{ from, through uuid.UUID }

func allIDs() idRange { return idRange{from: uuid.Nil, through: uuid.Max} }

// after is what is left of the range behind id; ok is false when that is nothing.
func (r idRange) after(id uuid.UUID) (rest idRange, ok bool) {
	if id == r.through {
		return r, false
	}
	return idRange{from: idAfter(id), through: r.through}, true
}

// compare orders ids as the database does, byte by byte.
func compare(a, b uuid.UUID) int {
	if order := cmp.Compare(binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(b[:8])); order != 0 {
		return order
	}
	return cmp.Compare(binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(b[8:]))
}

// isBefore says whether an id is in a range that ends before until.
func isBefore(id, until uuid.UUID) bool { return until == uuid.Nil || compare(id, until) < 0 }

// idAfter is where what comes after an id begins: an until.
func idAfter(id uuid.UUID) uuid.UUID {
	for i := len(id) - 1; i >= 0; i-- {
		id[i]++
		if id[i] != 0 {
			break
		}
	}
	return id
}

// idBefore is the last id of a range that ends before until.
func idBefore(until uuid.UUID) uuid.UUID {
	for i := len(until) - 1; i >= 0; i-- {
		until[i]--
		if until[i] != 0xff {
			break
		}
	}
	return until
}
