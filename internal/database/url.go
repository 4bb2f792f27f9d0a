package database

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5/pgxpool"
)

// urlError says what is wrong with a DATABASE_URL. It is made of our words and of the
// names of parameters that exist, never of a part of the value: what somebody meant as
// the password may stand anywhere in it.
type urlError string

func (e urlError) Error() string {
	return "DATABASE_URL " + string(e) + " (want postgres://user@host:5432/messaging)"
}

// parameters are those that a URL may have: what pgx makes of libpq's. Any other would
// be a setting of the session, which a pooler refuses, and which we set ourselves.
func parameters() []string {
	return []string{
		"application_name", "channel_binding", "client_encoding", "connect_timeout", "database", "dbname", "host", "krbspn", "krbsrvname",
		"max_protocol_version", "min_protocol_version", "options", "passfile", "password", "port", "require_auth", "service", "servicefile",
		"ssl", "sslcert", "sslcertmode", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni", "target_session_attrs", "user",
	}
}

// parseURL is pgx's reading of a URL that can be read in one way only.
func parseURL(text string) (*pgxpool.Config, error) {
	query, err := checkURL(text)
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, diagnose(query, err)
	}
	if cfg.ConnConfig.Database == "" {
		return nil, urlError("names no database")
	}
	return cfg, nil
}

// checkURL returns the parameters.
func checkURL(text string) (url.Values, error) {
	scheme, rest, is := strings.Cut(text, "://")
	if !is || scheme != "postgres" && scheme != "postgresql" {
		if strings.Contains(text, "=") && !is {
			return nil, urlError("is written in key words, host=… dbname=…: write it as a URL")
		}
		return nil, urlError("is not a PostgreSQL URL")
	}
	if strings.ContainsFunc(rest, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar }) {
		return nil, urlError("has a space, a line break or a control character in it: percent-encode it, a space as %20")
	}
	// Readers differ in which @ ends the password, and in whether one of / ? # does.
	login, after, hasLogin := strings.Cut(rest, "@")
	if hasLogin && strings.ContainsAny(login, "/?#") || strings.ContainsAny(after, "@") || strings.Contains(rest, "#") {
		return nil, urlError("has a character that must be percent-encoded, most likely in the password: @ as %40, / as %2F, ? as %3F, # as %23, % as %25")
	}
	if !hasLogin {
		after = rest
	}
	address, text, _ := strings.Cut(after, "?")
	for _, part := range []string{login, address} {
		if _, err := url.PathUnescape(part); err != nil {
			return nil, urlError("has a % that begins no percent-encoding, most likely in the password: write % as %25")
		}
	}
	query, err := url.ParseQuery(text)
	if err != nil {
		return nil, urlError("has parameters that cannot be read: they are name=value, separated by &, a % in them written as %25, a & as %26")
	}
	number := 0
	for pair := range strings.SplitSeq(text, "&") {
		number++
		name, _, _ := strings.Cut(pair, "=")
		if name, err = url.QueryUnescape(name); pair != "" && (err != nil || !slices.Contains(parameters(), name)) {
			return nil, urlError(fmt.Sprintf("has a parameter that is not known, number %d after the ?; there are: %s", number, strings.Join(parameters(), ", ")))
		}
	}
	return query, nil
}

// diagnose says what pgx refused: its own message shows parts of the URL.
func diagnose(query url.Values, refused error) error {
	reason := refused.Error()[strings.LastIndex(refused.Error(), "`: ")+1:]
	// The environment has what the URL leaves out.
	setting := func(name, variable string) (value, from string) {
		if query.Has(name) {
			return query[name][len(query[name])-1], "the parameter " + name
		}
		return os.Getenv(variable), "the environment's " + variable
	}
	oneOf := func(name, variable string, values ...string) error {
		if value, from := setting(name, variable); value != "" && !slices.Contains(values, value) {
			return urlError(fmt.Sprintf("cannot be used: %s must be one of: %s", from, strings.Join(values, ", ")))
		}
		return nil
	}
	if value, from := setting("connect_timeout", "PGCONNECT_TIMEOUT"); value != "" {
		if seconds, err := strconv.Atoi(value); err != nil || seconds < 0 {
			return urlError("cannot be used: " + from + " must be whole seconds without a unit, such as connect_timeout=5")
		}
	}
	if value, from := setting("service", "PGSERVICE"); value != "" && strings.Contains(reason, "service") {
		return urlError("cannot be used: " + from + " names a service that is not in the service file (PGSERVICEFILE, by default ~/.pg_service.conf), or that file cannot be read")
	}
	for _, name := range []string{"sslrootcert", "sslcert", "sslkey"} {
		file, from := setting(name, "PG"+strings.ToUpper(name))
		if file == "" || file == "system" && name == "sslrootcert" {
			continue
		}
		_, err := os.ReadFile(file)
		if path, is := errors.AsType[*fs.PathError](err); is {
			return urlError(fmt.Sprintf("cannot be used: %s names a file that cannot be read: %v", from, path.Err))
		}
	}
	for _, err := range []error{
		oneOf("sslmode", "PGSSLMODE", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
		oneOf("target_session_attrs", "PGTARGETSESSIONATTRS", "any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
		oneOf("channel_binding", "PGCHANNELBINDING", "disable", "prefer", "require"),
		oneOf("sslcertmode", "PGSSLCERTMODE", "disable", "allow", "require"),
	} {
		if err != nil {
			return err
		}
	}
	for _, known := range []struct{ reason, says string }{
		{"invalid port", "has a port that is not a number from 1 to 65535"},
		{"port numbers to", "has more ports than hosts, or fewer: write h1:5432,h2:5432, or one port for all"},
		{"configure TLS", "cannot be used: of sslrootcert, sslcert and sslkey, one holds no certificate or no key, or the key is another certificate's"},
		{"in URI", "has an IPv6 address that is not written as [::1]:5432, or a parameter that is not name=value"},
	} {
		if strings.Contains(reason, known.reason) {
			return urlError(known.says)
		}
	}
	return urlError("cannot be read: see docs/settings.md")
}
