// Package migrations embeds the goose migrations.
package migrations

import "embed"

// FS holds the migrations, NNNNN_verb_object.sql.
//
//go:embed *.sql
var FS embed.FS

// VersionTable is where goose records them. It is ours alone: in a table that
// the application uses too, each would take the other's versions for its own.
const VersionTable = "public.orphan_cleaner_goose"
