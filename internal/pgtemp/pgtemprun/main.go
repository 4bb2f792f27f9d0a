// Command pgtemprun runs a command beside a throw-away PostgreSQL cluster:
//
//	go run ./internal/pgtemp/pgtemprun -schema -migrate -- sqlc vet
//
// The command finds the database in DATABASE_URL, and in PGHOST, PGPORT, PGUSER
// and PGDATABASE; the cluster's own psql and pg_dump come first on its PATH.
// Without a command it runs psql. The exit status is the command's; the cluster
// is gone afterwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
)

// Exit statuses of this program itself, the shell's for the same things: a
// command is not expected to use them.
const (
	exitUsage  = 2
	exitFailed = 125
)

type config struct {
	database        string
	schema, migrate bool
	settings        map[string]string
	command         []string
}

func main() {
	c := config{settings: map[string]string{}}
	flag.StringVar(&c.database, "db", "messaging", "`name` of the database to create")
	flag.BoolVar(&c.schema, "schema", false, "create the tables of messaging-service (sql/schema)")
	flag.BoolVar(&c.migrate, "migrate", false, "apply this project's migrations; implies -schema")
	flag.Func("set", "a line of postgresql.conf, `name=value`; may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("want name=value")
		}
		c.settings[name] = value
		return nil
	})
	flag.CommandLine.Init("pgtemprun", flag.ContinueOnError)
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: pgtemprun [flags] [--] [command [argument ...]]")
		flag.PrintDefaults()
	}
	if err := flag.CommandLine.Parse(os.Args[1:]); err != nil {
		os.Exit(exitUsage)
	}
	c.command = flag.Args()

	status, err := run(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtemprun:", err)
	}
	os.Exit(status)
}

// run starts the cluster, runs the command, stops the cluster, and returns the
// exit status.
func run(c config) (status int, err error) {
	// Until the command runs a signal cancels the start. After that Ctrl-C is
	// the command's: the terminal gives it to both of us, and we outwait it.
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()

	cluster, err := pgtemp.Start(ctx, pgtemp.Options{Settings: c.settings})
	if err != nil {
		return exitFailed, err
	}
	defer func() {
		if stopErr := cluster.Stop(); stopErr != nil {
			status, err = exitFailed, errors.Join(err, stopErr)
		}
	}()
	if err := prepare(ctx, cluster, c); err != nil {
		return exitFailed, err
	}
	return runCommand(cluster, c)
}

func prepare(ctx context.Context, cluster *pgtemp.Cluster, c config) error {
	if err := dbsetup.CreateDatabase(ctx, cluster.URL("postgres"), c.database, ""); err != nil {
		return err
	}
	if c.schema || c.migrate {
		if err := dbsetup.Schema(ctx, cluster.URL(c.database)); err != nil {
			return err
		}
	}
	if c.migrate {
		return dbsetup.Migrate(ctx, cluster.URL(c.database))
	}
	return nil
}

func runCommand(cluster *pgtemp.Cluster, c config) (status int, err error) {
	for name, value := range map[string]string{
		"DATABASE_URL": cluster.URL(c.database),
		"PGHOST":       "127.0.0.1",
		"PGPORT":       strconv.Itoa(cluster.Port()),
		"PGUSER":       "postgres",
		"PGDATABASE":   c.database,
		"PATH":         cluster.BinDir() + string(os.PathListSeparator) + os.Getenv("PATH"),
	} {
		if err := os.Setenv(name, value); err != nil {
			return exitFailed, err
		}
	}
	command := c.command
	if len(command) == 0 {
		command = []string{filepath.Join(cluster.BinDir(), "psql")}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // it ends by itself or by the signals below
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return exitFailed, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s != os.Interrupt {
				_ = cmd.Process.Signal(s) // gone already is as good
			}
		case err := <-done:
			return exitStatus(err)
		}
	}
}

// exitStatus turns what Wait returned into an exit status, as a shell does.
func exitStatus(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return exitFailed, err
		}
		return 0, nil
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}
