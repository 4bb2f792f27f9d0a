package latency

import (
	"math"
	"testing"
	"time"
)

// Element n takes what is up to 2^((n-1)/4) ms and over the bound before.
func TestBucket(t *testing.T) {
	t.Parallel()
	for i := range buckets - 1 {
		bound := time.Duration(math.Pow(2, float64(i)/4) * float64(time.Millisecond))
		if got := bucket(bound * 999 / 1000); got != i {
			t.Errorf("just under %s is in %d, not %d", bound, got, i)
		}
		if got := bucket(bound * 1001 / 1000); got != i+1 {
			t.Errorf("just over %s is in %d, not %d", bound, got, i+1)
		}
	}
	for took, want := range map[time.Duration]int{0: 0, time.Nanosecond: 0, time.Millisecond: 0, 24 * time.Hour: buckets - 1} {
		if got := bucket(took); got != want {
			t.Errorf("%s is in %d, not %d", took, got, want)
		}
	}
}
