package httpsource_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/source"
	"github.com/nova-social/orphan-cleaner/internal/source/httpsource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// people are n new ids.
func people(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.New()
	}
	return ids
}

// serve is a source that does as the handler does.
func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

// dial uses pauses of a millisecond, and a timeout that only a hang reaches.
func dial(t *testing.T, cfg source.Config) *httpsource.Source {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	cfg.BackoffInitial, cfg.BackoffMax = time.Millisecond, time.Millisecond
	client, err := httpsource.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// says answers with a status, a content type and a body.
func says(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// answer is that of a source that has these users.
func answer(ids ...uuid.UUID) string {
	users := []map[string]string{}
	for _, id := range ids {
		users = append(users, map[string]string{"id": id.String()})
	}
	text, err := json.Marshal(map[string]any{"users": users, "complete": true})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestMissing(t *testing.T) {
	t.Parallel()
	ids := people(source.MaxBatch)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var question struct {
			UserIDs []uuid.UUID `json:"user_ids"`
		}
		err := json.NewDecoder(r.Body).Decode(&question)
		if err != nil || !slices.Equal(question.UserIDs, ids) || r.Method != http.MethodPost || r.URL.Path != "/v1/check" ||
			r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Authorization") != "Bearer sesame" {
			t.Errorf("%s %s with %v asks for %v (%v)", r.Method, r.URL, r.Header, question, err)
		}
		says(200, "application/json; charset=UTF-8", answer(append([]uuid.UUID{ids[99]}, ids[:98]...)...))(w, r)
	})
	client := dial(t, source.Config{URL: "rest+" + server.URL + "/v1/check", TokenFile: token})
	missing, err := client.Missing(t.Context(), ids)
	if err != nil || !slices.Equal(missing, ids[98:99]) {
		t.Errorf("missing %v, error %v", missing, err)
	}
	server.Config.Handler = says(200, "application/json", answer())
	if status, err := client.Health(t.Context()); err != nil || status != source.HealthServing {
		t.Errorf("health %v, %v", status, err)
	}
	// The token is in no error, wherever the answer repeats it.
	server.Config.Handler = says(200, "Bearer sesame", answer())
	if _, err := client.Health(t.Context()); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("the token as a content type: %v", err)
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "sesame")
		says(200, "application/json", answer())(w, r)
	})
	if _, err := client.Health(t.Context()); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("the token as a content encoding: %v", err)
	}
	server.Config.Handler = says(503, "", "")
	if _, err := client.Missing(t.Context(), ids); err == nil || !strings.HasSuffix(err.Error(), "the answer is 503 Service Unavailable, without a body") {
		t.Errorf("without a body: %v", err)
	}
	server.Config.Handler = says(500, "text/plain", "Bearer sesame is not known")
	if _, err := client.Health(t.Context()); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("health: %v", err)
	}
}

// bodies are answers about one user, a, and why they are invalid; empty: they are valid.
func bodies(a uuid.UUID) map[string]string {
	user := fmt.Sprintf(`{"id": %q}`, a)
	upper := fmt.Sprintf(`{"id": %q}`, strings.ToUpper(a.String()))
	return map[string]string{
		`{"users": [], "complete": true}`:                                          "",
		`{"complete": true, "users": [` + user + `]}`:                              "",
		`{"users": [` + upper + `], "complete": true}` + " \n":                     "",
		`{"users": [` + user + `]}`:                                                "not_complete",
		`{"users": [` + user + `], "complete": false}`:                             "not_complete",
		`{"users": [` + user + `], "complete": null}`:                              "malformed",
		`{"users": [` + user + `], "complete": "true"}`:                            "malformed",
		`{"users": [` + user + `], "complete": 1}`:                                 "malformed",
		`{"users": [` + user + `], "Complete": true}`:                              "unknown_field",
		`{"Users": [` + user + `], "complete": true}`:                              "unknown_field",
		`{"users": [{"ID": "` + a.String() + `"}], "complete": true}`:              "unknown_field",
		`{"users": [` + user + `], "complete": true, "next": ""}`:                  "unknown_field",
		`{"users": [` + user + `], "complete": true, "error": null}`:               "unknown_field",
		`{"users": [{"id": "` + a.String() + `", "name": "a"}], "complete": true}`: "unknown_field",
		`{"complete": true}`:                                                       "malformed",
		`{"users": null, "complete": true}`:                                        "malformed",
		`{"users": {}, "complete": true}`:                                          "malformed",
		`{"users": ["` + a.String() + `"], "complete": true}`:                      "malformed",
		`{"users": [{}], "complete": true}`:                                        "malformed",
		`{"users": [null], "complete": true}`:                                      "malformed",
		`{"users": [{"id": null}], "complete": true}`:                              "malformed",
		`{"users": [{"id": 7}], "complete": true}`:                                 "malformed",
		`{"users": [{"id": ""}], "complete": true}`:                                "unparsable_id",
		`{"users": [{"id": "` + a.String() + ` "}], "complete": true}`:             "unparsable_id",
		`[` + user + `]`:                        "malformed",
		`null`:                                  "malformed",
		``:                                      "malformed",
		`{"users": [` + user + `], "complete":`: "malformed",
		`{"users": [` + user + `], "complete": true`:   "malformed",
		`{"users": [` + user + `,], "complete": true}`: "malformed",
		`<html>502 Bad Gateway</html>`:                 "malformed",
	}
}

