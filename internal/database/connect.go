package database

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// connectError is a failure to connect in one line, with its likely cause.
type connectError struct {
	error
	text string
}

func (e *connectError) Error() string { return e.text }
func (e *connectError) Unwrap() error { return e.error }

// connecting wraps what pgx says of each address that it tried, twice where
// sslmode=prefer tries again without TLS.
func connecting(err error) error {
	err = addressed(err)
	const noTLS = "tls error: server refused TLS connection"
	var lines []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if others := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.HasSuffix(line, noTLS) }); len(others) > 1 {
		lines = others // without TLS it got further
	}
	text := "connecting to the database: " + strings.Join(lines, " ")
	if cause := connectCause(err, text); cause != "" {
		text += ": " + cause
	}
	return &connectError{err, text}
}

func connectCause(err error, text string) string {
	var notVerified *tls.CertificateVerificationError
	switch {
	case errors.As(err, new(*pgconn.PgError)):
		return "" // it is PostgreSQL that answers
	case strings.Contains(text, "certificate has expired"):
		return "the server's certificate has expired: renew it, or set the clock of this machine"
	case errors.As(err, new(x509.HostnameError)):
		return "the certificate is of another host: use a name that it has, or sslmode=verify-ca in DATABASE_URL"
	case errors.As(err, &notVerified), errors.As(err, new(x509.UnknownAuthorityError)), errors.As(err, new(x509.CertificateInvalidError)):
		return "the server's certificate is not trusted: sslrootcert=FILE in DATABASE_URL names the CA that signed it"
	case strings.HasSuffix(text, "server refused TLS connection"):
		return "the server takes no TLS: sslmode=disable in DATABASE_URL, or ssl = on in the server"
	case strings.Contains(text, "failed to receive message"), strings.Contains(text, "cannot read"), strings.Contains(text, "tls error"):
		return "what listens there does not speak PostgreSQL's protocol, or ended the connection: is the port right (PostgreSQL 5432, PgBouncer 6432, auth-service 9080)?"
	default:
		return ""
	}
}
