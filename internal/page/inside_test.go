package page

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/status"
)

// The database is read once in a while, and the longer reading takes the less often; a
// failure is not tried again sooner. Who goes away takes nothing with them.
func TestCached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		reads := 0
		var c cached[int]
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for _, step := range []struct {
			wait, takes time.Duration
			fails       error
			reads       int
			err         error
		}{
			{0, time.Millisecond, nil, 1, nil},
			{4 * time.Second, 0, nil, 1, nil},
			{2 * time.Second, 2 * time.Second, nil, 2, nil},
			{39 * time.Second, 0, nil, 2, nil},
			{2 * time.Second, 0, away, 3, away},
			{4 * time.Second, 0, nil, 3, away},
			{2 * time.Second, 0, nil, 4, nil},
		} {
			<-time.After(step.wait)
			for range 10 {
				_, err := c.get(gone, func(ctx context.Context) (int, error) {
					reads++
					<-time.After(step.takes)
					return reads, errors.Join(ctx.Err(), step.fails)
				})
				if !errors.Is(err, step.err) || step.err == nil && err != nil {
					t.Errorf("after %+v: %v", step, err)
				}
			}
			if reads != step.reads {
				t.Errorf("after %+v it was read %d times", step, reads)
			}
		}
	})
}

// Those who ask at the same time share one reading.
func TestCachedTogether(t *testing.T) {
	t.Parallel()
	var c cached[int]
	var all sync.WaitGroup
	reads := 0
	for range 50 {
		all.Go(func() {
			if got, _ := c.get(t.Context(), func(context.Context) (int, error) { reads++; return reads, nil }); got != 1 {
				t.Errorf("reading %d", got)
			}
		})
	}
	all.Wait()
}

// Runs are kept apart, and not all of them for ever.
func TestCachedRuns(t *testing.T) {
	t.Parallel()
	var c cachedRuns
	reads := map[int64]int{}
	for round := range 2 {
		for id := range int64(maxRuns) {
			got, err := c.get(t.Context(), id, func(context.Context) (run, error) {
				reads[id]++
				return run{RunOneRow: db.RunOneRow{RunID: id}}, nil
			})
			if err != nil || got.RunID != id || reads[id] != 1 {
				t.Fatalf("round %d: run %d is %d, read %d times: %v", round, id, got.RunID, reads[id], err)
			}
		}
	}
	c.entry(maxRuns)
	if len(c.runs) > maxRuns {
		t.Errorf("%d runs are kept", len(c.runs))
	}
}

var verb = regexp.MustCompile(`%(?:\[(\d)\])?[a-z]`)

