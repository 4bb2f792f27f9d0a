package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/bench"
)

// The smallest of the runbook's sizes, by the program, with all that it writes, and
// with settings in the environment that must not matter.
func TestBench(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	svg, file := filepath.Join(dir, "bench.svg"), filepath.Join(dir, "bench.json")
	env := []string{"DATABASE_URL=postgres://nobody@127.0.0.1:1/none", "ORPHAN_CLEANER_RETENTION=3000d", "PGDATABASE=none"}
	e := program(t, env, "bench", "--size=150", "--latency=0", "--repeat=1", "--call-repeat=2", "--methods=ours,floor",
		"--no-durable", "--json="+file, "--svg="+svg).expect(t, exitDone)
	for _, want := range []string{"Runbook 5.1", "Runbook 5.2", "150 members of 30 users in 10 conversations", "peak memory", "fsync off"} {
		if !strings.Contains(e.stdout, want) {
			t.Errorf("nothing about %q in\n%s", want, e.stdout)
		}
	}
	for line := range strings.Lines(e.stdout) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 && strings.HasPrefix(line, " ") && !strings.HasPrefix(line, " ours:") {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.Contains(line, "≈") {
			t.Errorf("cut off: %s", line)
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
	ours := report.Cases[0].Methods[0]
	if ours.Method != "ours" || ours.Deleted != 5 || ours.ToFloor <= 0 {
		t.Errorf("%+v", ours)
	}
	// A Go program with PostgreSQL's driver and gRPC in it: neither nothing nor the
	// memory of the bench.
	if mebibytes := ours.PeakMemory >> 20; mebibytes < 8 || mebibytes > 300 {
		t.Errorf("a run takes %d MiB", mebibytes)
	}
	if chart, err := os.ReadFile(svg); err != nil || !strings.Contains(string(chart), "</svg>") {
		t.Errorf("the chart: %v", err)
	}
}

// A bench read-only reads somebody's own database and changes nothing in it.
func TestBenchReadOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1200, 15)
	before := contents(t, w.DB)
	file := filepath.Join(t.TempDir(), "bench.json")
	e := program(t, w.env, "bench", "--read-only", "--call-repeat=3", "--json="+file).expect(t, exitDone)
	if after := contents(t, w.DB); after != before {
		t.Errorf("it changed the database:\n%s\nwas\n%s", after, before)
	}
	if calls := w.auth.Calls(); calls != 12+3*17 {
		t.Errorf("%d calls, not those of a dry run and 3 times 17", calls)
	}
	if !strings.Contains(e.stdout, "1200 users, 1200 members") || !strings.Contains(e.stdout, "users a second") {
		t.Errorf("%s", e)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report bench.ReadOnlyReport
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if report.DryRun.MembersDue != 15 || len(report.Calls) != 4 || report.Calls[3].Calls != 10 || report.Calls[3].Samples != 3 || report.UsersPerSecond <= 0 {
		t.Errorf("%+v", report)
	}

	// What a breaker would refuse is no matter of speed; what cannot be read is.
	program(t, w.env, "bench", "--read-only", "--call-repeat=1", "--max-delete-members=1").expect(t, exitDone)
	w.fault(t, "in_band_error")
	program(t, w.env, "bench", "--read-only", "--call-repeat=1").expect(t, exitFailed)
	if after := contents(t, w.DB); after != before {
		t.Errorf("it changed the database:\n%s\nwas\n%s", after, before)
	}
}

// Nobody's own database is benched by mistake.
func TestBenchUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--database-url=postgres://postgres@127.0.0.1:1/messaging"},
		{"--auth-service-url=http://127.0.0.1:1"},
		{"--size=7"},
		{"--latency=fast"},
		{"--share=95"},
		{"--methods=theirs"},
		{"--repeat=0"},
		{"--neighbours=-1"},
		{"--read-only"},
	} {
		e := program(t, nil, append([]string{"bench"}, args...)...)
		if e.status != exitUsage || e.stdout != "" {
			t.Errorf("%q: %s", args, e)
		}
	}
}
