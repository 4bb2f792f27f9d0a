package source

import (
	"testing"
	"time"
)

func TestSlowMessage(t *testing.T) {
	if got := slowMessage(2300*time.Millisecond, 100); got != "Batch API slow: took 2.3s for 100 users" {
		t.Errorf("got %q", got)
	}
}
