package result

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Ended is the result of a run that ended in a state, with an error or without.
func (r Run) Ended(state string, err error, took time.Duration) Run {
	r.State, r.Seconds = state, took.Seconds()
	if len(r.Targets) == 0 { // it ended before it knew them
		r.Targets = []Target{r.Members()}
	}
	if refusal, is := errors.AsType[*Refusal](err); is {
		r.Breaker = &refusal.Breaker
	}
	if err != nil {
		r.Error, r.DatabaseError = err.Error(), database.SaidIn(err)
	}
	return r
}

// Counts are what the function that ends a run takes: the result, the phase that it
// came to, by target the rows of chunks that are done, whether the rest waits for the
// window, and how long calls took.
func (r Run) Counts(phase string, t *Tally, buckets []int64, slowest *float64) ([]byte, error) {
	type settled struct {
		Target
		RowsSettled int64 `json:"rows_settled"`
	}
	targets := make([]settled, len(t.Targets))
	for i := range targets {
		targets[i] = settled{r.Targets[i], t.Settled.at(i)}
	}
	counts, err := json.Marshal(struct {
		Run
		Phase   string    `json:"phase"`
		Targets []settled `json:"targets"`
		Waits   bool      `json:"waits_for_window"`
		Buckets []int64   `json:"call_ms_buckets"`
		Slowest *float64  `json:"call_ms_max"`
	}{r, phase, targets, t.Waits, buckets, slowest})
	if err != nil {
		return nil, fmt.Errorf("writing the counts: %w", err)
	}
	return counts, nil
}

// Proof is what the function that ends a run counted itself.
type Proof struct {
	db.RunFinishRow
	Targets []db.RunTargetsRow
}

// Finish ends a run, in one transaction with reading what it did.
func Finish(ctx context.Context, q *db.Queries, params db.RunFinishParams) (proof Proof, err error) {
	if proof.RunFinishRow, err = q.RunFinish(ctx, params); err == nil {
		proof.Targets, err = q.RunTargets(ctx, params.RunID)
	}
	return proof, err
}

// Proven takes what is proven for the result.
func (r *Run) Proven(row Proof) {
	r.Conversations, r.Candidates = row.Conversations, row.Candidates
	r.UsersNew, r.UsersReturned, r.UsersRestarted, r.UsersDue = row.UsersNew, row.UsersReturned, row.UsersRestarted, row.UsersDue
	r.OwnersLost, r.OwnersKept, r.ConversationsEmptied = row.OwnersLost, row.OwnersKept, row.ConversationsEmptied
}
