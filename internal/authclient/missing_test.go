package authclient_test

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

func TestMissing(t *testing.T) {
	for _, method := range []string{"", authclient.DefaultMethod, "/nova.identity_service.v2.AuthService/GetUsersByIds"} {
		server := serve(t, authfake.Options{Record: true})
		seen := &tally{}
		book := &logbook{}
		client := dial(t, source.Config{URL: server.URL(), Method: method, Observer: seen, Logger: book.logger()})
		ids := people(source.MaxBatch)
		server.Add(ids...)
		dead := []int{3, 50, 99}
		for _, i := range dead {
			server.Delete(ids[i])
		}

		missing, err := client.Missing(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(missing, append(ids[3:4:4], ids[50], ids[99])) {
			t.Errorf("missing %v", missing)
		}
		if server.Calls() != 1 || server.MaxBatch() != 100 || len(server.AskedIDs()) != 100 {
			t.Errorf("calls %d, largest %d", server.Calls(), server.MaxBatch())
		}
		if seen.methods["get_users_by_ids"] != 1 || seen.users != 100 || len(seen.errs) > 0 {
			t.Errorf("observer was told %+v", seen)
		}
		lines := book.records(t, "DEBUG", "auth_client")
		if len(lines) != 1 || lines[0]["method"] != "get_users_by_ids" || lines[0]["users"] != 100.0 || lines[0]["missing"] != 3.0 || lines[0]["duration"] == nil {
			t.Errorf("debug lines %v", lines)
		}

		server.Revive(ids[3], ids[50], ids[99])
		if missing, err = client.Missing(t.Context(), ids); err != nil || len(missing) != 0 {
			t.Errorf("after the revival: missing %v, error %v", missing, err)
		}
	}
}

func TestMissingRefusesOddBatches(t *testing.T) {
	server := serve(t, authfake.Options{})
	client := dial(t, source.Config{URL: server.URL()})
	for _, n := range []int{0, 101} {
		missing, err := client.Missing(t.Context(), people(n))
		if reasonOf(t, err) != "invalid_batch" || missing != nil {
			t.Errorf("%d ids: %v, %v", n, missing, err)
		}
	}
	if server.Calls() != 0 {
		t.Errorf("the server saw %d calls", server.Calls())
	}
}

// Each fault against a batch with living and dead users. What no caller can
// see is asserted as such: the lies come through, and are the breakers' work.
func TestFaults(t *testing.T) {
	reasons := map[string]string{
		"new_field": "unknown_field", "users_in_another_field": "unknown_field", "status_4711": "status_unknown",
		"in_band_error": "in_band_error", "in_band_error_with_users": "in_band_error", "empty_in_band_error": "in_band_error",
		"foreign_ids_added": "foreign_id", "only_foreign_ids": "foreign_id",
		"unparsable_ids": "unparsable_id", "empty_ids": "unparsable_id", "bare_hex_ids": "unparsable_id",
		"over_message_limit": "message_too_large", "never_answers": "deadline",
		"goaway_mid_call": "transport", "drop_mid_call": "transport",
		"status_deadlineexceeded": "deadline", "status_notfound": "status_not_found",
		"status_internal": "status_internal", "status_unavailable": "status_unavailable",
		"status_unauthenticated": "status_unauthenticated",
	}
	for _, fault := range authfake.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			server := serve(t, authfake.Options{})
			ids := people(20)
			living, dead := ids[:12], ids[12:]
			server.Add(living...)
			seen := &tally{}
			cfg := source.Config{URL: server.URL(), MaxAttempts: 2, Observer: seen}
			if fault.Hangs {
				cfg.Timeout = 100 * time.Millisecond
			}
			client := dial(t, cfg)
			server.SetFault(fault)

			missing, err := client.Missing(t.Context(), ids)
			switch fault.Expect {
			case authfake.Invalid:
				if err == nil || missing != nil {
					t.Fatalf("missing %v, error %v, want an invalid response", missing, err)
				}
				got := reasonOf(t, err)
				if want := reasons[fault.Name]; want != "" && got != want {
					t.Errorf("reason %s, want %s", got, want)
				}
				if len(seen.errs) != seen.calls || seen.calls == 0 {
					t.Errorf("of %d attempts the observer saw %d fail: %v", seen.calls, len(seen.errs), seen.errs)
				}
			case authfake.Truth:
				if err != nil || !slices.Equal(missing, dead) {
					t.Errorf("missing %v, error %v, want the dead", missing, err)
				}
			case authfake.Lie:
				if fault.Name == "flapping" { // honest first
					if err != nil || !slices.Equal(missing, dead) {
						t.Errorf("missing %v, error %v, want the dead", missing, err)
					}
					missing, err = client.Missing(t.Context(), ids)
				}
				if err != nil || len(missing) <= len(dead) {
					t.Errorf("missing %v, error %v, want a lie that cannot be seen", missing, err)
				}
			}

			server.SetFault(authfake.Fault{})
			if fault.Hangs {
				return // its deadline is too short to promise anything
			}
			if missing, err = client.Missing(t.Context(), ids); err != nil || !slices.Equal(missing, dead) {
				t.Errorf("after the fault: missing %v, error %v", missing, err)
			}
		})
	}
}

