// Package settings holds what a run goes by.
package settings

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/window"
)

// Run is what a run goes by. Every duration and limit is positive, but for those
// that say what 0 means.
type Run struct {
	BatchSize   int           // users per call, 1 to 100
	Concurrency int           // calls in flight
	Retention   time.Duration // missing for this long without interruption: due
	MaxGap      time.Duration // a longer gap between sightings restarts the clock
	CheckEvery  time.Duration // check each user once in this time, a part of them in each run; 0: all in each run
	Lease       time.Duration // a run silent for longer is taken over
	DryRun      bool          // verify and judge, change nothing

	PageUsers        int           // distinct users per page of the scan
	ChunkTime        time.Duration // how long a transaction of the sweep should last
	ChunkRows        int           // rows per transaction of the sweep, at most
	SweepConnections int           // that delete at the same time
	LockTimeout      time.Duration // per statement
	ChunkLimit       time.Duration // statement_timeout of a chunk
	ResponseAge      time.Duration // no delete goes by an older response of auth-service
	Attempts         int           // of a statement that meets a passing error

	NiceRatio float64       // seconds of sleep after each second of deleting; 0: none
	MaxLag    time.Duration // the sweep sleeps while a standby lags more; 0: no limit

	Window window.Weekly // outside of it the sweep deletes nothing; what is due waits

	Limits Limits

	// Users known to be alive and known to be deleted; they need not have rows.
	CanaryAlive, CanaryDead []uuid.UUID

	// Every makes a run fail unless the last one, of whichever runner, was due this
	// long ago. 0: a run is made at once.
	Every time.Duration

	Host    string         // host:pid
	Version string         // of this program
	Flags   map[string]any // other settings, kept with the run for the reader
}

// DefaultRun has the documented defaults.
func DefaultRun() Run {
	const day = 24 * time.Hour
	return Run{
		BatchSize: 100, Concurrency: 8, Retention: 30 * day, MaxGap: 7 * day, Lease: time.Minute,
		PageUsers: 20_000, ChunkTime: 100 * time.Millisecond, ChunkRows: 10_000, SweepConnections: 2,
		LockTimeout: 2 * time.Second, ChunkLimit: 30 * time.Second, ResponseAge: 10 * time.Second, Attempts: 5,
		Limits: DefaultLimits(),
	}
}

// JSON is what is stored with the run and binds it: retention and max-gap in
// seconds, and limits by name.
func (r Run) JSON() ([]byte, error) {
	kept := map[string]any{"retention": r.Retention.Seconds(), "max-gap": r.MaxGap.Seconds(), "flags": r.Flags}
	if !r.Window.Open(time.Now()) {
		kept["outside-window"] = true // such a run uses no approval: it would be in vain
	}
	for name, limit := range r.Limits {
		kept[name] = limit
	}
	return json.Marshal(kept)
}

// Limits are the figures that the breakers compare with, by the breaker's name:
// shares of 1, where 1 switches a breaker off, or numbers of rows or users. The
// rules themselves are in the function orphan_cleaner.breakers.
type Limits map[string]float64

// DefaultLimits are the documented defaults.
func DefaultLimits() Limits {
	return Limits{
		"new-missing-share": 0.10, "new-missing-rate": 0.01, "candidate-share": 0.15,
		"delete-share": 0.05, "delete-share-7d": 0.05, "delete-share-30d": 0.15,
		"delete-rows": 100_000, "history": 10, "recently-active": 5,
	}
}

// TargetLimitNames are the limits that a target can have of its own: those that count its rows.
func TargetLimitNames() []string {
	return []string{"delete-share", "delete-share-7d", "delete-share-30d", "delete-rows", "history"}
}

// IsShare says that a limit is a share of 1.
func IsShare(name string) bool { return strings.Contains(name, "-share") || name == "new-missing-rate" }

// CheckLimit is an error that says what a limit must be, or nil.
func CheckLimit(name string, limit float64) error {
	switch {
	case IsShare(name) && !(limit >= 0 && limit <= 1): // NaN is neither
		return errors.New("it must be a share: 0 to 1, where 1 switches the breaker off")
	case !(limit >= 0) || math.IsInf(limit, 0):
		return errors.New("it must be 0 or more")
	}
	return nil
}

// BreakerNames are all breakers, in the order in which they are judged.
func BreakerNames() []string {
	return []string{
		"clock", "canary-alive", "canary-dead", "recently-active", "user-count", "new-missing-share", "new-missing-rate",
		"candidate-share", "delete-share", "delete-share-7d", "delete-share-30d", "delete-rows", "history",
	}
}

// Approvable says whether a refusal by this breaker can be approved: one that
// doubts auth-service or the clock cannot.
func Approvable(breaker string) bool {
	switch breaker {
	case "clock", "canary-alive", "canary-dead", "recently-active":
		return false
	}
	return true
}
