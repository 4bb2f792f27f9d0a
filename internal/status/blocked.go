package status

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/blocked"
)

// BlockedUser is a user whose rows something in the database refuses to delete.
type BlockedUser struct {
	BlockedSince time.Time `json:"blocked_since"`
	blocked.User
}

// MaxBlocked bounds how many of them are read.
const MaxBlocked = 1000

// ReadBlocked reads them, longest first.
func ReadBlocked(ctx context.Context, q *db.Queries) ([]BlockedUser, error) {
	rows, err := q.CandidateBlocked(ctx, MaxBlocked)
	if err != nil {
		return nil, err
	}
	users := make([]BlockedUser, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.BlockedBy, &users[i].User); err != nil {
			return nil, fmt.Errorf("reading why user %s is blocked: %w", row.UserID, err)
		}
		users[i].UserID, users[i].BlockedSince = row.UserID, row.BlockedSince.UTC()
	}
	return users, nil
}
