package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Ended is the result of a run that ended in a state, with an error or without.
func (r Run) Ended(state string, err error, took time.Duration) Run {
	r.State, r.Seconds, r.Targets = state, took.Seconds(), []Target{r.Members()}
	if refusal, is := errors.AsType[*Refusal](err); is {
		r.Breaker = &refusal.Breaker
	}
	if err != nil {
		r.Error, r.DatabaseError = err.Error(), database.SaidIn(err)
	}
	return r
}

// Counts are what the function that ends a run takes: the result, the phase that it
// came to, the rows of chunks that are done, whether the rest waits for the window, and
// how long calls took.
func (r Run) Counts(phase string, settled int64, waits bool, buckets []int64, slowest *float64) ([]byte, error) {
	counts, err := json.Marshal(struct {
		Run
		Phase   string   `json:"phase"`
		Settled int64    `json:"members_settled"`
		Waits   bool     `json:"waits_for_window"`
		Buckets []int64  `json:"call_ms_buckets"`
		Slowest *float64 `json:"call_ms_max"`
	}{r, phase, settled, waits, buckets, slowest})
	if err != nil {
		return nil, fmt.Errorf("writing the counts: %w", err)
	}
	return counts, nil
}

// Proven takes what that function counted itself for the result.
func (r *Run) Proven(row db.RunFinishRow) {
	r.MembersDeleted, r.Conversations, r.Candidates = row.MembersDeleted, row.Conversations, row.Candidates
	r.OwnersLost, r.OwnersKept, r.ConversationsEmptied = row.OwnersLost, row.OwnersKept, row.ConversationsEmptied
	r.UsersNew, r.UsersReturned, r.UsersRestarted, r.UsersDue = row.UsersNew, row.UsersReturned, row.UsersRestarted, row.UsersDue
	r.MembersDue, r.MembersKeptYoung, r.MembersHeld, r.MembersChanged = row.MembersDue, row.MembersKeptYoung, row.MembersHeld, row.MembersChanged
}
