package authclient

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"
)

// DefaultMethod is the call as auth-service v1 names it.
const DefaultMethod = "nova.auth_service.v1.AuthService/GetUsersByIds"

// MaxBatch is the largest number of users in one call. auth-service refuses
// more.
const MaxBatch = 100

// methodLabel names the call in logs and metrics, whatever its full gRPC name.
const methodLabel = "get_users_by_ids"

// maxResponse bounds one response in bytes. 100 users of a few hundred bytes each
// are 30 KiB; a response of 4 MiB is a fault, not a batch.
const maxResponse = 4 << 20

// Config says where auth-service is and how patiently it is called. The zero
// value of every field but URL is usable.
type Config struct {
	// URL is http://host[:9080] for plaintext, https://host[:443] for TLS.
	URL string
	// Method is the full gRPC method, with or without a leading slash.
	// Default: DefaultMethod.
	Method string

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
	// the server's certificate must carry. All need an https URL.
	CAFile, CertFile, KeyFile, ServerName string
	// TokenFile holds the value of the authorization metadata. "Bearer " is
	// put before a value that names no scheme.
	TokenFile string

	Logger   *slog.Logger
	Observer Observer
}

// Observer is told about every attempt of a batch, retries included.
type Observer interface {
	// CallDone reports one attempt. The duration leaves out the wait for MaxQPS
	// and Concurrency. err is a *BatchError, also where the status was OK and the
	// response is invalid.
	CallDone(method string, users int, d time.Duration, err error)
	// ConcurrencyLimit reports how many attempts may be in flight from now on.
	ConcurrencyLimit(calls int)
}

var methodForm = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*/[A-Za-z_]\w*$`)

// complete fills in the defaults and refuses settings that contradict one
// another. No error shows a value that may hold a secret.
func (cfg Config) complete() (Config, Endpoint, error) {
	end, err := ParseURL(cfg.URL)
	if err != nil {
		return cfg, end, err
	}
	if cfg.Method == "" {
		cfg.Method = DefaultMethod
	}
	cfg.Method = strings.TrimPrefix(cfg.Method, "/")
	if !methodForm.MatchString(cfg.Method) {
		return cfg, end, fmt.Errorf("AUTH_SERVICE_METHOD %q is not a gRPC method; write it as %s", cfg.Method, DefaultMethod)
	}
	if cfg.Timeout < 0 || cfg.MaxAttempts < 0 || cfg.MaxQPS < 0 || cfg.BackoffInitial < 0 || cfg.BackoffMax < 0 || cfg.SlowAfter < 0 ||
		cfg.Concurrency < 0 || cfg.TargetP99 < 0 {
		return cfg, end, fmt.Errorf("auth-service timeout, attempts, back-off, calls per second, calls in flight, P99 and slow threshold must not be negative")
	}
	if !end.TLS && (cfg.CAFile != "" || cfg.CertFile != "" || cfg.KeyFile != "" || cfg.ServerName != "") {
		return cfg, end, fmt.Errorf("a certificate, CA or server name is set but AUTH_SERVICE_URL is http://; write https://%s", end.Address)
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return cfg, end, fmt.Errorf("the client certificate needs both files, certificate and key; only one is set")
	}
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

func orDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

type noObserver struct{}

func (noObserver) CallDone(string, int, time.Duration, error) {}
func (noObserver) ConcurrencyLimit(int)                       {}
