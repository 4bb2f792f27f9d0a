package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/nova-social/orphan-cleaner/internal/pgtemp"
)

// server is the throw-away PostgreSQL that all is measured on.
type server struct {
	cluster *pgtemp.Cluster
	admin   *pgx.Conn // of the database postgres
	clones  int
}

// serverSettings are those of a small production server. Autovacuum would come at
// any moment and be charged to whoever is measured then.
func serverSettings() map[string]string {
	return map[string]string{
		"shared_buffers": "512MB", "max_wal_size": "4GB", "autovacuum": "off",
	}
}

func startServer(ctx context.Context) (*server, error) {
	cluster, err := pgtemp.Start(ctx, pgtemp.Options{Durable: true, Settings: serverSettings()})
	if err != nil {
		return nil, err
	}
	s := &server{cluster: cluster}
	if s.admin, err = pgx.Connect(ctx, cluster.URL("postgres")); err != nil {
		return nil, errors.Join(err, cluster.Stop())
	}
	return s, nil
}

func (s *server) stop(ctx context.Context) error {
	return errors.Join(s.admin.Close(ctx), s.cluster.Stop())
}

// create makes a database, as a clone of another where template is not empty. A
// checkpoint after it leaves no page to be written at somebody else's cost.
func (s *server) create(ctx context.Context, template string) (name string, err error) {
	s.clones++
	name = fmt.Sprintf("bench_%d", s.clones)
	statement := "CREATE DATABASE " + name
	if template != "" {
		statement += " TEMPLATE " + template + " STRATEGY file_copy"
	}
	for _, statement := range []string{statement, "CHECKPOINT"} {
		if _, err := s.admin.Exec(ctx, statement); err != nil {
			return "", fmt.Errorf("creating a database: %w", err)
		}
	}
	return name, nil
}

func (s *server) drop(ctx context.Context, names ...string) error {
	var errs []error
	for _, name := range names {
		if name == "" {
			continue // it was never made
		}
		if _, err := s.admin.Exec(context.WithoutCancel(ctx), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			errs = append(errs, fmt.Errorf("dropping %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// on gives a connection of its own to a database.
func (s *server) on(ctx context.Context, name string, do func(conn *pgx.Conn) error) (err error) {
	conn, err := pgx.Connect(ctx, s.cluster.URL(name))
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return do(conn)
}

// script runs a file of statements in one transaction, with settings that it reads.
func (s *server) script(ctx context.Context, name, doing, statements string, settings map[string]string) error {
	err := s.on(ctx, name, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			for name, value := range settings {
				if _, err := tx.Exec(ctx, "SELECT set_config($1, $2, true)", name, value); err != nil {
					return err
				}
			}
			_, err := tx.Conn().PgConn().Exec(ctx, statements).ReadAll()
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// vacuum leaves a database as one at work is: statistics, and a visibility map.
func (s *server) vacuum(ctx context.Context, name string) error {
	return s.on(ctx, name, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "VACUUM (ANALYZE)")
		return err
	})
}
