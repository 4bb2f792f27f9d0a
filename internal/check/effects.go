package check

import (
	"context"
	"fmt"

	"github.com/nova-social/orphan-cleaner/gen/db"
)

// sampled is how many conversations are counted: some hundred milliseconds.
const sampled = 1000

// MemberCounts says how many conversations of a sample have a member_count that is
// not the number of their members, and warns until somebody has chosen what becomes
// of it. No run looks at it: it would say so every hour.
func (c *Preflight) MemberCounts(ctx context.Context) Finding {
	const name, choose = "member-count", "orphan-cleaner effects set counter=on, =trigger if one of yours keeps it, or =unread; see docs/effects.md"
	choices, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) ([]db.OrphanCleanerEffect, error) { return q.EffectList(ctx) })
	if err != nil {
		return Finding{name, Warn, "what was chosen cannot be read: " + err.Error(), readHint(err)}
	}
	choice := ""
	for _, chosen := range choices {
		if chosen.Name == "counter" {
			choice = chosen.Choice
		}
	}
	if choice == "unread" {
		return Finding{name, OK, "nobody reads conversations.member_count", ""}
	}
	s, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (db.EffectCounterSampleRow, error) {
		return q.EffectCounterSample(ctx, sampled)
	})
	if err != nil {
		return Finding{name, Warn, "it cannot be compared: " + err.Error(), "psql -f sql/roles.sql"}
	}
	if !s.IsThere {
		return Finding{name, OK, "conversations has no column member_count", ""}
	}
	so := fmt.Sprintf("of %d conversations of a sample %d have a wrong member_count", s.Conversations, s.Wrong)
	if s.Wrong > 0 {
		so += fmt.Sprintf(": %d members too many, %d too few, %d at most in one", s.TooHigh, s.TooLow, s.Largest)
	}
	switch {
	case choice == "":
		return Finding{name, Warn, "nobody has chosen whether a delete changes conversations.member_count; " + so, choose}
	case s.Wrong > 0:
		return Finding{name, Warn, so, "psql -f sql/runbook/member_counts.sql shows them, and repairs them with -v execute=1"}
	default:
		return Finding{name, OK, so, ""}
	}
}

// ShadowKeys warns of foreign keys by which dropping a row of the shadow table users
// deletes more than members: messages, as a rule.
func (c *Preflight) ShadowKeys(ctx context.Context) Finding {
	const name = "shadow-keys"
	cascades, err := ask(ctx, c, func(ctx context.Context, q *db.Queries) (string, error) { return q.EffectShadowKeys(ctx) })
	switch {
	case err != nil:
		return Finding{name, Warn, err.Error(), unreadHint(err)}
	case cascades != "":
		return Finding{
			name, Warn, "whoever deletes a row of users deletes rows of " + cascades + " ON DELETE CASCADE with it; this program deletes none",
			"before the shadow table is emptied or dropped: docs/effects.md",
		}
	default:
		return Finding{name, OK, "no foreign key deletes anything with a row of users", ""}
	}
}
