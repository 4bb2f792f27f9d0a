// Package dbsetup fills a database of a throw-away cluster: with the tables of
// messaging-service as this project knows them, and with its own migrations.
// Production databases have the former already and get the latter from
// `orphan-cleaner migrate up`.
package dbsetup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx for database/sql, which goose needs
	"github.com/pressly/goose/v3"

	"github.com/nova-social/orphan-cleaner/migrations"
	"github.com/nova-social/orphan-cleaner/sql/schema"
)

// CreateDatabase creates a database, as a clone of template where that is not
// empty. admin is the URL of another database of the cluster.
func CreateDatabase(ctx context.Context, admin, name, template string) error {
	statement := "CREATE DATABASE " + pgx.Identifier{name}.Sanitize()
	if template != "" {
		statement += " TEMPLATE " + pgx.Identifier{template}.Sanitize()
	}
	return execute(ctx, admin, "creating database "+name, statement)
}

// Schema creates the tables of messaging-service: sql/schema/*.sql in the order
// of their names.
func Schema(ctx context.Context, url string) error {
	names, err := fs.Glob(schema.FS, "*.sql")
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("sql/schema holds no SQL file")
	}
	for _, name := range names {
		text, err := fs.ReadFile(schema.FS, name)
		if err != nil {
			return err
		}
		if err := execute(ctx, url, "applying sql/schema/"+name, string(text)); err != nil {
			return err
		}
	}
	return nil
}

// Migrate applies all migrations of this project.
func Migrate(ctx context.Context, url string) (err error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithDisableGlobalRegistry(true), goose.WithTableName(migrations.VersionTable))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("applying the migrations: %w", err)
	}
	return nil
}

// execute runs statements, several if need be, on a connection of their own.
func execute(ctx context.Context, url, doing, statements string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	// PgConn's Exec speaks the simple protocol, which takes a whole file.
	if _, err := conn.PgConn().Exec(ctx, statements).ReadAll(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}
