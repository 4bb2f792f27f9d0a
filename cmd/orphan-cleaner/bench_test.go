package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nova-social/orphan-cleaner/internal/speed"
)

// A bench read-only reads somebody's own database and changes nothing in it.
func TestBenchReadOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1200, 15)
	before := contents(t, w.DB)
	e := program(t, w.env, "bench", "--read-only", "--call-repeat=3", "--json").expect(t, exitDone)
	if after := contents(t, w.DB); after != before {
		t.Errorf("it changed the database:\n%s\nwas\n%s", after, before)
	}
	if calls := w.auth.Calls(); calls != 12+3*17 {
		t.Errorf("%d calls, not those of a dry run and 3 times 17", calls)
	}
	var report speed.Report
	if err := json.Unmarshal([]byte(e.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if report.DryRun.MembersDue != 15 || len(report.Calls) != 4 || report.Calls[3].Calls != 10 || report.Calls[3].Samples != 3 || report.UsersPerSecond <= 0 {
		t.Errorf("%+v", report)
	}

	// What a breaker would refuse is no matter of speed; what cannot be read is.
	e = program(t, w.env, "bench", "--read-only", "--call-repeat=1", "--max-delete-rows=1").expect(t, exitDone)
	if !strings.Contains(e.stdout, "1200 users, 1200 members") || !strings.Contains(e.stdout, "users a second") {
		t.Errorf("%s", e)
	}
	w.fault(t, "in_band_error")
	program(t, w.env, "bench", "--read-only", "--call-repeat=1").expect(t, exitFailed)
	if after := contents(t, w.DB); after != before {
		t.Errorf("it changed the database:\n%s\nwas\n%s", after, before)
	}
}

// Without --read-only nothing is measured, and the error says where the comparison is.
func TestBenchUsage(t *testing.T) {
	t.Parallel()
	for args, says := range map[string]string{
		"bench":                              "make bench",
		"bench --read-only --call-repeat=-1": "--call-repeat",
		"bench --read-only":                  "DATABASE_URL",
	} {
		e := program(t, nil, strings.Fields(args)...).expect(t, exitUsage)
		if !strings.Contains(e.stderr, says) || e.stdout != "" {
			t.Errorf("%s says nothing about %s: %s", args, says, e)
		}
	}
}
