package authfake

import (
	"context"
	"net"
	"sync"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// connTracker knows the open connections, above TLS, so that a fault can send
// an HTTP/2 frame of its own or cut one off.
type connTracker struct {
	mu   sync.Mutex
	open map[string]*trackedConn // by remote address
}

type connKey struct{}

// of finds the connection that a call came by.
func (t *connTracker) of(ctx context.Context) *trackedConn {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[from.Addr.String()]
}

func (t *connTracker) each(do func(*trackedConn)) {
	t.mu.Lock()
	conns := make([]*trackedConn, 0, len(t.open))
	for _, c := range t.open {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	for _, c := range conns {
		do(c)
	}
}

type trackedConn struct {
	net.Conn
	tracker *connTracker
	key     string
	greeted sync.Once
}

// Write tells the tracker of the connection once the server has written its settings:
// no client takes another frame before them.
func (c *trackedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil {
		c.greeted.Do(func() {
			c.tracker.mu.Lock()
			defer c.tracker.mu.Unlock()
			if c.tracker.open == nil {
				c.tracker.open = make(map[string]*trackedConn)
			}
			c.tracker.open[c.key] = c
		})
	}
	return n, err
}

func (c *trackedConn) Close() error {
	c.tracker.mu.Lock()
	if c.tracker.open[c.key] == c {
		delete(c.tracker.open, c.key)
	}
	c.tracker.mu.Unlock()
	return c.Conn.Close()
}

// goAway writes a GOAWAY that covers every stream. It is one Write, so it
// cannot land inside a frame of the server's own unless that frame is larger
// than gRPC's write buffer of 32 KiB.
func (c *trackedConn) goAway() {
	const everyStream = 1<<31 - 1
	_ = http2.NewFramer(c.Conn, nil).WriteGoAway(everyStream, http2.ErrCodeNo, []byte("draining"))
}

// trackedCreds tracks each connection once it is secure.
type trackedCreds struct {
	credentials.TransportCredentials
	tracker *connTracker
}

func (t trackedCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := t.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return &trackedConn{Conn: conn, tracker: t.tracker, key: conn.RemoteAddr().String()}, info, nil
}

func (t trackedCreds) Clone() credentials.TransportCredentials {
	return trackedCreds{t.TransportCredentials.Clone(), t.tracker}
}
