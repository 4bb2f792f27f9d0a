// Command orphan-cleaner removes the memberships that deleted users left behind
// in messaging-service.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/nova-social/orphan-cleaner/internal/cleaner"
)

// version is set by the build.
var version = "dev"

// Exit statuses, a contract.
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitRefused    = 3
	exitAnotherRun = 4
)

// errUsage is wrapped by what the user can mend on the command line or in the environment.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cli CLI
	exited := -1
	parser, err := kong.New(&cli, kong.Name("orphan-cleaner"), kong.Description(description),
		kong.Writers(stdout, stderr), kong.Exit(func(status int) { exited = status }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Help(helpWithExample), kong.Vars{"version": version})
	if err != nil {
		fmt.Fprintln(stderr, "orphan-cleaner:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kctx, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "orphan-cleaner: %s; see: orphan-cleaner --help\n", hideURL(oneLine(err)))
		return exitUsage
	}
	kctx.BindTo(ctx, (*context.Context)(nil))
	kctx.Bind(&streams{stdout, stderr})
	err = kctx.Run()
	if err != nil && !errors.Is(err, errShown) {
		fmt.Fprintln(stderr, "orphan-cleaner:", oneLine(err))
	}
	return exitStatus(err)
}

// oneLine is the text of an error in one line, each part of it once: pgx tells of
// every address it tried, in a line of its own.
func oneLine(err error) string {
	var parts []string
	for part := range strings.Lines(err.Error()) {
		if part = strings.TrimSpace(part); part != "" && !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, " ")
}

var urlPattern = regexp.MustCompile(`(?is)(postgres(ql)?://|password=).*`)

// hideURL cuts off what may be a database URL in the wrong place of the command
// line, password and all: where it ends nobody knows.
func hideURL(text string) string { return urlPattern.ReplaceAllString(text, "[not shown]") }

// errShown is wrapped by errors that the user has already been shown.
var errShown = errors.New("shown")

type shownError struct{ error }

func (e shownError) Unwrap() []error { return []error{e.error, errShown} }

type streams struct{ out, err io.Writer }

func exitStatus(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, cleaner.ErrRefused):
		return exitRefused
	case errors.Is(err, cleaner.ErrAnotherRun):
		return exitAnotherRun
	default:
		return exitFailed
	}
}
