package serve

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/safetext"
)

// Condition is one thing that a run needs.
type Condition struct {
	Name string
	Err  error  // nil: it is there
	Note string // what else to say of it
}

// Conditions are all of them, in order.
type Conditions []Condition

// Err names the first that is not met, or is nil.
func (c Conditions) Err() error {
	for _, condition := range c {
		if condition.Err != nil {
			return fmt.Errorf("%s: %w", condition.Name, condition.Err)
		}
	}
	return nil
}

// maxText bounds what is said of one condition, in bytes.
const maxText = 1000

// String is a line for each condition. Errors hold text of servers: they are bounded
// and escaped.
func (c Conditions) String() string {
	var b strings.Builder
	for _, condition := range c {
		status, text := "ok", condition.Note
		if condition.Err != nil {
			status, text = "FAIL", condition.Err.Error()
		}
		fmt.Fprintf(&b, "%-4s  %s", status, condition.Name)
		if text != "" {
			fmt.Fprintf(&b, ": %s", safetext.Line(strings.Join(strings.Fields(text), " "), maxText))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Handler serves /metrics, /healthz and /readyz, and the status page at all else.
func (s *Service) Handler(metrics, page http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", s.healthz)
	ready := &readiness{ask: s.Ready}
	mux.HandleFunc("GET /readyz", ready.serve)
	mux.Handle("GET /", page)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", Name)
		mux.ServeHTTP(w, r)
	})
}

// Name is who answers, by the header Server.
const Name = "orphan-cleaner"

// healthz says whether the process is alive: a restart would fix what it
// reports, and nothing else. The database and auth-service are readyz's.
func (s *Service) healthz(w http.ResponseWriter, _ *http.Request) {
	if quiet, stuck := s.life.silent(s.Progress()); stuck {
		write(w, http.StatusServiceUnavailable, fmt.Sprintf("FAIL  the loop has made no progress for %s\n", quiet.Round(time.Second)))
		return
	}
	write(w, http.StatusOK, "ok\n")
}

// readiness asks at most once in readyFresh, however many probes there are.
type readiness struct {
	ask func(ctx context.Context) Conditions

	mu    sync.Mutex
	last  Conditions
	until time.Time
}

const (
	readyFresh = time.Second
	// readyLimit is under the second that Kubernetes gives a probe by default.
	readyLimit = 900 * time.Millisecond
)

func (r *readiness) serve(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Now().After(r.until) {
		// The answer is for all probes, also if this one goes away.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(request.Context()), readyLimit)
		defer cancel()
		r.last, r.until = r.ask(ctx), time.Now().Add(readyFresh)
	}
	status := http.StatusOK
	if r.last.Err() != nil {
		status = http.StatusServiceUnavailable
	}
	write(w, status, r.last.String())
}

func write(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// An error means that the prober has gone.
	_, _ = io.WriteString(w, text)
}
