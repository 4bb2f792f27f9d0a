package authclient_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// load keeps four goroutines asking until the returned function is called,
// which fails the test if any call failed.
func load(t *testing.T, client *authclient.Client) (stop func()) {
	t.Helper()
	var done atomic.Bool
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for !done.Load() {
				if _, err := client.Missing(t.Context(), people(10)); err != nil {
					if t.Context().Err() == nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		done.Store(true)
		group.Wait()
	})
	t.Cleanup(stop) // for a test that fails before it stops the load
	return stop
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

func newCA(t *testing.T) *authfake.CA {
	t.Helper()
	ca, err := authfake.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *authfake.CA, name string, notAfter time.Time) authfake.Certificate {
	t.Helper()
	cert, err := ca.Issue(name, notAfter)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func serverTLS(t *testing.T, cert authfake.Certificate) *tls.Config {
	t.Helper()
	pair, err := cert.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
}

func TestTLS(t *testing.T) {
	ca, stranger := newCA(t), newCA(t)
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	dir := t.TempDir()
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM)
	certFile, keyFile, err := issue(t, ca, "orphan-cleaner", soon).Write(dir, "client")
	if err != nil {
		t.Fatal(err)
	}
	strangeCert, strangeKey, err := issue(t, stranger, "orphan-cleaner", soon).Write(dir, "strange")
	if err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name      string
		server    authfake.Certificate
		clientCAs bool // the server demands a client certificate
		cfg       source.Config
		says      string // "" passes
	}{
		{"good", issue(t, ca, "127.0.0.1", soon), false, source.Config{CAFile: caFile}, ""},
		{"good with a client certificate", issue(t, ca, "127.0.0.1", soon), true, source.Config{CAFile: caFile, CertFile: certFile, KeyFile: keyFile}, ""},
		{"good under another name", issue(t, ca, "auth.nova", soon), false, source.Config{CAFile: caFile, ServerName: "auth.nova"}, ""},
		{"expired", issue(t, ca, "127.0.0.1", past), false, source.Config{CAFile: caFile}, "expired"},
		{"wrong name", issue(t, ca, "auth.nova", soon), false, source.Config{CAFile: caFile}, "127.0.0.1"},
		{"wrong name, one given", issue(t, ca, "127.0.0.1", soon), false, source.Config{CAFile: caFile, ServerName: "auth.nova"}, "auth.nova"},
		{"unknown authority", issue(t, stranger, "127.0.0.1", soon), false, source.Config{CAFile: caFile}, "unknown authority"},
		{"authority not of the system", issue(t, ca, "127.0.0.1", soon), false, source.Config{}, "unknown authority"},
		// The server's alert and the client's first write cross: which of the
		// two the client reports is chance.
		{"client certificate missing", issue(t, ca, "127.0.0.1", soon), true, source.Config{CAFile: caFile}, "(transport)"},
		{"client certificate strange", issue(t, ca, "127.0.0.1", soon), true, source.Config{CAFile: caFile, CertFile: strangeCert, KeyFile: strangeKey}, "(transport)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			security := serverTLS(t, test.server)
			if test.clientCAs {
				security.ClientCAs, security.ClientAuth = ca.Pool(), tls.RequireAndVerifyClientCert
			}
			server := serve(t, authfake.Options{TLS: security})
			book := &logbook{}
			test.cfg.URL, test.cfg.MaxAttempts, test.cfg.Logger = server.URL(), 1, book.logger()
			client := dial(t, test.cfg)
			_, err := client.Missing(t.Context(), people(2))
			if test.says == "" {
				if err != nil {
					t.Error(err)
				}
				if status, err := client.Health(t.Context()); err != nil {
					t.Error(status, err)
				}
				return
			}
			if reasonOf(t, err) != "transport" || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want it to say %q", err, test.says)
			}
			if server.Calls() != 0 {
				t.Errorf("the server saw %d calls", server.Calls())
			}
			if lines := connectLines(t, book); len(lines) != 1 {
				t.Errorf("lines %v, want one", lines)
			}
			if _, err := client.Health(t.Context()); err == nil {
				t.Error("health passed")
			}
		})
	}
}

