package pgtemp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MinVersion is the oldest major version of PostgreSQL that is accepted.
const MinVersion = 15

// BinDirEnv names the environment variable that points to the directory with
// initdb and postgres, where they are not found by themselves or where another
// version is wanted.
const BinDirEnv = "ORPHAN_CLEANER_TEST_PG_BIN"

// ErrNoPostgres is returned when no usable server is installed; its message
// says how to get one.
var ErrNoPostgres = errors.New("no PostgreSQL server, version 15 or newer, on this machine: " +
	"install one (Debian, Ubuntu: `apt-get install postgresql`; macOS: `brew install postgresql@17`), " +
	"or set " + BinDirEnv + " to the directory that holds its initdb and postgres")

// installDirs are where packages put the server without putting it on PATH:
// Debian, Red Hat, Alpine, Homebrew on either processor, Postgres.app.
var installDirs = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// FindBinDir returns the directory with initdb and postgres and the server's
// major version. A directory that is asked for, by explicit or else by
// [BinDirEnv], is the only one tried. Otherwise the first that is new enough
// wins: PATH, what pg_config says, then the newest in the places where packages
// install it. The error wraps [ErrNoPostgres].
func FindBinDir(ctx context.Context, explicit string) (dir string, version int, err error) {
	if explicit == "" {
		explicit = os.Getenv(BinDirEnv)
	}
	if explicit != "" {
		version, err := serverVersion(ctx, explicit)
		if err != nil {
			return "", 0, fmt.Errorf("%w (tried only %s: %w)", ErrNoPostgres, explicit, err)
		}
		return explicit, version, nil
	}
	var tried []error
	for _, dir := range []string{pathDir(), configDir(ctx)} {
		if dir == "" {
			continue
		}
		version, err := serverVersion(ctx, dir)
		if err == nil {
			return dir, version, nil
		}
		tried = append(tried, err)
	}
	newest := 0
	for _, pattern := range installDirs {
		matches, _ := filepath.Glob(pattern) // the patterns are constant and valid
		for _, match := range matches {
			version, err := serverVersion(ctx, match)
			if err != nil {
				tried = append(tried, err)
				continue
			}
			if version > newest {
				dir, newest = match, version
			}
		}
	}
	if newest == 0 {
		if len(tried) == 0 {
			return "", 0, ErrNoPostgres
		}
		return "", 0, fmt.Errorf("%w (%w)", ErrNoPostgres, errors.Join(tried...))
	}
	return dir, newest, nil
}

// pathDir is the directory of the postgres on PATH, links resolved, because
// initdb looks for its share files beside the real program.
func pathDir() string {
	path, err := exec.LookPath("postgres")
	if err != nil {
		return ""
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return ""
	}
	return filepath.Dir(path)
}

func configDir(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// versionOutput matches `postgres (PostgreSQL) 15.14 (Debian …)`, `… 18beta1`.
var versionOutput = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// serverVersion returns the major version of the server in dir, or why dir
// cannot be used.
func serverVersion(ctx context.Context, dir string) (int, error) {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err != nil {
			return 0, fmt.Errorf("looking for %s: %w", program, err)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("asking %s for its version: %w", dir, err)
	}
	match := versionOutput.FindSubmatch(out)
	if match == nil {
		return 0, fmt.Errorf("asking %s for its version: it says %q", dir, out)
	}
	version, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return 0, fmt.Errorf("asking %s for its version: %w", dir, err)
	}
	if version < MinVersion {
		return 0, fmt.Errorf("%s is version %d, older than %d", dir, version, MinVersion)
	}
	return version, nil
}

// cleanEnv is the program's environment without what would steer the server:
// PGDATA, PGPORT, PGOPTIONS and the like, and the locale, so that the server's
// messages are the same everywhere.
func cleanEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "PG") || strings.HasPrefix(entry, "LC_") ||
			strings.HasPrefix(entry, "LANG=") || strings.HasPrefix(entry, "LANGUAGE=")
	})
	return append(env, "LC_ALL=C")
}
