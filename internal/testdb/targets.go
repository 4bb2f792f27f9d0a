package testdb

import (
	"embed"
	"strings"
)

// targets are tables of a content service and the migrations that make them targets, as
// they are printed from targets.yaml there.
//
//go:embed targets/*.sql
var targets embed.FS

// Targets makes the tables of a content service, where they are not there yet, and
// targets of those named.
func (db *DB) Targets(names ...string) {
	db.tb.Helper()
	if !One[bool](db, "SELECT to_regclass('public.likes') IS NOT NULL") {
		db.Script(db.target("schema"))
		// What they are recorded in, where goose applies them.
		db.Exec("CREATE TABLE public.orphan_cleaner_targets_goose (version_id bigint NOT NULL, CONSTRAINT orphan_cleaner_targets_goose_pkey PRIMARY KEY (version_id))")
	}
	for _, name := range names {
		up, _, _ := strings.Cut(db.target(name), "-- +goose Down")
		db.Script("BEGIN;" + up + ";COMMIT")
		if index, err := targets.ReadFile("targets/index_" + name + ".sql"); err == nil {
			up, _, _ = strings.Cut(string(index), "-- +goose Down")
			db.Script(strings.ReplaceAll(up, "CONCURRENTLY", "")) // several statements are one transaction
		}
	}
}

// TargetDown takes the migration of a target back.
func (db *DB) TargetDown(name string) error {
	db.tb.Helper()
	_, down, _ := strings.Cut(db.target(name), "-- +goose Down")
	return execute(db.tb.Context(), db.URL, "BEGIN;"+down+";COMMIT")
}

func (db *DB) target(name string) string {
	db.tb.Helper()
	text, err := targets.ReadFile("targets/" + name + ".sql")
	if err != nil {
		db.tb.Fatal(err)
	}
	return string(text)
}

// Script executes statements in one go.
func (db *DB) Script(statements string) {
	db.tb.Helper()
	if err := execute(db.tb.Context(), db.URL, statements); err != nil {
		db.tb.Fatal(err)
	}
}
