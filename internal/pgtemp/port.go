package pgtemp

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are chosen below the ranges that Linux (32768 and up) and macOS (49152
// and up) use for outgoing connections. In such a range a client that keeps
// dialing a server that is down can be given the server's own port, connect to
// itself, and so keep the server from coming back.
const (
	lowestPort  = 15000
	highestPort = 32000
)

// FreePort returns a port on 127.0.0.1 that nobody listens on now. Somebody may
// take it before the server does; Start then tries another.
func FreePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	var last error
	for range 100 {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return 0, errors.Join(errors.New("no free port found on 127.0.0.1 in a hundred tries"), last)
}
