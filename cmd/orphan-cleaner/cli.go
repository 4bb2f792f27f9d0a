package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

const description = `Removes from messaging-service the memberships of users that auth-service no longer has:
checks in batches of 100, waits out a retention, deletes with audit and backup.

Exit status: 0 done, 1 failed or incomplete, 2 wrong usage, 3 refused by a breaker, 4 another run is open.`

// CLI is the command line; each setting is a flag with an environment name.
type CLI struct {
	Check      CheckCmd      `cmd:"" group:"Runs" help:"Check everything a run needs; a line per check with its hint."`
	Run        RunCmd        `cmd:"" group:"Runs" help:"Make one run, for cron."`
	Serve      ServeCmd      `cmd:"" group:"Runs" help:"Make a run per interval, and serve /metrics, /healthz and /readyz."`
	Status     StatusCmd     `cmd:"" group:"Runs" help:"Show recent runs and the backlog by due date."`
	Report     ReportCmd     `cmd:"" group:"Runs" help:"Show what was deleted in a month: per day, and by the size of conversations."`
	Bench      BenchCmd      `cmd:"" group:"Runs" help:"Measure the speed of your own database and auth-service; with --read-only, which changes nothing."`
	Fleet      FleetCmd      `cmd:"" group:"Runs" help:"Many databases with one auth-service: check, run and status over all."`
	Approve    ApproveCmd    `cmd:"" group:"On call" help:"Admit the users that a refused run found, once."`
	Hold       HoldCmd       `cmd:"" group:"On call" help:"Keep users or conversations from being cleaned."`
	Pause      PauseCmd      `cmd:"" group:"On call" help:"Stop every runner everywhere before its next transaction."`
	Resume     ResumeCmd     `cmd:"" group:"On call" help:"Allow runs again."`
	Restore    RestoreCmd    `cmd:"" group:"On call" help:"Restore what runs deleted; previews without --execute."`
	Migrate    MigrateCmd    `cmd:"" group:"Administration" help:"Apply or show the schema (goose migrations)."`
	Limits     LimitsCmd     `cmd:"" group:"Administration" help:"Show retention and limits; pin them in the database, so that a run's own can only be stricter."`
	Effects    EffectsCmd    `cmd:"" group:"Administration" help:"Show and choose what a delete does beside the member: member_count, and the last owner."`
	Prune      PruneCmd      `cmd:"" group:"Administration" help:"Drop backups and audit months past their windows; without --execute only show them."`
	Target     TargetCmd     `cmd:"" group:"Administration" help:"Work with the tables whose rows belong to users."`
	Config     ConfigCmd     `cmd:"" group:"Administration" help:"Show each setting, its value and where it comes from."`
	Version    VersionCmd    `cmd:"" group:"Help" help:"Show the version."`
	Help       HelpCmd       `cmd:"" group:"Help" help:"Show the help of a command."`
	Completion CompletionCmd `cmd:"" group:"Help" help:"Print the completion script of bash, zsh or fish."`

	ConfigFile  ConfigFile  `name:"config" help:"YAML file of settings, by the names of their flags; the environment and flags win over it." env:"ORPHAN_CLEANER_CONFIG" placeholder:"FILE"`
	ShowVersion VersionFlag `name:"version" help:"Show the version."`
}

// streams are where a command writes; explain is what it makes of an error before
// it tells of it itself.
type streams struct {
	out, err io.Writer
	explain  func(err error) error
}

func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cli CLI
	exited := -1
	parser, err := kong.New(&cli, kong.Name("orphan-cleaner"), kong.Description(description),
		kong.Writers(stdout, stderr), kong.Exit(func(status int) { exited = status }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Help(helpWithExample), kong.ValueFormatter(helpOfFlag), kong.Bind((*configFile)(nil)), kong.Vars{"version": version})
	if err != nil {
		fmt.Fprintln(stderr, "orphan-cleaner:", err)
		return exitFailed
	}
	bare := len(args) == 0
	if bare { // a line of cron whose variable is empty did not run
		args, parser.Stdout = []string{"--help"}, stderr
	}
	kctx, err := parser.Parse(args)
	switch {
	case bare:
		return exitUsage
	case exited >= 0:
		return exited
	}
	if unwritten, is := errors.AsType[*fs.PathError](err); is && unwritten.Op == "write" { // help
		fmt.Fprintln(stderr, "orphan-cleaner:", unwritten)
		return exitFailed
	}
	if err != nil {
		fmt.Fprintf(stderr, "orphan-cleaner: %s; see: %s --help\n", hideURL(plainly(oneLine(err))), commandMeant(err))
		return exitUsage
	}
	kctx.BindTo(ctx, (*context.Context)(nil))
	explained := func(err error) error { return explain(err, login(kctx), commandWords(kctx)) }
	s := &streams{stdout, stderr, explained}
	if isTerminal(stderr) {
		s.err = &screen{w: stderr, width: func() int { return columns(stderr) }}
	}
	kctx.Bind(s)
	if err = checkEnvironment(kctx, os.Environ()); err == nil {
		err = explained(kctx.Run())
	}
	if err != nil && !errors.Is(err, errShown) {
		said := oneLine(err)
		if _, is := errors.AsType[usageError](err); is {
			var lines []string
			for line := range strings.Lines(err.Error()) {
				lines = append(lines, shown(strings.TrimSpace(line)))
			}
			said = strings.Join(lines, "\norphan-cleaner: ")
		}
		if exitStatus(err) == exitUsage && !strings.Contains(said, "orphan-cleaner ") {
			said += "; see: orphan-cleaner " + commandWords(kctx) + " --help"
		}
		fmt.Fprintln(stderr, "orphan-cleaner:", said)
	}
	return exitStatus(err)
}
