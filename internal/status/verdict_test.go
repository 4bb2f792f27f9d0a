package status_test

import (
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/status"
)

func TestVerdict(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 1, 22, 40, 0, 0, time.UTC)
	run := func(kind, state string, ago time.Duration) db.RunRecentRow {
		return db.RunRecentRow{RunID: 7, Kind: kind, State: state, Phase: "sweep", StartedAt: now.Add(-ago), MembersDeleted: 240}
	}
	breaker := "delete-rows"
	backlog := []db.CandidateBacklogRow{{DueOn: "2026-12-01", IsDue: true, Users: 9}, {DueOn: "2026-12-28", Users: 40}}
	for _, c := range []struct {
		st   status.Status
		due  time.Duration
		want status.Verdict
	}{
		{status.Status{}, 0, status.Verdict{State: "new", Text: "no run was made yet; first: orphan-cleaner check, then orphan-cleaner run --dry-run"}},
		{
			status.Status{Runs: []db.RunRecentRow{run("clean", "succeeded", 40*time.Minute)}, Backlog: backlog},
			20 * time.Minute,
			status.Verdict{State: "healthy", Text: "last run 22:00 deleted 240; next 23:00; 49 users due by 28 Dec"},
		},
		{
			status.Status{Runs: []db.RunRecentRow{run("restore", "failed", time.Minute), run("clean", "succeeded", 40*time.Minute)}},
			20 * time.Minute,
			status.Verdict{State: "healthy", Text: "last run 22:00 deleted 240; next 23:00; nobody is due"},
		},
		{
			status.Status{Runs: []db.RunRecentRow{run("clean", "succeeded", 26*time.Hour)}},
			-25 * time.Hour,
			status.Verdict{State: "late", Text: "the last run was 30 Nov 20:40, the next one was due 30 Nov 21:40; does cron or serve run? nobody is due"},
		},
		{
			status.Status{Runs: []db.RunRecentRow{run("clean", "succeeded", -10*24*time.Hour)}},
			0,
			status.Verdict{State: "failing", Text: "the last run, 11 Dec 22:40, is in the future; first: orphan-cleaner check; if the clocks are right: orphan-cleaner migrate settle-clock; nobody is due"},
		},
		{
			status.Status{Runs: []db.RunRecentRow{run("clean", "incomplete", 40*time.Minute)}, Backlog: backlog[:1]},
			20 * time.Minute,
			status.Verdict{State: "failing", Text: "the last run, 22:00, is incomplete; see below; 9 users due now"},
		},
		{status.Status{Runs: []db.RunRecentRow{run("clean", "running", 40*time.Minute)}}, 20 * time.Minute, status.Verdict{State: "running", Text: "run 7 since 22:00, in sweep"}},
		{
			status.Status{Runs: []db.RunRecentRow{run("clean", "refused", 40*time.Minute)}, Refused: []db.RefusalUnsettledRow{{RunID: 7, Breaker: &breaker}}},
			0,
			status.Verdict{State: "refused", Text: "run 7 was refused by delete-rows; see below"},
		},
		{status.Status{Paused: []db.PauseInForceRow{{PausedAt: now.Add(-time.Hour)}}}, 0, status.Verdict{State: "paused", Text: "no run begins since 21:40; see below; nobody is due"}},
		{status.Status{Alive: []db.RecheckAliveRow{{}}}, 0, status.Verdict{State: "alive-again", Text: "1 users whose members were deleted are alive again; see below"}},
	} {
		if got := c.st.Judge(now, db.RunScheduleRow{DueIn: c.due.Seconds()}); got.State != c.want.State || got.Text != c.want.Text {
			t.Errorf("%+v, want %+v", got, c.want)
		}
	}
}

// An approval must live until the window opens: a run outside it uses none.
func TestApproveCommand(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 1, 22, 40, 0, 0, time.UTC)
	for wait, want := range map[time.Duration]string{
		-time.Minute: "orphan-cleaner approve 7", 20 * time.Hour: "orphan-cleaner approve 7",
		23*time.Hour + time.Minute: "orphan-cleaner approve 7 --expires 2d", 24 * time.Hour: "orphan-cleaner approve 7 --expires 3d",
		6*24*time.Hour + time.Hour: "orphan-cleaner approve 7 --expires 8d",
	} {
		st := status.Status{Window: &status.WindowState{Open: wait < 0, OpensAt: now.Add(wait)}}
		if got := st.ApproveCommand(now, 7); got != want {
			t.Errorf("%s before it opens: %s, want %s", wait, got, want)
		}
	}
	if got := (status.Status{}).ApproveCommand(now, 7); got != "orphan-cleaner approve 7" {
		t.Errorf("without a window: %s", got)
	}
}
