package authfake

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// Latency is a log-normal distribution given by its median and its 99th
// percentile, the shape that response times of a database-backed service have. A
// P99 not above P50 makes every response take P50.
type Latency struct{ P50, P99 time.Duration }

// RunbookLatency is table 5.1 of the runbook for one call: 15 ms and 25 ms for
// 10 users, 45 ms and 80 ms for 100, a straight line through the two elsewhere.
func RunbookLatency(users int) Latency {
	line := func(at10, at100 time.Duration) time.Duration {
		return at10 + time.Duration(users-10)*(at100-at10)/90
	}
	return Latency{
		P50: line(15*time.Millisecond, 45*time.Millisecond),
		P99: line(25*time.Millisecond, 80*time.Millisecond),
	}
}

// SetLatency delays every response by a draw from l.
func (s *Server) SetLatency(l Latency) { s.SetLatencyFunc(func(int) Latency { return l }) }

// SetLatencyFunc delays every response by a draw from the distribution for its
// number of users, such as RunbookLatency.
func (s *Server) SetLatencyFunc(f func(users int) Latency) {
	s.latency.mu.Lock()
	defer s.latency.mu.Unlock()
	s.latency.of = f
}

type latencySource struct {
	mu   sync.Mutex
	of   func(users int) Latency
	rand *rand.Rand
}

func newLatencySource(seed uint64) latencySource {
	return latencySource{rand: rand.New(rand.NewPCG(seed, 0))}
}

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

func (l *latencySource) draw(users int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.of(users)
	if d.P50 <= 0 || d.P99 <= d.P50 {
		return d.P50
	}
	spread := math.Log(float64(d.P99)/float64(d.P50)) / z99
	return time.Duration(float64(d.P50) * math.Exp(spread*l.rand.NormFloat64()))
}
