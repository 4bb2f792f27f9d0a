// Package database connects to messaging-service's PostgreSQL in a way that
// works directly and behind a pooler in transaction mode, and tells passing
// errors from lasting ones.
package database

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// ApplicationName is what pg_stat_activity and the audit show.
const ApplicationName = "orphan-cleaner"

// ParseConfig reads a DATABASE_URL. No error shows a part of it: it may hold a password.
//
// Statements run in the mode cache_describe: parameter types are described once
// and nothing is prepared by name, so that a pooler may serve each transaction
// from another server session.
func ParseConfig(url string) (*pgxpool.Config, error) {
	cfg, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	cfg.ConnConfig.RuntimeParams["application_name"] = ApplicationName
	// Without it pgx writes each uuid of an array as text first.
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap())
		registerArrays(conn.TypeMap())
		return nil
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	}
	return cfg, nil
}

// New makes a pool of at most maxConns connections. The first use connects: the
// server may be down until then.
func New(ctx context.Context, url string, minConns, maxConns int32) (*pgxpool.Pool, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MinConns, cfg.MaxConns = minConns, maxConns
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("opening the pool: %w", err)
	}
	return pool, nil
}

// Open is New, and proves that a connection works.
func Open(ctx context.Context, url string, minConns, maxConns int32) (*pgxpool.Pool, error) {
	pool, err := New(ctx, url, minConns, maxConns)
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, connecting(err)
	}
	return pool, nil
}

// Code is the SQLSTATE of err, or empty. What the application's triggers raise is
// [raiseException], whatever they say: only what our own functions and the server say
// of a run, a lock or a connection is believed.
func Code(err error) string {
	said, is := errors.AsType[*pgconn.PgError](err)
	switch {
	case !is:
		return ""
	case raisedElsewhere(said):
		return raiseException
	default:
		return said.Code
	}
}

// The SQLSTATEs that callers branch on.
const (
	UniqueViolation  = "23505"
	LockNotAvailable = "55P03"
	ReadOnly         = "25006"
	StatementTimeout = "57014"
	Deadlock         = "40P01"
	NoPrivilege      = "42501"

	raiseException = "P0001"
)

// The SQLSTATEs of our own functions.
const (
	RunNotOpen  = "OC001" // it was silent for longer than its lease, or has ended
	RunsPaused  = "OC002"
	AnotherRun  = "OC003"
	ProofFailed = "OC005" // deleted, audited and backed up are not the same number
	RowsKept    = "OC006" // a trigger or a rule keeps rows that were to be deleted
)

// Contended says that somebody else was in the way: a deadlock, a lock timeout,
// a serialization failure or a statement that waited too long.
func Contended(err error) bool {
	switch Code(err) {
	case Deadlock, "40001", LockNotAvailable, StatementTimeout:
		return true
	}
	return false
}

// OfRows says that an error is about the rows of a statement, and would not meet
// others: a constraint, a trigger that raises or keeps rows, a right that a trigger of the
// application lacks, a damaged page. Not what the server says of itself or of a run.
func OfRows(err error) bool {
	said, is := errors.AsType[*pgconn.PgError](err)
	if !is || Contended(err) {
		return false
	}
	switch code := Code(err); {
	case code == RowsKept, code == raiseException:
		return true
	case code == ReadOnly, strings.HasPrefix(code, "OC"), strings.HasPrefix(code, "53"), strings.HasPrefix(code, "57"):
		return false
	case strings.HasPrefix(code, "23"): // a deferred one has no context
		return true
	default: // what comes from within a trigger has a context; what a pooler says has none
		return said.SeverityUnlocalized == "ERROR" && said.Where != ""
	}
}

// Causes are what Cause returns.
func Causes() []string {
	return []string{"deadlock", "serialization", "lock_timeout", "statement_timeout", "shutdown", "too_many_connections", "connection", "other"}
}

// Cause names what was in the way, in a word that is fit for a metric label.
func Cause(err error) string {
	switch code := Code(err); {
	case code == Deadlock:
		return "deadlock"
	case code == "40001":
		return "serialization"
	case code == LockNotAvailable:
		return "lock_timeout"
	case code == StatementTimeout:
		return "statement_timeout"
	case code == "57P01", code == "57P02", code == "57P03":
		return "shutdown"
	case code == "53300":
		return "too_many_connections"
	case code == "", code == "25P03", code == "57P05", strings.HasPrefix(code, "08"):
		return "connection"
	default:
		return "other"
	}
}

// Transient says that the same statement may well succeed a moment later:
// contention, a lost connection, a server that restarts.
func Transient(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || OfRows(err) {
		return false
	}
	if Contended(err) {
		return true
	}
	switch code := Code(err); {
	// 25P03: the server ended a transaction that was silent for too long, as a frozen runner's is.
	// 57P05: it ended a session that was idle for too long.
	case code == "57P01", code == "57P02", code == "57P03", code == "57P05", code == "25P03", code == "53300", strings.HasPrefix(code, "08"):
		return true
	case code != "":
		return false
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		strings.Contains(err.Error(), "conn closed")
}
