package authclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc/credentials"
)

// fileTLS is TLS whose CA and client certificate are read from their files for
// each new connection, so that a rotation needs no restart. Each handshake
// gets a tls.Config of its own and verification is always crypto/tls's.
type fileTLS struct {
	caFile, certFile, keyFile, serverName string
	logger                                *slog.Logger

	mu   sync.Mutex
	last *tls.Config
}

// newFileTLS reads the files once: a wrong path is an error now, not at the
// first call.
func newFileTLS(cfg Config, logger *slog.Logger) (*fileTLS, error) {
	f := &fileTLS{caFile: cfg.CAFile, certFile: cfg.CertFile, keyFile: cfg.KeyFile, serverName: cfg.ServerName, logger: logger}
	first, err := f.read()
	if err != nil {
		return nil, err
	}
	f.last = first
	return f, nil
}

func (f *fileTLS) read() (*tls.Config, error) {
	fresh := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, fmt.Errorf("reading the CA of auth-service: %w", err)
		}
		fresh.RootCAs = x509.NewCertPool()
		if !fresh.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the CA of auth-service: %s holds no PEM certificate", f.caFile)
		}
	}
	if f.certFile != "" {
		pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate for auth-service: %w", err)
		}
		fresh.Certificates = []tls.Certificate{pair}
	}
	return fresh, nil
}

// current falls back to the last files that were good: during a rotation the
// certificate may for a moment not belong to the key.
func (f *fileTLS) current() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh, err := f.read()
	if err != nil {
		f.logger.Warn("TLS files not usable, keeping the last good ones", "error", err)
		return f.last
	}
	f.last = fresh
	return fresh
}

func (f *fileTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(f.current()).ClientHandshake(ctx, authority, raw)
}

func (f *fileTLS) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("fileTLS is for clients only")
}

func (f *fileTLS) Info() credentials.ProtocolInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	return credentials.NewTLS(f.last).Info()
}

// Clone returns f itself: gRPC clones to set another server name, which is
// fixed here by ServerName.
func (f *fileTLS) Clone() credentials.TransportCredentials { return f }

func (f *fileTLS) OverrideServerName(string) error {
	return fmt.Errorf("the server name is set by Config.ServerName")
}
