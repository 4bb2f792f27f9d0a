package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/bench"
	"github.com/nova-social/orphan-cleaner/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// small is a bench of the runbook's smallest size.
func small(t *testing.T, methods ...bench.Method) bench.Options {
	t.Helper()
	size, err := bench.ParseSize("150")
	if err != nil {
		t.Fatal(err)
	}
	return bench.Options{
		Sizes: []bench.Size{size}, Shares: []float64{bench.OwnShare}, Latencies: []authfake.Latency{{}}, Methods: methods, Repeat: 1,
		ComputeOver: time.Minute, Version: "test", Say: t.Logf, Cluster: testdb.NewEmpty(t).Cluster(),
	}
}

// All methods do the runbook's smallest case, and what is reported of them fits.
func TestBench(t *testing.T) {
	t.Parallel()
	options := small(t, bench.Methods()...)
	options.Repeat, options.CallRepeat = 2, 2
	options.Latencies = append(options.Latencies, authfake.Latency{P50: 10 * time.Millisecond})
	options.ComputeOver = 105 * time.Millisecond // one pause, but not with an answer
	report, err := bench.Run(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Cases) != 2 || len(report.Calls) != 4 || report.Machine.PostgreSQL == "" {
		t.Fatalf("%d cases, %d rows of calls, on PostgreSQL %q", len(report.Cases), len(report.Calls), report.Machine.PostgreSQL)
	}
	for i, calls := range []int{1, 1, 5, 10} {
		if c := report.Calls[i]; c.Calls != calls || c.Samples != 2 || c.P50 < 5 || c.InstantP50 <= 0 || c.P99 < c.P50 {
			t.Errorf("table 5.1: %+v", c)
		}
	}
	for i, c := range report.Cases {
		if c.Doomed != 5 || c.DeadUsers != 1 || len(c.Methods) != 6 || len(c.Loosened) != 0 {
			t.Fatalf("%+v", c)
		}
		calls := map[string]int{"ours": 2, "row-at-a-time": 1, "row-at-a-time-no-pause": 1, "floor": 1} // ours asks again
		for _, m := range c.Methods {
			if m.Deleted != 5 || m.Calls != calls[m.Method] || len(m.All) != 2 || m.Min > m.Seconds || m.Seconds > m.Max || m.Seconds <= 0 {
				t.Errorf("%+v", m)
			}
			if m.Audited != (m.Method == "ours" || m.Method == "fdw-audited") {
				t.Errorf("%s: audited is %t", m.Method, m.Audited)
			}
			computed := i == 1 && m.Method == "row-at-a-time"
			if want := map[bool]float64{true: 0.11}[computed]; m.Computed != want {
				t.Errorf("of %s %f s are computed, want %f", m.Method, m.Computed, want)
			}
			if m.Method == "row-at-a-time" && m.Min < 0.1 {
				t.Errorf("with its pause row-at-a-time takes %f s", m.Min)
			}
			if latency := c.P50; m.Calls > 0 && m.Min < latency {
				t.Errorf("%s takes %f s, with an answer that takes %f s", m.Method, m.Min, latency)
			}
		}
		if took := c.Methods[0].Phases["verify"]; took <= 0 || took > c.Methods[0].Max {
			t.Errorf("verify took %f s of %f", took, c.Methods[0].Max)
		}
	}
	show(t, report)
}

