package cleaner

import (
	"testing"
	"time"
)

// Our own transactions are nobody's, few are monitoring, and an unknown count is none.
func TestBusySince(t *testing.T) {
	t.Parallel()
	began := time.Now()
	before := neighbours{since: began, transactions: 1000, ours: 10}
	for name, c := range map[string]struct {
		transactions, ours int64
		want               float64
	}{
		"nobody":    {1500, 510, 0},
		"a few":     {1500 + neighbourLag + 99, 510, 0},
		"many":      {1500 + neighbourLag + 2000, 510, 200},
		"not known": {0, 510, 0},
	} {
		now := neighbours{since: began.Add(10 * time.Second), transactions: c.transactions, ours: c.ours}
		if got := now.busySince(before); got != c.want {
			t.Errorf("%s: %v transactions a second, not %v", name, got, c.want)
		}
	}
	// At the end of a short verify, with all of the preflight counted late.
	soon := neighbours{since: began.Add(100 * time.Millisecond), transactions: 1040, ours: 20}
	if got := soon.busySince(before); got != 0 {
		t.Errorf("%v transactions a second, all of them our own", got)
	}
	if got := before.busySince(neighbours{}); got != 0 {
		t.Errorf("%v transactions a second since nobody knows when", got)
	}
}
