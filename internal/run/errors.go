package run

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/fence"
	"github.com/nova-social/orphan-cleaner/internal/result"
)

// Checker checks users with auth-service.
type Checker interface {
	// Missing returns those of the ids (1 to 100) that were not in a complete and
	// valid response. Any error means that nothing is known about any of them.
	Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error)
}

// What [fence] says. Nothing was done, but where a run was paused or taken over
// while it was under way: what it has deleted stays deleted.
var (
	ErrAnotherRun = fence.ErrAnotherRun
	ErrNotDue     = fence.ErrNotDue
	ErrPaused     = fence.ErrPaused
	ErrTakenOver  = fence.ErrTakenOver
	ErrProof      = fence.ErrProof // the transaction was rolled back
)

var (
	// ErrRefused is returned when a breaker refused the run: the ledger is as it was.
	ErrRefused = result.ErrRefused
	// ErrPreflight is returned when a check failed. Nothing was done.
	ErrPreflight = errors.New("preflight failed")
	// ErrInterrupted is returned when the caller's context ended the run.
	ErrInterrupted = errors.New("interrupted; the next run goes on from here")
	// ErrIncomplete is returned when users or rows are left for the next run.
	ErrIncomplete = errors.New("incomplete")
)

// Refusal is an [ErrRefused] that names the breaker.
type Refusal = result.Refusal
