package serve_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/result"
	"github.com/nova-social/orphan-cleaner/internal/serve"
)

// service is one that a test can steer; all is well and nothing is due at first.
type service struct {
	serve.Service
	next     atomic.Pointer[serve.Schedule]
	down     atomic.Pointer[error]
	asked    atomic.Int64
	made     atomic.Int64
	progress atomic.Int64
}

func newService() *service {
	s := &service{}
	s.next.Store(&serve.Schedule{DueIn: 24 * time.Hour})
	s.Service = serve.Service{
		Schedule: func(context.Context) (serve.Schedule, error) {
			s.asked.Add(1)
			if err := s.down.Load(); err != nil {
				return serve.Schedule{}, *err
			}
			return *s.next.Load(), nil
		},
		Ready: func(context.Context) serve.Conditions { return serve.Conditions{{Name: "database"}} },
		Make: func(context.Context) (result.Run, error) {
			s.made.Add(1)
			s.next.Store(&serve.Schedule{DueIn: 24 * time.Hour})
			return result.Run{RunID: 1}, nil
		},
		Progress: func() result.Progress { return result.Progress{UsersChecked: s.progress.Load()} },
		Interval: time.Hour, Log: slog.New(slog.DiscardHandler),
	}
	return s
}

func (s *service) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

func (s *service) status(path string) int {
	answer := httptest.NewRecorder()
	s.Handler(http.NotFoundHandler(), http.NotFoundHandler()).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	return answer.Code
}

// wait lets time pass, in which everything that is due happens.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// healthz asks for a restart when nothing has moved for long, and only then.
func TestHealthz(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		release := make(chan struct{})
		s.Make = func(context.Context) (result.Run, error) {
			<-release
			s.next.Store(&serve.Schedule{DueIn: 24 * time.Hour})
			return result.Run{RunID: 1}, nil
		}
		s.start(t)
		healthz := func(want int) {
			t.Helper()
			if got := s.status("/healthz"); got != want {
				t.Errorf("/healthz: %d, want %d", got, want)
			}
		}
		wait(12 * time.Hour)
		healthz(http.StatusOK)
		s.next.Store(&serve.Schedule{})
		for range 20 { // a run of hours that moves
			wait(14 * time.Minute)
			s.progress.Add(1)
			healthz(http.StatusOK)
		}
		wait(16 * time.Minute)
		healthz(http.StatusServiceUnavailable)
		close(release)
		wait(time.Minute)
		healthz(http.StatusOK)
	})
}

// What is missing is looked for again, soon at first and every few seconds after
// a while; and there is no run until it is there.
func TestWaitsForWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		down := errors.New("no connection")
		s.down.Store(&down)
		s.next.Store(&serve.Schedule{})
		s.start(t)
		wait(time.Hour)
		if n := s.asked.Load(); n < 100 || n > 600 {
			t.Errorf("the database was asked %d times in an hour", n)
		}
		if s.made.Load() != 0 {
			t.Error("a run was made without a database")
		}
		s.down.Store(nil)
		wait(30 * time.Second)
		if n := s.made.Load(); n != 1 {
			t.Errorf("%d runs were made", n)
		}
	})
}

// A run that could not even be opened is tried again, but not at once.
func TestBacksOffWhenBeginFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.next.Store(&serve.Schedule{})
		s.Make = func(context.Context) (result.Run, error) {
			s.made.Add(1)
			return result.Run{}, errors.New("permission denied for function run_begin")
		}
		s.start(t)
		wait(time.Hour)
		if n := s.made.Load(); n < 100 || n > 600 {
			t.Errorf("%d attempts in an hour", n)
		}
	})
}

// A run elsewhere that stops showing signs of life is taken over when its lease
// is over, not when the next run is due.
func TestWaitsForTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.next.Store(&serve.Schedule{RunOpen: true, LapsesIn: 8 * time.Second, DueIn: 50 * time.Minute})
		s.start(t)
		wait(7 * time.Second)
		s.next.Store(&serve.Schedule{})
		wait(3*time.Second + time.Millisecond)
		if n := s.made.Load(); n != 1 {
			t.Errorf("%d runs were made within 10 s", n)
		}
	})
}

// Conditions say each what it is, in a line of its own.
func TestConditions(t *testing.T) {
	t.Parallel()
	c := serve.Conditions{{Name: "database", Note: "answers"}, {Name: "auth-service", Err: errors.New("no\nanswer \x1b]0;owned\a\u202e")}}
	if got, want := c.String(), "ok    database: answers\nFAIL  auth-service: no answer \\x1b]0;owned\\a\\u202e\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := c.Err(); err == nil || !strings.HasPrefix(err.Error(), "auth-service: ") {
		t.Errorf("%v", err)
	}
	if err := c[:1].Err(); err != nil {
		t.Error(err)
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// The log says once when the next run is due, and again when that has changed.
func TestSaysWhenTheNextRunIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var log strings.Builder
		due := time.Now().Add(30 * time.Minute)
		said := func() string {
			mu.Lock()
			defer mu.Unlock()
			return log.String()
		}
		s := newService()
		s.Log = slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return log.Write(p)
		}), nil))
		s.Schedule = func(context.Context) (serve.Schedule, error) {
			s.asked.Add(1)
			mu.Lock()
			defer mu.Unlock()
			return serve.Schedule{DueIn: time.Until(due)}, nil
		}
		s.start(t)
		<-time.After(time.Minute)
		synctest.Wait()
		want := `msg="Next run" at=` + due.UTC().Format(time.RFC3339) + " in=30m0s"
		if s.asked.Load() < 3 || strings.Count(said(), "Next run") != 1 || !strings.Contains(said(), want) {
			t.Errorf("asked %d times, want once %q:\n%s", s.asked.Load(), want, said())
		}
		mu.Lock()
		due = due.Add(time.Hour)
		mu.Unlock()
		<-time.After(time.Minute)
		synctest.Wait()
		if strings.Count(said(), "Next run") != 2 {
			t.Error(said())
		}
	})
}
