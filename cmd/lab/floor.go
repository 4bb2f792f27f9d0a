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
	Table          string `help:"The table, with its schema." default:"public.conversation_members"`
	Mark           bool   `help:"Set deleted_at and delete nothing."`
}

// Run prints how many rows it deleted.
func (cmd *FloorCmd) Run(ctx context.Context, s *streams) error {
	deleted, err := floor.Run(ctx, cmd.DatabaseURL, cmd.AuthServiceURL, floor.Work{Table: cmd.Table, Mark: cmd.Mark})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, deleted)
	return err
}
