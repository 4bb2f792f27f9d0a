package bench

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
)

// Size is how much data there is.
type Size struct {
	Name          string  `json:"name"`
	Conversations int     `json:"conversations"`
	Members       int     `json:"members"`
	Users         int     `json:"users"`
	Share         float64 `json:"-"` // of dead users, where nobody says otherwise
}

// runbookShare makes the runbook's numbers of deleted members: 5 of 150, and so on.
const runbookShare = 1.0 / 30

// Sizes are those with a name: the runbook's three, and two with its 15 members a
// conversation and 3.7 a user.
func Sizes() []Size {
	return []Size{
		{"150", 10, 150, 30, runbookShare},
		{"1500", 100, 1_500, 300, runbookShare},
		{"15000", 1_000, 15_000, 3_000, runbookShare},
		{"1m", 66_667, 1_000_000, 270_000, 0.10},
		{"10m", 666_667, 10_000_000, 2_700_000, 0.10},
	}
}

// ParseSize reads a name of [Sizes], or CONVERSATIONS/MEMBERS/USERS.
func ParseSize(text string) (Size, error) {
	for _, size := range Sizes() {
		if size.Name == text {
			return size, nil
		}
	}
	wrong := fmt.Errorf("size %q is neither 150, 1500, 15000, 1m, 10m nor CONVERSATIONS/MEMBERS/USERS, each from 1 to 100 million, every user a member, and nobody twice in a conversation", text)
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return Size{}, wrong
	}
	size := Size{Name: text, Share: 0.10}
	for i, into := range []*int{&size.Conversations, &size.Members, &size.Users} {
		n, err := strconv.Atoi(parts[i])
		if err != nil || n < 1 {
			return Size{}, wrong
		}
		*into = n
	}
	perUser := (size.Members + size.Users - 1) / size.Users
	if max(size.Members, size.Conversations) > 100_000_000 || size.Members < size.Users || perUser > size.Conversations {
		return Size{}, wrong
	}
	return size, nil
}

// dead is how many users are.
func (s Size) dead(share float64) int { return int(math.Round(share * float64(s.Users))) }

// ParseLatency reads 0, or the median and the 99th percentile of auth-service's
// answers: 45ms/80ms.
func ParseLatency(text string) (authfake.Latency, error) {
	if text == "0" {
		return authfake.Latency{}, nil
	}
	p50, p99, found := strings.Cut(text, "/")
	if !found {
		p99 = p50
	}
	var l authfake.Latency
	var err error
	if l.P50, err = time.ParseDuration(p50); err == nil {
		l.P99, err = time.ParseDuration(p99)
	}
	if err != nil || l.P50 <= 0 || l.P99 < l.P50 {
		return l, fmt.Errorf("latency %q is neither 0 nor P50/P99, such as 45ms/80ms", text)
	}
	return l, nil
}

// maxShare bounds the share of dead users; beyond it there is nothing to compare.
const maxShare = 0.9

// OwnShare stands for the share that a size has by itself.
const OwnShare = -1

// ParseShare reads a percentage, such as 3 or 3.33, or own.
func ParseShare(text string) (float64, error) {
	if text == "own" {
		return OwnShare, nil
	}
	percent, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(percent) || percent < 0 || percent > 100*maxShare {
		return 0, fmt.Errorf("share %q is neither own nor a percentage of dead users from 0 to %.0f", text, 100*maxShare)
	}
	return percent / 100, nil
}

// shares are those that are asked for, each once.
func (s Size) shares(asked []float64) []float64 {
	var shares []float64
	for _, share := range asked {
		if share == OwnShare {
			share = s.Share
		}
		if !slices.Contains(shares, share) {
			shares = append(shares, share)
		}
	}
	return shares
}
