package cleaner

import (
	"context"
	"testing"
	"time"
)

// A gentle run does one thing at a time, little of it at once, and rests in between.
func TestGoGently(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	r := &run{Cleaner: &Cleaner{cfg: cfg}, pace: newPace(cfg), connections: cfg.SweepConnections}
	if r.stageAtOnce() != stageMost {
		t.Errorf("%d users staged at once where nobody else is", r.stageAtOnce())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel() // whoever rests notices
	if err := r.rest(ended, time.Second); err != nil {
		t.Errorf("it rests where nobody else is: %v", err)
	}
	r.goGently()
	for range 20 {
		r.pace.note(r.pace.rows(), time.Duration(r.pace.rows())*20*time.Microsecond)
	}
	if r.connections != 1 || r.stageAtOnce() != stageShared || r.pace.rows() != 200 {
		t.Errorf("%d connections, %d users staged and %d members deleted at once", r.connections, r.stageAtOnce(), r.pace.rows())
	}
	if err := r.rest(ended, time.Second); err == nil {
		t.Error("it does not rest")
	}
}

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
