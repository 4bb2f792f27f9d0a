package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
)

// An auth-service that is slow for a while is asked with fewer calls at once,
// then with all of them again; nobody is left out.
func TestSlowAuthService(t *testing.T) {
	t.Parallel()
	const users, slowFrom, slowUntil = 4000, 20, 90
	w := newWorld(t, users, 15)
	living := w.living()
	w.auth.SetFaultFunc(func(ctx context.Context, call int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if call < slowFrom || call >= slowUntil {
			return honest()
		}
		select {
		case <-time.After(300 * time.Millisecond):
			return honest()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	file := filepath.Join(t.TempDir(), "run.prom")
	e := program(t, w.env, "run", "--batch-size=10", "--metrics-textfile="+file, "--auth-service-target-p99=250ms").expect(t, exitDone)
	slow := strings.Count(e.stderr, "WARN auth_client: auth-service is slow, fewer calls in flight")
	fast := strings.Count(e.stderr, "INFO auth_client: auth-service is fast again, all calls in flight")
	// At the end it may be slow once more, by chance.
	if fast == 0 || fast != slow && fast != slow-1 {
		t.Errorf("slow %d times, fast again %d times: %s", slow, fast, e)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := series(t, string(text))
	for name, want := range map[string]float64{
		"orphan_cleaner_users_checked": users, "orphan_cleaner_users_unknown": 0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if all := got["orphan_cleaner_concurrency_limit"] == 8; all != (fast == slow) {
		t.Errorf("all calls are in flight: %t: %s", all, e)
	}
	gone(t, w, living, 15)
}
