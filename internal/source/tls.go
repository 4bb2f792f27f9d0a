package source

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLSFiles are the CA and the client certificate, read from their files for each new
// connection, so that a rotation needs no restart. Each handshake gets a tls.Config of
// its own and verification is always crypto/tls's.
type TLSFiles struct {
	caFile, certFile, keyFile, serverName string
	logger                                *slog.Logger

	mu   sync.Mutex
	last *tls.Config
}

// NewTLSFiles reads the files once: a wrong path, or a client certificate that has
// expired, is an error now, not at the first call.
func NewTLSFiles(cfg Config) (*TLSFiles, error) {
	f := &TLSFiles{caFile: cfg.CAFile, certFile: cfg.CertFile, keyFile: cfg.KeyFile, serverName: cfg.ServerName, logger: cfg.ClientLog()}
	first, err := f.read()
	if err != nil {
		return nil, err
	}
	f.last = first
	return f, Expired(first.Certificates, f.certFile)
}

// Expired is an error if the client certificate of a file has expired.
func Expired(certificates []tls.Certificate, file string) error {
	for _, pair := range certificates {
		if pair.Leaf != nil && time.Now().After(pair.Leaf.NotAfter) {
			return fmt.Errorf("the client certificate %s for auth-service expired at %s: renew it", file, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

func (f *TLSFiles) read() (*tls.Config, error) {
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

// Current falls back to the last files that were good: during a rotation the
// certificate may for a moment not belong to the key. Nobody else has the config.
func (f *TLSFiles) Current() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh, err := f.read()
	if err != nil {
		f.logger.Warn("TLS files not usable, keeping the last good ones", "error", err)
		return f.last.Clone()
	}
	f.last = fresh
	return fresh.Clone()
}
