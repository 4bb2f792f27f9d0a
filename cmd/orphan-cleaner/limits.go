package main

import (
	"fmt"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/settings"
)

// LimitFlags are the figures that the breakers compare with. Limits that are
// pinned in the database can only be stricter.
type LimitFlags struct {
	MaxNewMissingShare float64 `help:"Newly missing users as a share of those checked; 1 switches it off." env:"ORPHAN_CLEANER_MAX_NEW_MISSING_SHARE" default:"0.1"`
	MaxNewMissingRate  float64 `help:"Newly missing users of 7 days as a share of all, where they are also over twice the usual week; 1 switches it off." env:"ORPHAN_CLEANER_MAX_NEW_MISSING_RATE" default:"0.01"`
	MaxCandidateShare  float64 `help:"All candidates as a share of the users; 1 switches it off." env:"ORPHAN_CLEANER_MAX_CANDIDATE_SHARE" default:"0.15"`
	MaxDeleteShare     float64 `help:"Rows due as a share of the table; 1 switches it off." env:"ORPHAN_CLEANER_MAX_DELETE_SHARE" default:"0.05"`
	MaxDeleteShare7d   float64 `name:"max-delete-share-7d" help:"Rows due and deleted within 7 days as a share of the table; 1 switches it off." env:"ORPHAN_CLEANER_MAX_DELETE_SHARE_7D" default:"0.05"`
	MaxDeleteShare30d  float64 `name:"max-delete-share-30d" help:"The same within 30 days; 1 switches it off." env:"ORPHAN_CLEANER_MAX_DELETE_SHARE_30D" default:"0.15"`
	MaxDeleteRows      int64   `help:"Rows due." env:"ORPHAN_CLEANER_MAX_DELETE_ROWS,ORPHAN_CLEANER_MAX_DELETE_MEMBERS" aliases:"max-delete-members" default:"100000"`
	MaxHistory         float64 `help:"Rows due and deleted within 24 hours, in times the usual day; 0 switches it off." env:"ORPHAN_CLEANER_MAX_HISTORY" default:"10"`
	MaxRecentlyActive  int64   `help:"Users who read a message within a day after they were found missing, once they are over 0.1 % of those checked." env:"ORPHAN_CLEANER_MAX_RECENTLY_ACTIVE" default:"5"`
}

// limits are the figures by the names of their breakers.
func (f *LimitFlags) limits() (settings.Limits, error) {
	limits := settings.Limits{
		"new-missing-share": f.MaxNewMissingShare, "new-missing-rate": f.MaxNewMissingRate, "candidate-share": f.MaxCandidateShare,
		"delete-share": f.MaxDeleteShare, "delete-share-7d": f.MaxDeleteShare7d, "delete-share-30d": f.MaxDeleteShare30d,
	}
	limits["delete-rows"], limits["history"], limits["recently-active"] = float64(f.MaxDeleteRows), f.MaxHistory, float64(f.MaxRecentlyActive)
	for name, limit := range limits {
		if err := settings.CheckLimit(name, limit); err != nil {
			return nil, fmt.Errorf("%w: %s is %v, %w", errUsage, limitVariable(name), limit, err)
		}
	}
	return limits, nil
}

// limitVariable is the environment name of a limit, as messages have it.
func limitVariable(name string) string {
	return settingPrefix + "MAX_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}
