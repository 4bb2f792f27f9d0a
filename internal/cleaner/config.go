package cleaner

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/fence"
)

// Checker asks auth-service about users.
type Checker interface {
	// Missing returns those of the ids (1 to 100) that a complete and valid
	// answer left out. Any error means that nothing is known about any of them.
	Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error)
}

// Config is what a run goes by. Every duration and limit is positive, but for those
// that say what 0 means.
type Config struct {
	BatchSize   int           // users per call, 1 to 100
	Concurrency int           // calls in flight
	Retention   time.Duration // missing for this long without a break: due
	MaxGap      time.Duration // a longer gap between sightings starts the clock anew
	CheckEvery  time.Duration // ask each user once in this time, a share of them in each run; 0: all in each run
	Lease       time.Duration // a run silent for longer is taken over
	DryRun      bool          // verify and judge, change nothing
	JudgeLate   bool          // ask about everybody even when the run is sure to be refused

	PageUsers        int           // distinct users per page of the scan
	ChunkTarget      time.Duration // how long a transaction of the sweep should last
	ChunkRows        int           // members per transaction of the sweep, at most
	SweepConnections int           // that delete at the same time
	PlacesAtOnce     int           // members whose places are kept in memory, 8 bytes each, about
	LockTimeout      time.Duration // per statement of a chunk
	ChunkLimit       time.Duration // statement_timeout of a chunk
	AnswerAge        time.Duration // an answer older than this is asked for again before a delete
	Attempts         int           // of a chunk or a read that meets a passing error

	Limits Limits

	// Users known to be living and known to be deleted; they need not be members.
	CanaryAlive, CanaryDead []uuid.UUID

	SchemaVersion int64 // the newest migration this program knows

	// Every makes Run return [ErrNotDue] unless the last run, of whichever runner,
	// was due this long ago. 0: a run is made at once.
	Every time.Duration

	Observer Observer // nil: nobody is told

	Host     string // host:pid
	Version  string
	Settings []byte // JSON, kept with the run
}

// Limits are the breakers' settings; see [Breakers].
type Limits struct {
	NewMissingShare float64 // of the users checked; 1 switches the breaker off
	DeleteShare     float64 // of the members of the table; 1 switches the breaker off
	DeleteMembers   int64
	RecentlyActive  int64 // missing users who read a message within a day
}

// DefaultConfig has the documented defaults.
func DefaultConfig() Config {
	const day = 24 * time.Hour
	return Config{
		BatchSize: 100, Concurrency: 8, Retention: 30 * day, MaxGap: 7 * day, Lease: time.Minute,
		PageUsers: 5000, ChunkTarget: 100 * time.Millisecond, ChunkRows: 10_000, SweepConnections: 2, PlacesAtOnce: 1_000_000, LockTimeout: 2 * time.Second, ChunkLimit: 30 * time.Second,
		AnswerAge: 10 * time.Second, Attempts: 5,
		Limits: Limits{NewMissingShare: 0.10, DeleteShare: 0.05, DeleteMembers: 100_000, RecentlyActive: 5},
	}
}

var (
	// ErrAnotherRun is returned while another run is open. Nothing was done.
	ErrAnotherRun = fence.ErrAnotherRun
	// ErrRefused is returned when a breaker refused the run. Nothing was deleted
	// and the ledger is as it was.
	ErrRefused = errors.New("refused by a breaker")
	// ErrPreflight is returned when a check failed. Nothing was done.
	ErrPreflight = errors.New("preflight failed")
	// ErrNotDue is returned to a schedule while no run is due. Nothing was done.
	ErrNotDue = fence.ErrNotDue
	// ErrTakenOver is returned to a runner whose run is no longer open.
	ErrTakenOver = fence.ErrTakenOver
	// ErrPaused is returned when runs were paused while this one was under way.
	ErrPaused = fence.ErrPaused
	// ErrProof is returned when rows deleted, audited and backed up are not the
	// same number. The transaction was rolled back.
	ErrProof = fence.ErrProof
	// ErrInterrupted is returned when the caller's context ended the run.
	ErrInterrupted = errors.New("interrupted; the next run goes on from here")
	// ErrIncomplete is returned when users or chunks were left over.
	ErrIncomplete = errors.New("incomplete")
)

// Result is what a run did; its JSON form is a contract.
type Result struct {
	RunID            int64   `json:"run_id"`
	State            string  `json:"state"`
	UsersChecked     int64   `json:"users_checked"`
	UsersMissing     int64   `json:"users_missing"`
	UsersUnknown     int64   `json:"users_unknown"`
	UsersNew         int64   `json:"users_new"`
	UsersReturned    int64   `json:"users_returned"`
	UsersDue         int64   `json:"users_due"`
	MembersDue       int64   `json:"members_due"`
	MembersDeleted   int64   `json:"members_deleted"`
	Conversations    int64   `json:"conversations"`
	MembersKeptYoung int64   `json:"members_kept_young"`
	BatchCalls       int64   `json:"batch_calls"`
	Breaker          *string `json:"breaker"`
	Seconds          float64 `json:"seconds"`

	MembersTotal     int64  `json:"members_total"`
	MembersHeld      int64  `json:"members_held"`
	ChunksLeft       int64  `json:"chunks_left"`
	UsersResurrected int64  `json:"users_resurrected"`
	DryRun           bool   `json:"dry_run"`
	Error            string `json:"error,omitempty"`
}

// Progress is a moment of a run, for whoever watches it.
type Progress struct {
	Phase                                                                         string
	MembersSeen, UsersChecked, UsersMissing, UsersDue, MembersDue, MembersDeleted int64
}
