// Package blocked is about due users whose rows something in the database refuses
// to delete: a foreign key, a trigger, a lock that somebody keeps.
package blocked

import (
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

// User is one of them; its JSON form is a contract, and what the ledger keeps.
type User struct {
	UserID uuid.UUID `json:"user_id"`
	Rows   int64     `json:"rows"` // as judged due
	database.Said
}

// maxNamed bounds how many users a run names; the counts are of all.
const maxNamed = 1000

// maxCause bounds a cause that the server has not said, in bytes.
const maxCause = 600

// Everybody is how many users, not blocked before, are enough where no row was
// deleted: then nobody's can be.
const Everybody = 100

// Name adds the user of a chunk, with so many rows, to those named, as far as there is
// room: one of several nobody knows to be the cause.
func Name(named []User, chunk []db.RunDuePageRow, rows int64, cause error) []User {
	if len(chunk) > 1 || len(named) == maxNamed {
		return named
	}
	said := database.SaidIn(cause)
	if said == nil {
		said = &database.Said{Message: safetext.Line(cause.Error(), maxCause)}
	}
	return append(named, User{chunk[0].UserID, rows, *said})
}

// How often a run splits chunks: what refuses many users' rows must not cost calls
// and transactions without end. The next run has those set apart who were found, and
// finds more. Where a statement waited until a limit, each try may take half a minute:
// such a chunk is split as often as pieces of it succeed, and twice more. What makes
// everybody wait costs five tries.
const (
	maxSplits     = 1000
	maxSlowSplits = 16
	slowCredit    = 2
)

// Splits counts how often a run has split a chunk.
type Splits struct{ quick, slow, worked atomic.Int64 }

// May says whether a chunk that failed may be split, and counts it.
func (s *Splits) May(cause error) bool {
	switch {
	case database.OfRows(cause):
		return s.quick.Add(1) <= maxSplits
	case database.Contended(cause):
		return s.slow.Add(1) <= min(slowCredit+s.worked.Load(), maxSlowSplits)
	default:
		return false
	}
}

// Worked counts a chunk that succeeded, if it is a piece of one that waited until a limit.
func (s *Splits) Worked(isPiece bool) {
	if isPiece {
		s.worked.Add(1)
	}
}
