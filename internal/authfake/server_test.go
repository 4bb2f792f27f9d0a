package authfake_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	identityservicev2 "github.com/nova-social/orphan-cleaner/gen/nova/identity_service/v2"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, opts authfake.Options) (*authfake.Server, *grpc.ClientConn) {
	t.Helper()
	server, err := authfake.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(server.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return server, conn
}

func TestHonest(t *testing.T) {
	server, conn := start(t, authfake.Options{Record: true})
	v1, v2 := authservicev1.NewAuthServiceClient(conn), identityservicev2.NewAuthServiceClient(conn)
	alive, dead, never := uuid.New(), uuid.New(), uuid.New()
	server.Add(alive, dead)
	server.Delete(dead)
	request := &authservicev1.GetUsersByIdsRequest{UserIds: []string{dead.String(), alive.String(), never.String(), alive.String()}}

	one, err := v1.GetUsersByIds(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if len(one.GetUsers()) != 1 || one.GetUsers()[0].GetId() != alive.String() || one.Error != nil {
		t.Errorf("reply %v", one)
	}
	if u := one.GetUsers()[0]; !u.GetIsActive() || !strings.Contains(u.GetEmail(), u.GetUsername()) || u.GetCreatedAt() == 0 {
		t.Errorf("user %v", u)
	}
	server.Revive(dead)
	two, err := v2.GetUsersByIds(t.Context(), request)
	if err != nil || len(two.GetUsers()) != 2 {
		t.Errorf("after the revival: %v, %v", two, err)
	}
	if _, err = v1.GetUsersByIds(t.Context(), &authservicev1.GetUsersByIdsRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("empty list: %v", err)
	}

	if server.Calls() != 3 || server.EmptyCalls() != 1 || server.MaxBatch() != 4 || server.Living() != 2 ||
		!slices.Equal(server.CallSizes(), []int{4, 4, 0}) || !slices.Equal(server.AskedIDs()[:4], request.GetUserIds()) {
		t.Errorf("recorded %d calls, %d empty, largest %d, sizes %v", server.Calls(), server.EmptyCalls(), server.MaxBatch(), server.CallSizes())
	}
	server.ResetCalls()
	if server.Calls() != 0 || server.MaxBatch() != 0 || len(server.CallSizes()) != 0 {
		t.Error("ResetCalls left something")
	}
}

func TestAliveFunction(t *testing.T) {
	_, conn := start(t, authfake.Options{Alive: func(id uuid.UUID) bool { return id[0] < 128 }})
	reply, err := authservicev1.NewAuthServiceClient(conn).GetUsersByIds(t.Context(), &authservicev1.GetUsersByIdsRequest{
		UserIds: []string{uuid.UUID{1}.String(), uuid.UUID{200}.String()},
	})
	if err != nil || len(reply.GetUsers()) != 1 {
		t.Errorf("reply %v, error %v", reply, err)
	}
}

// What the runbook's grpcurl calls need: the services listed, the symbols of
// both names resolved.
func TestReflection(t *testing.T) {
	_, conn := start(t, authfake.Options{})
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(request *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		reply, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	var names []string
	for _, s := range ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	for _, name := range []string{"nova.auth_service.v1.AuthService", "nova.identity_service.v2.AuthService", "grpc.health.v1.Health"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not among %v", name, names)
		}
		reply := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name}})
		if len(reply.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
			t.Errorf("%s is not described: %v", name, reply)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
}

func TestHealth(t *testing.T) {
	server, conn := start(t, authfake.Options{})
	check := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		reply, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
		if err != nil || reply.GetStatus() != want {
			t.Errorf("health %v, %v, want %v", reply, err, want)
		}
	}
	check(healthv1.HealthCheckResponse_SERVING)
	server.SetServing(false)
	check(healthv1.HealthCheckResponse_NOT_SERVING)
	server.SetServing(true)
	check(healthv1.HealthCheckResponse_SERVING)

	_, without := start(t, authfake.Options{WithoutHealth: true})
	if _, err := healthv1.NewHealthClient(without).Check(t.Context(), &healthv1.HealthCheckRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("without the health service: %v", err)
	}
}

// Stop ends calls that would never end; goleak looks for what is left.
func TestStopEndsCallsInFlight(t *testing.T) {
	server, conn := start(t, authfake.Options{})
	arrived := make(chan struct{})
	server.SetFaultFunc(func(ctx context.Context, call int, ids []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		arrived <- struct{}{}
		return authfake.NeverAnswers(ctx, call, ids, honest)
	})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			_, err := authservicev1.NewAuthServiceClient(conn).GetUsersByIds(t.Context(), &authservicev1.GetUsersByIdsRequest{UserIds: []string{"x"}})
			if err == nil {
				t.Error("a call was answered")
			}
		})
	}
	for range 3 {
		<-arrived
	}
	if server.InFlight() != 3 || server.PeakInFlight() != 3 {
		t.Errorf("in flight %d, at most %d, want 3", server.InFlight(), server.PeakInFlight())
	}
	server.Stop()
	server.Stop()
	group.Wait()
	if server.InFlight() != 0 {
		t.Errorf("in flight after Stop: %d", server.InFlight())
	}
}

func TestFaultTable(t *testing.T) {
	names := map[string]bool{}
	for _, fault := range authfake.Faults() {
		if names[fault.Name] || fault.About == "" || fault.Reply == nil {
			t.Errorf("fault %+v", fault)
		}
		names[fault.Name] = true
	}
	if _, found := authfake.Named("goaway_mid_call"); !found {
		t.Error("goaway_mid_call is not in the table")
	}
	if _, found := authfake.Named("none"); found {
		t.Error("a fault without a name was found")
	}
}

func TestRunbookLatency(t *testing.T) {
	if got := authfake.RunbookLatency(10); got != (authfake.Latency{P50: 15 * time.Millisecond, P99: 25 * time.Millisecond}) {
		t.Errorf("10 users: %v", got)
	}
	if got := authfake.RunbookLatency(100); got != (authfake.Latency{P50: 45 * time.Millisecond, P99: 80 * time.Millisecond}) {
		t.Errorf("100 users: %v", got)
	}
}
