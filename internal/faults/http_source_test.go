package faults

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
)

// httpRows are lies of an HTTP API: those that auth-service has by gRPC, and those of the
// protocol.
func httpRows() []row {
	refused := want{exit: 3, state: "refused", shows: "breaker new-missing-share", gone: nothing}
	invalid := func(reason string) want { return want{exit: 1, state: "incomplete", shows: reason, gone: nothing} }
	failed := func(shows string) want { return want{exit: 1, state: "failed", shows: shows, gone: nothing} }
	fine := want{exit: 0, state: "succeeded", gone: all}
	as := func(fault authfake.FaultFunc, want want, flags ...string) func(w *world) {
		return func(w *world) {
			w.byHTTP(nil)
			answers(fault, want, flags...)(w)
		}
	}
	refusedBy := func(code codes.Code, reason string) func(w *world) {
		return as(authfake.Status(code, "injected"), failed(reason))
	}
	return []row{
		{"nobody", as(authfake.Nothing, refused)},
		{"every second user", as(authfake.Half, refused)},
		{"flapping between two truths, HTTP", as(authfake.Flapping, refused)},
		{"an error beside the users", as(authfake.InBandErrorWithUsers, failed("(unknown_field)"))},
		{"a foreign id", as(authfake.ForeignIDsAdded, failed("(foreign_id)"))},
		{"an id that does not parse", as(authfake.UnparsableIDs, failed("(unparsable_id)"))},
		{"ids in upper case", as(authfake.UpperCaseIDs, fine)},
		{"each user twice", as(authfake.Duplicates, invalid("(too_many_users)"))},
		{"404", refusedBy(codes.NotFound, "(status_not_found)")},
		{"401", refusedBy(codes.Unauthenticated, "(status_unauthenticated)")},
		{"500", refusedBy(codes.Internal, "(status_internal)")},
		{"503", refusedBy(codes.Unavailable, "(status_unavailable)")},
		{"slow", as(authfake.Slow(50*time.Millisecond), fine)},
		{"silence", as(authfake.NeverAnswers, failed("(deadline)"), "--auth-service-timeout=100ms")},
		{"a new field", spoils(func(w http.ResponseWriter, body string) { say(w, strings.Replace(body, "{", `{"next": "7", `, 1)) }, failed("(unknown_field)"))},
		{"complete is false", spoils(func(w http.ResponseWriter, body string) { say(w, strings.Replace(body, "true", "false", 1)) }, failed("(not_complete)"))},
		{"complete is missing", spoils(func(w http.ResponseWriter, body string) { say(w, strings.Replace(body, `,"complete":true`, "", 1)) }, failed("(not_complete)"))},
		{"users twice, none the second time", spoils(func(w http.ResponseWriter, body string) {
			say(w, strings.Replace(body, `,"complete"`, `,"users":[],"complete"`, 1))
		}, failed("(malformed)"))},
		{"something follows", spoils(func(w http.ResponseWriter, body string) { say(w, body+body) }, failed("(malformed)"))},
		{"a redirect", spoils(func(w http.ResponseWriter, _ string) {
			w.Header().Set("Location", "/")
			w.WriteHeader(http.StatusPermanentRedirect)
		}, failed("a redirect, which is not followed"))},
		{"another content type", spoils(func(w http.ResponseWriter, body string) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, body)
		}, failed("not application/json"))},
		{"over the size limit", spoils(func(w http.ResponseWriter, body string) { say(w, body+strings.Repeat(" ", 2<<20)) }, failed("(message_too_large)"))},
		{"a body that ends early", spoils(func(w http.ResponseWriter, body string) {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)+1))
			say(w, body)
		}, failed("(transport)"))},
		{"cut in mid-body", spoils(func(w http.ResponseWriter, body string) {
			say(w, body[:len(body)/2])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, failed("(transport)"))},
		{"an expired certificate, HTTP", overTLS("127.0.0.1", -time.Minute, "certificate has expired")},
		{"a wrong certificate, HTTP", overTLS("elsewhere.example", time.Hour, "certificate")},
		{"another environment's API", func(w *world) {
			w.byHTTP(nil)
			otherEnvironment(w)
		}},
	}
}

