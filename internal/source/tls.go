package source

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/textfile"
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

// NewTLSFiles reads the files once: a wrong path, or a certificate that has expired or
// is not valid yet, is an error now, not at the first call.
func NewTLSFiles(cfg Config) (*TLSFiles, error) {
	f := &TLSFiles{caFile: cfg.CAFile, certFile: cfg.CertFile, keyFile: cfg.KeyFile, serverName: cfg.ServerName, logger: cfg.ClientLog()}
	first, err := f.read()
	if err != nil {
		return nil, err
	}
	f.last = first
	return f, errors.Join(ValidNow("the client certificate "+f.certFile, first.Certificates), caValidNow(f.caFile))
}

// ValidNow is an error if a client certificate has expired, or is not valid yet.
func ValidNow(what string, pairs []tls.Certificate) error {
	for _, pair := range pairs {
		if pair.Leaf != nil {
			return validNow(what, pair.Leaf)
		}
	}
	return nil
}

// caValidNow is an error if no certificate of a file that was read before is valid.
func caValidNow(file string) (err error) {
	rest, _ := textfile.Read(file)
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		if ca, parseErr := x509.ParseCertificate(block.Bytes); parseErr == nil {
			if err = validNow("the CA "+file, ca); err == nil {
				return nil
			}
		}
	}
	return err
}

func validNow(what string, c *x509.Certificate) error {
	switch now := time.Now(); {
	case now.After(c.NotAfter):
		return fmt.Errorf("%s for auth-service expired at %s: renew it", what, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s for auth-service is not valid before %s: wait, or correct this machine's clock", what, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

func (f *TLSFiles) read() (*tls.Config, error) {
	fresh := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.caFile != "" {
		pem, err := textfile.Read(f.caFile)
		if err != nil {
			return nil, fmt.Errorf("reading the CA of auth-service: %w", err)
		}
		fresh.RootCAs = x509.NewCertPool()
		if !fresh.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the CA of auth-service: %s holds no PEM certificate", f.caFile)
		}
	}
	if f.certFile != "" {
		cert, err := textfile.Read(f.certFile)
		key, keyErr := textfile.Read(f.keyFile)
		if err = errors.Join(err, keyErr); err != nil {
			return nil, fmt.Errorf("reading the client certificate for auth-service: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
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
