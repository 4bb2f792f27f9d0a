package restore

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Config is what a restore goes by.
type Config struct {
	Lease       time.Duration
	LockTimeout time.Duration
	ChunkLimit  time.Duration // statement_timeout of a chunk
	PlanLimit   time.Duration // statement_timeout of the one statement that reads all backups in question
	Attempts    int           // of a statement that meets a passing error
	ChunkPages  int32         // pages of the backup (8 KiB each) per transaction
	Hold        time.Duration // how long the users restored are kept from the next runs
	ResponseAge time.Duration // a revert deletes by no older response of auth-service
	BatchSize   int           // users per call of a revert

	// Of a revert: users known to be alive and known to be deleted.
	CanaryAlive, CanaryDead []uuid.UUID

	Host     string // host:pid
	Version  string
	Settings []byte // JSON, kept with the run; the limits of a revert among them
}

// DefaultConfig has the documented defaults.
func DefaultConfig() Config {
	return Config{
		Lease: time.Minute, LockTimeout: 2 * time.Second, ChunkLimit: 30 * time.Second, PlanLimit: 10 * time.Minute,
		Attempts: 5, ChunkPages: 32, Hold: 30 * 24 * time.Hour, ResponseAge: 10 * time.Second, BatchSize: 100,
	}
}

// Result is what a restore or a revert did.
type Result struct {
	RunID            int64   `json:"run_id"`
	State            string  `json:"state"`
	MembersRestored  int64   `json:"members_restored"`
	MembersReverted  int64   `json:"members_reverted"`
	RowsRestored     int64   `json:"rows_restored"` // of all targets
	RowsReverted     int64   `json:"rows_reverted"`
	Users            int64   `json:"users"`
	Conversations    int64   `json:"conversations"`
	There            int64   `json:"there"`             // back already, the same
	ThereDiffers     int64   `json:"there_differs"`     // back already, with other values: left as they are
	ConversationGone int64   `json:"conversation_gone"` // left in the backup
	LeftSince        int64   `json:"left_since"`        // restored before, and deleted since by somebody else
	MembersLeft      int64   `json:"members_left"`      // chosen, but left as they are when their turn came
	UsersUnknown     int64   `json:"users_unknown"`     // revert: no valid response of auth-service
	Seconds          float64 `json:"seconds"`
	Breaker          *string `json:"breaker"` // of a revert that was refused
	Error            string  `json:"error,omitempty"`
	// DatabaseError is what the server says in Error, or nil.
	DatabaseError *database.Said `json:"database_error"`
	// Blocked is never nil: whose rows the database does not take, or keeps from a revert. Everybody else's are done.
	Blocked []Blocked `json:"blocked"`
}

// Blocked is one of them, and what the server says; its JSON form is a contract.
type Blocked struct {
	UserID uuid.UUID `json:"user_id"`
	database.Said
}

// block names a user once, in however many chunks the rows are.
func (so *Result) block(user uuid.UUID, cause error) {
	if !slices.ContainsFunc(so.Blocked, func(b Blocked) bool { return b.UserID == user }) {
		so.Blocked = append(so.Blocked, Blocked{user, *database.SaidIn(cause)})
	}
}
