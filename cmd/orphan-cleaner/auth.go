package main

import (
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
)

// AuthFlags say where auth-service is and how it is called.
type AuthFlags struct {
	AuthServiceURL        string   `help:"auth-service: http://host:9080, or https:// for TLS." env:"AUTH_SERVICE_URL" placeholder:"URL"`
	AuthServiceMethod     string   `help:"Full name of the gRPC method." env:"AUTH_SERVICE_METHOD" default:"nova.auth_service.v1.AuthService/GetUsersByIds"`
	AuthServiceTimeout    Duration `help:"Limit of one call." env:"AUTH_SERVICE_TIMEOUT" default:"5s"`
	AuthServiceTargetP99  Duration `name:"auth-service-target-p99" help:"P99 of a call that is still good; while it is over, fewer calls are in flight." env:"AUTH_SERVICE_TARGET_P99" default:"100ms"`
	AuthServiceCAFile     string   `name:"auth-service-ca-file" help:"CA certificates (PEM) in place of the system's." env:"AUTH_SERVICE_CA_FILE" placeholder:"FILE"`
	AuthServiceCertFile   string   `help:"Client certificate (PEM)." env:"AUTH_SERVICE_CERT_FILE" placeholder:"FILE"`
	AuthServiceKeyFile    string   `help:"Key of the client certificate (PEM)." env:"AUTH_SERVICE_KEY_FILE" placeholder:"FILE"`
	AuthServiceServerName string   `help:"Name that the server's certificate must carry." env:"AUTH_SERVICE_SERVER_NAME" placeholder:"NAME"`
	AuthServiceTokenFile  string   `help:"File with the authorization token of each call." env:"AUTH_SERVICE_TOKEN_FILE" placeholder:"FILE"`
	MaxQPS                float64  `name:"max-qps" help:"Most calls a second; 0: no limit." env:"ORPHAN_CLEANER_MAX_QPS" default:"0"`
}

func (f *AuthFlags) dial(log *slog.Logger) (*authclient.Client, error) {
	return f.dialObserved(log, nil, 0)
}

// dialObserved tells the observer, which may be nil, about every call. The client
// lowers the concurrency while auth-service is slow; 0 is none, and no limit.
func (f *AuthFlags) dialObserved(log *slog.Logger, observer authclient.Observer, concurrency int) (*authclient.Client, error) {
	if f.AuthServiceURL == "" {
		return nil, fmt.Errorf("%w: AUTH_SERVICE_URL is not set: export AUTH_SERVICE_URL=http://auth-service:9080", errUsage)
	}
	if f.MaxQPS < 0 || math.IsNaN(f.MaxQPS) || math.IsInf(f.MaxQPS, 0) {
		return nil, fmt.Errorf("%w: MAX_QPS must be 0 or more", errUsage)
	}
	client, err := authclient.Dial(authclient.Config{
		URL: f.AuthServiceURL, Method: f.AuthServiceMethod, Timeout: time.Duration(f.AuthServiceTimeout), MaxQPS: f.MaxQPS,
		Concurrency: concurrency, TargetP99: time.Duration(f.AuthServiceTargetP99),
		CAFile: f.AuthServiceCAFile, CertFile: f.AuthServiceCertFile, KeyFile: f.AuthServiceKeyFile,
		ServerName: f.AuthServiceServerName, TokenFile: f.AuthServiceTokenFile, Logger: log, Observer: observer,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return client, nil
}

// closeClient breaks off the calls in flight; there is nobody left to miss them.
func closeClient(client *authclient.Client, log *slog.Logger) {
	if err := client.Close(); err != nil {
		log.Debug("Closing the connection to auth-service failed", "error", err)
	}
}
