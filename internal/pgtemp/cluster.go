package pgtemp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cluster is a running PostgreSQL server and its directory. Its methods may be
// called from several goroutines.
type Cluster struct {
	opts    Options
	dir     string
	binDir  string
	version int
	port    int
	own     owner
	reaper  *reaper

	mu     sync.Mutex // guards what follows, and makes Stop, Crash and Restart take turns
	server *server
	ended  bool // by Stop or Detach
}

// ErrEnded is returned by Crash, Restart and Detach after Stop or Detach.
var ErrEnded = errors.New("the throw-away cluster was stopped or detached")

// Start makes a cluster and returns when it answers queries. ctx bounds the
// start only; the cluster lives until [Cluster.Stop], or until the program
// dies. The error wraps [ErrNoPostgres] where no server is installed, and holds
// the end of the server's log where it would not start.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	c := &Cluster{opts: opts.withDefaults()}
	var err error
	if c.binDir, c.version, err = FindBinDir(ctx, opts.BinDir); err != nil {
		return nil, err
	}
	if c.own, err = serverOwner(); err != nil {
		return nil, err
	}
	if c.dir, err = makeDir(opts.Dir, c.own); err != nil {
		return nil, fmt.Errorf("making the cluster's directory: %w", err)
	}
	if c.reaper, err = startReaper(c.dir, opts.Keep); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	if err := c.init(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	if err := c.startOnFreePort(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// init runs initdb and writes the settings.
func (c *Cluster) init(ctx context.Context) error {
	if err := os.Mkdir(c.SocketDir(), 0o700); err != nil {
		return err
	}
	if err := c.own.give(c.SocketDir()); err != nil {
		return err
	}
	args := []string{
		"--pgdata", c.DataDir(), "--username", "postgres", "--auth", "trust",
		// The one locale that every machine has; it sorts by code point.
		"--encoding", "UTF8", "--locale", "C", "--no-instructions",
	}
	if !c.opts.Durable {
		args = append(args, "--no-sync")
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(c.binDir, "initdb"), args...)
	cmd.Dir = c.dir
	cmd.Env = cleanEnv()
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = c.own.attr()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting initdb: %w", err)
	}
	c.reaper.watch(cmd.Process.Pid)
	err := cmd.Wait()
	c.reaper.watch(0)
	if err != nil {
		return fmt.Errorf("running initdb: %w\n%s", errors.Join(err, ctx.Err()), strings.TrimSpace(out.String()))
	}
	conf, err := os.OpenFile(filepath.Join(c.DataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = conf.WriteString(c.opts.config())
	return errors.Join(err, conf.Close())
}

// startOnFreePort starts the server on the port that was asked for, or on a
// free one, choosing again when somebody else was quicker.
func (c *Cluster) startOnFreePort(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opts.Port != 0 {
		c.port = c.opts.Port
		return c.start(ctx)
	}
	var err error
	for range 5 {
		if c.port, err = FreePort(ctx); err != nil {
			return err
		}
		err = c.start(ctx)
		if err == nil || !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// errPortTaken is wrapped by start's error when the server ended because
// somebody else listens on its port.
var errPortTaken = errors.New("the port is taken")

// start launches the server on c.port and waits until it is ready. c.mu is held.
func (c *Cluster) start(ctx context.Context) error {
	logged := c.logSize()
	server, err := c.launch(c.port)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.StartTimeout)
	defer cancel()
	if err := server.awaitReady(ctx, c.SocketDir(), c.port); err != nil {
		killErr := server.kill()
		c.reaper.watch(0)
		if strings.Contains(c.logFrom(logged), "Address already in use") {
			err = fmt.Errorf("%w: %w", errPortTaken, err)
		}
		return fmt.Errorf("starting postgres on port %d: %w\n%s", c.port, errors.Join(err, killErr), c.LogTail(20))
	}
	c.server = server
	return nil
}

// Stop shuts the server down, fast, and by force after fifteen seconds, and
// removes the directory unless it is to be kept. A second call, or one after
// Detach, does nothing.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil
	}
	c.ended = true
	err := c.halt()
	if !c.opts.Keep {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return errors.Join(err, c.reaper.dismiss())
}

// halt stops the server where it runs, and otherwise removes what a killed one
// left in the kernel. c.mu is held.
func (c *Cluster) halt() error {
	if c.server == nil {
		return nil
	}
	defer c.reaper.watch(0)
	if c.server.running() {
		return c.server.stop()
	}
	return removeSharedMemory(c.DataDir())
}

// Detach lets the server run on after the program has ended, and returns the
// shell command that stops it and removes its directory. The program must not
// use the cluster afterwards.
func (c *Cluster) Detach() (stopCommand string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return "", ErrEnded
	}
	script := filepath.Join(c.dir, "stop")
	call := fmt.Sprintf("set -- stop %s %s\n", shellQuote(c.dir), shellQuote(map[bool]string{true: "keep"}[c.opts.Keep]))
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+call+reaperScript), 0o700); err != nil { //nolint:gosec // a script
		return "", fmt.Errorf("writing the script that stops the cluster: %w", err)
	}
	c.ended = true
	return "sh " + shellQuote(script), c.reaper.dismiss()
}

// Crash ends every process of the server by SIGKILL, as the kernel's
// out-of-memory killer or a power failure would: no checkpoint, no word to the
// clients. [Cluster.Restart] recovers.
func (c *Cluster) Crash() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return ErrEnded
	}
	defer c.reaper.watch(0)
	return c.server.kill()
}

// Restart starts the server again on the same port, stopping it first where it
// still runs, and returns when it answers queries, recovered if it had crashed.
func (c *Cluster) Restart(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return ErrEnded
	}
	if c.server.running() {
		err := c.server.stop()
		c.reaper.watch(0)
		if err != nil {
			return err
		}
	}
	// The port may be taken for a moment by whoever looks for a free one.
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := c.start(ctx)
		if err == nil || !errors.Is(err, errPortTaken) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-ticker.C:
		}
	}
}

// URL returns the connection string of a database as the superuser postgres.
func (c *Cluster) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User("postgres"),
		Host:     fmt.Sprintf("127.0.0.1:%d", c.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Port is the TCP port on 127.0.0.1; it stays the same over a Restart.
func (c *Cluster) Port() int { return c.port }

// Version is the server's major version, 15 or more.
func (c *Cluster) Version() int { return c.version }

// BinDir is where the server's programs are: psql, pg_dump and the others too,
// where they are installed.
func (c *Cluster) BinDir() string { return c.binDir }

// Dir is the cluster's directory: data, socket and postgres.log are in it.
func (c *Cluster) Dir() string { return c.dir }

// DataDir is the server's data directory.
func (c *Cluster) DataDir() string { return filepath.Join(c.dir, "data") }

// SocketDir holds the Unix socket; it serves as the host of a connection string.
func (c *Cluster) SocketDir() string { return filepath.Join(c.dir, "socket") }

// shellQuote quotes an argument for sh.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
