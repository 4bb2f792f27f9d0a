// Package prune drops evidence past its window: backups past the restore window,
// audit months past theirs, the users of refused runs that nobody will approve any
// more. What may be dropped is decided by the function orphan_cleaner.prune_look;
// this package calls, one partition a transaction.
package prune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// Config is what pruning goes by.
type Config struct {
	RestoreWindow time.Duration // backups are kept for this long, a day or longer
	AuditWindow   time.Duration // audit rows are; not shorter than RestoreWindow
	RefusalWindow time.Duration // a refused run can be approved for this long
}

const day = 24 * time.Hour

// DefaultConfig has the documented defaults.
func DefaultConfig() Config {
	return Config{RestoreWindow: 90 * day, AuditWindow: 400 * day, RefusalWindow: 30 * day}
}

// Bounds of what one statement does and waits for.
const (
	attempts    = 6
	lockTimeout = 300 * time.Millisecond // less than what the audit trigger waits
	chunkRows   = 5000
)

// ErrLeft is returned when partitions were left because somebody was in the way.
var ErrLeft = errors.New("partitions were left: somebody was in the way")

// Pruner prunes one database.
type Pruner struct {
	pool *pgxpool.Pool
	log  *slog.Logger
	cfg  Config
}

// New returns a Pruner.
func New(pool *pgxpool.Pool, log *slog.Logger, cfg Config) *Pruner {
	return &Pruner{pool: pool, log: log, cfg: cfg}
}

// Partition is what prune thinks of a partition, and what it did with it.
type Partition struct {
	db.PartitionVerdictsRow
	Dropped bool    `json:"dropped"`
	Millis  float64 `json:"ms"` // the transaction that dropped it, waiting included
}

// Result is what was done, or would be.
type Result struct {
	Partitions     []Partition `json:"partitions"`
	Dropped        int         `json:"partitions_dropped"`
	BytesGivenBack int64       `json:"bytes_given_back"`
	RefusedUsers   int64       `json:"refused_users_forgotten"`
	RecheckedUsers int64       `json:"rechecked_users_forgotten"`
	RestoredRows   int64       `json:"restored_members_forgotten"`
}

func (p *Pruner) patience() database.Patience {
	return database.Patience{Log: p.log, Attempts: attempts, LockTimeout: lockTimeout}
}

// Look only reads: which partitions would go, and why the others would not.
func (p *Pruner) Look(ctx context.Context) (Result, error) {
	rows, err := database.Do(ctx, p.pool, p.patience(), pgx.ReadOnly, database.ReadLimit, "looking at partitions", func(ctx context.Context, q *db.Queries) ([]db.PartitionVerdictsRow, error) {
		return q.PartitionVerdicts(ctx, db.PartitionVerdictsParams{RestoreWindow: p.cfg.RestoreWindow, AuditWindow: p.cfg.AuditWindow})
	})
	result := Result{Partitions: make([]Partition, len(rows))}
	for i, row := range rows {
		result.Partitions[i] = Partition{PartitionVerdictsRow: row}
	}
	return result, err
}

// Execute drops what Look says may go, backups before the audit that restoring
// them reads, and forgets old refusals. The result is filled in as far as it
// came, whatever the error. Running it again, or twice at once, does no harm.
func (p *Pruner) Execute(ctx context.Context) (Result, error) {
	result, err := p.Look(ctx)
	if err != nil {
		return result, err
	}
	left, patience := map[string]int{}, p.patience()
	var cause error
	for i := range result.Partitions {
		part := &result.Partitions[i]
		if part.KeptBecause != "" {
			continue
		}
		patience.Attempts = attempts
		if left[part.Parent] > 0 {
			patience.Attempts = 1 // whoever was in the way of one is likely in the way of all
		}
		err := p.drop(ctx, part, patience)
		switch {
		case err != nil && (ctx.Err() != nil || !database.Transient(err)):
			return result, err
		case err != nil:
			left[part.Parent]++
			cause = err
			part.KeptBecause = "somebody was in the way"
			p.log.Warn("Partition left", "partition", part.PartitionName, "error", err)
		case part.Dropped:
			result.Dropped++
			result.BytesGivenBack += part.Bytes
			p.log.Info("Partition dropped", "partition", part.PartitionName, "bytes", part.Bytes, "ms", part.Millis)
		default:
			p.log.Info("Partition kept", "partition", part.PartitionName, "because", part.KeptBecause)
		}
	}
	if err := p.forget(ctx, &result); err != nil {
		return result, err
	}
	if cause != nil {
		return result, fmt.Errorf("%w: of %v, the next prune tries again; last cause: %w", ErrLeft, slices.Sorted(maps.Keys(left)), cause)
	}
	return result, nil
}

// drop is one transaction: look once more, lock, drop, commit.
func (p *Pruner) drop(ctx context.Context, part *Partition, patience database.Patience) error {
	began := time.Now()
	kept, err := database.Retry(ctx, patience, "dropping "+part.PartitionName, func() (string, error) {
		began = time.Now()
		return database.Bounded(ctx, p.pool, patience, pgx.ReadWrite, database.ReadLimit, func(ctx context.Context, q *db.Queries) (string, error) {
			return q.PartitionDrop(ctx, db.PartitionDropParams{
				PartitionName: part.PartitionName, RestoreWindow: p.cfg.RestoreWindow, AuditWindow: p.cfg.AuditWindow,
			})
		})
	})
	part.Millis = float64(time.Since(began).Microseconds()) / 1000
	part.KeptBecause, part.Dropped = kept, err == nil && kept == ""
	return err
}

// forget deletes what only described evidence that is gone now, in chunks, until
// there is no more.
func (p *Pruner) forget(ctx context.Context, result *Result) error {
	for {
		rows, err := database.Do(ctx, p.pool, p.patience(), pgx.ReadWrite, database.ReadLimit, "deleting old bookkeeping", func(ctx context.Context, q *db.Queries) (db.PartitionRowsRow, error) {
			return q.PartitionRows(ctx, db.PartitionRowsParams{RefusalWindow: p.cfg.RefusalWindow, AuditWindow: p.cfg.AuditWindow, MaxRows: chunkRows})
		})
		result.RefusedUsers += rows.Refusals
		result.RecheckedUsers += rows.Rechecks
		result.RestoredRows += rows.Restores
		if err != nil || max(rows.Refusals, rows.Rechecks, rows.Restores) < chunkRows {
			return err
		}
	}
}
