// Package demo shows orphan-cleaner at work as a stranger would use it: by the
// commands of the built program, on a throw-away PostgreSQL and auth-service.
package demo

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/lab/content"
	"github.com/nova-social/orphan-cleaner/internal/lab/process"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
)

//go:embed seed.sql
var seedSQL string

//go:embed living.sql
var livingSQL string

//go:embed fingerprint.sql
var fingerprintSQL string

//go:embed evidence.sql
var evidenceSQL string

// Options of a demo.
type Options struct {
	Product, Lab           string // the programs
	Conversations, Members int
	Keep                   bool   // leave the servers up
	Page                   string // docs/targets.md: show its targets; empty: conversation_members alone
	Out, Err               io.Writer
}

// demo is one under way.
type demo struct {
	Options
	conn    *pgx.Conn
	env     []string // of the product
	dir     string   // that it works in; empty: this one
	auth    *process.AuthService
	service content.Service
}

// Run plays it.
func Run(ctx context.Context, options Options) (err error) {
	d := &demo{Options: options}
	if d.Page != "" {
		if d.service, err = content.Read(d.Page); err != nil {
			return err
		}
	}
	d.say("Starting a throw-away PostgreSQL …")
	cluster, err := pgtemp.Start(ctx, pgtemp.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	if err := d.fill(ctx, cluster); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.conn.Close(context.WithoutCancel(ctx))) }()
	if err := d.startAuthService(ctx); err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, d.auth.Stop())
		}
	}()
	d.env = []string{"DATABASE_URL=" + cluster.URL("messaging"), "AUTH_SERVICE_URL=" + d.auth.URL}
	if d.Page != "" {
		err = d.playTargets(ctx)
	} else {
		err = d.play(ctx)
	}
	if err != nil || !d.Keep {
		return err
	}
	kept = true
	return d.keep(cluster)
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

// fill makes conversations and members in messaging-service's tables. One member in
// thirty belongs to a user deleted 31 days ago or longer, two in a hundred to one
// deleted lately.
func (d *demo) fill(ctx context.Context, cluster *pgtemp.Cluster) (err error) {
	d.say("Making messaging-service: %d conversations, %d members …", d.Conversations, d.Members)
	if err := dbsetup.CreateDatabase(ctx, cluster.URL("postgres"), "messaging", ""); err != nil {
		return err
	}
	if err := dbsetup.Schema(ctx, cluster.URL("messaging")); err != nil {
		return err
	}
	if d.conn, err = pgx.Connect(ctx, cluster.URL("messaging")); err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, d.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('demo.conversations', $1, true), set_config('demo.members', $2, true)",
			strconv.Itoa(d.Conversations), strconv.Itoa(d.Members)); err != nil {
			return err
		}
		_, err := tx.Conn().PgConn().Exec(ctx, seedSQL).ReadAll()
		return err
	})
	if err == nil && d.Page != "" {
		if _, err = d.conn.Exec(ctx, earlySQL); err == nil {
			err = d.service.Fill(ctx, d.conn, rowsEach)
		}
	}
	if err == nil {
		// Statistics, as a database at work has them.
		_, err = d.conn.Exec(ctx, "VACUUM (ANALYZE)")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("filling the tables: %w", err), d.conn.Close(context.WithoutCancel(ctx)))
	}
	return nil
}

func (d *demo) startAuthService(ctx context.Context) (err error) {
	var args []string
	if d.Keep {
		args = []string{"--stay"}
	}
	var living int64
	d.auth, err = process.StartAuthService(ctx, d.Lab, args, func(stdin io.Writer) error {
		tag, err := d.conn.PgConn().CopyTo(ctx, stdin, "COPY ("+livingSQL+") TO STDOUT")
		living = tag.RowsAffected()
		return err
	})
	if err != nil {
		return err
	}
	d.say("auth-service knows %d living users, at %s", living, d.auth.URL)
	return nil
}

