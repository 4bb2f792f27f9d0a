package main

import (
	"strings"
	"testing"
	"time"
)

// windows are one that is open now, and one that is not and stays so for two days.
func windows(now time.Time) (open, closed string) {
	now = now.UTC()
	day := func(days int) string { return now.AddDate(0, 0, days).Weekday().String()[:3] }
	return "daily 00:00-24:00 UTC", day(3) + "-" + day(4) + " 00:00-24:00 UTC"
}

// Outside of the window users are checked and clocks run, nothing is deleted, and the
// run says how many members wait; inside, they are deleted.
func TestWindow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 300, 15)
	living := w.living()
	before := w.Snapshot("conversation_members")
	open, closed := windows(time.Now())
	for range 2 { // it is the same each hour until the window opens
		e := program(t, w.env, "run", "--json", "--window="+closed).expect(t, exitDone)
		if got := figures(e.result(t), "state", "users_checked", "members_due", "members_deleted", "members_waiting"); got != "state succeeded, users_checked 300, members_due 15, members_deleted 0, members_waiting 15" {
			t.Errorf("outside: %s\n%s", got, e.stderr)
		}
		if !strings.Contains(e.stderr, "INFO orphan_cleaner: Outside the window: the rows that are due wait") {
			t.Errorf("%s", e)
		}
	}
	if diff := before.Diff(w.Snapshot("conversation_members")); diff != "" {
		t.Errorf("outside the window members were deleted:\n%s", diff)
	}
	if n := w.Count("orphan_cleaner.candidates"); n != 15 {
		t.Errorf("%d candidates", n)
	}
	e := program(t, w.env, "status", "--window="+closed).expect(t, exitDone)
	if !strings.Contains(e.stdout, "; sweeps wait until ") || !strings.Contains(e.stdout, "window "+closed+": closed, what is due waits until ") {
		t.Errorf("%s", e)
	}

	// An approval waits for a run that may delete.
	program(t, w.env, "run", "--max-delete-rows=1", "--window="+open).expect(t, exitRefused)
	program(t, w.env, "approve", "3", "--yes").expect(t, exitDone)
	program(t, w.env, "run", "--max-delete-rows=1", "--window="+closed).expect(t, exitRefused)
	e = program(t, w.env, "run", "--json", "--max-delete-rows=1", "--window="+closed+", "+open).expect(t, exitDone)
	if got := figures(e.result(t), "state", "members_due", "members_deleted", "members_waiting"); got != "state succeeded, members_due 15, members_deleted 15, members_waiting 0" {
		t.Errorf("inside: %s\n%s", got, e.stderr)
	}
	gone(t, w, living, 15)
}

func TestWindowWrong(t *testing.T) {
	t.Parallel()
	for _, wrong := range []string{"Wed 02:00-04:00", "Wed 02:00-04:00 Mars/Olympus", "now"} {
		e := program(t, []string{"ORPHAN_CLEANER_WINDOW=" + wrong}, "run").expect(t, exitUsage)
		if !strings.Contains(e.stderr, "write it as Wed 02:00-04:00 Asia/Shanghai") || strings.Count(e.stderr, "\n") != 1 {
			t.Errorf("%s: %s", wrong, e)
		}
	}
	config := configuration(t, "window: Wed 02:00-04:00 Asia/Shanghai, daily 12:00-13:00 UTC\n")
	if got := shownSettings(t, nil, "--config="+config)["window"]; got.Value != "Wed 02:00-04:00 Asia/Shanghai, daily 12:00-13:00 UTC" || got.From != "file" {
		t.Errorf("%+v", got)
	}
}
