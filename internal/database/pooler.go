package database

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Pooling is what stands between this program and the server.
type Pooling string

// What PoolingOf finds.
const (
	Direct            Pooling = "direct"
	PooledSession     Pooling = "session"     // a server session for as long as a connection lasts
	PooledTransaction Pooling = "transaction" // a server session for one transaction
	PooledStatement   Pooling = "statement"   // no transactions at all: nothing of ours works
)

// poolingLimit bounds one question. A pooler in session mode that has no session
// left lets it wait.
const poolingLimit = 3 * time.Second

// PoolingOf finds out whether a pooler is in between, and in which mode.
//
// The process id that a server announces when a connection begins is the
// session's own, pg_backend_pid(); a pooler announces a number that it made up.
// Two connections that are both open and see the same session, or one that sees
// two, share sessions by the transaction. A pooler with several idle sessions that
// hands them out in turn may pass for one in session mode.
func PoolingOf(ctx context.Context, url string) (Pooling, error) {
	cfg, err := ParseConfig(url)
	if err != nil {
		return "", err
	}
	one, err := connectFor(ctx, cfg.ConnConfig)
	if err != nil {
		return "", err
	}
	defer closeConn(ctx, one)
	first, err := backendPID(ctx, one)
	if err != nil {
		return "", err
	}
	if first == one.PgConn().PID() {
		return Direct, nil
	}
	if tx, err := one.Begin(ctx); StatementPooled(err) {
		return PooledStatement, nil
	} else if err != nil {
		return "", fmt.Errorf("beginning a transaction: %w", err)
	} else if err := tx.Rollback(ctx); err != nil {
		return "", fmt.Errorf("ending a transaction: %w", err)
	}
	// From here on the pooler is known: what fails is no more than a session
	// that is not to be had.
	other, err := connectFor(ctx, cfg.ConnConfig)
	if err != nil {
		return PooledSession, nil
	}
	defer closeConn(ctx, other)
	for range 3 {
		second, err := backendPID(ctx, other)
		if err != nil {
			return PooledSession, nil
		}
		again, err := backendPID(ctx, one)
		if err != nil {
			return "", err
		}
		if second == first || again != first {
			return PooledTransaction, nil
		}
	}
	return PooledSession, nil
}

func connectFor(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, poolingLimit)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connecting(err)
	}
	return conn, nil
}

func backendPID(ctx context.Context, conn *pgx.Conn) (pid uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, poolingLimit)
	defer cancel()
	// The simple protocol: one message, that even a pooler in statement mode takes. Not
	// by pgx, which refuses it in other encodings than UTF8.
	results, err := conn.PgConn().Exec(ctx, "SELECT pg_backend_pid()").ReadAll()
	if err != nil {
		return 0, fmt.Errorf("asking for the server's process: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return 0, errors.New("asking for the server's process: no answer")
	}
	number, err := strconv.ParseUint(string(results[0].Rows[0][0]), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("asking for the server's process: %w", err)
	}
	return uint32(number), nil
}

// closeConn ends a connection that nobody waits for.
func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the server notices anyway
}

// StatementPooled says that err is PgBouncer's refusal of any transaction.
func StatementPooled(err error) bool {
	return err != nil && strings.Contains(err.Error(), "statement pooling mode")
}

// ErrPooled is returned where a session of one's own is needed and a pooler does
// not give it.
var ErrPooled = errors.New("there is a pooler in between, in transaction or statement mode")