func say(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body)
}

// httpStatus is what an API says in place of a status of gRPC.
func httpStatus(err error) int {
	is, known := map[codes.Code]int{codes.NotFound: 404, codes.Unauthenticated: 401, codes.Unavailable: 503, codes.InvalidArgument: 400}[status.Code(err)]
	if !known {
		return 500
	}
	return is
}

// api is an HTTP API in front of the auth-service of a world, as it is when it is asked.
type api struct {
	*httptest.Server
	spoil atomic.Pointer[func(w http.ResponseWriter, body string)]
}

// byHTTP has the users of the world asked for by HTTP, over TLS if there is a config.
func (w *world) byHTTP(security *tls.Config) *api {
	a := &api{}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var asked struct {
			UserIDs []string `json:"user_ids"`
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			w.t.Error(err)
		}
		response, err := w.auth.GetUsersByIds(r.Context(), &authservicev1.GetUsersByIdsRequest{UserIds: asked.UserIDs})
		if err != nil {
			http.Error(rw, err.Error(), httpStatus(err))
			return
		}
		type user struct {
			ID string `json:"id"`
		}
		answer := struct {
			Users    []user `json:"users"`
			Error    any    `json:"error,omitempty"`
			Complete bool   `json:"complete"`
		}{Users: []user{}, Complete: true}
		for _, u := range response.Users {
			answer.Users = append(answer.Users, user{u.Id})
		}
		if response.Error != nil {
			answer.Error = response.Error.Message
		}
		body, err := json.Marshal(answer)
		if err != nil {
			w.t.Error(err)
		}
		if spoil := a.spoil.Load(); spoil != nil {
			(*spoil)(rw, string(body))
			return
		}
		say(rw, string(body))
	}))
	if security == nil {
		a.Start()
	} else {
		a.TLS, a.EnableHTTP2 = security, true
		a.StartTLS()
	}
	w.t.Cleanup(a.Close)
	w.env = append(w.env, "AUTH_SERVICE_URL=rest+"+a.URL+"/users/check")
	return a
}

// spoils has the API lie by more than it says, throughout, then tell the truth.
func spoils(spoil func(w http.ResponseWriter, body string), want want) func(w *world) {
	return func(w *world) {
		a := w.byHTTP(nil)
		a.spoil.Store(&spoil)
		e := w.run("--concurrency=32")
		w.expect(e, want)
		w.bounded()
		// The probe of the preflight saw it. Now it begins after that.
		var calls atomic.Int32
		later := func(rw http.ResponseWriter, body string) {
			if calls.Add(1) == 1 {
				say(rw, body)
				return
			}
			spoil(rw, body)
		}
		a.spoil.Store(&later)
		want.state = "incomplete"
		w.expect(w.run("--concurrency=32"), want)
		a.spoil.Store(nil)
		w.converges()
	}
}

func overTLS(name string, lasts time.Duration, shows string) func(w *world) {
	return func(w *world) {
		ca, err := authfake.NewCA()
		if err != nil {
			w.t.Fatal(err)
		}
		w.env = append(w.env, "AUTH_SERVICE_CA_FILE="+w.file("ca.pem", ca.PEM))
		serve := func(name string, lasts time.Duration) {
			issued, err := ca.Issue(name, time.Now().Add(lasts))
			if err != nil {
				w.t.Fatal(err)
			}
			pair, err := issued.TLS()
			if err != nil {
				w.t.Fatal(err)
			}
			w.byHTTP(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
		}
		serve(name, lasts)
		e := w.run()
		w.expect(e, want{exit: 1, state: "failed", shows: shows, gone: nothing})
		w.bounded()
		if calls := w.auth.Calls(); calls != 0 {
			w.t.Errorf("%d calls by way of a certificate that is wrong", calls)
		}
		serve("127.0.0.1", time.Hour)
		w.converges()
	}
}
