package source

// HealthStatus is what auth-service says about itself.
type HealthStatus int

const (
	// HealthUnknown comes with an error: there was no response, or a strange one.
	HealthUnknown HealthStatus = iota
	// HealthServing is the only status that says all is well.
	HealthServing
	// HealthNotServing comes with an error.
	HealthNotServing
	// HealthUnimplemented is a server without the health service of gRPC. It comes
	// without an error: only a probe call can tell whether it serves.
	HealthUnimplemented
)

func (s HealthStatus) String() string {
	return [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "UNIMPLEMENTED"}[s]
}
