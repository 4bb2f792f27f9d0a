package source

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// throttle bounds the calls in flight. It halves them when auth-service is
// slower than it may be, and adds one at a time when it no longer is.
//
// Libraries for this (failsafe-go, platinummonkey/go-concurrency-limits) compare
// with how fast the server was a while ago, and take lasting slowness for the new
// normal. The runbook has a figure: P99 under 100 ms. So this one asks whether the
// P99 of the last calls is over that, beyond what chance explains.
type throttle struct {
	most   int           // never more, and how many at first
	target time.Duration // the P99 that is still good
	tell   func(limit int)
	logger *slog.Logger

	mu       sync.Mutex
	limit    int
	inFlight int
	waiting  []chan struct{} // first come, first served
	changed  time.Time       // calls that began before this are no evidence any more
	window   []evidence      // the last calls since then
	stalled  time.Time       // when the first call of the last stall ended
}

const (
	// windowCalls is how many calls the P99 is judged by, at least: one in a hundred
	// may be slow. With more than ten calls at once it is ten rounds of them.
	windowCalls = 100
	// slowStalls in a window are too many. Where the P99 is just at the target, five
	// of a hundred calls are slow by chance three times in a thousand; where it is
	// the runbook's 80 ms, never.
	slowStalls = 5
	// goodCalls in a row, but for one, are enough to add a call.
	goodCalls = 20
)

// evidence is one call.
type evidence struct {
	slow bool
	// stall: the first of slow calls that end at about the same time. A server that
	// stands still for a moment makes all calls in flight slow, and ends them
	// together: that is one stall.
	stall bool
}

// newThrottle returns nil, which bounds nothing, when most is 0.
func newThrottle(most int, target time.Duration, tell func(int), logger *slog.Logger) *throttle {
	if most == 0 {
		return nil
	}
	tell(most)
	return &throttle{most: most, target: target, tell: tell, logger: logger, limit: most}
}

// acquire waits until a call is allowed. Without an error, done must follow.
func (t *throttle) acquire(ctx context.Context) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	if t.inFlight < t.limit && len(t.waiting) == 0 {
		t.inFlight++
		t.mu.Unlock()
		return nil
	}
	admitted := make(chan struct{})
	t.waiting = append(t.waiting, admitted)
	t.mu.Unlock()
	select {
	case <-admitted:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, other := range t.waiting {
		if other == admitted {
			t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
			return context.Cause(ctx)
		}
	}
	// It was admitted as its context ended: admit the next one instead.
	t.inFlight--
	t.admit()
	return context.Cause(ctx)
}

// admit starts waiting calls up to the limit.
func (t *throttle) admit() {
	for len(t.waiting) > 0 && t.inFlight < t.limit {
		close(t.waiting[0])
		t.waiting = t.waiting[1:]
		t.inFlight++
	}
}

// done ends a call that was acquired. failed is nil, or why there was no valid
// response.
func (t *throttle) done(begun time.Time, took time.Duration, failed *BatchError) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight--
	if slow, counts := t.verdict(took, failed); counts && begun.After(t.changed) {
		end := begun.Add(took)
		call := evidence{slow: slow, stall: slow && end.Sub(t.stalled) > t.target/2}
		if call.stall {
			t.stalled = end
		}
		t.judge(call)
	}
	t.admit()
}

// verdict says whether a call was slow, if it is evidence at all. A call that
// was refused by an overloaded server, or that timed out, was as slow as can be;
// one that failed otherwise says nothing about speed.
func (t *throttle) verdict(took time.Duration, failed *BatchError) (slow, counts bool) {
	if failed == nil {
		return took > t.target, true
	}
	switch {
	case failed.Reason == Deadline, failed.Reason == "status_resource_exhausted":
		return true, true
	case failed.Reason == MessageTooLarge, slices.Contains(invalid(), failed.Reason):
		return took > t.target, true
	}
	return false, false
}

// judge takes one more call as evidence, and changes the limit when there is
// enough of it.
func (t *throttle) judge(call evidence) {
	t.window = append(t.window, call)
	if len(t.window) > max(windowCalls, 10*t.limit) {
		t.window = t.window[1:]
	}
	stalls, slow := 0, 0
	for i, call := range t.window {
		if call.stall {
			stalls++
		}
		if call.slow && i >= len(t.window)-goodCalls {
			slow++
		}
	}
	switch {
	case stalls >= slowStalls+t.limit/16: // a wider window has room for more of them by chance
		t.window = t.window[:0]
		if t.limit > 1 {
			t.change(t.limit / 2)
		}
	case t.limit < t.most && len(t.window) >= goodCalls && slow <= 1:
		t.change(t.limit + 1)
	}
}

// change sets the limit and starts to gather evidence anew. The log has the
// first step down and the last one up.
func (t *throttle) change(limit int) {
	before := t.limit
	t.limit, t.changed, t.window = limit, time.Now(), t.window[:0]
	t.tell(limit)
	switch {
	case before == t.most:
		t.logger.Warn("auth-service is slow, fewer calls in flight", "p99_over", t.target.String(), "calls", limit, "of", t.most)
	case limit == t.most:
		t.logger.Info("auth-service is fast again, all calls in flight", "calls", limit)
	default:
		t.logger.Debug("Calls in flight", "calls", limit, "of", t.most)
	}
}
