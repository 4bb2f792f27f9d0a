package source

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/nova-social/orphan-cleaner/internal/textfile"
)

// TokenFile is the authorization metadata. The file is read for every call:
// that takes microseconds beside a call of milliseconds, and no change is ever
// overlooked.
type TokenFile struct {
	path   string
	logger *slog.Logger

	mu   sync.Mutex
	last Token
	bad  bool // the last read failed and was logged
}

// Token is a whole authorization value and the secret part of it.
type Token struct{ Header, secret string }

// NewTokenFile reads the file once; without a path there is no token, and no error.
func NewTokenFile(path string, logger *slog.Logger) (*TokenFile, error) {
	if path == "" {
		return nil, nil
	}
	first, err := readToken(path)
	if err != nil {
		return nil, err
	}
	return &TokenFile{path: path, logger: logger, last: first}, nil
}

// Current returns the last good token when the file cannot be read just now:
// a token that is too old is for auth-service to refuse.
func (t *TokenFile) Current() Token {
	if t == nil {
		return Token{}
	}
	fresh, err := readToken(t.path)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		if !t.bad {
			t.logger.Warn("token file not usable, keeping the last good token", "error", err)
		}
		t.bad = true
		return t.last
	}
	t.last, t.bad = fresh, false
	return fresh
}

// readToken never shows the content of the file in its errors.
func readToken(path string) (Token, error) {
	content, err := textfile.Read(path)
	if err != nil {
		return Token{}, fmt.Errorf("AUTH_SERVICE_TOKEN_FILE: reading the token for auth-service: %w", err)
	}
	value := strings.TrimSpace(string(content))
	if value == "" {
		return Token{}, fmt.Errorf("AUTH_SERVICE_TOKEN_FILE: reading the token for auth-service: %s is empty", path)
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return Token{}, fmt.Errorf("AUTH_SERVICE_TOKEN_FILE: reading the token for auth-service: %s must hold one line of printable ASCII", path)
		}
	}
	_, secret, hasScheme := strings.Cut(value, " ")
	if !hasScheme {
		return Token{Header: "Bearer " + value, secret: value}, nil
	}
	return Token{Header: value, secret: strings.TrimSpace(secret)}, nil
}
