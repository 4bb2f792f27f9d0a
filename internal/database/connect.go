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

// shortTimeout: what ends the first statement of a transaction is not our own limit.
const shortTimeout = "the server ends statements too soon: ALTER ROLE … RESET statement_timeout, or some seconds"

// ConnectionHint is what to do about a connection that was not made, or was ended at
// once, by what the server said of it.
func ConnectionHint(err error) string {
	if said := SaidIn(err); said != nil && said.SQLState == NoPrivilege && said.Hint != "" {
		return said.Hint
	}
	switch Code(err) {
	case "28000":
		return "the server does not admit this login: ALTER ROLE … LOGIN, or add a line to pg_hba.conf for its role, database, address and TLS"
	case "28P01":
		return "the password in DATABASE_URL is wrong, or has expired: ALTER ROLE … VALID UNTIL 'infinity'"
	case "3D000":
		return "DATABASE_URL names a database that does not exist: psql -l lists those that do"
	case NoPrivilege:
		return "psql -f sql/roles.sql gives our roles what they need, CONNECT too"
	case "53300":
		return "the server has no connection left: raise max_connections, or the CONNECTION LIMIT of role or database"
	case StatementTimeout:
		return shortTimeout
	case "57P05":
		return "the server ends idle sessions too soon: ALTER ROLE … SET idle_session_timeout = '1min', or more"
	case "25P03", "25P04":
		return "the server ends transactions too soon: ALTER ROLE … RESET idle_in_transaction_session_timeout, RESET transaction_timeout, or some seconds"
	case "58P01":
		return "the server does not find what it loads for each session: ALTER ROLE … RESET session_preload_libraries, or local_preload_libraries"
	}
	switch class := Code(err)[:min(len(Code(err)), 2)]; class {
	case "53", "58", "XX":
		return "the server is up, and cannot serve this session: its log says why; often a disk of it is full: df -h on its machine"
	default:
		return "check DATABASE_URL and that the server is up"
	}
}
