package faults

import (
	"strings"
	"time"
)

// frozen: SIGSTOP while a chunk holds its rows. The application and a pause wait
// until the server ends the session, after 2 s, and the run finds the pause.
func frozen(w *world) {
	const most = 30 * time.Second // half a lease
	p := w.stopped("chunk:1", wholeChunk)
	began := time.Now()
	paused := spawn(w.t, w.settings(), w.program, "pause", "--reason=test")
	conn, _ := w.session()
	w.does(conn, `DELETE FROM conversation_members WHERE user_id = $1`, w.dead[0])
	if took := time.Since(began); took > most {
		w.t.Errorf("the application waited for %s", took)
	}
	w.left(w.dead[0])
	if e := paused.wait(); e.status != 0 || e.took > most {
		w.t.Errorf("pause took %s: %s", e.took, e)
	}
	w.holds("I5")
	w.isPaused(p.goOn())
}

// isPaused asserts that a run met a pause, and goes on once that has ended.
func (w *world) isPaused(e ended) {
	w.t.Helper()
	w.expect(e, want{exit: 0, state: "paused", gone: untouched})
	w.note.shows = "runs are paused"
	if !strings.Contains(e.stderr, w.note.shows) {
		w.t.Errorf("the pause is not named: %s", e)
	}
	w.expect(w.run(), want{exit: 0, state: "paused", gone: untouched})
	if e := spawn(w.t, w.settings(), w.program, "resume").wait(); e.status != 0 {
		w.t.Fatalf("resume: %s", e)
	}
	w.converges()
}

// pausePlaced: between check and delete.
func pausePlaced(w *world) {
	w.isPaused(w.after("checked-again", func() {
		if e := spawn(w.t, w.settings(), w.program, "pause", "--reason=test").wait(); e.status != 0 {
			w.t.Fatal(e)
		}
	}))
}
