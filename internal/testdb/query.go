package testdb

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Exec runs a statement and returns how many rows it touched.
func (db *DB) Exec(statement string, args ...any) int64 {
	db.tb.Helper()
	tag, err := db.Pool.Exec(context.Background(), statement, args...)
	if err != nil {
		db.tb.Fatalf("%s: %v", statement, err)
	}
	return tag.RowsAffected()
}

// Count counts rows: from is what follows FROM, conditions and all.
//
//	db.Count("conversation_members WHERE user_id = $1", id)
func (db *DB) Count(from string, args ...any) int64 {
	db.tb.Helper()
	return One[int64](db, "SELECT count(*) FROM "+from, args...)
}

// One returns the single value of a single row.
func One[T any](db *DB, query string, args ...any) T {
	db.tb.Helper()
	var value T
	if err := db.Pool.QueryRow(context.Background(), query, args...).Scan(&value); err != nil {
		db.tb.Fatalf("%s: %v", query, err)
	}
	return value
}

// Settle waits until all transactions that run now have ended, in every database of
// the cluster, so those of other tests too. A run leaves rows that were written by
// one of them, or later: they may have changed since their users were checked.
func (db *DB) Settle() {
	db.tb.Helper()
	newest := One[string](db, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
	// Some make a million members.
	Eventually(db.tb, 5*setupTimeout, "the transactions of other tests end", func() bool {
		return One[bool](db, "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8", newest)
	})
}

// Snapshot is the text of each row of a table or a part of it, sorted: equal
// snapshots mean the same rows, byte for byte, in whatever order they lie.
type Snapshot []string

// Snapshot takes a snapshot: from is what follows FROM, conditions and all.
//
//	before := db.Snapshot("conversation_members WHERE user_id <> $1", id)
//	…
//	if diff := before.Diff(db.Snapshot("conversation_members")); diff != "" {
//		t.Errorf("rows of other users changed:\n%s", diff)
//	}
//
// It holds every row in memory; for tables of more than some 100,000 rows see
// [DB.Fingerprint].
func (db *DB) Snapshot(from string, args ...any) Snapshot {
	db.tb.Helper()
	var rows Snapshot
	db.stable(func(ctx context.Context, tx pgx.Tx) error {
		result, err := tx.Query(ctx, `SELECT "a whole row"::text FROM (SELECT * FROM `+from+`) AS "a whole row"`, args...)
		if err != nil {
			return err
		}
		rows, err = pgx.CollectRows(result, pgx.RowTo[string])
		return err
	})
	slices.Sort(rows)
	return rows
}

// Fingerprint returns the number of rows and a checksum over their text, whose
// order does not matter: for tables too big for a [Snapshot].
func (db *DB) Fingerprint(from string, args ...any) string {
	db.tb.Helper()
	var fingerprint string
	db.stable(func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			SELECT count(*) || ' rows, md5 ' || md5(coalesce(string_agg(h, '' ORDER BY h), ''))
			FROM (SELECT md5("a whole row"::text) AS h FROM (SELECT * FROM `+from+`) AS "a whole row") AS hashes`, args...).Scan(&fingerprint)
	})
	return fingerprint
}

// stable runs f in a read-only transaction in which a value's text depends on
// nothing that a test may have set for the database or for its role.
func (db *DB) stable(f func(context.Context, pgx.Tx) error) {
	db.tb.Helper()
	ctx := context.Background()
	err := pgx.BeginTxFunc(ctx, db.Pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		const settings = `SELECT set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true),
			set_config('intervalstyle', 'postgres', true), set_config('extra_float_digits', '1', true),
			set_config('bytea_output', 'hex', true)`
		if _, err := tx.Exec(ctx, settings); err != nil {
			return err
		}
		return f(ctx, tx)
	})
	if err != nil {
		db.tb.Fatalf("reading a snapshot: %v", err)
	}
}

// diffLines is how many differing rows Diff shows.
const diffLines = 20

// Diff returns the rows that are only in s, with a minus, and those that are
// only in later, with a plus: the first twenty. It is empty when both are equal.
func (s Snapshot) Diff(later Snapshot) string {
	var b strings.Builder
	lines := 0
	show := func(sign, row string) {
		if lines++; lines <= diffLines {
			fmt.Fprintf(&b, "%s %s\n", sign, row)
		}
	}
	i, j := 0, 0
	for i < len(s) || j < len(later) {
		switch {
		case j == len(later) || i < len(s) && s[i] < later[j]:
			show("-", s[i])
			i++
		case i == len(s) || later[j] < s[i]:
			show("+", later[j])
			j++
		default:
			i++
			j++
		}
	}
	if lines > diffLines {
		fmt.Fprintf(&b, "… and %d more\n", lines-diffLines)
	}
	return b.String()
}
