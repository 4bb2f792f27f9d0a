// Command orphan-cleaner removes the memberships that deleted users left behind
// in messaging-service.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // the image has no zones, and a window names one
)

func main() {
	// Until the process has ended: a signal while it ends by itself does not change its exit status.
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
