package authclient

import (
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/resolver"
)

// watchedDNS is gRPC's DNS resolver, watched: where a name does not resolve, gRPC
// itself only says that its load balancer has no children.
type watchedDNS struct {
	resolver.Builder
	name string
	// problem is why there is no address; nil once there is one.
	problem atomic.Pointer[string]
}

func newWatchedDNS(address string) *watchedDNS {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		name = address
	}
	return &watchedDNS{Builder: resolver.Get("dns"), name: name}
}

// Build is called for the first call, and for the first after a long idle time.
func (w *watchedDNS) Build(target resolver.Target, conn resolver.ClientConn, opts resolver.BuildOptions) (resolver.Resolver, error) {
	w.noAddress("no response yet")
	return w.Builder.Build(target, watchedConn{conn, w}, opts)
}

func (w *watchedDNS) noAddress(why string) {
	problem := fmt.Sprintf("DNS does not resolve the name %s: %s", w.name, why)
	w.problem.Store(&problem)
}

// watchedConn passes on what the resolver found.
type watchedConn struct {
	resolver.ClientConn
	dns *watchedDNS
}

func (c watchedConn) UpdateState(state resolver.State) error {
	if len(state.Addresses)+len(state.Endpoints) > 0 {
		c.dns.problem.Store(nil)
	} else {
		c.dns.noAddress("no such host")
	}
	return c.ClientConn.UpdateState(state)
}

// ReportError leaves the addresses that were found earlier in use.
func (c watchedConn) ReportError(err error) {
	if c.dns.problem.Load() != nil {
		c.dns.noAddress(err.Error())
	}
	c.ClientConn.ReportError(err)
}
