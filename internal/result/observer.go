package result

import "time"

// Observer is told what runs do, for metrics. It is called from several
// goroutines, and a run waits for each call.
type Observer interface {
	// RunBegan reports that a run was opened: it holds the lock now.
	RunBegan()
	// PhaseDone reports how long the run was in a phase, also in one that failed.
	PhaseDone(phase string, took time.Duration)
	// BatchDone reports one batch that was checked, all attempts of it. With
	// an error its users are unknown.
	BatchDone(err error)
	// ChunkDone reports the members that a committed chunk deleted.
	ChunkDone(members int64)
	// Throttled reports that the sweep sleeps, and why.
	Throttled(reason string, pause time.Duration)
	// Retried reports that the database was in the way; the cause is one of
	// [database.Causes].
	Retried(cause string)
	// RunEnded reports every run, whatever became of it.
	RunEnded(ended Run)
}

// Unobserved is nobody.
type Unobserved struct{}

// RunBegan is not told.
func (Unobserved) RunBegan() {}

// PhaseDone is not told.
func (Unobserved) PhaseDone(string, time.Duration) {}

// BatchDone is not told.
func (Unobserved) BatchDone(error) {}

// ChunkDone is not told.
func (Unobserved) ChunkDone(int64) {}

// Retried is not told.
func (Unobserved) Retried(string) {}

// Throttled is not told.
func (Unobserved) Throttled(string, time.Duration) {}

// RunEnded is not told.
func (Unobserved) RunEnded(Run) {}

// Phases are those of a run, in order.
func Phases() []string { return []string{"preflight", "verify", "judge", "sweep", "finish"} }
