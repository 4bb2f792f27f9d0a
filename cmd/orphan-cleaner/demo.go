package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/demo"
	"github.com/nova-social/orphan-cleaner/internal/migrate"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
	"github.com/nova-social/orphan-cleaner/internal/restore"
	"github.com/nova-social/orphan-cleaner/internal/telemetry"
)

// DemoCmd is `demo`.
type DemoCmd struct {
	Conversations int  `help:"Conversations to make." default:"1000"`
	Members       int  `help:"Members to make." default:"15000"`
	Keep          bool `help:"Leave the PostgreSQL up at the end and say how to connect and how to stop it."`
}

// Run shows the tool at work on throw-away servers.
func (cmd *DemoCmd) Run(ctx context.Context, s *streams) (err error) {
	if cmd.Conversations < 1 || cmd.Members < 1 || cmd.Members > 5*cmd.Conversations*1000 || cmd.Conversations > 10_000_000 || cmd.Members > 50_000_000 {
		return fmt.Errorf("%w: --conversations and --members must be 1 or more, and within 10 and 50 million", errUsage)
	}
	say := func(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

	say("Starting a throw-away PostgreSQL …")
	cluster, err := pgtemp.Start(ctx, pgtemp.Options{})
	if err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, cluster.Stop())
		}
	}()
	pool, err := openDemo(ctx, cluster)
	if err != nil {
		return err
	}
	defer pool.Close()
	say("Making messaging-service: %d conversations, %d members …", cmd.Conversations, cmd.Members)
	living, err := demo.Fill(ctx, pool, cmd.Conversations, cmd.Members)
	if err != nil {
		return err
	}
	auth, err := authfake.Start(authfake.Options{}) //nolint:contextcheck // it lives until Stop
	if err != nil {
		return err
	}
	defer auth.Stop()
	auth.Add(living...)
	say("auth-service knows %d living users, at %s", len(living), auth.URL())

	if err := cmd.migrate(ctx, cluster, say); err != nil {
		return err
	}
	if err := cmd.runs(ctx, s, pool, auth, say); err != nil {
		return err
	}
	if cmd.Keep {
		stop, err := cluster.Detach()
		if err != nil {
			return err
		}
		kept = true
		say("\nThe database stays up:  psql '%s'\nStop it with:           %s", cluster.URL("messaging"), stop)
	}
	return nil
}

func openDemo(ctx context.Context, cluster *pgtemp.Cluster) (*pgxpool.Pool, error) {
	if err := dbsetup.CreateDatabase(ctx, cluster.URL("postgres"), "messaging", ""); err != nil {
		return nil, err
	}
	if err := dbsetup.Schema(ctx, cluster.URL("messaging")); err != nil {
		return nil, err
	}
	return database.Open(ctx, cluster.URL("messaging"), 0, 8)
}

func (cmd *DemoCmd) migrate(ctx context.Context, cluster *pgtemp.Cluster, say func(string, ...any)) (err error) {
	m, err := migrate.Open(ctx, cluster.URL("messaging"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	applied, err := m.Up(ctx)
	if err != nil {
		return err
	}
	say("orphan-cleaner migrate up: %d migrations\n", len(applied))
	return nil
}

// runs makes a dry run, a run, a run that finds nothing left to do, and a restore.
func (cmd *DemoCmd) runs(ctx context.Context, s *streams, pool *pgxpool.Pool, auth *authfake.Server, say func(string, ...any)) error {
	log := telemetry.NewLogger(s.err, "text", slog.LevelWarn)
	client, err := authclient.Dial(authclient.Config{URL: auth.URL(), Logger: log})
	if err != nil {
		return err
	}
	defer closeClient(client, log)
	oneRun := func(dry bool) (cleaner.Result, error) {
		cfg, err := finishConfig(cleaner.DefaultConfig())
		if err != nil {
			return cleaner.Result{}, err
		}
		cfg.DryRun = dry
		c := cleaner.New(pool, client, log, cfg, authProbe(client, auth.URL()))
		stop := watch(s.err, log, c)
		defer stop()
		return c.Run(ctx)
	}

	before, err := fingerprint(ctx, pool)
	if err != nil {
		return err
	}
	say("orphan-cleaner run --dry-run")
	dry, err := oneRun(true)
	if err != nil {
		return err
	}
	if err := printDryRun(s.out, dry); err != nil {
		return err
	}
	calls := auth.Calls()
	say("\norphan-cleaner run")
	start := time.Now()
	first, err := oneRun(false)
	if err != nil {
		return err
	}
	if err := cmd.printRun(ctx, s.out, pool, first, auth.Calls()-calls, time.Since(start)); err != nil {
		return err
	}
	again, err := oneRun(false)
	if err != nil {
		return err
	}
	say("\norphan-cleaner run, once more: %d members deleted, %d users checked.", again.MembersDeleted, again.UsersChecked)
	return giveBack(ctx, pool, log, first, before, say)
}

// fingerprint is a hash over all rows of the table that is cleaned.
func fingerprint(ctx context.Context, pool *pgxpool.Pool) (text string, err error) {
	err = pool.QueryRow(ctx, "SELECT md5(string_agg(m::text, '' ORDER BY conversation_id, user_id)) FROM conversation_members AS m").Scan(&text)
	return text, err
}

// giveBack restores what the first run deleted.
func giveBack(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger, first cleaner.Result, before string, say func(string, ...any)) error {
	cfg := restore.DefaultConfig()
	cfg.Host, cfg.Version, cfg.Settings = "demo", version, []byte("{}")
	say("\norphan-cleaner restore --run %d --execute", first.RunID)
	result, err := restore.New(pool, log, cfg).Restore(ctx, restore.Selection{Run: first.RunID})
	if err != nil {
		return err
	}
	after, err := fingerprint(ctx, pool)
	if err != nil {
		return err
	}
	say(" %d members given back in %.2f s, their users on hold for %s; each row as it was: %t.",
		result.MembersRestored, result.Seconds, Duration(cfg.Hold), after == before)
	return nil
}

// runbookSeconds is what the runbook's table 5.2 gives for 1,000 conversations
// and 15,000 members.
const runbookSeconds = 38

func (cmd *DemoCmd) printRun(ctx context.Context, w io.Writer, pool *pgxpool.Pool, r cleaner.Result, calls int, took time.Duration) error {
	proof, err := db.New(pool).RunProof(ctx, db.RunProofParams{RunID: r.RunID})
	if err != nil {
		return err
	}
	runbook := ""
	if cmd.Conversations == 1000 && cmd.Members == 15000 {
		runbook = fmt.Sprintf("%d", runbookSeconds)
	}
	t := newTable("", "", "this run", "runbook 5.2")
	t.AppendRows([]table.Row{
		{"members checked", r.MembersTotal, ""},
		{"calls to auth-service", calls, ""},
		{"members deleted", r.MembersDeleted, ""},
		{"  audited", proof.Audited, ""},
		{"  backed up", proof.BackedUp, ""},
		{"  from conversations", r.Conversations, ""},
		{"users waiting out the retention", r.UsersMissing - r.UsersDue, ""},
		{"seconds", fmt.Sprintf("%.2f", took.Seconds()), runbook},
	})
	return printTable(w, t)
}
