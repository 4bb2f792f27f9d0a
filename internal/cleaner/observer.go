package cleaner

import "time"

// Observer is told what runs do, for metrics. It is called from several
// goroutines, and a run waits for each call.
type Observer interface {
	// RunBegan reports that a run was opened: it holds the lock now.
	RunBegan()
	// PhaseDone reports how long the run was in a phase, also in one that failed.
	PhaseDone(phase string, took time.Duration)
	// BatchDone reports one batch that was asked about, all attempts of it. With
	// an error its users are unknown.
	BatchDone(err error)
	// ChunkDone reports the members that a committed chunk deleted.
	ChunkDone(members int64)
	// Retried reports that the database was in the way; the cause is one of
	// [database.Causes].
	Retried(cause string)
	// RunEnded reports every run, whatever became of it.
	RunEnded(result Result)
}

type noObserver struct{}

func (noObserver) RunBegan()                       {}
func (noObserver) PhaseDone(string, time.Duration) {}
func (noObserver) BatchDone(error)                 {}
func (noObserver) ChunkDone(int64)                 {}
func (noObserver) Retried(string)                  {}
func (noObserver) RunEnded(Result)                 {}

// Phases are those of a run, in order.
func Phases() []string { return []string{"preflight", "verify", "judge", "sweep", "finish"} }
