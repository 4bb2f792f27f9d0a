package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

// victim is a user whose rows a thief wants to be deleted.
type victim struct {
	id   uuid.UUID
	rows int64
}

// thief has the runner's login and is auth-service as well: no canary, no second check
// and no honest run is left. Each day it reports some more living users as missing,
// those with the most rows and who never read, so few that a month later the rows that
// come due each day are just below every limit of the database.
type thief struct {
	victims []victim
	lots    [][]uuid.UUID // reported on each of the last days, until their rows are gone
}

const (
	dailyShare = 0.0049 // of the rows: just below 15 % in 30 days
	named      = 32     // days for which a victim is reported: longer than the retention
)

// steal is one run of the thief's, in the place of the product's.
func (p *play) steal(ctx context.Context) (ended result.Run, err error) {
	if p.thief == nil {
		rows, err := p.pool.Query(ctx, victimsSQL)
		if err != nil {
			return ended, err
		}
		p.thief = &thief{}
		if p.thief.victims, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (v victim, err error) { return v, row.Scan(&v.id, &v.rows) }); err != nil {
			return ended, err
		}
	}
	p.thief.choose(int64(dailyShare * float64(p.out.RowsBefore)))
	missing := slices.Concat(p.thief.lots...)
	for _, id := range missing {
		p.lost[id] = true
	}
	q, token := database.Queries(p.pool), uuid.New()
	encoded, err := p.cfg.JSON()
	if err != nil {
		return ended, err
	}
	begun, err := q.RunBegin(ctx, db.RunBeginParams{Token: token, Kind: "clean", Phase: "verify", Settings: encoded, Lease: time.Minute, Host: "thief", Version: "none"})
	if err != nil {
		return ended, fmt.Errorf("beginning a forged run: %w", err)
	}
	ended.RunID = begun.RunID
	oldest, err := q.SnapshotOldest(ctx)
	if err != nil {
		return ended, err
	}
	if _, err := q.RunStage(ctx, db.RunStageParams{RunID: begun.RunID, Token: token, Missing: missing, Unknown: []uuid.UUID{}}); err != nil {
		return ended, fmt.Errorf("staging lies: %w", err)
	}
	report, err := json.Marshal(map[string]any{
		"users_checked": 1_000_000_000, "users_missing": len(missing), "users_unknown": 0, "users_covered": len(p.users),
		"members_total": p.out.RowsBefore, "batch_calls": 1, "alive_missing": 0, "dead_present": 0,
	})
	if err != nil {
		return ended, err
	}
	judged, err := q.RunJudge(ctx, db.RunJudgeParams{RunID: begun.RunID, Token: token, Report: report})
	if err != nil {
		return ended, fmt.Errorf("judging a forged run: %w", err)
	}
	state := "succeeded"
	if judged.Breaker != "" {
		state, err = "refused", &run.Refusal{Breaker: judged.Breaker, Message: judged.Message}
	} else {
		for part := range slices.Chunk(missing, p.cfg.BatchSize) {
			swept, err := q.RunSweepChunk(ctx, db.RunSweepChunkParams{RunID: begun.RunID, Token: token, UserIds: part, CheckedFrom: oldest, MaxRows: 100_000})
			if err != nil {
				return ended, fmt.Errorf("sweeping for a thief: %w", err)
			}
			ended.MembersDeleted += result.Rows(swept.RowsDeleted).Sum()
		}
	}
	if _, finishErr := q.RunFinish(ctx, db.RunFinishParams{RunID: begun.RunID, Token: token, State: state, Counts: []byte("{}")}); finishErr != nil {
		return ended, fmt.Errorf("finishing a forged run: %w", finishErr)
	}
	return ended, err
}

// choose reports victims with so many rows more.
func (t *thief) choose(rows int64) {
	lot := []uuid.UUID{}
	for len(t.victims) > 0 && t.victims[0].rows <= rows {
		rows -= t.victims[0].rows
		lot, t.victims = append(lot, t.victims[0].id), t.victims[1:]
	}
	t.lots = append(t.lots, lot)
	t.lots = t.lots[max(len(t.lots)-named, 0):]
}