// A new field may be the token of the next page: 96 users of 100 are no proof that
// four are missing.
func TestNewFieldMakesAllUnknown(t *testing.T) {
	server := serve(t, authfake.Options{})
	ids := people(100)
	server.Add(ids...)
	server.SetFaultFunc(authfake.NewField)
	client := dial(t, source.Config{URL: server.URL()})
	missing, err := client.Missing(t.Context(), ids)
	if reasonOf(t, err) != "unknown_field" || missing != nil || batchError(t, err).Users != 100 || !strings.Contains(err.Error(), "unknown field 3") {
		t.Errorf("missing %v, error %v", missing, err)
	}
}

func TestRetries(t *testing.T) {
	ids := people(5)
	for _, test := range []struct {
		name     string
		fault    authfake.FaultFunc
		attempts int
		calls    int
		reason   string
	}{
		{"unavailable twice", authfake.Until(2, authfake.Status(codes.Unavailable, "restarting")), 5, 3, ""},
		{"aborted twice", authfake.Until(2, authfake.Status(codes.Aborted, "try again")), 5, 3, ""},
		{"exhausted twice", authfake.Until(2, authfake.Status(codes.ResourceExhausted, "too many calls")), 5, 3, ""},
		{"deadline twice", authfake.Until(2, authfake.Status(codes.DeadlineExceeded, "database")), 5, 3, ""},
		{"goaway once", authfake.Until(1, authfake.GoAwayMidCall), 5, 2, ""},
		{"unavailable for good", authfake.Status(codes.Unavailable, "down"), 3, 3, "status_unavailable"},
		{"no retries", authfake.Status(codes.Unavailable, "down"), 1, 1, "status_unavailable"},
		{"not found", authfake.Until(1, authfake.Status(codes.NotFound, "no user")), 5, 1, "status_not_found"},
		{"internal", authfake.Until(1, authfake.Status(codes.Internal, "bug")), 5, 1, "status_internal"},
		{"too large", authfake.Until(1, authfake.OverMessageLimit), 5, 1, "message_too_large"},
		{"in-band error", authfake.Until(1, authfake.InBandErrorWithUsers), 5, 1, "in_band_error"},
		{"foreign id", authfake.Until(1, authfake.ForeignIDsAdded), 5, 1, "foreign_id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serve(t, authfake.Options{})
			server.Add(ids[:4]...)
			server.SetFaultFunc(test.fault)
			seen := &tally{}
			client := dial(t, source.Config{URL: server.URL(), MaxAttempts: test.attempts, Observer: seen})
			missing, err := client.Missing(t.Context(), ids)
			if test.reason == "" {
				if err != nil || !slices.Equal(missing, ids[4:]) {
					t.Errorf("missing %v, error %v", missing, err)
				}
			} else if got := reasonOf(t, err); got != test.reason || missing != nil {
				t.Errorf("missing %v, reason %s, want %s", missing, got, test.reason)
			} else if tries := batchError(t, err).Attempts; tries != test.calls {
				t.Errorf("the error counts %d attempts, want %d", tries, test.calls)
			}
			if server.Calls() != test.calls || seen.calls != test.calls {
				t.Errorf("the server saw %d calls and the observer %d, want %d", server.Calls(), seen.calls, test.calls)
			}
		})
	}
}

