package main

import (
	"context"
	"fmt"

	"github.com/nova-social/orphan-cleaner/internal/lab/floor"
)

// FloorCmd is `floor`.
type FloorCmd struct {
	DatabaseURL    string `help:"The database." env:"DATABASE_URL" required:""`
	AuthServiceURL string `help:"auth-service: http://host:port, or postgresql://." env:"AUTH_SERVICE_URL" required:""`
}

// Run prints how many members it deleted.
func (cmd *FloorCmd) Run(ctx context.Context, s *streams) error {
	deleted, err := floor.Run(ctx, cmd.DatabaseURL, cmd.AuthServiceURL)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, deleted)
	return err
}
