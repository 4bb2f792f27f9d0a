// Package migrate applies the embedded goose migrations.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/nova-social/orphan-cleaner/gen/db"
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
	handle := stdlib.OpenDB(*cfg.ConnConfig, stdlib.OptionAfterConnect(database.ForSession))
	m, err := open(ctx, handle)
	if err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	return m, nil
}

func open(ctx context.Context, handle *sql.DB) (*Migrator, error) {
	var there bool
	if err := handle.QueryRowContext(ctx, `SELECT pg_catalog.to_regclass('public.conversation_members') IS NOT NULL`).Scan(&there); err != nil {
		return nil, fmt.Errorf("connecting to the database: %w", err)
	}
	if !there {
		return nil, ErrNoMembers
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, handle, migrations.FS, goose.WithSessionLocker(locker), goose.WithTableName(migrations.VersionTable))
	if err != nil {
		return nil, err
	}
	return &Migrator{Provider: provider, db: handle}, nil
}

// Migration is one of the embedded migrations.
type Migration struct {
	Name      string // of its file
	Version   int64
	AppliedAt time.Time // zero: pending
}

// List lists the embedded migrations, oldest first. It only reads: a database
// without our version table has all of them pending.
func (m *Migrator) List(ctx context.Context) ([]Migration, error) {
	applied, err := m.applied(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the applied migrations: %w", err)
	}
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return nil, err
	}
	list := make([]Migration, len(names))
	for i, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, fmt.Errorf("reading the version of %s: %w", name, err)
		}
		list[i] = Migration{Name: name, Version: version}
		for _, row := range applied {
			if row.VersionID == version {
				list[i].AppliedAt = row.AppliedAt
			}
		}
	}
	return list, nil
}

func (m *Migrator) applied(ctx context.Context) (rows []db.PreflightAppliedRow, err error) {
	conn, err := m.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	err = conn.Raw(func(driver any) (err error) {
		rows, err = database.Queries(driver.(*stdlib.Conn).Conn()).PreflightApplied(ctx)
		return err
	})
	if database.Code(err) == undefinedTable {
		return nil, nil
	}
	return rows, err
}

const undefinedTable = "42P01"

// SQL is the Up or Down part of the migration's file.
func (one Migration) SQL(down bool) (string, error) {
	text, err := fs.ReadFile(migrations.FS, one.Name)
	if err != nil {
		return "", err
	}
	up, undo, is := strings.Cut(string(text), "-- +goose Down\n")
	if !is {
		return "", fmt.Errorf("%s has no Down part", one.Name)
	}
	if down {
		return undo, nil
	}
	return up, nil
}

// Close closes the connections.
func (m *Migrator) Close() error { return m.db.Close() }
