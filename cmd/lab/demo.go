package main

import (
	"context"
	"errors"
	"os"

	"github.com/nova-social/orphan-cleaner/internal/lab/demo"
	"github.com/nova-social/orphan-cleaner/internal/lab/process"
)

// DemoCmd is `demo`.
type DemoCmd struct {
	Conversations int    `help:"Conversations to make." default:"1000"`
	Members       int    `help:"Members to make." default:"15000"`
	Targets       string `help:"Show this page's tables and targets.yaml: docs/targets.md." placeholder:"PAGE"`
	Keep          bool   `help:"Leave PostgreSQL and auth-service up at the end, and say how to use and how to stop them."`
	Program       string `help:"The built orphan-cleaner. Without it the one beside this program." placeholder:"FILE"`
}

// Run plays the demo.
func (cmd *DemoCmd) Run(ctx context.Context, s *streams) error {
	if cmd.Conversations < 1 || cmd.Members < 1 || cmd.Members > 5*cmd.Conversations*1000 || cmd.Conversations > 10_000_000 || cmd.Members > 50_000_000 {
		return errors.New("--conversations and --members must be 1 or more, and within 10 and 50 million")
	}
	product, err := process.Product(cmd.Program)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return demo.Run(ctx, demo.Options{
		Product: product, Lab: self, Conversations: cmd.Conversations, Members: cmd.Members, Keep: cmd.Keep, Page: cmd.Targets, Out: s.out, Err: s.err,
	})
}
