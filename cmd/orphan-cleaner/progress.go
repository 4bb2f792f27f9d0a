package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

const redrawEvery = 100 * time.Millisecond

// watch shows the progress of a run.
func watch(w io.Writer, log *slog.Logger, c *run.Runner) func() {
	var in phaseClock
	return watchLine(w, func() string {
		p := c.Progress()
		return progressLine(p, in.spent(p.Phase))
	}, func() {
		if p := c.Progress(); p.Phase != "" {
			log.Info("Run under way", "phase", p.Phase, "members_seen", p.MembersSeen, "users_checked", p.UsersChecked,
				"users_missing", p.UsersMissing, "members_due", p.MembersDue, "members_deleted", p.MembersDeleted, "throttled", p.Throttled)
		}
	})
}

// phaseClock tells how long a run has been in its phase.
type phaseClock struct {
	phase string
	since time.Time
}

func (c *phaseClock) spent(phase string) time.Duration {
	if phase != c.phase {
		c.phase, c.since = phase, time.Now()
	}
	return time.Since(c.since)
}

// watchLine shows progress: a line that redraws on a terminal, a log line now and
// then elsewhere. The function it returns ends it and leaves a clean line.
func watchLine(w io.Writer, line func() string, log func()) func() {
	terminal, isTerminal := w.(*screen)
	every := progressLogEvery
	if isTerminal {
		every = redrawEvery
	}
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				if isTerminal {
					terminal.show("")
				}
				return
			case <-tick.C:
			}
			if isTerminal {
				terminal.show(line())
			} else {
				log()
			}
		}
	})
	return func() {
		close(done)
		ended.Wait()
	}
}

// progressLine starts with what matters most: a narrow terminal cuts its end.
func progressLine(p result.Progress, spent time.Duration) string {
	switch p.Phase {
	case "", "preflight":
		return "preflight"
	case "sweep", "finish":
		line := fmt.Sprintf("%s: %s%d of %d members deleted", p.Phase, share(p.MembersDeleted, p.MembersDue, spent), p.MembersDeleted, p.MembersDue)
		if p.Throttled != "" {
			line += ", throttled by " + p.Throttled
		}
		return line
	default:
		return fmt.Sprintf("%s: %s%d users checked, %d missing, %d members due",
			p.Phase, share(p.UsersChecked, p.UsersAbout, spent), p.UsersChecked, p.UsersMissing, p.MembersDue)
	}
}

// share is how much of the work is done, and how long the rest takes at this speed.
func share(done, of int64, spent time.Duration) string {
	if done <= 0 || of <= 0 {
		return ""
	}
	part := min(float64(done)/float64(of), 1)
	rest := time.Duration(float64(spent) * (1 - part) / part).Round(time.Second)
	if rest <= 0 {
		return fmt.Sprintf("%.0f %%, ", 100*part)
	}
	return fmt.Sprintf("%.0f %%, %s left, ", 100*part, Duration(rest))
}