// Whatever the templates and a verdict say has a Chinese text with the same arguments,
// and no text is left over.
func TestTranslated(t *testing.T) {
	t.Parallel()
	files, err := assets.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{errNoRun.Error(): true}
	for _, file := range files {
		text, err := assets.ReadFile("assets/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`[({]t "([^"]*)"`).FindAllStringSubmatch(strings.ReplaceAll(string(text), "{{ ", "{{"), -1) {
			said[m[1]] = true
		}
		// What stands between tags is a text, unless it is a name, a sign or a command.
		plain := regexp.MustCompile(`\{\{[^}]*\}\}|(?s:<(code|style|title|h1)[^>]*>.*?</(code|style|title|h1)>)|<!?[^>]*>`).ReplaceAllString(string(text), "")
		for _, word := range regexp.MustCompile(`\pL{3,}`).FindAllString(plain, -1) {
			if !slices.Contains([]string{"English", "orphan", "cleaner", "SQLSTATE", "UTC", "metrics", "healthz", "readyz", "viewBox"}, word) && strings.HasSuffix(file.Name(), ".tmpl") {
				t.Errorf("%s says %q in English only", file.Name(), word)
			}
		}
	}
	for _, v := range verdicts() {
		said[v.State] = true
		for _, p := range v.Phrases {
			said[p.Format] = true
		}
	}
	for _, word := range strings.Fields("succeeded incomplete failed abandoned restore preflight verify judge sweep finish clean day month year") {
		said[word] = true
	}
	for _, c := range append(charts("day", nil), reportCharts(nil)...) {
		said[c.Name] = true
	}
	for _, r := range []run{{}, {RunOneRow: db.RunOneRow{JudgedAt: new(time.Time)}}, {RunOneRow: db.RunOneRow{Kind: "restore"}}} {
		for _, p := range r.Phases() {
			said[p.Name] = true
		}
	}
	one := db.RunOneRow{UsersUnknown: 1, UsersReturned: 1, UsersRestarted: 1, UsersBlocked: 1, MembersRestored: 1, MembersHeld: 1, MembersKeptYoung: 1, MembersChanged: 1, MembersBlocked: 1}
	for _, f := range (run{RunOneRow: one}).Figures() {
		said[f.Name] = true
	}
	translated := chinese()
	for text := range said {
		mandarin, is := translated[text]
		if !is {
			t.Errorf("%q has no Chinese text", text)
			continue
		}
		verbs, theirs := verb.FindAllString(text, -1), verb.FindAllString(mandarin, -1)
		if len(verbs) != len(theirs) {
			t.Errorf("%q has other arguments in Chinese: %q", text, mandarin)
		}
		for i, v := range theirs {
			of := i
			if m := verb.FindStringSubmatch(v); m[1] != "" {
				of = int(m[1][0] - '1')
			}
			if of < len(verbs) && verbs[of][1:] != v[len(v)-1:] {
				t.Errorf("%q: argument %d is %s in Chinese", text, of+1, v)
			}
		}
	}
	for text := range translated {
		if !said[text] {
			t.Errorf("%q is said nowhere", text)
		}
	}
}

// verdicts are one of each kind, with and without a backlog.
func verdicts() (all []status.Verdict) {
	now := time.Now()
	cleaned := func(state string) []db.RunRecentRow {
		return []db.RunRecentRow{{Kind: "clean", State: state, Phase: "sweep", StartedAt: now}}
	}
	for _, st := range []status.Status{
		{},
		{Alive: []db.RecheckAliveRow{{}}},
		{Refused: []db.RefusalUnsettledRow{{}}},
		{Paused: []db.PauseInForceRow{{PausedAt: now}}},
		{Runs: cleaned("running")},
		{Runs: cleaned("failed")},
		{Runs: []db.RunRecentRow{{Kind: "clean", State: "succeeded", StartedAt: now.Add(time.Hour)}}},
		{Runs: cleaned("succeeded"), Backlog: []db.CandidateBacklogRow{{IsDue: true, Users: 1}}, Window: &status.WindowState{}},
		{Runs: cleaned("succeeded"), Backlog: []db.CandidateBacklogRow{{DueOn: "2026-12-28", Users: 1}}},
	} {
		for _, dueIn := range []float64{60, -86400} {
			all = append(all, st.Judge(now, db.RunScheduleRow{DueIn: dueIn}))
		}
	}
	return all
}

// A verdict is one sentence in either language, and its times are said as people do.
func TestVerdictSaid(t *testing.T) {
	t.Parallel()
	all, err := locales()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 12, 1, 22, 40, 0, 0, time.UTC)
	st := status.Status{
		Runs:    []db.RunRecentRow{{RunID: 12345, Kind: "clean", State: "succeeded", StartedAt: now.Add(-26 * time.Hour), MembersDeleted: 1240}},
		Backlog: []db.CandidateBacklogRow{{DueOn: "2026-12-28", Users: 2049}},
	}
	for dueIn, want := range map[float64][2]string{
		1200:   {"last run 30 Nov 20:40 deleted 1,240; next 23:00; 2,049 users due by 28 Dec", "上一个 run（11月30日 20:40）删除了 1,240 条；下一个 run：23:00；2,049 个用户将在 12月28日 前到期"},
		-90000: {"the last run was 30 Nov 20:40, the next one was due 30 Nov 21:40; does cron or serve run? 2,049 users due by 28 Dec", "上一个 run 于 11月30日 20:40 执行，下一个本应在 11月30日 21:40 开始；cron 或 serve 是否在运行？2,049 个用户将在 12月28日 前到期"},
	} {
		for i, l := range all {
			if got := l.verdict(st.Judge(now, db.RunScheduleRow{DueIn: dueIn})); got != want[i] {
				t.Errorf("%s says %q, want %q", l.code, got, want[i])
			}
		}
	}
}
