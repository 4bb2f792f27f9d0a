// Package schema holds the tables of messaging-service as this project knows
// them. They are never applied to a database of messaging-service: sqlc reads
// them to type the queries, and tests and the lab build their throw-away
// databases from them.
package schema

import "embed"

// FS holds the *.sql files of this folder, to be applied in name order.
//
//go:embed *.sql
var FS embed.FS
