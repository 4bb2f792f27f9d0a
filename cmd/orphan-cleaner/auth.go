package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/source/httpsource"
	"github.com/nova-social/orphan-cleaner/internal/source/sqlsource"
)

// AuthFlags say where auth-service is and how it is called.
type AuthFlags struct {
	AuthServiceURL        string   `help:"auth-service: http://host:9080 or https:// for gRPC, postgresql://user@host/auth for SQL, rest+https://host/path for HTTP." env:"AUTH_SERVICE_URL" placeholder:"URL"`
	AuthServiceURLFile    string   `help:"File that holds this URL." env:"AUTH_SERVICE_URL_FILE" placeholder:"FILE"`
	AuthServiceMethod     string   `help:"Full name of the gRPC method." env:"AUTH_SERVICE_METHOD" default:"nova.auth_service.v1.AuthService/GetUsersByIds"`
	AuthServiceQuery      string   `help:"SQL: the query that returns which of the users $1 exist (default: see docs/settings.md)." env:"AUTH_SERVICE_QUERY" placeholder:"SQL" default:"SELECT id FROM users WHERE id = ANY($1) AND deleted_at IS NULL"`
	MaxAuthLag            Duration `help:"SQL: how far the standby that is asked may be behind." env:"ORPHAN_CLEANER_MAX_AUTH_LAG" default:"1m"`
	AuthServiceProxy      string   `help:"HTTP: the proxy to go by; none otherwise, whatever the environment says." env:"AUTH_SERVICE_PROXY" placeholder:"URL"`
	AuthServiceTimeout    Duration `help:"Limit of one call." env:"AUTH_SERVICE_TIMEOUT" default:"5s"`
	AuthServiceTargetP99  Duration `name:"auth-service-target-p99" help:"P99 of a call that is still good; while it is over, fewer calls are in flight." env:"AUTH_SERVICE_TARGET_P99" default:"100ms"`
	AuthServiceCAFile     string   `name:"auth-service-ca-file" help:"CA certificates (PEM) in place of the system's." env:"AUTH_SERVICE_CA_FILE" placeholder:"FILE"`
	AuthServiceCertFile   string   `help:"Client certificate (PEM)." env:"AUTH_SERVICE_CERT_FILE" placeholder:"FILE"`
	AuthServiceKeyFile    string   `help:"Key of the client certificate (PEM)." env:"AUTH_SERVICE_KEY_FILE" placeholder:"FILE"`
	AuthServiceServerName string   `help:"Name that the server's certificate must carry." env:"AUTH_SERVICE_SERVER_NAME" placeholder:"NAME"`
	AuthServiceTokenFile  string   `help:"File with the authorization token of each call." env:"AUTH_SERVICE_TOKEN_FILE" placeholder:"FILE"`
	MaxQPS                float64  `name:"max-qps" help:"Most calls a second; 0: no limit." env:"ORPHAN_CLEANER_MAX_QPS" default:"0"`
}

// users is auth-service, whatever it speaks; see package source.
type users interface {
	Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error)
	Once(ctx context.Context, ids []uuid.UUID) (*source.Answer, *source.BatchError)
	Health(ctx context.Context) (source.HealthStatus, error)
	Close() error
}

// endpoint reads the URL, from its file if there is one: AuthServiceURL has it then.
func (f *AuthFlags) endpoint() (source.Endpoint, error) {
	value, err := secretURL("AUTH_SERVICE_URL", f.AuthServiceURL, f.AuthServiceURLFile)
	if err != nil {
		return source.Endpoint{}, err
	}
	if f.AuthServiceURL = value; value == "" {
		return source.Endpoint{}, fmt.Errorf("%w: AUTH_SERVICE_URL is not set: export AUTH_SERVICE_URL=http://auth-service:9080", errUsage)
	}
	end, err := source.ParseURL(value)
	if err != nil {
		return end, fmt.Errorf("%w: %w", errUsage, err)
	}
	return end, nil
}

func (f *AuthFlags) dial(ctx context.Context, log *slog.Logger) (users, error) {
	return f.dialAs(ctx, source.Config{Logger: log})
}

// dialAs adds the flags to what is special about a client: who is told about every
// call, and how many may be in flight.
func (f *AuthFlags) dialAs(ctx context.Context, cfg source.Config) (client users, err error) {
	end, err := f.endpoint()
	if err != nil {
		return nil, err
	}
	if f.MaxQPS != 0 && !(f.MaxQPS >= 0.01 && f.MaxQPS <= math.MaxFloat64) {
		return nil, fmt.Errorf("%w: ORPHAN_CLEANER_MAX_QPS is %v, it must be 0.01 calls a second or more, or 0 for no limit", errUsage, f.MaxQPS)
	}
	cfg.URL, cfg.Method, cfg.Query, cfg.Proxy, cfg.MaxLag = f.AuthServiceURL, f.AuthServiceMethod, f.AuthServiceQuery, f.AuthServiceProxy, time.Duration(f.MaxAuthLag)
	cfg.Timeout, cfg.TargetP99, cfg.MaxQPS = time.Duration(f.AuthServiceTimeout), time.Duration(f.AuthServiceTargetP99), f.MaxQPS
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = f.AuthServiceCAFile, f.AuthServiceCertFile, f.AuthServiceKeyFile
	cfg.ServerName, cfg.TokenFile = f.AuthServiceServerName, f.AuthServiceTokenFile
	switch end.Kind {
	case source.SQL:
		client, err = sqlsource.Dial(ctx, cfg)
	case source.HTTP:
		client, err = httpsource.Dial(cfg)
	default:
		client, err = authclient.Dial(cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return client, nil
}

// closeClient breaks off the calls in flight; there is nobody left to miss them.
func closeClient(client users, log *slog.Logger) {
	if err := client.Close(); err != nil {
		log.Debug("Closing the connection to auth-service failed", "error", err)
	}
}