// What the schema of a body cannot say.
func TestInvalidAnswers(t *testing.T) {
	t.Parallel()
	a, b := uuid.New(), uuid.New()
	json := "application/json"
	tests := map[string]struct {
		handler http.HandlerFunc
		reason  string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				says(200, json, answer(a))(w, r)
				return
			}
			http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect)
		}, "malformed"},
		"not found":       {says(404, json, answer(a)), "status_not_found"},
		"created":         {says(201, json, answer(a)), "status_unknown"},
		"no content":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "status_unknown"},
		"teapot":          {says(418, json, answer(a)), "status_unknown"},
		"a status of 999": {says(999, json, answer(a)), "status_unknown"},
		"forbidden":       {says(403, json, answer(a)), "status_permission_denied"},
		"internal error":  {says(500, json, answer(a)), "status_internal"},
		"HTML":            {says(200, "text/html", answer(a)), "malformed"},
		"no content type": {says(200, "", answer(a)), "malformed"},
		"another charset": {says(200, json+"; charset=latin1", answer(a)), "malformed"},
		"compressed": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			says(200, json, answer(a))(w, r)
		}, "malformed"},
		"from a cache": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Age", "3600")
			says(200, json, answer(a))(w, r)
		}, "malformed"},
		"two content types": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Content-Type", json)
			w.Header().Add("Content-Type", "text/html")
			_, _ = io.WriteString(w, answer(a))
		}, "malformed"},
		"trailing data":    {says(200, json, answer(a)+answer(a)), "malformed"},
		"trailing garbage": {says(200, json, answer(a)+"x"), "malformed"},
		"users twice":      {says(200, json, `{"users": [], "users": [{"id": "`+a.String()+`"}], "complete": true}`), "malformed"},
		"complete twice":   {says(200, json, `{"users": [], "complete": false, "complete": true}`), "malformed"},
		"id twice":         {says(200, json, `{"users": [{"id": "`+b.String()+`", "id": "`+a.String()+`"}], "complete": true}`), "malformed"},
		"escaped name":     {says(200, json, `{"users": [], "complete": true, "us\u0065rs": []}`), "malformed"},
		"not UTF-8":        {says(200, json, "{\"users\": [{\"id\": \"\xff\"}], \"complete\": true}"), "malformed"},
		"nobody asked for": {says(200, json, answer(b)), "foreign_id"},
		"the user twice":   {says(200, json, answer(a, a)), "too_many_users"},
		"over the limit":   {says(200, json, answer(a)+strings.Repeat(" ", 2<<20)), "message_too_large"},
		"a body cut short": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			says(200, json, answer(a))(w, r)
		}, "transport"},
		"cut in mid-body": {func(w http.ResponseWriter, r *http.Request) {
			says(200, json, answer(a)[:20])(w, r)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "transport"},
		"hung up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "transport"},
		"never":   {func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body); <-r.Context().Done() }, "deadline"},
		"never the rest": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			says(200, json, answer(a)[:20])(w, r)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "deadline"},
	}
	for body, reason := range bodies(a) {
		tests[body] = struct {
			handler http.HandlerFunc
			reason  string
		}{says(200, json, body), reason}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, test.handler)
			cfg := source.Config{URL: "rest+" + server.URL, MaxAttempts: 1}
			if test.reason == "deadline" {
				cfg.Timeout = 100 * time.Millisecond
			}
			missing, err := dial(t, cfg).Missing(t.Context(), []uuid.UUID{a})
			if test.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			failed, ok := errors.AsType[*source.BatchError](err)
			if !ok || failed.Reason != test.reason || missing != nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("missing %v, error %v, want the reason %s", missing, err, test.reason)
			}
		})
	}
}

// What may pass by itself is tried again, as for gRPC; the rest is not.
func TestRetries(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int32{429: 3, 409: 3, 408: 3, 425: 3, 502: 3, 503: 3, 504: 3, 400: 1, 401: 1, 404: 1, 500: 1, 308: 1} {
		var calls atomic.Int32
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			says(status, "text/plain", "injected")(w, r)
		})
		if _, err := dial(t, source.Config{URL: "rest+" + server.URL, MaxAttempts: 3}).Missing(t.Context(), people(1)); err == nil {
			t.Errorf("%d passed", status)
		}
		if got := calls.Load(); got != want {
			t.Errorf("%d: %d calls, want %d", status, got, want)
		}
	}
}

