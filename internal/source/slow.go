package source

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// slowLog writes the runbook's line about a slow batch. When auth-service is
// slow, all of the thousands of batches of a run are: after the first, one
// line in ten seconds tells how many there were.
type slowLog struct {
	logger *slog.Logger
	seldom rate.Sometimes
	calls  atomic.Int64
}

func newSlowLog(logger *slog.Logger) *slowLog {
	return &slowLog{logger: logger, seldom: rate.Sometimes{First: 1, Interval: 10 * time.Second}}
}

func (s *slowLog) log(took time.Duration, users int) {
	s.calls.Add(1)
	s.seldom.Do(func() {
		//nolint:sloglint // the runbook words the message with its numbers
		s.logger.Warn(slowMessage(took, users), "method", MethodLabel, "slow_calls", s.calls.Swap(0))
	})
}

// slowMessage is worded by runbook 4.2, which is why it is not constant.
func slowMessage(took time.Duration, users int) string {
	return fmt.Sprintf("Batch API slow: took %.1fs for %d users", took.Seconds(), users)
}
