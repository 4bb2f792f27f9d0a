// Command orphan-cleaner removes the memberships that deleted users left behind
// in messaging-service.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // the image has no zones, and a window names one

	"google.golang.org/grpc/grpclog"
)

func main() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, packageLog{})) // before any connection, as it asks for
	// Until the process has ended: a signal while it ends by itself does not change its exit status.
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
