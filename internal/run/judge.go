package run

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// maxInvalidShare is the share of batches without a valid response above which
// nothing is judged: the ledger stays as it is.
const maxInvalidShare = 0.10

// judge hands over what verify found. Until the database has let the run pass,
// the ledger is as it was; a breaker that refuses it is a [Refusal].
func (r *run) judge(ctx context.Context, f *found) error {
	r.enter("judge")
	r.rows.Targets = f.Targets
	if err := r.believable(f); err != nil {
		return err
	}
	if r.cfg.DryRun {
		return r.judgeDry(ctx, f)
	}
	report, err := json.Marshal(r.facts(f))
	if err != nil {
		return fmt.Errorf("writing what was found: %w", err)
	}
	judged, err := write(ctx, r, "judging the run", func(ctx context.Context, q *db.Queries) (db.RunJudgeRow, error) {
		return q.RunJudge(ctx, db.RunJudgeParams{RunID: r.fence.ID, Token: r.fence.Token, Report: report})
	})
	if err == nil && judged.Breaker != "" {
		err = &Refusal{Breaker: judged.Breaker, Message: judged.Message, Approve: fmt.Sprint("orphan-cleaner approve ", r.fence.ID)}
	}
	return err
}

// believable is an [ErrIncomplete] where too little is known to judge.
func (r *run) believable(f *found) error {
	if float64(f.invalid) > maxInvalidShare*float64(f.batches) {
		return fmt.Errorf("%w: %d of %d batches got no valid response, more than %.0f %%: nothing is swept; last cause: %w",
			ErrIncomplete, f.invalid, f.batches, 100*maxInvalidShare, r.cause)
	}
	if f.Canaries.Unknown > 0 {
		return fmt.Errorf("%w: %d canaries got no valid response: nothing is swept; last cause: %w", ErrIncomplete, f.Canaries.Unknown, r.cause)
	}
	return nil
}

// facts are what only the runner knows; the rest the database counts itself.
func (r *run) facts(f *found) map[string]any {
	return map[string]any{
		"users_checked": r.did.UsersChecked, "users_missing": r.did.UsersMissing, "users_unknown": r.did.UsersUnknown,
		"members_total": r.did.MembersTotal, "batch_calls": r.did.BatchCalls, "users_covered": f.Covered,
		"checked_after": f.After, "checked_through": f.Through,
		"alive_missing": f.Canaries.AliveMissing(), "dead_present": f.Canaries.DeadPresent,
	}
}

// Assess sums up what a run with these settings would make of missing users. What the
// open approval covers is not among what is to be judged.
func Assess(ctx context.Context, q *db.Queries, cfg settings.Run, missing []uuid.UUID) (sum db.RunAssessRow, err error) {
	open, err := q.ApprovalOpen(ctx)
	if err != nil {
		return sum, err
	}
	params := db.RunAssessParams{UserIds: notNull(missing), Retention: cfg.Retention, MaxGap: cfg.MaxGap}
	if len(open) > 0 {
		params.ApprovedRun = &open[0].RunID
	}
	return q.RunAssess(ctx, params)
}

// judgeDry judges a dry run by the same functions; nothing is written.
func (r *run) judgeDry(ctx context.Context, f *found) error {
	settings, err := r.cfg.JSON()
	if err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	breakers, err := read(ctx, r, "judging the run", func(ctx context.Context, q *db.Queries) ([]db.RunBreakersRow, error) {
		sum, err := Assess(ctx, q, r.cfg, f.missing)
		if err != nil {
			return nil, err
		}
		r.did.UsersNew, r.did.UsersRestarted, r.did.UsersDue = sum.UsersNew, sum.UsersRestarted, sum.UsersDue
		r.rows.Due, r.rows.KeptYoung, r.rows.Held = sum.RowsDue, sum.RowsYoung, sum.RowsHeld
		r.did.OwnersLost, r.did.OwnersKept, r.did.ConversationsEmptied = sum.AtStake[0], sum.AtStake[1], sum.AtStake[2]
		r.did.Candidates = r.did.UsersMissing
		facts := r.facts(f)
		facts["users_new"], facts["users_active"], facts["candidates"] = sum.UsersNewJudged, sum.UsersActive, sum.CandidatesJudged
		facts["targets"] = r.rows.Facts(sum.RowsDueJudged)
		encoded, err := json.Marshal(facts)
		if err != nil {
			return nil, fmt.Errorf("writing what was found: %w", err)
		}
		return q.RunBreakers(ctx, db.RunBreakersParams{Settings: settings, Facts: encoded})
	})
	if i := slices.IndexFunc(breakers, func(b db.RunBreakersRow) bool { return b.IsTripped }); err == nil && i >= 0 {
		return &Refusal{Breaker: breakers[i].Breaker, Message: breakers[i].Message, Approve: "orphan-cleaner run, then orphan-cleaner approve with the number of that run"}
	}
	return err
}
