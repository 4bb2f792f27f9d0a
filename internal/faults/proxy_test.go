package faults

import (
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// wireProxy stands between the program and PostgreSQL and understands what goes
// by, so that it can break off at a chosen COMMIT.
type wireProxy struct {
	t        *testing.T
	listener net.Listener
	server   string // host:port
	fault    commitFault
	nth      int // the chunk whose COMMIT is met, from 1

	mu     sync.Mutex
	chunks int           // commits of chunks that came by
	black  chan struct{} // closed once nothing passes any more
	over   chan struct{} // closed by stop
	met    bool
	conns  []net.Conn
	work   sync.WaitGroup
}

// commitFault is what becomes of a COMMIT, or of the whole network.
type commitFault int

const (
	// neverArrives: the connection breaks before the server hears of it.
	neverArrives commitFault = iota
	// answerLost: the server commits, and the connection breaks before it can say so.
	answerLost
	// goesBlack: nothing passes any more once users are to be staged, and nobody
	// hangs up.
	goesBlack
)

// proxied puts a proxy between the program and the database of the world.
func (w *world) proxied(fault commitFault, nth int) *wireProxy {
	w.t.Helper()
	address, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &wireProxy{t: w.t, server: address.Host, fault: fault, nth: nth, black: make(chan struct{}), over: make(chan struct{})}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		w.t.Fatal(err)
	}
	p.work.Go(p.accept)
	w.t.Cleanup(p.stop)
	address.Host = p.listener.Addr().String()
	w.env = []string{"DATABASE_URL=" + address.String()}
	return p
}

// leadTo has new connections led to another server.
func (p *wireProxy) leadTo(connection string) {
	p.t.Helper()
	address, err := url.Parse(connection)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = address.Host
}

// pass says whether messages pass; it returns once they do, or when all is over.
func (p *wireProxy) pass() bool {
	select {
	case <-p.black:
		<-p.over
		return false
	default:
		return true
	}
}

func (p *wireProxy) stop() {
	_ = p.listener.Close()
	p.mu.Lock()
	select {
	case <-p.over:
	default:
		close(p.over)
	}
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
}

func (p *wireProxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // stop has closed it
		}
		p.mu.Lock()
		address := p.server
		p.mu.Unlock()
		server, err := net.Dial("tcp", address)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.work.Go(func() { p.serve(client, server) })
	}
}

// serve passes messages on until one side hangs up or the fault is due.
func (p *wireProxy) serve(client, server net.Conn) {
	defer hangUp(client, server)
	backend, frontend := pgproto3.NewBackend(client, client), pgproto3.NewFrontend(server, server)
	startup, err := backend.ReceiveStartupMessage()
	if err != nil {
		return
	}
	frontend.Send(startup)
	if frontend.Flush() != nil {
		return
	}
	if _, cancels := startup.(*pgproto3.CancelRequest); cancels {
		_, _ = io.Copy(io.Discard, server) // the server says nothing and hangs up
		return
	}
	var swallow sync.WaitGroup
	lost := make(chan struct{}) // closed when the answer to the next COMMIT is to be lost
	swallow.Go(func() { p.answers(client, server, backend, frontend, lost) })
	defer swallow.Wait()
	defer hangUp(client, server) // first, so that answers ends

	chunk := false // the transaction has deleted members
	for {
		message, err := backend.Receive()
		if err != nil {
			return
		}
		switch m := message.(type) {
		case *pgproto3.Parse:
			chunk = chunk || strings.Contains(m.Query, "name: RunSweepChunk")
			if p.fault == goesBlack && strings.Contains(m.Query, "name: RunStage") && p.due() {
				close(p.black)
			}
		case *pgproto3.Query:
			if chunk && strings.EqualFold(m.String, "commit") && p.due() {
				if p.fault == neverArrives {
					return
				}
				close(lost)
			}
			chunk = false
		}
		if !p.pass() {
			return
		}
		frontend.Send(message)
		if frontend.Flush() != nil {
			return
		}
	}
}

func hangUp(client, server net.Conn) {
	_ = client.Close() // closed already is as good
	_ = server.Close()
}

// answers passes on what the server says, up to the COMMIT whose answer is lost.
func (p *wireProxy) answers(client, server net.Conn, backend *pgproto3.Backend, frontend *pgproto3.Frontend, lost <-chan struct{}) {
	defer hangUp(client, server)
	for {
		message, err := frontend.Receive()
		if err != nil {
			return
		}
		// Which answer comes next to the client's mind is what it may send next.
		switch m := message.(type) {
		case *pgproto3.AuthenticationOk:
			if backend.SetAuthType(pgproto3.AuthTypeOk) != nil {
				return
			}
		case *pgproto3.CommandComplete:
			select {
			case <-lost:
				if string(m.CommandTag) == "COMMIT" {
					return
				}
			default:
			}
		}
		if !p.pass() {
			return
		}
		backend.Send(message)
		if backend.Flush() != nil {
			return
		}
	}
}

// due says whether this COMMIT of a chunk is the one, or this staging.
func (p *wireProxy) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chunks++
	if p.chunks != p.nth {
		return false
	}
	p.met = true
	return true
}

// struck fails the test where the fault never came to pass.
func (p *wireProxy) struck() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.met {
		return errors.New("no COMMIT was met: the row tests nothing")
	}
	return nil
}