func TestDeadlineOfOneAttempt(t *testing.T) {
	server := serve(t, authfake.Options{})
	seen := &tally{}
	client := dial(t, source.Config{URL: server.URL(), Timeout: 100 * time.Millisecond, MaxAttempts: 2, Observer: seen})
	server.SetFaultFunc(authfake.NeverAnswers)
	_, err := client.Missing(t.Context(), people(3))
	if reasonOf(t, err) != "deadline" || status.Code(errors.Unwrap(err)) != codes.DeadlineExceeded {
		t.Errorf("error %v", err)
	}
	if seen.calls != 2 || len(seen.errs) != 2 {
		t.Errorf("observer: %+v", seen)
	}
}

func TestCallerGivesUp(t *testing.T) {
	server := serve(t, authfake.Options{})
	arrived, fault := arrival(authfake.NeverAnswers)
	server.SetFaultFunc(fault)
	client := dial(t, source.Config{URL: server.URL()})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	missing, err := client.Missing(ctx, people(3))
	if reasonOf(t, err) != "cancelled" || !errors.Is(err, context.Canceled) || missing != nil {
		t.Errorf("missing %v, error %v", missing, err)
	}
	if server.Calls() != 1 {
		t.Errorf("%d calls, want 1", server.Calls())
	}
}

// The pause before a retry ends with the caller, and the error still tells
// what went wrong.
func TestCallerGivesUpInThePause(t *testing.T) {
	server := serve(t, authfake.Options{})
	server.SetFaultFunc(authfake.Status(codes.Unavailable, "restarting"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := dial(t, source.Config{
		URL: server.URL(), BackoffInitial: time.Hour, BackoffMax: time.Hour,
		Observer: onCall(func() { time.AfterFunc(time.Millisecond, cancel) }),
	})
	_, err := client.Missing(ctx, people(3))
	if reasonOf(t, err) != "cancelled" || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if server.Calls() != 1 {
		t.Errorf("%d calls, want 1", server.Calls())
	}
}

type onCall func()

func (f onCall) CallDone(string, int, time.Duration, error) { f() }
func (f onCall) ConcurrencyLimit(int)                       {}

// One call in seventeen minutes: the second would be after the caller's deadline, and
// is not sent.
func TestMaxQPS(t *testing.T) {
	server := serve(t, authfake.Options{})
	client := dial(t, source.Config{URL: server.URL(), MaxQPS: 0.001})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := client.Missing(ctx, people(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Missing(ctx, people(3)); reasonOf(t, err) != "cancelled" {
		t.Errorf("error %v", err)
	}
	if server.Calls() != 1 {
		t.Errorf("%d calls, want 1", server.Calls())
	}
}

// A retry is a call as any other.
func TestMaxQPSCountsRetries(t *testing.T) {
	server := serve(t, authfake.Options{})
	server.SetFaultFunc(authfake.Status(codes.Unavailable, "restarting"))
	client := dial(t, source.Config{URL: server.URL(), MaxQPS: 0.001})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := client.Missing(ctx, people(3))
	if reasonOf(t, err) != "cancelled" || !strings.Contains(err.Error(), "restarting") {
		t.Errorf("error %v, want the cause of the first attempt in it", err)
	}
	if server.Calls() != 1 {
		t.Errorf("%d calls, want 1", server.Calls())
	}
}

func TestSlowLine(t *testing.T) {
	server := serve(t, authfake.Options{})
	book := &logbook{}
	client := dial(t, source.Config{URL: server.URL(), SlowAfter: 1, Logger: book.logger()})
	for range 3 {
		if _, err := client.Missing(t.Context(), people(100)); err != nil {
			t.Fatal(err)
		}
	}
	lines := book.records(t, "WARN", "orphan_cleaner")
	if len(lines) != 1 {
		t.Fatalf("lines %v, want one in ten seconds", lines)
	}
	if text, _ := lines[0]["msg"].(string); !regexp.MustCompile(`^Batch API slow: took \d+\.\ds for 100 users$`).MatchString(text) {
		t.Errorf("message %q", text)
	}
	if lines[0]["method"] != "get_users_by_ids" {
		t.Errorf("attributes %v", lines[0])
	}
}

func TestFastCallsAreNotSlow(t *testing.T) {
	server := serve(t, authfake.Options{})
	book := &logbook{}
	client := dial(t, source.Config{URL: server.URL(), SlowAfter: time.Hour, Logger: book.logger()})
	if _, err := client.Missing(t.Context(), people(100)); err != nil {
		t.Fatal(err)
	}
	if lines := book.records(t, "WARN", "orphan_cleaner"); len(lines) != 0 {
		t.Errorf("lines %v", lines)
	}
}