// A proxy that the environment names is left alone; one that is asked for is used.
func TestProxy(t *testing.T) {
	var proxied atomic.Int32
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		proxied.Add(1)
		says(200, "application/json", answer())(w, r)
	})
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("ALL_PROXY", proxy.URL)
	// By its name, since Go never uses a proxy for this machine.
	cfg := source.Config{URL: "rest+http://auth.invalid/check", MaxAttempts: 1}
	if _, err := dial(t, cfg).Missing(t.Context(), people(1)); err == nil || proxied.Load() != 0 {
		t.Errorf("%v, %d calls by the environment's proxy", err, proxied.Load())
	}
	cfg.Proxy = proxy.URL
	if missing, err := dial(t, cfg).Missing(t.Context(), people(1)); err != nil || len(missing) != 1 || proxied.Load() != 1 {
		t.Errorf("missing %v, %v, %d calls by the proxy", missing, err, proxied.Load())
	}
	for _, bad := range []string{"proxy:3128", "http://u:hunter2@proxy", "socks5://proxy", "http://%zz"} {
		cfg.Proxy = bad
		if _, err := httpsource.Dial(cfg); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "AUTH_SERVICE_PROXY") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// HTTP/2 over TLS; certificates are read anew for each connection.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca, err := authfake.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	issue := func(ca *authfake.CA, name string, lasts time.Duration) authfake.Certificate {
		t.Helper()
		issued, err := ca.Issue(name, time.Now().Add(lasts))
		if err != nil {
			t.Fatal(err)
		}
		return issued
	}
	certFile, keyFile, err := issue(ca, "orphan-cleaner", time.Hour).Write(dir, "client")
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		server authfake.Certificate
		says   string
	}{
		"good":    {issue(ca, "127.0.0.1", time.Hour), ""},
		"expired": {issue(ca, "127.0.0.1", -time.Hour), "certificate has expired"},
		"strange": {issue(ca, "elsewhere.example", time.Hour), "certificate"},
	} {
		var versions, calls atomic.Int32
		pair, err := test.server.TLS()
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			versions.Store(int32(r.ProtoMajor))
			calls.Add(1)
			if got := r.TLS.PeerCertificates[0].Subject.CommonName; got != "orphan-cleaner" {
				t.Errorf("the client is %s", got)
			}
			says(200, "application/json", answer())(w, r)
		}))
		server.EnableHTTP2 = true
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
		server.Config.ErrorLog = nil
		server.StartTLS()
		client := dial(t, source.Config{URL: "rest+" + server.URL, CAFile: caFile, CertFile: certFile, KeyFile: keyFile, MaxAttempts: 1})
		_, err = client.Missing(t.Context(), people(1))
		switch {
		case test.says == "" && (err != nil || versions.Load() != 2):
			t.Errorf("%s: error %v, HTTP/%d", name, err, versions.Load())
		case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) || calls.Load() != 0):
			t.Errorf("%s: error %v, want it to say %q; %d calls", name, err, test.says, calls.Load())
		}
		_ = client.Close()
		server.Close()
	}
	for says, lasts := range map[string]time.Duration{"expired at 20": -time.Hour, "is not valid before 20": 48 * time.Hour} {
		useless := issue(ca, "orphan-cleaner", lasts)
		certFile, keyFile, err := useless.Write(dir, "useless")
		if err != nil {
			t.Fatal(err)
		}
		for _, cfg := range []source.Config{{CertFile: certFile, KeyFile: keyFile}, {CAFile: certFile}} {
			cfg.URL = "rest+https://auth"
			if _, err := httpsource.Dial(cfg); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), certFile) {
				t.Errorf("a certificate that %s…: %v", says, err)
			}
		}
		both := filepath.Join(dir, "both.pem")
		if err := os.WriteFile(both, slices.Concat(useless.CertPEM, ca.PEM), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := httpsource.Dial(source.Config{URL: "rest+https://auth", CAFile: both}); err != nil {
			t.Errorf("a CA that replaces one that %s…: %v", says, err)
		}
	}
}

// A server that takes connections and never shakes hands keeps none of them open.
func TestSilentTLS(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	var taken atomic.Int32
	var held sync.WaitGroup
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			taken.Add(1)
			held.Go(func() {
				_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
				if _, err := io.Copy(io.Discard, conn); err != nil {
					t.Errorf("the client holds its connection: %v", err)
				}
				_ = conn.Close()
			})
		}
	}()
	client := dial(t, source.Config{URL: "rest+https://" + listener.Addr().String(), Timeout: 100 * time.Millisecond, MaxAttempts: 2})
	for taken.Load() < 2 { // on a busy machine time may be up before there is a connection
		_, err = client.Missing(t.Context(), people(1))
		if failed, ok := errors.AsType[*source.BatchError](err); !ok || failed.Reason != source.Deadline {
			t.Fatalf("error %v", err)
		}
	}
	_ = listener.Close()
	<-ended
	held.Wait()
}
