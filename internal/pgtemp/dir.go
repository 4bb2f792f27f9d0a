package pgtemp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// maxSocketPath is the longest path of a socket that the kernel takes: 107
// bytes on Linux, 103 on macOS. The smaller serves for both.
const maxSocketPath = 103

// longestSocketName is what PostgreSQL calls its lock file at most; it is
// longer than the socket itself.
const longestSocketName = ".s.PGSQL.65535.lock"

// makeDir makes the cluster's directory, or takes the empty one that was asked
// for. It is closed to everyone but the server's user (and root).
func makeDir(asked string, own owner) (string, error) {
	if asked != "" {
		return takeDir(asked, own)
	}
	var tried []error
	for _, base := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if err := own.reaches(base); err != nil {
			tried = append(tried, err)
			continue
		}
		if len(filepath.Join(base, "orphan-cleaner-pg-4294967295", "socket", longestSocketName)) > maxSocketPath {
			tried = append(tried, fmt.Errorf("%s is too long a path for a socket", base))
			continue
		}
		dir, err := os.MkdirTemp(base, "orphan-cleaner-pg-")
		if err != nil {
			tried = append(tried, err)
			continue
		}
		if err := own.give(dir); err != nil {
			return "", errors.Join(err, os.Remove(dir))
		}
		return dir, nil
	}
	return "", errors.Join(tried...)
}

func takeDir(asked string, own owner) (string, error) {
	dir, err := filepath.Abs(asked)
	if err != nil {
		return "", err
	}
	if path := filepath.Join(dir, "socket", longestSocketName); len(path) > maxSocketPath {
		return "", fmt.Errorf("%s is too long: its socket would have a path of %d bytes, the limit is %d",
			dir, len(path), maxSocketPath)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := own.reaches(filepath.Dir(dir)); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("%s is not empty: a throw-away cluster needs a directory of its own", dir)
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory needs its x bit
		return "", err
	}
	return dir, own.give(dir)
}
