// Command lab shows orphan-cleaner at work and measures it, on throw-away servers. It is not shipped.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the build.
var version = "dev"

// CLI is the command line.
type CLI struct {
	Demo        DemoCmd        `cmd:"" help:"See all of it on a throw-away PostgreSQL and auth-service."`
	Bench       BenchCmd       `cmd:"" help:"Measure whole runs beside a floor, on throw-away servers."`
	Simulate    SimulateCmd    `cmd:"" help:"Play a year in minutes: what honest and lying auth-services cost before a breaker stops them."`
	AuthService AuthServiceCmd `cmd:"" help:"Serve the users whose ids come on stdin, for a trial of your own."`
	Floor       FloorCmd       `cmd:"" hidden:"" help:"Do the least that a run has to, unaudited."`
}

type streams struct{ out, err io.Writer }

func main() {
	var cli CLI
	kctx := kong.Parse(&cli, kong.Name("lab"), kong.Description("Shows orphan-cleaner at work and measures it."))
	// Until the process has ended: a signal while it ends by itself is not the cause of its end.
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	kctx.BindTo(ctx, (*context.Context)(nil))
	if err := kctx.Run(&streams{os.Stdout, os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}
