package authfake

import (
	"slices"
	"sync"
)

// maxRecorded bounds what a recording keeps.
const maxRecorded = 1_000_000

// recorder counts what was asked.
type recorder struct {
	record bool

	countMu                sync.Mutex
	calls, empty, maxBatch int
	inFlight, peakInFlight int
	lastAuthorization      string
	sizes                  []int
	asked                  []string
}

// begin returns the number of the call, from 1 since the last ResetCalls.
func (r *recorder) begin(ids, authorization []string) (call int) {
	r.countMu.Lock()
	defer r.countMu.Unlock()
	r.calls++
	r.inFlight++
	r.peakInFlight = max(r.peakInFlight, r.inFlight)
	r.maxBatch = max(r.maxBatch, len(ids))
	if len(ids) == 0 {
		r.empty++
	}
	r.lastAuthorization = ""
	if len(authorization) > 0 {
		r.lastAuthorization = authorization[0]
	}
	if r.record && len(r.sizes) < maxRecorded {
		r.sizes = append(r.sizes, len(ids))
	}
	if r.record && len(r.asked)+len(ids) <= maxRecorded {
		r.asked = append(r.asked, ids...)
	}
	return r.calls
}

func (r *recorder) end() {
	r.countMu.Lock()
	defer r.countMu.Unlock()
	r.inFlight--
}

// Calls is the number of GetUsersByIds calls, under either name, since Start or
// the last ResetCalls.
func (r *recorder) Calls() int { return get(r, func() int { return r.calls }) }

// EmptyCalls is the number of calls without ids.
func (r *recorder) EmptyCalls() int { return get(r, func() int { return r.empty }) }

// MaxBatch is the size of the largest call.
func (r *recorder) MaxBatch() int { return get(r, func() int { return r.maxBatch }) }

// InFlight is the number of calls in flight now, PeakInFlight the most at
// once.
func (r *recorder) InFlight() int { return get(r, func() int { return r.inFlight }) }

// PeakInFlight is documented at InFlight.
func (r *recorder) PeakInFlight() int { return get(r, func() int { return r.peakInFlight }) }

// LastAuthorization is the authorization metadata of the newest call.
func (r *recorder) LastAuthorization() string {
	return get(r, func() string { return r.lastAuthorization })
}

// CallSizes are the sizes of the calls, with Options.Record.
func (r *recorder) CallSizes() []int { return get(r, func() []int { return slices.Clone(r.sizes) }) }

// AskedIDs are all ids asked, in the order of arrival, with Options.Record.
func (r *recorder) AskedIDs() []string {
	return get(r, func() []string { return slices.Clone(r.asked) })
}

// ResetCalls forgets all of it, but not the calls in flight.
func (r *recorder) ResetCalls() {
	r.countMu.Lock()
	defer r.countMu.Unlock()
	r.calls, r.empty, r.maxBatch, r.peakInFlight = 0, 0, 0, r.inFlight
	r.lastAuthorization, r.sizes, r.asked = "", nil, nil
}

func get[T any](r *recorder, read func() T) T {
	r.countMu.Lock()
	defer r.countMu.Unlock()
	return read()
}
