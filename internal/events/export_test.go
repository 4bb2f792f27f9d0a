package events

import "time"

// Patiently gives a relay more time than a run has for it: on a slow machine any flush
// may come to its end in the middle of a page.
func Patiently(r *Relay) *Relay {
	r.flushLimit, r.advanceLimit = time.Minute, time.Minute
	return r
}
