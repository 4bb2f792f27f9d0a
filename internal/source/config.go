package source

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// Config says where auth-service is and how patiently it is called. The zero
// value of every field but URL is usable; a field that is not for the kind of the URL
// is refused where it would make a difference.
type Config struct {
	// URL decides by its scheme; see ParseURL.
	URL string
	// Method is the full gRPC method, with or without a leading slash; gRPC only.
	Method string
	// Query has one parameter, an array of uuid, and returns those of them that
	// exist; SQL only. Default: DefaultQuery.
	Query string
	// Known are users who exist: for them, too, the query is checked when it begins; SQL only.
	Known []uuid.UUID
	// MaxLag is how far the standby that is asked may be behind; SQL only. Default: 1m.
	MaxLag time.Duration
	// Proxy is the URL of a proxy; HTTP only. Default: none, whatever the environment says.
	Proxy string
	// UpperCase sends ids in upper case, for a test of the source. Not for SQL, where ids
	// are no text.
	UpperCase bool

	// Timeout bounds one attempt, waiting for a connection included.
	// Default: 5s.
	Timeout time.Duration
	// MaxAttempts is the number of attempts for one batch, the first
	// included; 1 switches retries off. Default: 5.
	MaxAttempts int
	// BackoffInitial and BackoffMax bound the pause before a retry. It doubles
	// each time and is spread by half either way. Defaults: 200ms and 3s,
	// which with five attempts outlasts the restart of one server.
	BackoffInitial, BackoffMax time.Duration
	// MaxQPS limits attempts per second over all goroutines. 0: no limit.
	MaxQPS float64
	// Limiter, where there is one, is asked before each attempt, too: it is shared with others.
	Limiter Limiter
	// Concurrency is the largest number of attempts in flight at once. It is
	// lowered while their P99 is over TargetP99. 0: no limit.
	Concurrency int
	// TargetP99 is the P99 of an attempt that is still good. Default: 100ms, the
	// runbook's.
	TargetP99 time.Duration
	// SlowAfter is the duration of one attempt from which it is logged as slow.
	// Default: 1s.
	SlowAfter time.Duration

	// CAFile (PEM) replaces the system's roots. CertFile and KeyFile (PEM) are
	// the client certificate. ServerName replaces the host of URL as the name
	// the server's certificate must carry. All need a URL with TLS; that of SQL has
	// parameters of its own for them.
	CAFile, CertFile, KeyFile, ServerName string
	// TokenFile holds the value of the authorization metadata or header. "Bearer " is
	// put before a value that names no scheme. Not for SQL.
	TokenFile string

	Logger   *slog.Logger
	Observer Observer
}

// Limiter says when the next attempt may be made.
type Limiter interface {
	// Wait returns when it may, or with the error of the context.
	Wait(ctx context.Context) error
}

// DefaultQuery is Config.Query where it is not set.
const DefaultQuery = "SELECT id FROM users WHERE id = ANY($1) AND deleted_at IS NULL"

// Observer is told about every attempt of a batch, retries included.
type Observer interface {
	// CallDone reports one attempt. The duration leaves out the wait for MaxQPS
	// and Concurrency. err is a *BatchError, also where the status was OK and the
	// response is invalid.
	CallDone(method string, users int, d time.Duration, err error)
	// ConcurrencyLimit reports how many attempts may be in flight from now on.
	ConcurrencyLimit(calls int)
}

// Complete fills in the defaults and refuses settings that contradict one
// another. No error shows a value that may hold a secret.
func (cfg Config) Complete() (Config, Endpoint, error) {
	end, err := ParseURL(cfg.URL)
	if err != nil {
		return cfg, end, err
	}
	if cfg.Timeout < 0 || cfg.MaxAttempts < 0 || cfg.MaxQPS < 0 || cfg.BackoffInitial < 0 || cfg.BackoffMax < 0 || cfg.SlowAfter < 0 ||
		cfg.Concurrency < 0 || cfg.TargetP99 < 0 || cfg.MaxLag < 0 {
		return cfg, end, fmt.Errorf("auth-service timeout, attempts, back-off, calls per second, calls in flight, P99, lag and slow threshold must not be negative")
	}
	certificates := cfg.CAFile != "" || cfg.CertFile != "" || cfg.KeyFile != "" || cfg.ServerName != ""
	switch {
	case end.Kind == SQL && (certificates || cfg.TokenFile != ""):
		return cfg, end, fmt.Errorf("a certificate, CA, server name or token file is set but AUTH_SERVICE_URL is postgresql://; write sslmode=verify-full, sslrootcert=FILE, sslcert=FILE and sslkey=FILE into it")
	case !end.TLS && certificates:
		return cfg, end, fmt.Errorf("a certificate, CA or server name is set but AUTH_SERVICE_URL is %s://; write %s://%s", end.Scheme, end.Scheme+"s", end.Address)
	case (cfg.CertFile == "") != (cfg.KeyFile == ""):
		return cfg, end, fmt.Errorf("the client certificate needs both files, certificate and key; only one is set")
	case cfg.Proxy != "" && end.Kind != HTTP:
		return cfg, end, fmt.Errorf("AUTH_SERVICE_PROXY is set but AUTH_SERVICE_URL is %s://; only rest+http:// and rest+https:// go by a proxy", end.Scheme)
	}
	orDefault(&cfg.Query, DefaultQuery)
	orDefault(&cfg.MaxLag, time.Minute)
	orDefault(&cfg.Timeout, 5*time.Second)
	orDefault(&cfg.MaxAttempts, 5)
	orDefault(&cfg.BackoffInitial, 200*time.Millisecond)
	orDefault(&cfg.BackoffMax, 3*time.Second)
	orDefault(&cfg.SlowAfter, time.Second)
	orDefault(&cfg.TargetP99, 100*time.Millisecond)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	return cfg, end, nil
}

// ClientLog is the log of what goes between this program and auth-service.
func (cfg Config) ClientLog() *slog.Logger { return cfg.Logger.With("target", "auth_client") }

func orDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

type noObserver struct{}

func (noObserver) CallDone(string, int, time.Duration, error) {}
func (noObserver) ConcurrencyLimit(int)                       {}
