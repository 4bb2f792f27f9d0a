package source

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// asked is a throttle with workers that ask a server all the time, in time that
// is made up.
type asked struct {
	*throttle
	log bytes.Buffer

	mu       sync.Mutex
	workers  int
	limits   []int
	inFlight int
	most     int // in flight at once, ever
	calls    int
}

const workers = 8

func newAsked() *asked { return newAskedBy(workers) }

func newAskedBy(workers int) *asked {
	a := &asked{workers: workers}
	a.throttle = newThrottle(workers, 100*time.Millisecond, func(limit int) { a.limits = append(a.limits, limit) },
		slog.New(slog.NewTextHandler(&a.log, nil)))
	return a
}

// ask lets all workers ask for a while; took is how long a call takes that
// begins after so long.
func (a *asked) ask(t *testing.T, d time.Duration, took func(since time.Duration) time.Duration) {
	t.Helper()
	began := time.Now()
	var all sync.WaitGroup
	for range a.workers {
		all.Go(func() {
			for time.Since(began) < d {
				if err := a.acquire(t.Context()); err != nil {
					t.Error(err)
					return
				}
				a.count(1)
				begun := time.Now()
				<-time.After(took(begun.Sub(began)))
				a.count(-1)
				a.done(begun, time.Since(begun), nil)
			}
		})
	}
	all.Wait()
}

func (a *asked) count(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inFlight += n
	a.most = max(a.most, a.inFlight)
	if n > 0 {
		a.calls++
	}
}

// honest draws from a log-normal distribution with these percentiles.
func honest(p50, p99 time.Duration) func(time.Duration) time.Duration {
	random := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	spread := math.Log(float64(p99)/float64(p50)) / 2.3263
	return func(time.Duration) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(float64(p50) * math.Exp(spread*random.NormFloat64()))
	}
}

func (a *asked) lines(level string) int { return strings.Count(a.log.String(), "level="+level) }

// The runbook's own latency, P99 of 80 ms, for hours: all calls at once.
func TestThrottleLeavesHonestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsked()
		a.ask(t, time.Hour, honest(45*time.Millisecond, 80*time.Millisecond))
		if !slices.Equal(a.limits, []int{workers}) || a.most != workers || a.calls < 500_000 || a.log.Len() > 0 {
			t.Errorf("after %d calls, %d at once, the limits were %v\n%s", a.calls, a.most, a.limits, a.log.String())
		}
	})
}

// A stall now and then makes every call slow that is in flight: no reason to
// back off. Nor is a single call that takes very long.
func TestThrottleForgivesStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsked()
		usual := honest(45*time.Millisecond, 80*time.Millisecond)
		a.ask(t, 10*time.Minute, func(since time.Duration) time.Duration {
			if into := since % (2 * time.Second); into < 50*time.Millisecond {
				return 500 * time.Millisecond // half a second, of all, every two seconds
			}
			return usual(since)
		})
		if !slices.Equal(a.limits, []int{workers}) {
			t.Errorf("the limits were %v\n%s", a.limits, a.log.String())
		}
	})
}

// Slow for a minute: fewer calls at once, down to one; then fast again: step by
// step to all. One line each in the log.
func TestThrottleBacksOffAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsked()
		fast, slow := honest(45*time.Millisecond, 80*time.Millisecond), honest(300*time.Millisecond, 400*time.Millisecond)
		a.ask(t, 10*time.Second, fast)
		a.ask(t, time.Minute, slow)
		if !slices.Equal(a.limits, []int{8, 4, 2, 1}) || a.lines("WARN") != 1 || a.lines("INFO") != 0 {
			t.Errorf("while slow the limits were %v\n%s", a.limits, a.log.String())
		}
		a.ask(t, 5*time.Second, fast)
		if !slices.Equal(a.limits, []int{8, 4, 2, 1, 2, 3, 4, 5, 6, 7, 8}) || a.lines("WARN") != 1 || a.lines("INFO") != 1 {
			t.Errorf("afterwards the limits were %v\n%s", a.limits, a.log.String())
		}
		if a.most != workers {
			t.Errorf("%d calls were in flight at once", a.most)
		}
	})
}

// A server that is fast with few calls and slow with many ends up with few.
func TestThrottleFindsTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsked()
		a.ask(t, 10*time.Minute, func(time.Duration) time.Duration {
			a.mu.Lock()
			defer a.mu.Unlock()
			return time.Duration(max(a.inFlight, 3)) * 30 * time.Millisecond // three at once take 90 ms, four 120 ms
		})
		high := 0
		for _, limit := range a.limits[3:] {
			high = max(high, limit)
		}
		if high > 4 {
			t.Errorf("it tried %d calls at once, again and again: %v", high, a.limits)
		}
	})
}

// A twentieth of the calls is slow, the others are fast: a P99 as bad as if all
// were.
func TestThrottleSeesATail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsked()
		random := rand.New(rand.NewPCG(3, 4))
		a.ask(t, 5*time.Second, func(time.Duration) time.Duration {
			a.mu.Lock()
			defer a.mu.Unlock()
			if random.IntN(20) == 0 {
				return 300 * time.Millisecond
			}
			return 45 * time.Millisecond
		})
		if len(a.limits) < 2 || a.limits[1] != workers/2 {
			t.Errorf("the limits were %v", a.limits)
		}
	})
}

// With many calls at once it is as sure of itself.
func TestThrottleOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAskedBy(64)
		a.ask(t, 10*time.Minute, honest(45*time.Millisecond, 80*time.Millisecond))
		if !slices.Equal(a.limits, []int{64}) {
			t.Errorf("honest, and the limits were %v", a.limits)
		}
		a.ask(t, 30*time.Second, honest(300*time.Millisecond, 400*time.Millisecond))
		if last := a.limits[len(a.limits)-1]; last != 1 {
			t.Errorf("slow, and the limits were %v", a.limits)
		}
	})
}

// When a caller gives up, the next one in line is admitted.
func TestThrottleGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(1, time.Second, func(int) {}, slog.New(slog.DiscardHandler))
		if err := th.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp, served := make(chan error, 1), make(chan error, 1)
		go func() { gaveUp <- th.acquire(ctx) }()
		synctest.Wait()
		go func() { served <- th.acquire(t.Context()) }()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		th.done(time.Now(), time.Millisecond, nil)
		if err := <-served; err != nil {
			t.Error(err)
		}
		if th.inFlight != 1 || len(th.waiting) != 0 {
			t.Errorf("%d in flight, %d waiting", th.inFlight, len(th.waiting))
		}
	})
}

// What an overloaded server refuses counts as slow; what failed otherwise is no
// evidence, however long it took.
func TestThrottleVerdict(t *testing.T) {
	t.Parallel()
	th := newThrottle(8, 100*time.Millisecond, func(int) {}, slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		took         time.Duration
		reason       string
		slow, counts bool
	}{
		{99 * time.Millisecond, "", false, true},
		{101 * time.Millisecond, "", true, true},
		{time.Millisecond, "status_resource_exhausted", true, true},
		{5 * time.Second, Deadline, true, true},
		{5 * time.Second, Transport, false, false},
		{5 * time.Second, Cancelled, false, false},
		{5 * time.Second, "status_internal", false, false},
		{101 * time.Millisecond, InBandError, true, true},
	} {
		var failed *BatchError
		if c.reason != "" {
			failed = &BatchError{Reason: c.reason}
		}
		if slow, counts := th.verdict(c.took, failed); slow != c.slow || counts != c.counts {
			t.Errorf("%s %s: slow %v, counts %v", c.took, c.reason, slow, counts)
		}
	}
}
