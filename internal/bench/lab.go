package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/cleaner"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
	"github.com/nova-social/orphan-cleaner/internal/pgtemp/dbsetup"
)

// lab is the throw-away PostgreSQL and auth-service that all is measured on.
type lab struct {
	cluster *pgtemp.Cluster
	owned   bool          // the cluster: it ends with the lab
	prefix  string        // of its databases
	admin   *pgxpool.Pool // of the database postgres, as the application bench
	auth    *authfake.Server
	client  *authclient.Client
	clones  int
}

// serverSettings are those of a small production server. Autovacuum would come
// at any moment and be charged to whoever is measured then.
func serverSettings() map[string]string {
	return map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "4GB", "autovacuum": "off",
	}
}

// openLab starts a cluster of its own unless it is given one.
func openLab(ctx context.Context, cluster *pgtemp.Cluster, durable bool) (l *lab, err error) {
	l = &lab{cluster: cluster, owned: cluster == nil, prefix: "bench_" + uuid.NewString()[:8]}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.owned {
		if l.cluster, err = pgtemp.Start(ctx, pgtemp.Options{Durable: durable, Settings: serverSettings()}); err != nil {
			return l, err
		}
	}
	cfg, err := database.ParseConfig(l.cluster.URL("postgres"))
	if err != nil {
		return l, err
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "orphan-cleaner-bench"
	if l.admin, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return l, fmt.Errorf("opening the pool: %w", err)
	}
	if l.auth, err = authfake.Start(authfake.Options{}); err != nil { //nolint:contextcheck // it lives until close
		return l, err
	}
	l.client, err = authclient.Dial(authclient.Config{URL: l.auth.URL()})
	return l, err
}

func (l *lab) close() error {
	var errs []error
	if l.client != nil {
		errs = append(errs, l.client.Close())
	}
	if l.auth != nil {
		l.auth.Stop()
	}
	if l.admin != nil {
		l.admin.Close()
	}
	if l.owned && l.cluster != nil {
		errs = append(errs, l.cluster.Stop())
	}
	return errors.Join(errs...)
}

// survivors are the members that a method leaves.
type survivors struct {
	Members     int64
	Fingerprint string
}

// dataset is a database to be cloned, and auth-service's beside it.
type dataset struct {
	size     Size
	share    float64
	dead     int    // users
	name     string // of the database
	auth     string // of auth-service's database
	living   []uuid.UUID
	expected survivors
	doomed   int64 // members

	limits   cleaner.Limits // of ours
	loosened []string       // the breakers whose defaults would refuse it
}

func (d *dataset) settings() map[string]string {
	return map[string]string{
		"bench.conversations": strconv.Itoa(d.size.Conversations), "bench.members": strconv.Itoa(d.size.Members),
		"bench.users": strconv.Itoa(d.size.Users), "bench.dead": strconv.Itoa(d.dead),
	}
}

// fill makes the data, and makes auth-service know the living.
func (l *lab) fill(ctx context.Context, size Size, share float64) (*dataset, error) {
	l.clones++
	d := &dataset{
		size: size, share: share, dead: size.dead(share),
		name: fmt.Sprintf("%s_data_%d", l.prefix, l.clones), auth: fmt.Sprintf("%s_auth_%d", l.prefix, l.clones),
	}
	for _, name := range []string{d.name, d.auth} {
		if err := dbsetup.CreateDatabase(ctx, l.cluster.URL("postgres"), name, ""); err != nil {
			return nil, err
		}
	}
	if err := l.on(ctx, d.auth, func(conn *pgx.Conn) error {
		if err := script(ctx, conn, "filling auth-service", authServiceSQL, d.settings()); err != nil {
			return err
		}
		return vacuum(ctx, conn)
	}); err != nil {
		return nil, err
	}
	if err := dbsetup.Schema(ctx, l.cluster.URL(d.name)); err != nil {
		return nil, err
	}
	// First the rows, then the triggers: loading is nobody's figure.
	if err := l.on(ctx, d.name, func(conn *pgx.Conn) error {
		return script(ctx, conn, "filling messaging-service", seedSQL, d.settings())
	}); err != nil {
		return nil, err
	}
	if err := dbsetup.Migrate(ctx, l.cluster.URL(d.name)); err != nil {
		return nil, err
	}
	err := l.on(ctx, d.name, func(conn *pgx.Conn) error { return l.know(ctx, conn, d) })
	return d, err
}

// know finds out what a method must leave, and tells auth-service who lives.
func (l *lab) know(ctx context.Context, conn *pgx.Conn, d *dataset) error {
	if err := vacuum(ctx, conn); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, livingSQL)
	if err != nil {
		return err
	}
	if d.living, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
		return fmt.Errorf("reading the living: %w", err)
	}
	l.auth.Add(d.living...)
	if err := conn.QueryRow(ctx, expectedSQL).Scan(&d.expected.Members, &d.expected.Fingerprint); err != nil {
		return fmt.Errorf("finding out who must be left: %w", err)
	}
	var members int64
	if err := conn.QueryRow(ctx, countMembersSQL).Scan(&members); err != nil {
		return err
	}
	if members != int64(d.size.Members) {
		return fmt.Errorf("%d members were made, not %d", members, d.size.Members)
	}
	d.doomed = members - d.expected.Members
	return nil
}

// forget drops the data and makes auth-service forget its users.
func (l *lab) forget(ctx context.Context, d *dataset) error {
	l.auth.Delete(d.living...)
	return errors.Join(l.drop(ctx, d.name), l.drop(ctx, d.auth))
}

// clone makes a fresh copy of the data and returns the name of its database.
func (l *lab) clone(ctx context.Context, d *dataset) (string, error) {
	l.clones++
	name := fmt.Sprintf("%s_clone_%d", l.prefix, l.clones)
	// Through the log a little is copied sooner, by files gigabytes only once.
	strategy := " STRATEGY wal_log"
	if d.size.Members > 100_000 {
		strategy = " STRATEGY file_copy"
	}
	_, err := l.admin.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE "+pgx.Identifier{d.name}.Sanitize()+strategy)
	if err != nil {
		return "", fmt.Errorf("cloning the data: %w", err)
	}
	return name, nil
}

func (l *lab) drop(ctx context.Context, name string) error {
	if _, err := l.admin.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("dropping %s: %w", name, err)
	}
	return nil
}

// on gives a connection of its own to a database.
func (l *lab) on(ctx context.Context, name string, do func(conn *pgx.Conn) error) (err error) {
	conn, err := pgx.Connect(ctx, l.cluster.URL(name))
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return do(conn)
}

// script runs a file of statements in one transaction, with settings that it reads.
func script(ctx context.Context, conn *pgx.Conn, doing, statements string, settings map[string]string) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for name, value := range settings {
			if _, err := tx.Exec(ctx, "SELECT set_config($1, $2, true)", name, value); err != nil {
				return err
			}
		}
		_, err := tx.Conn().PgConn().Exec(ctx, statements).ReadAll()
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// vacuum leaves a database as one at work is: statistics, and a visibility map.
func vacuum(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "VACUUM (ANALYZE)"); err != nil {
		return fmt.Errorf("vacuuming: %w", err)
	}
	return nil
}
