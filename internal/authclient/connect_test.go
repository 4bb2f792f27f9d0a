package authclient_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

func connectLines(t *testing.T, book *logbook) []map[string]any {
	t.Helper()
	return book.records(t, "ERROR", "auth_client")
}

// One line for an outage, however many calls it costs, and one more for the
// next.
func TestConnectFailureIsLoggedOncePerOutage(t *testing.T) {
	server := serve(t, authfake.Options{})
	addr := server.Addr()
	book := &logbook{}
	client := dial(t, source.Config{URL: server.URL(), MaxAttempts: 3, Logger: book.logger()})
	server.Stop()
	for range 3 {
		if _, err := client.Missing(t.Context(), people(2)); reasonOf(t, err) != "transport" {
			t.Errorf("error %v", err)
		}
	}
	lines := connectLines(t, book)
	if len(lines) != 1 {
		t.Fatalf("lines %v, want one", lines)
	}
	if lines[0]["msg"] != "Failed to connect: transport error" || lines[0]["address"] != addr || lines[0]["cause"] == "" {
		t.Errorf("line %v", lines[0])
	}

	server = serve(t, authfake.Options{Addr: addr})
	for begun := time.Now(); ; {
		_, err := client.Missing(t.Context(), people(2))
		if err == nil {
			break
		}
		if time.Since(begun) > patience {
			t.Fatal(err)
		}
	}
	server.Stop()
	for range 3 {
		if _, err := client.Missing(t.Context(), people(2)); err == nil {
			t.Error("a stopped server answered")
		}
	}
	if lines = connectLines(t, book); len(lines) != 2 {
		t.Errorf("lines %v, want two", lines)
	}
}

// Not "no children to pick from", which is gRPC's word for it.
func TestNameDoesNotResolve(t *testing.T) {
	book := &logbook{}
	client := dial(t, source.Config{URL: "http://auth-service.invalid:9080", Timeout: 5 * time.Second, MaxAttempts: 3, Logger: book.logger()})
	const want = "DNS does not resolve the name auth-service.invalid: "
	_, err := client.Missing(t.Context(), people(2))
	if strings.Count(err.Error(), want) != 1 || !batchError(t, err).Unreachable() {
		t.Errorf("error %v, want one %q", err, want)
	}
	if _, err := client.Health(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("health: %v", err)
	}
	lines := connectLines(t, book)
	if len(lines) != 1 || !strings.HasPrefix(fmt.Sprint(lines[0]["cause"]), want) {
		t.Errorf("lines %v, want one that says %q", lines, want)
	}
}

// A name that resolves is not to blame.
func TestNobodyListens(t *testing.T) {
	server := serve(t, authfake.Options{})
	_, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	server.Stop()
	client := dial(t, source.Config{URL: "http://localhost:" + port, MaxAttempts: 2})
	if _, err := client.Missing(t.Context(), people(2)); strings.Contains(err.Error(), "DNS") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v", err)
	}
}

// A listener that accepts and says nothing, as a wrong port may.
func TestConnectToSilence(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	book := &logbook{}
	client := dial(t, source.Config{URL: "http://" + listener.Addr().String(), Timeout: 50 * time.Millisecond, MaxAttempts: 1, Logger: book.logger()})
	if _, err := client.Missing(t.Context(), people(2)); reasonOf(t, err) != "deadline" {
		t.Errorf("error %v", err)
	}
	if lines := connectLines(t, book); len(lines) != 1 {
		t.Errorf("lines %v, want one", lines)
	}
}

// A refusal by a server that was reached is no failure to connect.
func TestRefusalIsNoConnectFailure(t *testing.T) {
	server := serve(t, authfake.Options{})
	server.SetFaultFunc(authfake.Status(codes.Unavailable, "connection error: pool"))
	book := &logbook{}
	client := dial(t, source.Config{URL: server.URL(), MaxAttempts: 2, Logger: book.logger()})
	if _, err := client.Missing(t.Context(), people(2)); reasonOf(t, err) != "status_unavailable" {
		t.Errorf("error %v", err)
	}
	if lines := connectLines(t, book); len(lines) != 0 {
		t.Errorf("lines %v, want none", lines)
	}
}

// Without retries: a drained connection costs no call.
func TestDrainCostsNothing(t *testing.T) {
	server := serve(t, authfake.Options{})
	client := dial(t, source.Config{URL: server.URL(), MaxAttempts: 1})
	for range 5 {
		stop := load(t, client)
		server.Drain()
		if _, err := client.Missing(t.Context(), people(2)); err != nil {
			t.Error(err)
		}
		stop()
	}
}

func TestHealth(t *testing.T) {
	server := serve(t, authfake.Options{})
	client := dial(t, source.Config{URL: server.URL()})
	expect := func(want source.HealthStatus, fails bool) {
		t.Helper()
		got, err := client.Health(t.Context())
		if got != want || (err != nil) != fails {
			t.Errorf("health %v, error %v, want %v", got, err, want)
		}
	}
	expect(source.HealthServing, false)
	server.SetServing(false)
	expect(source.HealthNotServing, true)
	server.SetHealth(healthv1.HealthCheckResponse_UNKNOWN)
	expect(source.HealthUnknown, true)
	server.SetHealth(healthv1.HealthCheckResponse_SERVICE_UNKNOWN)
	expect(source.HealthUnknown, true)
	server.SetHealth(healthv1.HealthCheckResponse_ServingStatus(77))
	expect(source.HealthUnknown, true)
	server.SetServing(true)
	expect(source.HealthServing, false)
	if server.Calls() != 0 {
		t.Errorf("health cost %d calls of the batch API", server.Calls())
	}
	server.Stop()
	expect(source.HealthUnknown, true)
}

func TestHealthWithoutTheService(t *testing.T) {
	server := serve(t, authfake.Options{WithoutHealth: true})
	client := dial(t, source.Config{URL: server.URL()})
	if got, err := client.Health(t.Context()); got != source.HealthUnimplemented || err != nil {
		t.Errorf("health %v, error %v", got, err)
	}
}
