package bench

// Report is all that a bench found, as --json writes it. Seconds are medians over
// the repetitions.
type Report struct {
	Version    string       `json:"version"`
	Date       string       `json:"date"` // RFC 3339, UTC
	Machine    Machine      `json:"machine"`
	Repeat     int          `json:"repeat"`
	BatchSize  int          `json:"batch_size"`
	Concurrent int          `json:"concurrency"`
	Calls      []CallResult `json:"calls"` // the runbook's table 5.1
	Cases      []CaseResult `json:"cases"`
}

// Machine is what all of it ran on: PostgreSQL, auth-service and the methods.
type Machine struct {
	OS         string            `json:"os"`
	Arch       string            `json:"arch"`
	CPUs       int               `json:"cpus"`
	Go         string            `json:"go"`
	PostgreSQL string            `json:"postgresql"`
	Durable    bool              `json:"durable"` // fsync, synchronous_commit and full_page_writes on
	Settings   map[string]string `json:"settings"`
}

// CaseResult is one size, share and latency.
type CaseResult struct {
	Size
	Share     float64        `json:"share"` // of dead users
	DeadUsers int            `json:"dead_users"`
	P50       float64        `json:"auth_p50_seconds"`
	P99       float64        `json:"auth_p99_seconds"`
	Doomed    int64          `json:"members_to_delete"`
	Loosened  []string       `json:"breakers_loosened"` // for ours, which would have refused
	Methods   []MethodResult `json:"methods"`
}

// MethodResult is one method in one case.
type MethodResult struct {
	Method  string    `json:"method"`
	Seconds float64   `json:"seconds"`
	Min     float64   `json:"seconds_min"`
	Max     float64   `json:"seconds_max"`
	All     []float64 `json:"seconds_all"`
	// Computed is how many of the Seconds are waits for answers and pauses that
	// were computed and not waited out.
	Computed float64 `json:"seconds_computed"`
	ToFloor  float64 `json:"ratio_to_floor,omitempty"`
	Calls    int     `json:"calls"`
	Deleted  int64   `json:"members_deleted"`
	Audited  bool    `json:"audited"`

	Phases     map[string]float64 `json:"phases_seconds,omitempty"`
	PeakMemory int64              `json:"peak_memory_bytes,omitempty"` // of a process of its own
	Held       *Held              `json:"held,omitempty"`
	Neighbours *Neighbours        `json:"neighbours,omitempty"`
}

// CallResult is a row of the runbook's table 5.1: how long it takes to know about
// so many users. Milliseconds.
type CallResult struct {
	Users      int     `json:"users"`
	Calls      int     `json:"calls"`
	Samples    int     `json:"samples"`
	RunbookP50 float64 `json:"runbook_p50_ms"`
	RunbookP99 float64 `json:"runbook_p99_ms"`
	P50        float64 `json:"p50_ms"` // with the answer times of the runbook
	P99        float64 `json:"p99_ms"`
	InstantP50 float64 `json:"instant_p50_ms"` // with answers at once
	InstantP99 float64 `json:"instant_p99_ms"`
}

// Neighbours is what the application felt, in milliseconds.
type Neighbours struct {
	Rate  int     `json:"rate_per_second"`
	Quiet Latency `json:"quiet"`
	Swept Latency `json:"swept"`
	Held  Held    `json:"held"`
}

// Latency is that of the application's own transactions, from when each was due.
type Latency struct {
	Transactions int     `json:"transactions"`
	P50          float64 `json:"p50_ms"`
	P99          float64 `json:"p99_ms"`
	Max          float64 `json:"max_ms"`
}

// of finds a method's result in a case.
func (c CaseResult) of(method string) (MethodResult, bool) {
	for _, m := range c.Methods {
		if m.Method == method {
			return m, true
		}
	}
	return MethodResult{}, false
}
