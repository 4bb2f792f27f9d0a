package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nova-social/orphan-cleaner/internal/check"
	"github.com/nova-social/orphan-cleaner/internal/database"
	"github.com/nova-social/orphan-cleaner/internal/textfile"
)

// DatabaseFlags say where messaging-service's database is.
type DatabaseFlags struct {
	DatabaseURL     string `help:"messaging-service's database: postgres://user@host:5432/messaging. A password belongs in the environment or a file." env:"DATABASE_URL" placeholder:"URL"`
	DatabaseURLFile string `help:"File that holds the database URL." env:"DATABASE_URL_FILE" placeholder:"FILE"`
	MaxConnections  int32  `name:"database-max-connections" help:"Most connections to open." env:"DATABASE_MAX_CONNECTIONS" default:"8"`
	MinConnections  int32  `name:"database-min-connections" help:"Connections kept open." env:"DATABASE_MIN_CONNECTIONS" default:"0"`
}

// secretURL is the value of a setting that may hold a password, or of its file.
func secretURL(name, value, file string) (string, error) {
	// What ps shows, whether or not the environment says the same.
	shown := value != "" && slices.ContainsFunc(os.Args[1:], func(arg string) bool { return strings.HasSuffix(arg, value) })
	value = trimmed(value)
	if shown {
		_, rest, _ := strings.Cut(value, "://")
		if login, _, is := strings.Cut(rest, "@"); is && strings.Contains(login, ":") || strings.Contains(rest, "password=") {
			return "", fmt.Errorf("%w: a password on the command line is seen by everybody in ps: give it by the environment %s or by --%s-file", errUsage, name, strings.ReplaceAll(strings.ToLower(name), "_", "-"))
		}
	}
	if file == "" {
		return value, nil
	}
	if strings.Contains(file, "://") || urlPattern.MatchString(file) {
		return "", fmt.Errorf("%w: %s_FILE is the name of a file that holds the URL, not the URL itself: that is %s", errUsage, name, name)
	}
	text, err := textfile.Read(file)
	if err != nil {
		return "", fmt.Errorf("%w: %s_FILE: %w", errUsage, name, err)
	}
	if value = trimmed(string(text)); value == "" {
		return "", fmt.Errorf("%w: %s_FILE: %s is empty: it holds the URL, such as postgres://user@host:5432/messaging for DATABASE_URL", errUsage, name, file)
	}
	return value, nil
}

func (f *DatabaseFlags) url() (string, error) {
	value, err := secretURL("DATABASE_URL", f.DatabaseURL, f.DatabaseURLFile)
	if err != nil {
		return "", err
	}
	if value == "" {
		return "", fmt.Errorf("%w: DATABASE_URL is not set: export DATABASE_URL=postgres://user@host:5432/messaging", errUsage)
	}
	if _, err := database.ParseConfig(value); err != nil {
		if f.DatabaseURLFile != "" {
			return "", fmt.Errorf("%w: DATABASE_URL_FILE: %s: %w", errUsage, f.DatabaseURLFile, err)
		}
		return "", fmt.Errorf("%w: %w", errUsage, err)
	}
	if f.MaxConnections < 2 || f.MinConnections < 0 || f.MinConnections > f.MaxConnections {
		return "", fmt.Errorf("%w: DATABASE_MAX_CONNECTIONS must be at least 2 and DATABASE_MIN_CONNECTIONS between 0 and it", errUsage)
	}
	return value, nil
}

// trimmed is a URL without what an editor or echo left around it: line ends, and a
// byte order mark.
func trimmed(text string) string { return strings.TrimSpace(strings.TrimPrefix(text, "\ufeff")) }

// fileProbe tells who can read the password in a file that a setting names.
func fileProbe(setting, path string) check.Probe {
	name := strings.ReplaceAll(strings.ToLower(setting), "_", "-")
	return func(context.Context) check.Finding {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return warning(name, oneLine(err), setting+" names the file that holds the URL")
		case info.Mode().Perm()&0o007 != 0:
			return warning(name, path+" can be read by everybody on this machine", "chmod o-rwx "+path)
		default:
			return fine(name, "not everybody can read it")
		}
	}
}

func (f *DatabaseFlags) open(ctx context.Context) (*pgxpool.Pool, error) {
	value, err := f.url()
	if err != nil {
		return nil, err
	}
	pool, err := database.Open(ctx, value, f.MinConnections, f.MaxConnections)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, database.ConnectionHint(err))
	}
	return pool, nil
}