// product runs a command of orphan-cleaner before the user's eyes.
func (d *demo) product(ctx context.Context, args ...string) error {
	d.say("\n$ orphan-cleaner %s", strings.Join(args, " "))
	cmd := process.Command(ctx, d.env, d.Product, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.dir, d.Out, d.Err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("orphan-cleaner %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// play makes a dry run, a run, a run that finds nothing left to do, and a restore.
func (d *demo) play(ctx context.Context) error {
	before, err := d.fingerprint(ctx)
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"migrate", "up"}, {"check"}, {"run", "--dry-run"}} {
		if err := d.product(ctx, args...); err != nil {
			return err
		}
	}
	if _, err := d.auth.Calls(); err != nil {
		return err
	}
	start := time.Now()
	if err := d.product(ctx, "run"); err != nil {
		return err
	}
	if err := d.proof(ctx, time.Since(start)); err != nil {
		return err
	}
	run, err := d.lastRun(ctx)
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"run"}, {"status", "--days", "3"}, {"restore", "--run", run, "--execute"}} {
		if err := d.product(ctx, args...); err != nil {
			return err
		}
	}
	after, err := d.fingerprint(ctx)
	if err != nil {
		return err
	}
	if after != before {
		return errors.New("what was restored is not what was deleted")
	}
	d.say("Each row of conversation_members is as it was before the run.")
	return nil
}

// runbookSeconds is what the runbook's table 5.2 says of 1,000 conversations and
// 15,000 members.
const runbookSeconds = 38

// proof says what the run left behind, by the lab's own count.
func (d *demo) proof(ctx context.Context, took time.Duration) error {
	calls, err := d.auth.Calls()
	if err != nil {
		return err
	}
	var left, audited, backedUp int
	if err := d.conn.QueryRow(ctx, evidenceSQL).Scan(&left, &audited, &backedUp); err != nil {
		return fmt.Errorf("counting what the run left: %w", err)
	}
	runbook := ""
	if d.Conversations == 1000 && d.Members == 15000 {
		runbook = fmt.Sprintf(" (runbook 5.2: %d s)", runbookSeconds)
	}
	d.say("That took %.2f s%s and %d calls. Deleted: %d of %d members; audited: %d; backed up: %d.",
		took.Seconds(), runbook, calls, d.Members-left, d.Members, audited, backedUp)
	return nil
}

// lastRun is the number of the newest run.
func (d *demo) lastRun(ctx context.Context) (string, error) {
	e, err := process.Run(process.Command(ctx, d.env, d.Product, "status", "--json"))
	if err != nil {
		return "", err
	}
	var status struct {
		Runs []struct {
			RunID json.Number `json:"run_id"`
		} `json:"runs"`
	}
	if err := json.Unmarshal(e.Stdout, &status); err != nil || len(status.Runs) == 0 {
		return "", fmt.Errorf("reading `orphan-cleaner status --json`: no run in it: %w\n%s", err, e.Stderr)
	}
	return status.Runs[0].RunID.String(), nil
}

// fingerprint is a hash over all rows of the table that is cleaned.
func (d *demo) fingerprint(ctx context.Context) (text string, err error) {
	if err = d.conn.QueryRow(ctx, fingerprintSQL).Scan(&text); err != nil {
		return "", fmt.Errorf("reading all members: %w", err)
	}
	return text, nil
}

// keep leaves both servers running and says how to use and how to stop them.
func (d *demo) keep(cluster *pgtemp.Cluster) error {
	stopAuth, err := d.auth.Detach()
	if err != nil {
		return err
	}
	stopCluster, err := cluster.Detach()
	if err != nil {
		return err
	}
	d.say("\nPostgreSQL and auth-service stay up. To use them:")
	for _, setting := range d.env {
		name, value, _ := strings.Cut(setting, "=")
		d.say("  export %s='%s'", name, value)
	}
	d.say("  %s status\n  psql \"$DATABASE_URL\"\nTo stop them:\n  %s; %s", d.Product, stopAuth, stopCluster)
	return nil
}
