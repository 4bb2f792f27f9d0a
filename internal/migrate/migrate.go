// Package migrate applies goose migrations: the embedded ones, and those of targets that were printed.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	goosedb "github.com/pressly/goose/v3/database"
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

// Set is migrations that belong together, and the table that they are recorded in.
type Set struct {
	Files fs.FS
	Table string // with its schema
}

// Embedded are the migrations of the program itself.
func Embedded() Set { return Set{migrations.FS, migrations.VersionTable} }

// Migrator is goose's Provider on one database. Close it.
type Migrator struct {
	*goose.Provider
	db  *sql.DB
	set Set
}

// Open connects to messaging-service's database. Migrations that run at the same
// time take turns by a session lock, and CREATE INDEX CONCURRENTLY outlives what a
// pooler may allow: Open refuses one in transaction mode with [database.ErrPooled].
func Open(ctx context.Context, url string, set Set) (*Migrator, error) {
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
	m, err := open(ctx, handle, set)
	if err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	return m, nil
}

func open(ctx context.Context, handle *sql.DB, set Set) (*Migrator, error) {
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
	provider, err := goose.NewProvider(goose.DialectPostgres, handle, set.Files, goose.WithSessionLocker(locker), goose.WithTableName(set.Table))
	if err != nil {
		return nil, err
	}
	return &Migrator{provider, handle, set}, nil
}

// Migration is one of a set.
type Migration struct {
	Name      string    // of its file
	AppliedAt time.Time // zero: pending
}

// List lists the migrations, oldest first. It only reads: a database without the
// version table has all of them pending.
func (m *Migrator) List(ctx context.Context) ([]Migration, error) {
	store, err := goosedb.NewStore(goose.DialectPostgres, m.set.Table)
	if err != nil {
		return nil, err
	}
	recorded, err := store.ListMigrations(ctx, m.db) // newest first: one that went down and up again is there thrice
	if err != nil && database.Code(err) != undefinedTable {
		return nil, fmt.Errorf("reading the applied migrations: %w", err)
	}
	var list []Migration
	for _, source := range m.ListSources() {
		one := Migration{Name: filepath.Base(source.Path)}
		i := slices.IndexFunc(recorded, func(r *goosedb.ListMigrationsResult) bool { return r.Version == source.Version })
		if i >= 0 && recorded[i].IsApplied {
			row, err := store.GetMigration(ctx, m.db, source.Version)
			if err != nil {
				return nil, fmt.Errorf("reading the applied migrations: %w", err)
			}
			one.AppliedAt = row.Timestamp
		}
		list = append(list, one)
	}
	return list, nil
}

const undefinedTable = "42P01"

// SQL is the Up or Down part of the file of a migration.
func (m *Migrator) SQL(one Migration, down bool) (string, error) {
	text, err := fs.ReadFile(m.set.Files, one.Name)
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
