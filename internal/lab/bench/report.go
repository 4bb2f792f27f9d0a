package bench

// Report is all that a bench found, as --json writes it. Seconds are medians over
// the repetitions.
type Report struct {
	Version string  `json:"version"`
	Date    string  `json:"date"` // RFC 3339, UTC
	Machine Machine `json:"machine"`
	Repeat  int     `json:"repeat"`
	// RunsBefore is how many runs the worn database has made.
	RunsBefore int     `json:"runs_before"`
	Source     string  `json:"source"`           // of truth: grpc or sql
	P50        float64 `json:"auth_p50_seconds"` // of an answer of auth-service
	P99        float64 `json:"auth_p99_seconds"`
	Cases      []Case  `json:"cases"`
}

// Machine is what all of it ran on: PostgreSQL, auth-service and what is measured.
type Machine struct {
	OS         string            `json:"os"`
	Arch       string            `json:"arch"`
	CPUs       int               `json:"cpus"`
	Go         string            `json:"go"`
	PostgreSQL string            `json:"postgresql"`
	Settings   map[string]string `json:"settings"`
}

// Case is one size and share of dead users.
type Case struct {
	Size
	Share     float64  `json:"share"` // of dead users
	DeadUsers int      `json:"dead_users"`
	Doomed    int64    `json:"members_to_delete"`
	Flags     []string `json:"flags"` // of the run, so that no breaker refuses it

	Run   Timing  `json:"run"`
	Floor Timing  `json:"floor"`
	Worn  *Timing `json:"worn,omitempty"` // the run, after RunsBefore others
	// ToFloor is run / floor, WornToFresh worn / run.
	ToFloor     float64 `json:"run_to_floor"`
	WornToFresh float64 `json:"worn_to_fresh,omitempty"`

	Calls         int   `json:"calls"` // of the run, counted by auth-service; 0 by SQL: a database counts none
	CallsExpected int   `json:"calls_expected"`
	PeakMemory    int64 `json:"peak_memory_bytes"` // of the run's process

	Application *Application `json:"application,omitempty"`
}

// Timing is that of whole processes.
type Timing struct {
	Seconds float64   `json:"seconds"`
	Min     float64   `json:"seconds_min"`
	Max     float64   `json:"seconds_max"`
	All     []float64 `json:"seconds_all"`
	Own     float64   `json:"seconds_by_its_own_clock,omitempty"` // a run's
}

// Application is what the application feels of a run beside it.
type Application struct {
	Rate     int     `json:"rate_per_second"`
	Alone    Latency `json:"alone"`
	Beside   Latency `json:"beside"`
	P99Ratio float64 `json:"p99_ratio"`
	Run      float64 `json:"run_seconds"` // beside the application
}

// Latency is that of the application's own transactions, from when each was due.
type Latency struct {
	Transactions int     `json:"transactions"`
	P50          float64 `json:"p50_ms"`
	P99          float64 `json:"p99_ms"`
	Max          float64 `json:"max_ms"`
}
