// Package migrations holds the goose migrations that `orphan-cleaner migrate`
// embeds. The same files work with the stock goose program.
package migrations

import "embed"

// FS holds the migrations at its root, as goose's Provider wants them.
//
//go:embed *.sql
var FS embed.FS
