package authclient_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/nova-social/orphan-cleaner/internal/authclient"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds a wait for something that is sure to happen.
const patience = 30 * time.Second

// people are n new ids.
func people(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
	}
	return ids
}

func serve(t *testing.T, opts authfake.Options) *authfake.Server {
	t.Helper()
	server, err := authfake.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return server
}

// dial uses pauses of a millisecond, and a timeout that only a hang reaches.
func dial(t *testing.T, cfg source.Config) *authclient.Client {
	t.Helper()
	orDefault(&cfg.Timeout, patience)
	orDefault(&cfg.BackoffInitial, time.Millisecond)
	orDefault(&cfg.BackoffMax, time.Millisecond)
	client, err := authclient.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func orDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

// reasonOf fails the test unless err is a *BatchError.
func reasonOf(t *testing.T, err error) string {
	t.Helper()
	return batchError(t, err).Reason
}

func batchError(t *testing.T, err error) *source.BatchError {
	t.Helper()
	var batch *source.BatchError
	if !errors.As(err, &batch) {
		t.Fatalf("error %v (%T) is not a *BatchError", err, err)
	}
	return batch
}

// logbook collects log records as maps.
type logbook struct {
	mu  sync.Mutex
	raw bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.raw.Write(p)
}

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logbook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.raw.String()
}

func (l *logbook) records(t *testing.T, level, target string) (found []map[string]any) {
	t.Helper()
	lines := json.NewDecoder(bytes.NewBufferString(l.text()))
	for lines.More() {
		record := map[string]any{}
		if err := lines.Decode(&record); err != nil {
			t.Fatal(err)
		}
		if record["level"] == level && record["target"] == target {
			found = append(found, record)
		}
	}
	return found
}

// tally is an Observer that keeps what it was told.
type tally struct {
	mu      sync.Mutex
	methods map[string]int
	users   int
	errs    []error
	limits  []int
	calls   int
}

func (o *tally) ConcurrencyLimit(calls int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.limits = append(o.limits, calls)
}

func (o *tally) CallDone(method string, users int, d time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.methods == nil {
		o.methods = map[string]int{}
	}
	o.methods[method]++
	o.calls++
	o.users += users
	if d <= 0 {
		o.errs = append(o.errs, errors.New("no duration"))
	}
	if err != nil {
		o.errs = append(o.errs, err)
	}
}

// arrival is a fault that reports each call and then does as next does.
func arrival(next authfake.FaultFunc) (<-chan struct{}, authfake.FaultFunc) {
	arrived := make(chan struct{}, 100)
	return arrived, func(ctx context.Context, call int, ids []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		arrived <- struct{}{}
		return next(ctx, call, ids, honest)
	}
}
