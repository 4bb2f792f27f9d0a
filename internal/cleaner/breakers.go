package cleaner

import "fmt"

// Trip says which breaker refused a run, and why. It is an [ErrRefused].
type Trip struct {
	Breaker string // stable name, as in the metric
	Figure  string // what was found
	Limit   string // what is allowed
	Look    string // the command that looks closer
	Early   bool   // the run stopped asking: it found only a part of the users
}

func (t *Trip) Error() string {
	stopped := ""
	if t.Early {
		stopped = " and no more was asked (to find all of them: orphan-cleaner run --judge-late)"
	}
	return fmt.Sprintf("refused by breaker %s: %s, the limit is %s; nothing was deleted%s; look closer with: %s",
		t.Breaker, t.Figure, t.Limit, stopped, t.Look)
}

func (t *Trip) Unwrap() error { return ErrRefused }

// Approvable says whether `approve` may let a run go that this breaker refused:
// not when the breaker doubts auth-service or the clock.
func Approvable(breaker string) bool {
	switch breaker {
	case "new-missing-share", "delete-share", "delete-members", "history":
		return true
	}
	return false
}

// Breaker is a rule, judged before the first ledger write and the first delete.
type Breaker struct {
	Name string
	// judge returns figure and limit of a trip, or ok.
	judge func(f Facts, l Limits) (figure, limit string, ok bool)
}

const (
	newMissingFloor  = 50    // users; fewer never trip new-missing-share
	deleteShareFloor = 1_000 // members; fewer never trip delete-share
	activeShare      = 0.001 // of the users checked; fewer never trip recently-active
	historyFloor     = 1_000 // members; fewer never trip history
	historyFactor    = 10    // times the median
	historyRuns      = 5     // succeeded runs; fewer make no history
)

// Breakers are all rules that judge the facts, in the order they are judged. A
// share of 1 switches its breaker off, since no share is above it.
func Breakers() []Breaker {
	return []Breaker{
		{"canary-alive", func(f Facts, _ Limits) (string, string, bool) {
			return fmt.Sprintf("known-living users are missing: %v", f.AliveMissing), "none (CANARY_ALIVE)", len(f.AliveMissing) == 0
		}},
		{"canary-dead", func(f Facts, _ Limits) (string, string, bool) {
			return fmt.Sprintf("known-dead users are present: %v", f.DeadPresent), "none (CANARY_DEAD)", len(f.DeadPresent) == 0
		}},
		{"recently-active", func(f Facts, l Limits) (string, string, bool) {
			part := share(f.RecentlyActive, f.UsersChecked)
			return fmt.Sprintf("%d missing users read a message within the last day", f.RecentlyActive),
				fmt.Sprintf("%d users and %.4g %% of those checked (MAX_RECENTLY_ACTIVE): auth-service may be wrong about them", l.RecentlyActive, 100*activeShare),
				f.RecentlyActive <= l.RecentlyActive || part <= activeShare
		}},
		{"new-missing-share", func(f Facts, l Limits) (string, string, bool) {
			part := share(f.NewUnforeseen, f.UsersChecked)
			return fmt.Sprintf("%d of %d users checked (%.1f %%) are newly missing", f.NewUnforeseen, f.UsersChecked, 100*part),
				fmt.Sprintf("%.4g %% and %d users (MAX_NEW_MISSING_SHARE)", 100*l.NewMissingShare, newMissingFloor),
				part <= l.NewMissingShare || f.NewUnforeseen <= newMissingFloor
		}},
		{"delete-share", func(f Facts, l Limits) (string, string, bool) {
			part := share(f.DueUnapproved, f.MembersTotal)
			return fmt.Sprintf("%d of %d members (%.1f %%) are due", f.DueUnapproved, f.MembersTotal, 100*part),
				fmt.Sprintf("%.4g %% and %d members (MAX_DELETE_SHARE)", 100*l.DeleteShare, deleteShareFloor),
				part <= l.DeleteShare || f.DueUnapproved <= deleteShareFloor
		}},
		{"delete-members", func(f Facts, l Limits) (string, string, bool) {
			return fmt.Sprintf("%d members are due", f.DueUnapproved),
				fmt.Sprintf("%d (MAX_DELETE_MEMBERS)", l.DeleteMembers),
				f.DueUnapproved <= l.DeleteMembers
		}},
		{"history", func(f Facts, _ Limits) (string, string, bool) {
			limit := max(historyFactor*f.HistoryMedian, historyFloor)
			return fmt.Sprintf("%d members are due", f.DueUnapproved),
				fmt.Sprintf("%.0f: %d times the median of the last %d succeeded runs, and %d members", limit, historyFactor, f.HistoryRuns, historyFloor),
				f.HistoryRuns < historyRuns || float64(f.DueUnapproved) <= limit
		}},
	}
}

// BreakerNames are all breakers: those that judge the facts, and the clock.
func BreakerNames() []string {
	names := []string{clockBreaker}
	for _, b := range Breakers() {
		names = append(names, b.Name)
	}
	return names
}

// clockBreaker is judged by the database, not by the facts.
const clockBreaker = "clock"

func share(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// judgeFacts is the first breaker that refuses, or nil.
func judgeFacts(f Facts, l Limits) *Trip {
	for _, b := range Breakers() {
		if figure, limit, ok := b.judge(f, l); !ok {
			return &Trip{Breaker: b.Name, Figure: figure, Limit: limit, Look: "orphan-cleaner run --dry-run"}
		}
	}
	return nil
}
