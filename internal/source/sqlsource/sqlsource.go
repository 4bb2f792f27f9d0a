// Package sqlsource asks the database of the users which of them are missing, as
// package source says what that means.
//
// An answer is complete and valid only if the query, one statement in a READ ONLY
// transaction, ran to its end and the transaction was committed, if it returned no more
// rows than users were asked for, no NULL and nobody else, and if a standby proved
// before it that it is at most MaxLag behind. A policy of row-level security that would
// hide users is an error.
package sqlsource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// Source asks by SQL. It is safe for concurrent use.
type Source struct {
	*source.Client
	cfg    source.Config
	pool   *pgxpool.Pool
	logger *slog.Logger // target auth_client
}

// Dial checks the configuration, and the query as far as the database can be reached by
// now: an error of the query is an [ErrQuery]. Use Health to know that it is reached.
func Dial(ctx context.Context, cfg source.Config) (*Source, error) {
	cfg, _, err := cfg.Complete()
	if err != nil {
		return nil, err
	}
	pooled, err := database.ParseConfig(cfg.URL)
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), "DATABASE_URL", "AUTH_SERVICE_URL"))
	}
	if security := pooled.ConnConfig.TLSConfig; security != nil {
		if err := source.ValidNow("the client certificate of sslcert", security.Certificates); err != nil {
			return nil, err
		}
	}
	// One for each call in flight; without a limit, as many as a run has by default.
	pooled.MaxConns = int32(cmp.Or(cfg.Concurrency, 8)) //nolint:gosec // 64 at most
	s := &Source{cfg: cfg, logger: cfg.ClientLog()}
	s.Client = source.New(cfg, s.attempt)
	if s.pool, err = pgxpool.NewWithConfig(ctx, pooled); err != nil {
		return nil, fmt.Errorf("opening the pool of auth-service: %w", err)
	}
	switch scanned, err := s.CheckQuery(ctx); {
	case errors.Is(err, ErrQuery):
		s.pool.Close()
		return nil, err
	case err != nil:
		s.logger.Debug("The query is not checked yet", "error", err)
	case scanned != "":
		s.logger.Warn("The query of auth-service reads a large table from end to end for each batch", "table", scanned, "hint", IndexHint)
	}
	return s, nil
}

// Close breaks off the calls in flight when their time is up.
func (s *Source) Close() error {
	s.pool.Close()
	return nil
}

// attempt is a [source.Attempt].
func (s *Source) attempt(ctx context.Context, ids []uuid.UUID, answer *source.Answer) *source.BatchError {
	call, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	err := s.ask(call, ids, func(rows pgx.Rows) error { return take(rows, ids, answer, cancel) })
	return s.failed(ctx, call, len(ids), err)
}

// take reads who exists of the ids, or a BatchError about what is wrong with that. It
// cancels where there may be no end to what the query returns: Close would read on to it.
func take(rows pgx.Rows, ids []uuid.UUID, answer *source.Answer, cancel func()) error {
	for n := 1; rows.Next(); n++ {
		if n > len(ids) {
			cancel()
			return source.Failed(source.TooManyUsers, len(ids), fmt.Errorf("the query returns more than the %d users asked for; it must return each of them once at most", len(ids)))
		}
		var id *uuid.UUID
		switch err := rows.Scan(&id); {
		case rows.FieldDescriptions()[0].DataTypeOID != pgtype.UUIDOID: // it was when the query was checked
			return source.Failed(source.Malformed, len(ids), errors.New("the query does not return a column of type uuid any more"))
		case err != nil:
			return source.Failed(source.Malformed, len(ids), err)
		case id == nil:
			return source.Failed(source.UnparsableID, len(ids), errors.New("the query returns NULL in place of a user's id"))
		case !answer.AddID(*id):
			return source.Failed(source.ForeignID, len(ids), fmt.Errorf("the query returns user %s, who was not asked for", id))
		}
	}
	return rows.Err()
}

// ask is the same transaction as that of read, in one round trip: BEGIN, the settings and
// the lag, the query and COMMIT are sent at once. The server runs them one by one, none
// after one that failed, and its nil error means that it committed.
func (s *Source) ask(ctx context.Context, ids []uuid.UUID, read func(rows pgx.Rows) error) error {
	var batch pgx.Batch
	var results pgx.BatchResults
	batch.BeginTx(readOnly())
	begun, err := database.Queries(first{send: func(begin string, args ...any) pgx.Row {
		batch.Queue(begin, args...)
		batch.Queue(s.cfg.Query, ids)
		batch.Queue("COMMIT")
		results = s.pool.SendBatch(ctx, &batch)
		_, _ = results.Exec() // BEGIN: its error is that of all that follows
		return results.QueryRow()
	}}).SourceBegin(ctx, database.Milliseconds(s.cfg.Timeout))
	if late := behind(begun); err == nil && late > s.cfg.MaxLag {
		err = s.lagging(late, len(ids))
	}
	if err == nil {
		rows, _ := results.Query() // its error is that of the rows
		err = read(rows)
		rows.Close()
	}
	err = cmp.Or(err, results.Close())
	_ = results.Tx().Rollback(ctx) // after COMMIT it only hands back the connection
	return err
}

// first is what a generated query runs on that is the first of a batch.
type first struct {
	db.DBTX // nil: nothing else runs on it
	send    func(sql string, args ...any) pgx.Row
}

// QueryRow sends the batch, and returns the row of this query.
func (f first) QueryRow(_ context.Context, sql string, args ...any) pgx.Row {
	return f.send(sql, args...)
}

// Health checks the query and how far a standby is behind, retrying like
// [source.Client.Missing].
func (s *Source) Health(ctx context.Context) (source.HealthStatus, error) {
	failed := s.Retry(ctx, 0, func() *source.BatchError {
		call, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		_, err := s.CheckQuery(call)
		return s.failed(ctx, call, 0, err)
	})
	if failed != nil {
		return source.HealthUnknown, fmt.Errorf("checking the database of auth-service (%s): %w", failed.Reason, failed.Err)
	}
	return source.HealthServing, nil
}

// Pool is that of the database, for checks of it.
func (s *Source) Pool() *pgxpool.Pool { return s.pool }

// read runs queries in a READ ONLY transaction that is bounded, also by the server, and
// tells by how much what they read may be out of date.
func (s *Source) read(ctx context.Context, queries func(tx pgx.Tx, behind time.Duration) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, readOnly(), func(tx pgx.Tx) error {
		begun, err := database.Queries(tx).SourceBegin(ctx, database.Milliseconds(s.cfg.Timeout))
		if err != nil {
			return err
		}
		return queries(tx, behind(begun))
	})
}

func readOnly() pgx.TxOptions {
	return pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadOnly}
}

func behind(begun db.SourceBeginRow) time.Duration {
	return time.Duration(min(begun.Behind, never.Seconds()) * float64(time.Second))
}

// never is how long a standby is behind that can prove nothing: infinity is no duration.
const never = 100 * 365 * 24 * time.Hour

func (s *Source) lagging(behind time.Duration, users int) *source.BatchError {
	is := "is " + behind.Round(time.Second).String() + " behind, or hears of no commit"
	if behind == never {
		is = "cannot tell how far it is behind"
	}
	return source.Failed(source.Lagging, users, fmt.Errorf("the standby %s, at most %s is allowed (ORPHAN_CLEANER_MAX_AUTH_LAG): a user of a moment ago could be missing; "+
		"GRANT pg_read_all_stats to this login, which shows that an idle primary has no more, or point AUTH_SERVICE_URL at the primary", is, s.cfg.MaxLag))
}