// show writes the report in each form.
func show(t *testing.T, report bench.Report) {
	t.Helper()
	var svg bytes.Buffer
	if err := report.WriteSVG(&svg); err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(bytes.NewReader(svg.Bytes()))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the chart is no XML: %v", err)
		}
	}
	if bars := strings.Count(svg.String(), "<rect "); bars != 12 {
		t.Errorf("the chart has %d bars, not 2 cases of 6 methods", bars)
	}
	if _, err := json.Marshal(report); err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(path, []byte("# Ours\n<!-- bench: from here to the end mark `make bench` writes -->\nold\n<!-- bench: end -->\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the marks are still there the second time
		if err := report.WriteMarkdown(path, filepath.Join(filepath.Dir(path), "bench.svg")); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	document := string(text)
	if !strings.HasPrefix(document, "# Ours\n") || !strings.HasSuffix(document, "after\n") || strings.Contains(document, "old") ||
		strings.Count(document, "| ours |") != 2 || strings.Count(document, "Runbook 5.2") != 1 || strings.Count(document, "](bench.svg)") != 1 {
		t.Errorf("the document is\n%s", document)
	}
	if err := os.WriteFile(path, []byte("# Theirs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := report.WriteMarkdown(path, filepath.Join(filepath.Dir(path), "bench.svg")); err == nil {
		t.Error("a document without marks was written to")
	}
}

// A method that does other work than it should is found out before anything is timed.
func TestBrokenMethod(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(ctx context.Context, s bench.Subject, out bench.Outcome) (bench.Outcome, error){
		"takes one too many": func(ctx context.Context, s bench.Subject, out bench.Outcome) (bench.Outcome, error) {
			_, err := s.Pool.Exec(ctx, "DELETE FROM conversation_members WHERE ctid = (SELECT min(ctid) FROM conversation_members)")
			return out, err
		},
		"takes another": func(ctx context.Context, s bench.Subject, out bench.Outcome) (bench.Outcome, error) {
			_, err := s.Pool.Exec(ctx, `WITH moved AS (DELETE FROM conversation_members
					WHERE ctid = (SELECT min(ctid) FROM conversation_members) RETURNING *)
				INSERT INTO conversation_members (conversation_id, user_id) SELECT conversation_id, gen_random_uuid() FROM moved`)
			return out, err
		},
		"changes what it leaves": func(ctx context.Context, s bench.Subject, out bench.Outcome) (bench.Outcome, error) {
			_, err := s.Pool.Exec(ctx, "UPDATE conversation_members SET is_muted = true WHERE ctid = (SELECT min(ctid) FROM conversation_members)")
			return out, err
		},
		"counts wrongly": func(_ context.Context, _ bench.Subject, out bench.Outcome) (bench.Outcome, error) {
			out.Deleted++
			return out, nil
		},
		"leaves out evidence": func(ctx context.Context, s bench.Subject, out bench.Outcome) (bench.Outcome, error) {
			_, err := s.Pool.Exec(ctx, "DELETE FROM conversation_members_backup WHERE ctid = (SELECT min(ctid) FROM conversation_members_backup)")
			return out, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method := bench.Methods()[0]
			honest := method.Do
			method.Do = func(ctx context.Context, s bench.Subject) (bench.Outcome, error) {
				out, err := honest(ctx, s)
				if err != nil {
					return out, err
				}
				return broken(ctx, s, out)
			}
			report, err := bench.Run(t.Context(), small(t, method))
			if !errors.Is(err, bench.ErrNotTheSame) {
				t.Errorf("the bench says %v", err)
			}
			if len(report.Cases) != 0 {
				t.Error("it was timed")
			}
		})
	}
}

// A method that deletes under the trigger though it should not is found out, too:
// it would be charged with work that nobody asked it for.
func TestUnwantedEvidence(t *testing.T) {
	t.Parallel()
	method, err := bench.ParseMethod("fdw-audited")
	if err != nil {
		t.Fatal(err)
	}
	method.Audited = false
	if _, err := bench.Run(t.Context(), small(t, method)); !errors.Is(err, bench.ErrNotTheSame) {
		t.Errorf("the bench says %v", err)
	}
}

// With more orphans than a breaker lets go, the limits of ours are raised, and it
// says which; with none of them it works, too.
func TestShares(t *testing.T) {
	t.Parallel()
	size, err := bench.ParseSize("500/6000/2000")
	if err != nil {
		t.Fatal(err)
	}
	options := small(t, bench.Methods()[0])
	options.Sizes, options.Shares = []bench.Size{size}, []float64{0, 0.20, 0}
	report, err := bench.Run(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Cases) != 2 {
		t.Fatalf("%d cases", len(report.Cases))
	}
	none, many := report.Cases[0], report.Cases[1]
	if none.Doomed != 0 || none.Methods[0].Deleted != 0 || len(none.Loosened) != 0 {
		t.Errorf("without dead users: %+v", none)
	}
	if many.Doomed != 1200 || many.Methods[0].Deleted != 1200 || strings.Join(many.Loosened, " ") != "new-missing-share delete-share" {
		t.Errorf("with a fifth of dead users: %+v", many)
	}

	// So few that no breaker minds their share.
	options = small(t, bench.Methods()[0])
	options.Shares = []float64{0.5}
	if report, err = bench.Run(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	if few := report.Cases[0]; few.Doomed != 75 || len(few.Loosened) != 0 {
		t.Errorf("with 15 dead users: %+v", few)
	}
}

// The application plays beside a sweep, and waits for a lock that the sweep holds.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	locks := bench.Method{
		Name: "locks", Prepare: bench.Methods()[1].Prepare,
		Do: func(ctx context.Context, s bench.Subject) (out bench.Outcome, err error) {
			err = pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "LOCK TABLE conversation_members IN ACCESS EXCLUSIVE MODE"); err != nil {
					return err
				}
				if _, err := tx.Exec(ctx, "SELECT pg_sleep(0.5)"); err != nil {
					return err
				}
				tag, err := tx.Exec(ctx, "DELETE FROM conversation_members AS m USING users AS u WHERE u.id = m.user_id AND u.deleted_at IS NOT NULL")
				out.Deleted = tag.RowsAffected()
				return err
			})
			return out, err
		},
	}
	options := small(t, locks)
	options.NeighbourRate, options.NeighbourQuiet = 200, 3*time.Second
	report, err := bench.Run(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	m := report.Cases[0].Methods[0]
	n := m.Neighbours
	if n == nil || n.Quiet.Transactions < 100 || n.Swept.Transactions < 20 {
		t.Fatalf("%+v", n)
	}
	if n.Held.LongestWait < 0.2 || n.Held.LongestTransaction < 0.4 || n.Swept.Max < 200 {
		t.Errorf("half a second of a lock looks like %+v", n)
	}
	if m.Held.LongestTransaction < 0.4 || m.Held.LongestWait != 0 {
		t.Errorf("alone it looks like %+v", m.Held)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "7", "1/2", "0/1/1", "10/5/6", "2/30/10", "1/1/1/1", "9000000000/1/1"} {
		if size, err := bench.ParseSize(text); err == nil {
			t.Errorf("%q is the size %+v", text, size)
		}
	}
	if size, err := bench.ParseSize("3/30/10"); err != nil || size.Members != 30 || size.Users != 10 {
		t.Errorf("%+v, %v", size, err)
	}
	for _, text := range []string{"", "45", "-1ms", "80ms/45ms", "45ms/x", "0/1"} {
		if l, err := bench.ParseLatency(text); err == nil {
			t.Errorf("%q is the latency %+v", text, l)
		}
	}
	if l, err := bench.ParseLatency("45ms/80ms"); err != nil || l != (authfake.Latency{P50: 45 * time.Millisecond, P99: 80 * time.Millisecond}) {
		t.Errorf("%+v, %v", l, err)
	}
	for _, text := range []string{"", "-1", "91", "x", "NaN"} {
		if share, err := bench.ParseShare(text); err == nil {
			t.Errorf("%q is the share %f", text, share)
		}
	}
	for _, m := range bench.Methods() {
		if found, err := bench.ParseMethod(m.Name); err != nil || found.Name != m.Name {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
	if _, err := bench.ParseMethod("theirs"); err == nil {
		t.Error("there is a method theirs")
	}
}
