package pgtemp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// server is one postmaster, from start to end.
type server struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the postmaster is gone
}

// launch starts a postmaster without waiting for it to be ready.
func (c *Cluster) launch(port int) (*server, error) {
	log, err := os.OpenFile(c.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// Not CommandContext: the server outlives the context of its start.
	cmd := exec.Command(filepath.Join(c.binDir, "postgres"), //nolint:noctx // see above
		"-D", c.DataDir(),
		"-p", strconv.Itoa(port),
		"-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories="+c.SocketDir(),
	)
	cmd.Dir = c.dir
	cmd.Env = append(cleanEnv(), c.opts.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = c.own.attr()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting postgres: %w", err)
	}
	c.reaper.watch(cmd.Process.Pid)
	s := &server{cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(s.exited)
		_ = cmd.Wait() // a killed server is no news; the log says why it ended
	}()
	return s, nil
}

// errServerExited is returned by awaitReady when the server ended by itself.
var errServerExited = errors.New("the server ended while it was starting")

// awaitReady returns when the server answers a query. It asks by way of the
// socket in the cluster's own directory: whoever may have taken the port, the
// answer is this server's.
func (s *server) awaitReady(ctx context.Context, socketDir string, port int) error {
	config, err := pgconn.ParseConfig(fmt.Sprintf("user=postgres dbname=postgres sslmode=disable host='%s' port=%d", socketDir, port))
	if err != nil {
		return err
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := pgconn.ConnectConfig(ctx, config)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.exited:
			return errServerExited
		case <-ctx.Done():
			return fmt.Errorf("waiting for the server to answer: %w (%w)", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// running reports whether the postmaster is there.
func (s *server) running() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// stop shuts the server down: fast (sessions ended, checkpoint made), after
// ten seconds immediately, after five more by force.
func (s *server) stop() error {
	for _, step := range []struct {
		signal syscall.Signal
		within time.Duration
	}{
		{syscall.SIGINT, 10 * time.Second},
		{syscall.SIGQUIT, 5 * time.Second},
	} {
		if err := s.cmd.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stopping the server: %w", err)
		}
		select {
		case <-s.exited:
			return nil
		case <-time.After(step.within):
		}
	}
	return s.kill()
}

// kill ends the postmaster and all its children by SIGKILL, at once: none of
// them can write or say another word. The postmaster is frozen first, so that
// it starts no child that would be missed. It returns when they are gone, since
// a server cannot start again beside a child of the last.
func (s *server) kill() error {
	pid := s.cmd.Process.Pid
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return fmt.Errorf("freezing the server: %w", err)
	}
	pids, listErr := children(pid)
	for _, child := range pids {
		_ = syscall.Kill(child, syscall.SIGKILL) // gone already is as good
	}
	if err := s.cmd.Process.Kill(); err != nil {
		return errors.Join(listErr, fmt.Errorf("killing the server: %w", err))
	}
	<-s.exited

	deadline := time.After(10 * time.Second)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for _, child := range pids {
		for alive(child) {
			select {
			case <-ticker.C:
			case <-deadline:
				return errors.Join(listErr, fmt.Errorf("process %d of the server does not end", child))
			}
		}
	}
	return listErr
}
