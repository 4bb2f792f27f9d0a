package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/lab/bench"
)

// A size of the runbook's, with all that is written of it, and with so many dead users
// that breakers refuse: one whose limit is a flag, and one that has to be approved.
func TestBench(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	svg, file := filepath.Join(dir, "bench.svg"), filepath.Join(dir, "bench.json")
	l := newLab(t, "bench", "--program="+product, "--size=15000", "--share=0,20", "--repeat=2", "--runs-before=7", "--rate=0",
		"--json="+file, "--svg="+svg)
	out := l.run(t)
	for _, want := range []string{"A run beside the floor", "run 8", "--max-new-missing-share=1", "history"} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing about %q in\n%s", want, out)
		}
	}
	for line := range strings.Lines(out) {
		if n := len([]rune(strings.TrimSpace(line))); n > 100 && strings.HasPrefix(line, " ") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report bench.Report
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Cases) != 2 {
		t.Fatalf("%d cases", len(report.Cases))
	}
	for i, want := range []struct {
		doomed int64
		calls  int
	}{{0, 30}, {3000, 36}} {
		c := report.Cases[i]
		if c.Doomed != want.doomed || c.Calls != want.calls || c.CallsExpected != want.calls {
			t.Errorf("%d members of %d were to be deleted, by %d calls of %d", c.Doomed, want.doomed, c.Calls, want.calls)
		}
		for name, timing := range map[string]bench.Timing{"run": c.Run, "floor": c.Floor, "worn": *c.Worn} {
			if len(timing.All) != 2 || timing.Min <= 0 || timing.Min > timing.Seconds || timing.Seconds > timing.Max || timing.Own > timing.Seconds {
				t.Errorf("%s: %+v", name, timing)
			}
		}
		if c.ToFloor != c.Run.Seconds/c.Floor.Seconds || c.WornToFresh != c.Worn.Seconds/c.Run.Seconds {
			t.Errorf("ratios: %+v", c)
		}
		// A Go program with PostgreSQL's driver and gRPC in it.
		if mebibytes := c.PeakMemory >> 20; mebibytes < 8 || mebibytes > 100 {
			t.Errorf("a run takes %d MiB", mebibytes)
		}
	}
	if chart, err := os.ReadFile(svg); err != nil || !strings.Contains(string(chart), "</svg>") {
		t.Errorf("the chart: %v", err)
	}
	nothingLeft(t, l.temp)
}

// A run over five tables does what floors do, one for each; what it did is restored.
func TestBenchTargets(t *testing.T) {
	t.Parallel()
	l := newLab(t, "bench", "--program="+product, "--targets=../../docs/targets.md", "--users=1000", "--repeat=1")
	out := l.run(t)
	for _, want := range []string{
		"10,000 rows in 5 tables, of 1,000 users; 300 rows of 30 dead users done, no other;", "Calls: 11; expected: 11.", "run / floors: ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing about %q in\n%s", want, out)
		}
	}
	nothingLeft(t, l.temp)
}

// The application plays beside a run, as long as that lasts.
func TestBenchApplication(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "bench.json")
	newLab(t, "bench", "--program="+product, "--size=150", "--share=10", "--repeat=1", "--runs-before=0", "--p50=300ms", "--json="+file).run(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report bench.Report
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	c := report.Cases[0]
	if c.Worn != nil || c.Run.Min < 0.6 || c.Floor.Min < 0.3 {
		t.Errorf("with answers that take 0.3 s: %+v", c)
	}
	if a := c.Application; a == nil || a.Alone.Transactions == 0 || a.Beside.Transactions == 0 || a.P99Ratio <= 0 || a.Run < 0.6 {
		t.Errorf("%+v", a)
	}
}

// By SQL run and floor leave the same members, and nobody is called by gRPC.
func TestBenchSQL(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "bench.json")
	l := newLab(t, "bench", "--program="+product, "--size=1500", "--share=10", "--repeat=1", "--runs-before=0", "--rate=0", "--source=sql", "--json="+file)
	if out := l.run(t); !strings.Contains(out, "a table of the same server") {
		t.Errorf("nothing about SQL in\n%s", out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report bench.Report
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if c := report.Cases[0]; report.Source != "sql" || c.Calls != 0 || c.Doomed == 0 || c.ToFloor <= 0 {
		t.Errorf("%s: %+v", report.Source, c)
	}
	nothingLeft(t, l.temp)
}

// A program that does other work than it says is found out.
func TestBenchFindsOut(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]string{
		"deletes nothing":  `echo '{"state": "succeeded", "members_deleted": 15}'`,
		"counts wrongly":   `"$product" "$@" | sed 's/"members_deleted":15/"members_deleted":16/'`,
		"does not succeed": `"$product" "$@" | sed 's/"state":"succeeded"/"state":"incomplete"/'`,
		"says nothing":     `"$product" "$@" > /dev/null`,
		"fails":            `exit 2`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "orphan-cleaner")
			// What makes the dead due, and the dry runs, are the product's; the run that is measured is not.
			script := "#!/bin/sh\nproduct=" + product + "\ncase \"$*\" in migrate*|*--dry-run*) exec \"$product\" \"$@\";; esac\n" +
				"mkdir " + dir + "/first 2> /dev/null && exec \"$product\" \"$@\"\n" + broken + "\n"
			if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			l := newLab(t, "bench", "--program="+path, "--size=150", "--share=10", "--repeat=1", "--runs-before=0", "--rate=0")
			l.fail(t, "measuring a run: ")
			nothingLeft(t, l.temp)
		})
	}
}

func TestBenchUsage(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"--size=7", "--share=95", "--repeat=0", "--rate=-1", "--runs-before=-1"} {
		newLab(t, "bench", "--program="+product, arg).fail(t, strings.SplitN(strings.TrimPrefix(arg, "--"), "=", 2)[0])
	}
}
