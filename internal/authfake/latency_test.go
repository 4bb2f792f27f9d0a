package authfake

import (
	"slices"
	"testing"
	"time"
)

// The draws, not a stopwatch: the median and the 99th percentile come out as
// given, and the same seed gives the same draws.
func TestLatencyDistribution(t *testing.T) {
	draws := func(seed uint64) []time.Duration {
		source := newLatencySource(seed)
		source.of = func(int) Latency { return Latency{45 * time.Millisecond, 80 * time.Millisecond} }
		all := make([]time.Duration, 20_000)
		for i := range all {
			all[i] = source.draw(100)
		}
		return all
	}
	first := draws(7)
	if !slices.Equal(first, draws(7)) {
		t.Error("one seed, two sequences")
	}
	if slices.Equal(first, draws(8)) {
		t.Error("two seeds, one sequence")
	}
	slices.Sort(first)
	near := func(at int, want time.Duration) {
		t.Helper()
		if got := first[at]; got < want*97/100 || got > want*103/100 {
			t.Errorf("draw %d of 20,000 is %v, want about %v", at, got, want)
		}
	}
	near(10_000, 45*time.Millisecond)
	near(19_800, 80*time.Millisecond)
}

func TestLatencyWithoutSpread(t *testing.T) {
	source := newLatencySource(1)
	source.of = func(int) Latency { return Latency{P50: time.Second} }
	if got := source.draw(1); got != time.Second {
		t.Errorf("drew %v", got)
	}
}
