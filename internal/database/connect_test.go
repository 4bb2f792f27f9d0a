package database_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/database"
)

// encrypted is a server that agrees to TLS, as PostgreSQL does, and shows a certificate.
func encrypted(t *testing.T, cert authfake.Certificate) (address string) {
	t.Helper()
	pair, err := cert.TLS()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 8) // SSLRequest
			if _, err := io.ReadFull(conn, request); err == nil {
				_, _ = conn.Write([]byte("S")) // the handshake fails where this did
			}
			_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake() // the client says why
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String()
}

func TestCertificateOfTheServer(t *testing.T) {
	t.Parallel()
	ca, err := authfake.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, wrong := range map[string]struct {
		of         string
		until      time.Duration
		parameters string
		says       string
	}{
		"expired":     {"127.0.0.1", -time.Hour, "sslmode=verify-full&sslrootcert=" + file, "has expired: renew it"},
		"other name":  {"other.host", time.Hour, "sslmode=verify-full&sslrootcert=" + file, "the certificate is of another host"},
		"unknown CA":  {"127.0.0.1", time.Hour, "sslmode=verify-full", "sslrootcert=FILE in DATABASE_URL names the CA"},
		"ends after":  {"127.0.0.1", time.Hour, "sslmode=verify-full&sslrootcert=" + file, "does not speak PostgreSQL's protocol, or ended the connection"},
		"verified CA": {"other.host", time.Hour, "sslmode=verify-ca&sslrootcert=" + file, "does not speak PostgreSQL's protocol, or ended the connection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cert, err := ca.Issue(wrong.of, time.Now().Add(wrong.until))
			if err != nil {
				t.Fatal(err)
			}
			_, err = database.Open(t.Context(), "postgres://u:"+secret+"@"+encrypted(t, cert)+"/messaging?"+wrong.parameters, 0, 2)
			if err == nil || !strings.Contains(err.Error(), wrong.says) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), secret) {
				t.Errorf("%v, want one line that says %q", err, wrong.says)
			}
		})
	}
}

// What ends sessions, or lets none begin, is told apart from a server that is down.
func TestConnectionHint(t *testing.T) {
	t.Parallel()
	for said, want := range map[*pgconn.PgError]string{
		{Code: "57P05"}: "idle_session_timeout", {Code: "28P01"}: "VALID UNTIL", {Code: "53300"}: "max_connections", {Code: "57P03"}: "server is up",
		{Code: "25P03"}: "RESET idle_in_transaction_session_timeout", {Code: "25P04"}: "RESET transaction_timeout", {Code: "58P01"}: "RESET session_preload_libraries",
		{Code: "57014"}: "RESET statement_timeout",
		// A full disk: of the file that each session may write first, and of others.
		{Code: "XX000", Message: "could not write init file"}: "is full: df -h", {Code: "53100"}: "is full: df -h", {Code: "58030"}: "is full: df -h",
		{Code: "42501", Message: "permission denied for database messaging"}: "sql/roles.sql",
		// roles.sql grants neither of these.
		{Code: "42501", Message: "permission denied for function now"}:       "GRANT EXECUTE ON FUNCTION pg_catalog.now TO orphan_cleaner_owner",
		{Code: "42501", Message: "permission denied for type public.a_role"}: "GRANT USAGE ON TYPE public.a_role TO orphan_cleaner_owner",
	} {
		if hint := database.ConnectionHint(fmt.Errorf("connecting: %w", said)); !strings.Contains(hint, want) || strings.Contains(hint, "CONNECT too") != (want == "sql/roles.sql") {
			t.Errorf("%+v: %s", said, hint)
		}
	}
}
