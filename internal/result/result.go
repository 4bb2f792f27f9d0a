// Package result is what runs tell about themselves, while and after they are made.
package result

import (
	"github.com/nova-social/orphan-cleaner/internal/blocked"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Run is what a run did; its JSON form is a contract.
type Run struct {
	RunID            int64  `json:"run_id"`
	State            string `json:"state"`
	UsersChecked     int64  `json:"users_checked"`
	UsersMissing     int64  `json:"users_missing"`
	UsersUnknown     int64  `json:"users_unknown"`
	UsersNew         int64  `json:"users_new"`
	UsersReturned    int64  `json:"users_returned"`
	UsersRestarted   int64  `json:"users_restarted"` // candidates whose clock restarted
	UsersDue         int64  `json:"users_due"`
	UsersBlocked     int64  `json:"users_blocked"`
	UsersResurrected int64  `json:"users_resurrected"` // alive again while their deleted rows can be restored
	Candidates       int64  `json:"candidates"`
	MembersTotal     int64  `json:"members_total"`
	MembersDue       int64  `json:"members_due"`
	MembersDeleted   int64  `json:"members_deleted"`
	MembersKeptYoung int64  `json:"members_kept_young"`
	MembersHeld      int64  `json:"members_held"`
	MembersChanged   int64  `json:"members_changed"` // due, and kept or gone by the time of the delete
	MembersBlocked   int64  `json:"members_blocked"`
	MembersWaiting   int64  `json:"members_waiting"` // due, and left for the next window
	Conversations    int64  `json:"conversations"`
	// As judged: conversations whose last owner is due, those of them where that one
	// stays by choice, and conversations all of whose members are due.
	OwnersLost           int64 `json:"owners_lost"`
	OwnersKept           int64 `json:"owners_kept"`
	ConversationsEmptied int64 `json:"conversations_emptied"`

	BatchCalls int64    `json:"batch_calls"`
	Breaker    *string  `json:"breaker"`
	Seconds    float64  `json:"seconds"`
	Targets    []Target `json:"targets"`
	// Blocked are those of UsersBlocked who were found to be the cause, 1,000 at most.
	Blocked []blocked.User `json:"blocked"`
	DryRun  bool           `json:"dry_run"`
	Error   string         `json:"error,omitempty"`
	// DatabaseError is what the server says in Error, or nil.
	DatabaseError *database.Said `json:"database_error"`
}

// Progress is a moment of a run, for whoever watches it.
type Progress struct {
	Phase                                               string
	Throttled                                           string // why the sweep sleeps; empty: it does not
	MembersSeen, UsersChecked, UsersMissing, UsersAbout int64
	MembersDue, MembersDeleted, UsersBlocked            int64
}

// Members is what a run did with conversation_members.
func (r Run) Members() Target {
	return Target{
		Name: members, RowsTotal: r.MembersTotal, RowsDue: r.MembersDue, RowsDeleted: r.MembersDeleted, RowsKeptYoung: r.MembersKeptYoung,
		RowsHeld: r.MembersHeld, RowsChanged: r.MembersChanged, RowsBlocked: r.MembersBlocked, RowsWaiting: r.MembersWaiting,
	}
}
