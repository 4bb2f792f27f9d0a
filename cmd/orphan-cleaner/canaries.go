package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// CanaryFlags name users of whom it is known whether they exist.
type CanaryFlags struct {
	CanaryAlive []string `help:"Users known to exist, checked in every run: it is refused when one is missing." env:"ORPHAN_CLEANER_CANARY_ALIVE" placeholder:"UUID,..."`
	CanaryDead  []string `help:"Users known to be deleted: the run is refused when one is present." env:"ORPHAN_CLEANER_CANARY_DEAD" placeholder:"UUID,..."`
}

// canaries refuses what is no UUID, and a user who is in both lists.
func (f *CanaryFlags) canaries() (alive, dead []uuid.UUID, err error) {
	for _, list := range []struct {
		name string
		from []string
		to   *[]uuid.UUID
	}{{settingPrefix + "CANARY_ALIVE", f.CanaryAlive, &alive}, {settingPrefix + "CANARY_DEAD", f.CanaryDead, &dead}} {
		for _, text := range list.from {
			id, err := uuid.Parse(strings.TrimSpace(text))
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %s: %q is not a UUID", errUsage, list.name, text)
			}
			*list.to = append(*list.to, id)
		}
	}
	for _, id := range alive {
		if slices.Contains(dead, id) {
			return nil, nil, fmt.Errorf("%w: %s is both in ORPHAN_CLEANER_CANARY_ALIVE and in ORPHAN_CLEANER_CANARY_DEAD", errUsage, id)
		}
	}
	return alive, dead, nil
}
