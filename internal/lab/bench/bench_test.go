package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/speed"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "7", "1/2/3", "1M"} {
		if size, err := ParseSize(text); err == nil {
			t.Errorf("%q is the size %+v", text, size)
		}
	}
	for _, size := range Sizes() {
		if found, err := ParseSize(size.Name); err != nil || found != size {
			t.Errorf("%s: %+v, %v", size.Name, found, err)
		}
	}
	for _, text := range []string{"", "-1", "91", "x", "NaN"} {
		if share, err := ParseShare(text); err == nil {
			t.Errorf("%q is the share %f", text, share)
		}
	}
	if share, err := ParseShare("0.1"); err != nil || share != 0.001 {
		t.Errorf("0.1 %% is %f, %v", share, err)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	values := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.2: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := speed.Quantile(values, q); got != want {
			t.Errorf("quantile %g is %g, not %g", q, got, want)
		}
	}
	if median(values) != 3 || median([]float64{4, 1}) != 2.5 || median(nil) != 0 || speed.Quantile(nil, 0.5) != 0 {
		t.Error("a median is wrong")
	}
}

// A fleet is compared with one shard and as many workers, row by row.
func TestFleetText(t *testing.T) {
	t.Parallel()
	cases := make([]FleetCase, len(fleets()))
	for i, of := range fleets() {
		cases[i] = FleetCase{Shards: of.shards, Workers: of.workers, Seconds: []float64{float64(2 * of.shards * of.workers)}, CPU: []float64{float64(of.shards)}}
	}
	cases[2].Seconds = []float64{36, 1, 99}
	text, err := fleetText(Size{Members: 1_000_000}, &dataset{doomed: 10_000}, cases)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"12 1 36.0 3.0 1.50 12.0 1.0 1.00", "12 3 72.0 6.0 1.00 12.0 1.0 1.00"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestParseTransaction(t *testing.T) {
	t.Parallel()
	got, err := parseTransaction("0 199 2241 0 1175850568 995598 1020")
	done := time.UnixMicro(1_175_850_568_995_598)
	if err != nil || got.milliseconds != 2.241 || !got.done.Equal(done) || !got.due.Equal(done.Add(-2241*time.Microsecond)) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, line := range []string{"", "0 199 2241", "0 199 skipped 0 1175850568 995598 1020"} {
		if _, err := parseTransaction(line); err == nil {
			t.Errorf("%q was read", line)
		}
	}
}

func report() Report {
	large, small := Sizes()[3], Sizes()[2]
	return Report{
		Version: "v1", Date: "2026-01-31T10:00:00Z", Repeat: 5, RunsBefore: 50,
		Cases: []Case{
			{Size: small, Run: Timing{Seconds: 0.2}, Floor: Timing{Seconds: 0.1}, ToFloor: 2, Calls: 30, CallsExpected: 30},
			{
				Size: large, Share: 0.1, Doomed: 108_000, Flags: []string{"--max-delete-share=1"}, Run: Timing{Seconds: 1.3}, Floor: Timing{Seconds: 0.7},
				Worn: &Timing{Seconds: 1.4}, ToFloor: 1.86, WornToFresh: 1.08, Calls: 2970, CallsExpected: 2970, PeakMemory: 39 << 20,
				Application: &Application{Rate: 200, P99Ratio: 1.16},
			},
		},
	}
}

// The chart is XML with a bar for each figure.
func TestChart(t *testing.T) {
	t.Parallel()
	var svg bytes.Buffer
	if err := report().WriteSVG(&svg); err != nil {
		t.Fatal(err)
	}
	if bars := strings.Count(svg.String(), "<rect "); bars != 5 {
		t.Errorf("the chart has %d bars, not 2 and 3", bars)
	}
	decoder := xml.NewDecoder(&svg)
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the chart is no XML: %v", err)
		}
	}
	if err := (Report{}).WriteSVG(io.Discard); err == nil {
		t.Error("nothing was drawn")
	}
}

// The figures stand between the marks of a document, also the second time.
func TestMarkdown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(path, []byte("# Ours\n"+markBegin+"\nold\n"+markEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := report().WriteMarkdown(path, filepath.Join(filepath.Dir(path), "bench.svg")); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	document := string(text)
	if !strings.HasPrefix(document, "# Ours\n") || !strings.HasSuffix(document, "after\n") || strings.Contains(document, "old") {
		t.Errorf("the document is\n%s", document)
	}
	for part, times := range map[string]int{
		"](bench.svg)": 1, "| 1,000,000 | 10 % | 108,000 |": 1, "| 1.86 |": 1, "### ": 2, "| 2,970 | 2,970 | 39 |": 1, "--max-delete-share=1": 1, "| 1.16 |": 1,
	} {
		if n := strings.Count(document, part); n != times {
			t.Errorf("%q stands there %d times, not %d, in\n%s", part, n, times, document)
		}
	}
	if err := os.WriteFile(path, []byte("# Theirs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := report().WriteMarkdown(path, ""); err == nil {
		t.Error("a document without marks was written to")
	}
}
