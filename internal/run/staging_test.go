package run_test

import (
	"strings"
	"sync"
	"testing"
)

// Staging is unlogged: a crash of the server empties it. Before the run is judged
// that fails it.
func TestStagingLostBeforeTheJudgement(t *testing.T) {
	w := newWorld(t)
	users := w.people(300, 2)
	w.die(40, users[:3]...)
	w.observer = &watcher{phaseDone: func(phase string) {
		if phase == "verify" {
			w.db.Exec(`TRUNCATE orphan_cleaner.sightings`)
		}
	}}
	r, err := w.run()
	if err == nil || r.State != "failed" || !strings.Contains(err.Error(), "staging holds 0 missing and 0 unknown users, the run found 3 and 0") {
		t.Errorf("%v, %+v", err, r)
	}
	if n := w.db.Count(`orphan_cleaner.candidates`) + w.db.Count(`orphan_cleaner.coverage`); n != 0 {
		t.Error("the ledger changed")
	}
	w.invariant(0)
	w.observer = nil
	w.must(w.run())
	w.invariant(6)
}

// In mid-sweep it leaves due users out: the run says so, and the next one deletes them.
func TestStagingLostInMidSweep(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	users := w.people(12_500, 1)
	w.missingFor(40, users[:12_000]...)
	var once sync.Once
	w.cfg.SweepConnections = 1
	w.observer = &watcher{chunkDone: func() { once.Do(func() { w.db.Exec(`TRUNCATE orphan_cleaner.sightings`) }) }}
	r, err := w.run()
	if err == nil || r.State != "failed" || r.MembersDeleted != 10_000 || r.MembersDue != 12_000 || !strings.Contains(err.Error(), "12000 rows of conversation_members were due, and only 10000 are accounted for") {
		t.Errorf("%v, %+v", err, r)
	}
	w.invariant(10_000)
	w.observer = nil
	w.must(w.run())
	w.invariant(12_000)
}
