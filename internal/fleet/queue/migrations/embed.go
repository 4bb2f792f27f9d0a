// Package migrations embeds the goose migrations of a fleet's control database.
package migrations

import "embed"

// FS holds the migrations, NNNNN_verb_object.sql.
//
//go:embed *.sql
var FS embed.FS

// Schema is that of our tables and of River's.
const Schema = "orphan_cleaner_fleet"

// VersionTable is where goose records them. It is not that of a shard: the control
// database may be one of the shards.
const VersionTable = "public.orphan_cleaner_fleet_goose"
