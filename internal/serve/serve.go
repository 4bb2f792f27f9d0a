// Package serve makes a run per interval, across any number of replicas. It
// keeps no clock of its own: the database says when the next run is due, and
// lets one replica begin it.
package serve

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

// Schedule is what the database says about the next run.
type Schedule struct {
	DueIn    time.Duration // not positive: now
	RunOpen  bool
	LapsesIn time.Duration // until the open run may be given up
	Paused   bool
}

// Service makes the runs.
type Service struct {
	Schedule func(ctx context.Context) (Schedule, error)
	// Ready is what a run needs, as far as it is cheap to ask.
	Ready func(ctx context.Context) Conditions
	// Make makes the run that is due, or returns [run.ErrNotDue] or
	// [run.ErrAnotherRun] when another replica was faster.
	Make     func(ctx context.Context) (result.Run, error)
	Progress func() result.Progress
	Interval time.Duration
	Log      *slog.Logger

	life    life
	trouble string // that was logged last
	paused  bool
	nextAt  time.Time // of the next run, that was logged last
}

const (
	// pollEvery bounds how long the service goes without a look at the database:
	// a run elsewhere may have been killed, or runs resumed.
	pollEvery = 15 * time.Second
	// askLimit bounds one look.
	askLimit = 5 * time.Second
	// maxJitter spreads the replicas that wait for the same moment.
	maxJitter = 2 * time.Second
)

// Run makes runs until the context ends, the last of which it waits for.
func (s *Service) Run(ctx context.Context) {
	again := &backoff.ExponentialBackOff{
		InitialInterval: 500 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: pollEvery,
	}
	for {
		s.life.beat(false)
		wait, err := s.step(ctx)
		if err != nil {
			wait = again.NextBackOff()
		} else {
			again.Reset()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// step makes a run if one is due, and says when to look again. An error is
// trouble that was logged: try again soon.
func (s *Service) step(ctx context.Context) (time.Duration, error) {
	asking, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	next, err := s.Schedule(asking)
	if err == nil && s.notePause(next.Paused) {
		return min(s.Interval, pollEvery), nil
	}
	// Which replica makes the run is settled when it is opened.
	open := next.RunOpen && next.LapsesIn > 0
	if err == nil && (open || next.DueIn > 0) {
		s.noteNext(next.DueIn)
		return s.untilNext(next, open), nil
	}
	if err == nil {
		err = s.Ready(asking).Err()
	}
	if ctx.Err() != nil {
		return 0, nil
	}
	s.note(err)
	if err != nil {
		return 0, err
	}
	s.life.beat(true)
	result, err := s.Make(ctx)
	switch {
	case err == nil, result.RunID != 0, errors.Is(err, run.ErrNotDue):
		// It is on record, and counts for the schedule whatever became of it.
		return 0, nil
	case errors.Is(err, run.ErrAnotherRun):
		return s.jitter(), nil
	default:
		return 0, err
	}
}

// untilNext is the time until something may have to be done: until the run is
// due, or until the open one has lapsed.
func (s *Service) untilNext(next Schedule, open bool) time.Duration {
	wait := next.DueIn
	if open && (wait <= 0 || next.LapsesIn < wait) {
		wait = next.LapsesIn
	}
	return min(wait+s.jitter(), pollEvery)
}

func (s *Service) jitter() time.Duration {
	// Not nothing: the moment must have come when the wait is over.
	return time.Millisecond + rand.N(min(s.Interval/20, maxJitter))
}

// note logs trouble once, and its end.
func (s *Service) note(err error) {
	switch {
	case err != nil && s.trouble != err.Error():
		s.trouble = err.Error()
		s.Log.Warn("Not ready for a run, will try again", "error", err)
	case err == nil && s.trouble != "":
		s.trouble = ""
		s.Log.Info("Ready for runs again")
	}
}

// noteNext logs once when the next run is due.
func (s *Service) noteNext(dueIn time.Duration) {
	at := time.Now().Add(dueIn)
	if dueIn <= 0 || at.Sub(s.nextAt).Abs() < time.Second {
		return
	}
	s.nextAt = at
	s.Log.Info("Next run", "at", at.UTC().Format(time.RFC3339), "in", dueIn.Round(time.Second).String())
}

func (s *Service) notePause(paused bool) bool {
	if paused && !s.paused {
		s.Log.Warn("Runs are paused; see why with: orphan-cleaner status; resume them with: orphan-cleaner resume")
	}
	if !paused && s.paused {
		s.Log.Info("Runs were resumed")
	}
	s.paused = paused
	return paused
}

// How long the loop may be silent before it counts as stuck.
const (
	// idleLimit is far more than one wait and one look take.
	idleLimit = 2 * time.Minute
	// runLimit is for a run that makes no progress. Its longest statement is
	// bounded by five minutes, and every call and every other statement by less.
	runLimit = 15 * time.Minute
)

// life tells a loop that waits from one that is stuck.
type life struct {
	mu       sync.Mutex
	seen     time.Time // of the last sign of life
	running  bool
	progress result.Progress
}

func (l *life) beat(running bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen, l.running = time.Now(), running
}

// silent is for how long nothing has moved, and whether that is too long.
func (l *life) silent(progress result.Progress) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := idleLimit
	if l.running {
		limit = runLimit
		if progress != l.progress {
			l.progress, l.seen = progress, time.Now()
		}
	}
	quiet := time.Since(l.seen)
	return quiet, !l.seen.IsZero() && quiet > limit
}
