package authclient

import (
	"errors"
	"testing"

	"google.golang.org/grpc/resolver"
)

// deafConn takes whatever a resolver found.
type deafConn struct{ resolver.ClientConn }

func (deafConn) UpdateState(resolver.State) error { return nil }
func (deafConn) ReportError(error)                {}

// silentDNS never has a response.
type silentDNS struct{ resolver.Builder }

func (silentDNS) Build(resolver.Target, resolver.ClientConn, resolver.BuildOptions) (resolver.Resolver, error) {
	return nil, nil
}

func TestWatchedDNS(t *testing.T) {
	dns := newWatchedDNS("auth-service:9080")
	conn := watchedConn{deafConn{}, dns}
	expect := func(want string) {
		t.Helper()
		got := ""
		if problem := dns.problem.Load(); problem != nil {
			got = *problem
		}
		if got != want {
			t.Errorf("problem %q, want %q", got, want)
		}
	}
	update := func(state resolver.State) {
		t.Helper()
		if err := conn.UpdateState(state); err != nil {
			t.Error(err)
		}
	}
	expect("")
	dns.Builder = silentDNS{}
	if _, err := dns.Build(resolver.Target{}, deafConn{}, resolver.BuildOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("DNS does not resolve the name auth-service: no response yet")
	update(resolver.State{})
	expect("DNS does not resolve the name auth-service: no such host")
	conn.ReportError(errors.New("lookup auth-service on 10.0.0.10:53: server misbehaving"))
	expect("DNS does not resolve the name auth-service: lookup auth-service on 10.0.0.10:53: server misbehaving")
	update(resolver.State{Addresses: []resolver.Address{{Addr: "10.0.0.7:9080"}}})
	expect("")
	conn.ReportError(errors.New("i/o timeout")) // 10.0.0.7 stays in use
	expect("")
	update(resolver.State{})
	expect("DNS does not resolve the name auth-service: no such host")
	update(resolver.State{Endpoints: []resolver.Endpoint{{}}})
	expect("")
}
