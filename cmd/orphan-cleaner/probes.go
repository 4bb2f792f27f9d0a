package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/gen/db"
	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/serve"
)

// What `check` looks at beyond what each run does.

// probeLimit bounds what is asked of somebody else.
const probeLimit = 2 * time.Second

func fine(name, message string) check.Finding {
	return check.Finding{Name: name, Status: check.OK, Message: message}
}

func warning(name, message, hint string) check.Finding {
	return check.Finding{Name: name, Status: check.Warn, Message: message, Hint: hint}
}

func failure(name, message, hint string) check.Finding {
	return check.Finding{Name: name, Status: check.Fail, Message: message, Hint: hint}
}

// poolerProbe tells which pooler mode is in between.
func poolerProbe(url string) check.Probe {
	const name = "pooler"
	return func(ctx context.Context) check.Finding {
		pooling, err := database.PoolingOf(ctx, url)
		switch {
		case err != nil:
			return warning(name, "not known: "+oneLine(err), database.ConnectionHint(err))
		case pooling == database.PooledStatement:
			return failure(name, "a pooler in statement mode is in between: it allows no transaction", "pool_mode = transaction for this database in pgbouncer.ini, or point DATABASE_URL at the server")
		case pooling == database.PooledTransaction:
			return fine(name, "in between, in transaction mode: good for everything but migrate")
		case pooling == database.PooledSession:
			return fine(name, "in between, in session mode")
		default:
			return fine(name, "none in between")
		}
	}
}

// connectionsProbe compares the pool with what the server has left.
func connectionsProbe(pool *pgxpool.Pool) check.Probe {
	const name = "connections"
	return func(ctx context.Context) check.Finding {
		c, err := database.Once(ctx, pool, pgx.ReadOnly, func(ctx context.Context, q *db.Queries) (db.PreflightConnectionsRow, error) {
			return q.PreflightConnections(ctx, database.ApplicationName)
		})
		if err != nil {
			return warning(name, oneLine(err), database.ConnectionHint(err))
		}
		want := pool.Config().MaxConns
		room := c.MaxConnections - c.Reserved - c.Used + c.Ours
		said := fmt.Sprintf("%d at most (DATABASE_MAX_CONNECTIONS); of the server's %d, %d are reserved and %d in use", want, c.MaxConnections, c.Reserved, c.Used)
		hint := fmt.Sprintf("lower DATABASE_MAX_CONNECTIONS, or raise max_connections to %d reserved + %d here, for each replica, + messaging-service's "+
			"replicas × its DATABASE_MAX_CONNECTIONS + those of other clients; see sql/runbook/connections.sql", c.Reserved, want)
		for _, limit := range []struct {
			of, hint string
			most     int32
		}{
			{"the server takes %d", hint, c.MaxConnections - c.Reserved},
			{"this role has a limit of %d", "ALTER ROLE … CONNECTION LIMIT, or lower DATABASE_MAX_CONNECTIONS", c.RoleLimit},
			{"this database has a limit of %d", "ALTER DATABASE … CONNECTION LIMIT, or lower DATABASE_MAX_CONNECTIONS", c.DatabaseLimit},
		} {
			if limit.most >= 0 && limit.most < want {
				return failure(name, said+"; "+fmt.Sprintf(limit.of, limit.most), limit.hint)
			}
		}
		if room < want {
			return warning(name, fmt.Sprintf("%s: only %d are left", said, room), hint)
		}
		return fine(name, said)
	}
}

// encryptionProbe tells whether the way to the database can be listened to.
func encryptionProbe(name, setting string, pool *pgxpool.Pool) check.Probe {
	hint := "add sslmode=verify-full to " + setting + ", with sslrootcert=FILE where the server's CA is your own"
	return func(ctx context.Context) check.Finding {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return warning(name, oneLine(err), strings.ReplaceAll(database.ConnectionHint(err), "DATABASE_URL", setting))
		}
		defer conn.Release()
		cfg := conn.Conn().Config()
		_, encrypted := conn.Conn().PgConn().Conn().(*tls.Conn)
		switch {
		case local(cfg.Host):
			return fine(name, "not needed: the server is on this machine")
		case !encrypted:
			return warning(name, "the connection to "+cfg.Host+" is not encrypted", hint)
		case cfg.TLSConfig == nil || cfg.TLSConfig.InsecureSkipVerify && cfg.TLSConfig.VerifyPeerCertificate == nil:
			return warning(name, "the connection to "+cfg.Host+" is encrypted, but anybody could be at its end", hint)
		default:
			return fine(name, "encrypted, the server's certificate verified")
		}
	}
}

// local says whether a host is this machine: a socket's directory, or loopback.
func local(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || ip != nil && ip.IsLoopback()
}

// portProbe looks whether `serve` could take its port.
func portProbe(address string) check.Probe {
	const name = "metrics-addr"
	return func(ctx context.Context) check.Finding {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		switch {
		case err == nil && listener.Close() == nil:
			return fine(name, address+" is free")
		case errors.Is(err, syscall.EADDRINUSE) && isOurs(ctx, address):
			return fine(name, address+" is taken by an orphan-cleaner that serves there")
		case errors.Is(err, syscall.EADDRINUSE):
			return failure(name, address+" is taken by another program", "choose another ORPHAN_CLEANER_METRICS_ADDR, or end what listens there: ss -ltnp")
		default:
			return failure(name, fmt.Sprint(err), "write ORPHAN_CLEANER_METRICS_ADDR as :9091 or host:9091")
		}
	}
}

// isOurs says whether a `serve` answers there. One behind TLS or a password does
// not count: it cannot be told from another program.
func isOurs(ctx context.Context, address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/healthz", nil)
	if err != nil {
		return false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.Header.Get("Server") == serve.Name
}
