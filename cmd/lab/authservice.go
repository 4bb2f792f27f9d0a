package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
)

// AuthServiceCmd is `auth-service`.
//
// stdin is the ids of the living, one a line, and an empty line; then it says its URL.
// Each line after that is answered with the number of calls since the last one. It
// lives as long as its stdin, so that it does not outlive who started it.
type AuthServiceCmd struct {
	P50  time.Duration `name:"p50" help:"Median of the time that an answer takes; 0: at once."`
	P99  time.Duration `name:"p99" help:"Its 99th percentile."`
	Stay bool          `help:"Live on when stdin ends, until a signal."`
}

// Run serves.
func (cmd *AuthServiceCmd) Run(ctx context.Context, s *streams) error {
	lines := bufio.NewScanner(os.Stdin)
	living := map[uuid.UUID]struct{}{}
	for lines.Scan() && lines.Text() != "" {
		id, err := uuid.ParseBytes(lines.Bytes())
		if err != nil {
			return fmt.Errorf("reading the living: %q: %w", lines.Text(), err)
		}
		living[id] = struct{}{}
	}
	server, err := authfake.Start(authfake.Options{ //nolint:contextcheck // it lives until Stop
		Alive:   func(id uuid.UUID) bool { _, alive := living[id]; return alive },
		Latency: authfake.Latency{P50: cmd.P50, P99: cmd.P99},
	})
	if err != nil {
		return err
	}
	defer server.Stop()
	if _, err := fmt.Fprintln(s.out, server.URL()); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		for lines.Scan() {
			fmt.Fprintln(s.out, server.Calls())
			server.ResetCalls()
		}
		ended <- lines.Err()
	}()
	select {
	case err = <-ended:
		if err == nil && cmd.Stay {
			<-ctx.Done()
		}
		return err
	case <-ctx.Done():
		return nil
	}
}
