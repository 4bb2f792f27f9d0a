package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/run"
)

const redrawEvery = 100 * time.Millisecond

// watch shows the progress of a run.
func watch(w io.Writer, log *slog.Logger, c *run.Runner) func() {
	return watchLine(w, func() string { return progressLine(c.Progress()) }, func() {
		if p := c.Progress(); p.Phase != "" {
			log.Info("Run under way", "phase", p.Phase, "members_seen", p.MembersSeen, "users_checked", p.UsersChecked,
				"users_missing", p.UsersMissing, "members_due", p.MembersDue, "members_deleted", p.MembersDeleted, "throttled", p.Throttled)
		}
	})
}

// watchLine shows progress: a line that redraws on a terminal, a log line now and
// then elsewhere. The function it returns ends it and leaves a clean line.
func watchLine(w io.Writer, line func() string, log func()) func() {
	file, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(file.Fd()))
	every := progressLogEvery
	if terminal {
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
				if terminal {
					fmt.Fprint(w, "\r\x1b[K")
				}
				return
			case <-tick.C:
			}
			if terminal {
				fmt.Fprintf(w, "\r\x1b[K%s", line())
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

func progressLine(p result.Progress) string {
	switch p.Phase {
	case "", "preflight":
		return "preflight"
	case "sweep", "finish":
		line := fmt.Sprintf("%s: %d of %d members deleted", p.Phase, p.MembersDeleted, p.MembersDue)
		if p.Throttled != "" {
			line += ", throttled by " + p.Throttled
		}
		return line
	default:
		return fmt.Sprintf("%s: %d members, %d users checked, %d missing, %d members due", p.Phase, p.MembersSeen, p.UsersChecked, p.UsersMissing, p.MembersDue)
	}
}
