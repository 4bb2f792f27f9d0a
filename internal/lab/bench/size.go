package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is how much data there is.
type Size struct {
	Name          string `json:"name"`
	Conversations int    `json:"conversations"`
	Members       int    `json:"members"`
	Users         int    `json:"users"`
}

// Sizes are those with a name: the runbook's three, and two with its 15 members a
// conversation and 3.7 a user.
func Sizes() []Size {
	return []Size{
		{"150", 10, 150, 30},
		{"1500", 100, 1_500, 300},
		{"15000", 1_000, 15_000, 3_000},
		{"1m", 66_667, 1_000_000, 270_000},
		{"10m", 666_667, 10_000_000, 2_700_000},
	}
}

// ParseSize reads a name of [Sizes].
func ParseSize(text string) (Size, error) {
	var names []string
	for _, size := range Sizes() {
		if size.Name == text {
			return size, nil
		}
		names = append(names, size.Name)
	}
	return Size{}, fmt.Errorf("size %q is none of %s", text, strings.Join(names, ", "))
}

// dead is how many users are.
func (s Size) dead(share float64) int { return int(math.Round(share * float64(s.Users))) }

// maxShare bounds the share of dead users; beyond it there is nothing to compare.
const maxShare = 0.9

// ParseShare reads a percentage, such as 3 or 3.33.
func ParseShare(text string) (float64, error) {
	percent, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(percent) || percent < 0 || percent > 100*maxShare {
		return 0, fmt.Errorf("share %q is no percentage of dead users from 0 to %.0f", text, 100*maxShare)
	}
	return percent / 100, nil
}
