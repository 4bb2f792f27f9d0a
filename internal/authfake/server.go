package authfake

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	identityservicev2 "github.com/nova-social/orphan-cleaner/gen/nova/identity_service/v2"
	"github.com/nova-social/orphan-cleaner/internal/wait"
)

// Response is the response of GetUsersByIds.
type Response = authservicev1.GetUsersByIdsResponse

// Options of a server. The zero value is an empty, honest and instant one.
type Options struct {
	// Addr is where to listen. Default: a free port of 127.0.0.1.
	Addr string
	// Alive tells who lives, in place of the directory that Add and Delete
	// keep. It is called from many goroutines.
	Alive func(uuid.UUID) bool
	// Latency delays every response. Seed makes its draws repeatable.
	Latency Latency
	Seed    uint64
	// Record keeps the size of every call and the ids asked, up to a million
	// of each.
	Record bool
	// WithoutHealth leaves grpc.health.v1 out.
	WithoutHealth bool
	// TLS serves TLS. Default: plaintext.
	TLS *tls.Config
}

// Server is a running auth-service.
type Server struct {
	authservicev1.UnimplementedAuthServiceServer

	directory
	recorder

	alive   func(uuid.UUID) bool
	latency latencySource
	fault   atomic.Pointer[FaultFunc]
	health  *health.Server
	conns   connTracker
	grpc    *grpc.Server
	addr    string
	tls     bool
	stopped chan struct{} // closed when the accept loop has ended
}

// Start listens and serves until Stop.
func Start(opts Options) (*Server, error) {
	if opts.Addr == "" {
		opts.Addr = "127.0.0.1:0"
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("starting the auth-service: %w", err)
	}
	s := &Server{
		directory: directory{living: make(map[uuid.UUID]struct{})},
		recorder:  recorder{record: opts.Record},
		alive:     opts.Alive,
		latency:   newLatencySource(opts.Seed),
		health:    health.NewServer(),
		addr:      listener.Addr().String(),
		tls:       opts.TLS != nil,
		stopped:   make(chan struct{}),
	}
	if s.alive == nil {
		s.alive = s.directory.has
	}
	s.SetLatency(opts.Latency)

	security := insecure.NewCredentials()
	if opts.TLS != nil {
		security = credentials.NewTLS(opts.TLS)
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(trackedCreds{security, &s.conns}),
		grpc.WaitForHandlers(true),
	)
	authservicev1.RegisterAuthServiceServer(s.grpc, s)
	identityservicev2.RegisterAuthServiceServer(s.grpc, v2{s: s})
	if !opts.WithoutHealth {
		healthv1.RegisterHealthServer(s.grpc, s.health)
	}
	reflection.Register(s.grpc)
	go func() {
		defer close(s.stopped)
		_ = s.grpc.Serve(listener) // ends when Stop closes the listener
	}()
	return s, nil
}

// v2 is the same service under its later name.
type v2 struct {
	identityservicev2.UnimplementedAuthServiceServer
	s *Server
}

func (v v2) GetUsersByIds(ctx context.Context, request *authservicev1.GetUsersByIdsRequest) (*Response, error) {
	return v.s.GetUsersByIds(ctx, request)
}

// Addr is host:port.
func (s *Server) Addr() string { return s.addr }

// URL is the value for AUTH_SERVICE_URL.
func (s *Server) URL() string {
	if s.tls {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// Stop breaks off what is in flight and returns when no goroutine is left. It
// may be called twice.
func (s *Server) Stop() {
	s.grpc.Stop()
	<-s.stopped
}

// SetServing sets the status that grpc.health.v1 returns.
func (s *Server) SetServing(serving bool) {
	state := healthv1.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthv1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
}

// SetHealth sets any other status of grpc.health.v1.
func (s *Server) SetHealth(state healthv1.HealthCheckResponse_ServingStatus) {
	s.health.SetServingStatus("", state)
}

// Drain sends GOAWAY on every connection: calls in flight end as usual, later
// ones come by new connections.
func (s *Server) Drain() { s.conns.each((*trackedConn).goAway) }

// GetUsersByIds counts the call, waits out the latency and then responds
// honestly or with the fault that is set.
func (s *Server) GetUsersByIds(ctx context.Context, request *authservicev1.GetUsersByIdsRequest) (*Response, error) {
	ids := request.GetUserIds()
	incoming, _ := metadata.FromIncomingContext(ctx)
	call := s.recorder.begin(ids, incoming.Get("authorization"))
	defer s.recorder.end()
	if err := pause(ctx, s.latency.draw(len(ids))); err != nil {
		return nil, err
	}
	honest := func() (*Response, error) { return s.respond(ids) }
	if fault := s.fault.Load(); fault != nil {
		return (*fault)(context.WithValue(ctx, connKey{}, s.conns.of(ctx)), call, ids, honest)
	}
	return honest()
}

// respond returns what auth-service would return: the living among ids, each once.
func (s *Server) respond(ids []string) (*Response, error) {
	if len(ids) == 0 {
		return nil, status.Error(codes.InvalidArgument, "user_ids must not be empty")
	}
	seen := make(map[uuid.UUID]struct{}, len(ids))
	response := &Response{Users: make([]*authservicev1.User, 0, len(ids))}
	for _, text := range ids {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "invalid user id %q", text)
		}
		if _, again := seen[id]; again || !s.alive(id) {
			continue
		}
		seen[id] = struct{}{}
		response.Users = append(response.Users, user(id))
	}
	return response, nil
}

func user(id uuid.UUID) *authservicev1.User {
	text := id.String()
	name := "user_" + text[:8]
	return &authservicev1.User{
		Id:        text,
		Email:     name + "@example.com",
		Username:  name,
		CreatedAt: 1735689600, // 2025-01-01
		IsActive:  true,
	}
}

// pause waits for d or for the end of the call.
func pause(ctx context.Context, d time.Duration) error {
	return status.FromContextError(wait.For(ctx, d)).Err()
}
