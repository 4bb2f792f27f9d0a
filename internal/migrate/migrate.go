// Package migrate applies the embedded goose migrations.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/migrations"
)

// ErrNoMembers is returned when the database is not messaging-service's.
var ErrNoMembers = errors.New("there is no table public.conversation_members: point DATABASE_URL at messaging-service's database")

// Latest is the version of the newest embedded migration.
func Latest() (int64, error) {
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return 0, err
	}
	var latest int64
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return 0, fmt.Errorf("reading the version of %s: %w", name, err)
		}
		latest = max(latest, version)
	}
	return latest, nil
}

// Migrator is goose's Provider on one database. Close it.
type Migrator struct {
	*goose.Provider
	db *sql.DB
}

// Open connects to messaging-service's database. Migrations that run at the same
// time take turns by a session lock, and CREATE INDEX CONCURRENTLY outlives what a
// pooler may allow: Open refuses one in transaction mode with [database.ErrPooled].
func Open(ctx context.Context, url string) (*Migrator, error) {
	cfg, err := database.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	switch pooling, err := database.PoolingOf(ctx, url); {
	case err != nil:
		return nil, err
	case pooling == database.PooledTransaction, pooling == database.PooledStatement:
		return nil, fmt.Errorf("%w; migrate needs a session of its own, for its lock: point DATABASE_URL at the server itself, commonly port 5432", database.ErrPooled)
	}
	db := stdlib.OpenDB(*cfg.ConnConfig)
	m, err := open(ctx, db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return m, nil
}

func open(ctx context.Context, db *sql.DB) (*Migrator, error) {
	var there bool
	if err := db.QueryRowContext(ctx, `SELECT to_regclass('public.conversation_members') IS NOT NULL`).Scan(&there); err != nil {
		return nil, fmt.Errorf("connecting to the database: %w", err)
	}
	if !there {
		return nil, ErrNoMembers
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithSessionLocker(locker))
	if err != nil {
		return nil, err
	}
	return &Migrator{Provider: provider, db: db}, nil
}

// Close closes the connections.
func (m *Migrator) Close() error { return m.db.Close() }