// Nothing could be asked with it, so nothing is begun.
func TestExpiredClientCertificate(t *testing.T) {
	ca := newCA(t)
	cert, key, err := issue(t, ca, "orphan-cleaner", time.Now().Add(-time.Hour)).Write(t.TempDir(), "expired")
	if err != nil {
		t.Fatal(err)
	}
	_, err = authclient.Dial(source.Config{URL: "https://auth.nova", CertFile: cert, KeyFile: key})
	if err == nil || !strings.Contains(err.Error(), "expired.crt for auth-service expired at 20") {
		t.Errorf("error %v", err)
	}
}

func TestTLSAndPlaintextDoNotMix(t *testing.T) {
	ca := newCA(t)
	caFile := write(t, filepath.Join(t.TempDir(), "ca.pem"), ca.PEM)
	secure := serve(t, authfake.Options{TLS: serverTLS(t, issue(t, ca, "127.0.0.1", time.Now().Add(time.Hour)))})
	plain := serve(t, authfake.Options{})
	for _, cfg := range []source.Config{
		{URL: "http://" + secure.Addr()},
		{URL: "https://" + plain.Addr(), CAFile: caFile},
	} {
		cfg.MaxAttempts = 1
		if _, err := dial(t, cfg).Missing(t.Context(), people(2)); reasonOf(t, err) != "transport" {
			t.Errorf("%s: %v", cfg.URL, err)
		}
	}
}

// The server's certificate, the client's and both authorities are replaced
// while calls are made. No call may fail.
func TestRotationUnderLoad(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	before, after := newCA(t), newCA(t)
	dir := t.TempDir()
	caFile := write(t, filepath.Join(dir, "ca.pem"), before.PEM)
	certFile, keyFile, err := issue(t, before, "orphan-cleaner", soon).Write(dir, "client")
	if err != nil {
		t.Fatal(err)
	}

	// Each side trusts both while they change, or no order of the steps would do.
	both := slices.Concat(before.PEM, after.PEM)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(both)
	var current atomic.Pointer[tls.Config]
	// use counts connections whose client shows a certificate of the authority.
	use := func(ca *authfake.CA) (connections *atomic.Int64) {
		connections = &atomic.Int64{}
		security := serverTLS(t, issue(t, ca, "127.0.0.1", soon))
		security.ClientCAs, security.ClientAuth = trusted, tls.RequireAndVerifyClientCert
		security.VerifyConnection = func(state tls.ConnectionState) error {
			if _, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
				connections.Add(1)
			}
			return nil
		}
		current.Store(security)
		return connections
	}
	old := use(before)
	server := serve(t, authfake.Options{TLS: &tls.Config{
		NextProtos:         []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil },
	}})
	client := dial(t, source.Config{URL: server.URL(), CAFile: caFile, CertFile: certFile, KeyFile: keyFile})
	if _, err := client.Missing(t.Context(), people(2)); err != nil {
		t.Fatal(err)
	}
	stop := load(t, client)

	// The client's files first. The certificate and the key are two files: a
	// connection made between the two must do with the old pair.
	fresh := issue(t, after, "orphan-cleaner", soon)
	write(t, caFile, both)
	write(t, certFile, fresh.CertPEM)
	reconnect(t, server, old)

	write(t, keyFile, fresh.KeyPEM)
	replaced := use(after)
	write(t, caFile, after.PEM)
	reconnect(t, server, replaced)
	if _, err := client.Missing(t.Context(), people(2)); err != nil {
		t.Error(err)
	}
	stop()
}

