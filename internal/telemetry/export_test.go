package telemetry

import "time"

// Patiently lets reading take as long as a slow machine needs, and keeps what was read
// until a run ends.
func Patiently(s Settings) Settings {
	s.times = &times{time.Hour, time.Minute, time.Hour, time.Minute}
	return s
}
