package scan

import (
	"math"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// Share narrows the range to as many users as keep the promise that everybody is
// checked once in that time, even if the next run is missed. It returns false where
// that takes all of them, or no time is set.
func (s *Scan) Share(state db.CoverageStateRow, every time.Duration) bool {
	since := time.Duration(state.SecondsSince * float64(time.Second))
	cycle := every - 3*since
	if every == 0 || since <= 0 || cycle <= since {
		return false
	}
	users := max(state.Users, state.UsersSoFar)
	// One at least: there may have been no users so far.
	batches := max(1, math.Ceil(float64(users)*since.Seconds()/cycle.Seconds()/float64(s.BatchSize)))
	s.After, s.Limit = state.CursorID, int64(batches)*int64(s.BatchSize)
	return true
}