// reconnect drains until another connection has been made. Once is not always
// enough: a connection still in its handshake is not drained. Nor must it be so
// often that no handshake on a busy machine comes to its end.
func reconnect(t *testing.T, server *authfake.Server, connections *atomic.Int64) {
	t.Helper()
	from := connections.Load()
	again, tooLate := time.NewTicker(100*time.Millisecond), time.After(patience)
	defer again.Stop()
	for connections.Load() == from {
		server.Drain()
		select {
		case <-again.C:
		case <-tooLate:
			t.Fatal("no new connection")
		}
	}
}

func TestTokenFile(t *testing.T) {
	server := serve(t, authfake.Options{})
	path := write(t, filepath.Join(t.TempDir(), "token"), []byte("first-token\n"))
	book := &logbook{}
	client := dial(t, source.Config{URL: server.URL(), TokenFile: path, Logger: book.logger()})
	expect := func(want string) {
		t.Helper()
		if _, err := client.Missing(t.Context(), people(1)); err != nil {
			t.Error(err)
		}
		if got := server.LastAuthorization(); got != want {
			t.Errorf("authorization %q, want %q", got, want)
		}
	}
	expect("Bearer first-token")
	write(t, path, []byte("other-token"))
	expect("Bearer other-token")
	write(t, path, []byte("Basic c2VjcmV0\n"))
	expect("Basic c2VjcmV0")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("Basic c2VjcmV0")
	expect("Basic c2VjcmV0")
	warnings := 0
	for _, line := range book.records(t, "WARN", "auth_client") {
		if strings.Contains(fmt.Sprint(line["msg"]), "token file") {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("%d warnings about the token file, want 1", warnings)
	}
	write(t, path, []byte("back-again"))
	expect("Bearer back-again")
	if text := book.text(); strings.Contains(text, "-token\"") || strings.Contains(text, "c2VjcmV0") || strings.Contains(text, "back-again") {
		t.Errorf("a token is in the log: %s", text)
	}
}

func TestDialRefuses(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t)
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM)
	good := issue(t, ca, "a", time.Now().Add(time.Hour))
	other := issue(t, ca, "b", time.Now().Add(time.Hour))
	mixedCert, mixedKey, err := authfake.Certificate{CertPEM: good.CertPEM, KeyPEM: other.KeyPEM}.Write(dir, "mixed")
	if err != nil {
		t.Fatal(err)
	}
	empty := write(t, filepath.Join(dir, "empty"), nil)
	binary := write(t, filepath.Join(dir, "binary"), []byte("hunter2\nhunter2"))
	for name, test := range map[string]struct {
		cfg  source.Config
		says string
	}{
		"url":               {source.Config{URL: "auth:9080"}, "scheme"},
		"method":            {source.Config{URL: "http://a", Method: "GetUsersByIds"}, "not a gRPC method"},
		"method with slash": {source.Config{URL: "http://a", Method: "//a.B/C"}, "not a gRPC method"},
		"negative":          {source.Config{URL: "http://a", MaxQPS: -1}, "negative"},
		"CA over http":      {source.Config{URL: "http://a", CAFile: caFile}, "https://a:9080"},
		"name over http":    {source.Config{URL: "http://a", ServerName: "a"}, "https://"},
		"key missing":       {source.Config{URL: "https://a", CertFile: mixedCert}, "both files"},
		"pair mixed up":     {source.Config{URL: "https://a", CertFile: mixedCert, KeyFile: mixedKey}, "client certificate"},
		"CA not there":      {source.Config{URL: "https://a", CAFile: filepath.Join(dir, "none")}, "no such file"},
		"CA empty":          {source.Config{URL: "https://a", CAFile: empty}, "no PEM certificate"},
		"token not there":   {source.Config{URL: "http://a", TokenFile: filepath.Join(dir, "none")}, "no such file"},
		"token empty":       {source.Config{URL: "http://a", TokenFile: empty}, "empty"},
		"token of two":      {source.Config{URL: "http://a", TokenFile: binary}, "one line"},
	} {
		client, err := authclient.Dial(test.cfg)
		if err == nil {
			_ = client.Close()
			t.Errorf("%s: passed", name)
			continue
		}
		if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want it to say %q", name, err, test.says)
		}
	}
}
