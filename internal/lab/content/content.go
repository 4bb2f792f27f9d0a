// Package content is the content service of docs/targets.md: the tables and the
// targets.yaml of that page, so that what it says is what is shown and measured.
package content

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed fill.sql
var fillSQL string

//go:embed state.sql
var stateSQL string

// File and Folder are what the page calls them.
const (
	File   = "targets.yaml"
	Folder = "targets"
)

// Service is what the page has of it.
type Service struct{ tables, targets string }

// Read reads the page.
func Read(page string) (Service, error) {
	text, err := os.ReadFile(page)
	if err != nil {
		return Service{}, err
	}
	block := func(language string) string {
		_, block, _ := strings.Cut(string(text), "\n```"+language+"\n")
		block, _, _ = strings.Cut(block, "```\n")
		return block
	}
	s := Service{tables: block("sql"), targets: block("yaml")}
	if s.tables == "" || s.targets == "" {
		return s, fmt.Errorf("%s has no block of sql, or none of yaml", page)
	}
	return s, nil
}

// Unlimited is the service without limits of its own, which no flag can raise, and without
// counters, which no floor keeps.
func (s Service) Unlimited() Service {
	lines := slices.DeleteFunc(strings.SplitAfter(s.targets, "\n"), func(line string) bool {
		return strings.HasPrefix(line, "    limits:") || strings.HasPrefix(line, "    counter:")
	})
	s.targets = strings.Join(lines, "")
	return s
}

// Fill makes the tables, with so many rows in each of every user of the shadow table.
func (s Service) Fill(ctx context.Context, conn *pgx.Conn, rows int) error {
	for _, statements := range []string{s.tables, "SET content.rows = " + strconv.Itoa(rows), fillSQL} {
		if _, err := conn.PgConn().Exec(ctx, statements).ReadAll(); err != nil {
			return fmt.Errorf("filling the content service: %w", err)
		}
	}
	return nil
}

// Write writes the file into a folder.
func (s Service) Write(dir string) error {
	return os.WriteFile(filepath.Join(dir, File), []byte(s.targets), 0o644) //nolint:gosec // as any source
}

// State is what is in a table, and what runs audited and backed up of it.
type State struct {
	Target            string
	Open              int64  // rows that are not done yet
	OfUsers           int64  // of them those of the users that were asked about
	AllRows           string // a sum over all rows, done or not, that knows every column
	OfOthers          string // the same over those of other users
	Audited, BackedUp int64
}

// States are those of all tables, in the order of the sweep.
func States(ctx context.Context, conn *pgx.Conn, users []string) ([]State, error) {
	rows, err := conn.Query(ctx, stateSQL, users)
	if err != nil {
		return nil, fmt.Errorf("looking at the content service: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[State])
}
