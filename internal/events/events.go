// Package events tells others what finished runs did: who left a conversation
// because a run deleted the member, and who is back because it was restored. The
// audit is the outbox: events are read behind a cursor in the database, one for
// each sink, which moves once the sink has them. So each event arrives at least
// once, and never before the COMMIT of its run's end.
package events

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// Event is one member that a run deleted or restored.
type Event struct {
	// ID is the same whenever, and by whichever runner, the event is told.
	ID             uuid.UUID `json:"id"`
	Type           string    `json:"type"` // member.left, member.joined, member.promoted or member.demoted
	ConversationID uuid.UUID `json:"conversation_id"`
	UserID         uuid.UUID `json:"user_id"`
	RunID          int64     `json:"run_id"`
	At             time.Time `json:"at"` // of the change; for member.joined the end of its run
	// Role is what the member has become, by member.promoted and member.demoted.
	Role string `json:"role,omitempty"`
}

// newEvent is the event of a row of the audit or of restores.
func newEvent(row db.EventPageRow) Event {
	name := fmt.Sprintf("orphan-cleaner:%d:%s:%s:%s", row.RunID, row.Kind, row.ConversationID, row.UserID)
	return Event{
		ID: uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)), Type: row.Kind,
		ConversationID: row.ConversationID, UserID: row.UserID, RunID: row.RunID, At: row.HappenedAt.UTC(), Role: row.Role,
	}
}

// Sink is where events go.
type Sink interface {
	// Name names the cursor.
	Name() string
	// Deliver hands over events of one run, in their order, and returns how many of
	// them, counted from the first, the sink is certain to have. After an error the rest
	// is handed over again.
	Deliver(ctx context.Context, events []Event) (int, error)
	Close() error
}
