package run_test

import (
	"slices"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/result"
)

func TestPhases(t *testing.T) {
	w := newWorld(t)
	w.lenient()
	w.die(40, w.people(10, 1)...)
	for kind, set := range map[string]func(){
		"a run":           func() {},
		"a scheduled run": func() { w.cfg.Every = time.Millisecond },
		"a dry run":       func() { w.cfg.DryRun = true },
	} {
		var seen []string
		w.cfg.Every, w.cfg.DryRun, w.observer = 0, false, &watcher{phaseDone: func(phase string) { seen = append(seen, phase) }}
		set()
		w.must(w.run())
		want := result.Phases()
		if w.cfg.DryRun {
			want = want[:3]
		}
		if !slices.Equal(seen, want) {
			t.Errorf("%s went through %v, want %v", kind, seen, want)
		}
	}
}
