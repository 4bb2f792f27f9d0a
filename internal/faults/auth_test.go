package faults

import (
	"crypto/tls"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
)

// authRows are the responses of auth-service.
func authRows() []row {
	refused := want{exit: 3, state: "refused", shows: "breaker new-missing-share", gone: nothing}
	invalid := func(reason string) want {
		return want{exit: 1, state: "incomplete", shows: reason, gone: nothing}
	}
	fine := want{exit: 0, state: "succeeded", gone: all}
	status := func(code codes.Code) func(w *world) {
		return answers(authfake.Status(code, "injected"), invalid("got no valid response"))
	}
	return []row{
		{"nothing at all", answers(authfake.Nothing, refused)},
		{"half", answers(authfake.Half, refused)},
		{"in-band error without users", answers(authfake.InBandError, invalid("(in_band_error)"))},
		{"in-band error with users", answers(authfake.InBandErrorWithUsers, invalid("(in_band_error)"))},
		{"an error that repeats the token", repeatsToken},
		{"a new field in the response", answers(authfake.NewField, invalid("(unknown_field)"))},
		{"users in another field", answers(authfake.UsersInAnotherField, invalid("(unknown_field)"))},
		{"ids nobody asked for", answers(authfake.ForeignIDsAdded, invalid("(foreign_id)"))},
		{"only ids nobody asked for", answers(authfake.OnlyForeignIDs, invalid("(foreign_id)"))},
		{"ids that do not parse", answers(authfake.UnparsableIDs, invalid("(unparsable_id)"))},
		{"upper-case ids", answers(authfake.UpperCaseIDs, fine)},
		{"duplicates", answers(authfake.Duplicates, fine)},
		{"NotFound", status(codes.NotFound)},
		{"Internal", internal},
		{"Unavailable", status(codes.Unavailable)},
		{"Unauthenticated", status(codes.Unauthenticated)},
		{"DeadlineExceeded", status(codes.DeadlineExceeded)},
		{"a status that does not exist", answers(authfake.Status(4711, "injected"), invalid("(status_unknown)"))},
		{"a response over the message limit", answers(authfake.OverMessageLimit, invalid("(message_too_large)"))},
		{"answers slowly", answers(authfake.Slow(50*time.Millisecond), fine)},
		{"never answers", answers(authfake.NeverAnswers, invalid("(deadline)"), "--auth-service-timeout=2s")},
		{"its name does not resolve", nameDoesNotResolve},
		{"GOAWAY in mid-call", goAway},
		{"NOT_SERVING", notServing},
		{"no health service", noHealthService},
		{"an expired certificate", certificate("127.0.0.1", -time.Minute, "certificate has expired")},
		{"a wrong certificate", certificate("elsewhere.example", time.Hour, "certificate")},
		{"another environment's users", otherEnvironment},
		{"flapping between two truths", answers(authfake.Flapping, refused)},
		{"loses a few per cent a day", slowLoss},
		{"nothing at all, of 50 users", smallTable},
	}
}

// answers lets auth-service answer by a fault throughout, then honestly. All
// batches are in flight at once: what is tried again is waited for once.
func answers(fault authfake.FaultFunc, want want, flags ...string) func(w *world) {
	return func(w *world) {
		w.auth.SetFaultFunc(fault)
		e := w.run(append(flags, "--concurrency=32")...)
		w.expect(e, want)
		w.bounded()
		w.converges()
	}
}

// repeatsToken: the token is in no output, and nowhere in the database.
func repeatsToken(w *world) {
	const token = "hunter2-hunter2"
	w.env = append(w.env, "AUTH_SERVICE_TOKEN_FILE="+w.file("token", []byte(token)), "ORPHAN_CLEANER_LOG_LEVEL=debug")
	w.auth.SetFaultFunc(authfake.ErrorRepeatsToken)
	e := w.run()
	w.expect(e, want{exit: 1, state: "incomplete", shows: "authorization: [token]", gone: nothing})
	if w.auth.LastAuthorization() != "Bearer "+token || strings.Contains(e.String()+e.metrics, token) {
		w.t.Errorf("the token was not sent, or is shown: %s", e)
	}
	w.none("the token is in the run's row", `SELECT * FROM orphan_cleaner.runs AS r WHERE r::text LIKE '%`+token+`%'`)
	w.converges()
}

// internal: throughout, and for a fifth of the batches, which is too many to
// sweep by the rest.
func internal(w *world) {
	fault := authfake.Status(codes.Internal, "injected")
	w.auth.SetFaultFunc(authfake.Until(6, fault))
	w.expect(w.run(), want{exit: 1, state: "incomplete", shows: "6 of 30 batches got no valid response", gone: nothing})
	answers(fault, want{exit: 1, state: "incomplete", shows: "got no valid response", gone: nothing})(w)
}

// goAway: once the calls are answered by new connections, and once never.
func goAway(w *world) {
	w.auth.SetFaultFunc(authfake.GoAwayMidCall)
	e := w.run("--concurrency=32", "--auth-service-timeout=5s")
	w.expect(e, want{exit: 1, state: "incomplete", shows: "(transport)", gone: nothing})
	w.bounded()

	w.auth.ResetCalls()
	w.auth.SetFaultFunc(authfake.Until(3, authfake.GoAwayMidCall))
	w.lastRun()
	w.converges()
}

func nameDoesNotResolve(w *world) {
	w.env = append(w.env, "AUTH_SERVICE_URL=http://auth-service.invalid:9080")
	e := w.run()
	w.expect(e, want{exit: 1, state: "failed", shows: "DNS does not resolve the name auth-service.invalid", gone: nothing})
	w.bounded()
	w.env = w.env[:len(w.env)-1]
	w.converges()
}

func notServing(w *world) {
	w.auth.SetServing(false)
	w.expect(w.run(), want{exit: 1, state: "failed", shows: "says that it is NOT_SERVING", gone: nothing})
	if calls := w.auth.Calls(); calls != 0 {
		w.t.Errorf("%d calls to a server that does not serve", calls)
	}
	w.auth.SetServing(true)
	w.converges()
}

func noHealthService(w *world) {
	w.serve(authfake.Options{WithoutHealth: true})
	w.expect(w.run(), want{exit: 0, state: "succeeded", shows: "has no grpc.health.v1.Health", gone: all})
	w.converges()
}

// certificate serves TLS by a certificate that is wrong, then by a good one.
func certificate(name string, lasts time.Duration, shows string) func(w *world) {
	return func(w *world) {
		ca, err := authfake.NewCA()
		if err != nil {
			w.t.Fatal(err)
		}
		file := w.file("ca.pem", ca.PEM)
		serve := func(name string, lasts time.Duration) {
			issued, err := ca.Issue(name, time.Now().Add(lasts))
			if err != nil {
				w.t.Fatal(err)
			}
			pair, err := issued.TLS()
			if err != nil {
				w.t.Fatal(err)
			}
			w.serve(authfake.Options{TLS: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}})
		}
		serve(name, lasts)
		w.env = append(w.env, "AUTH_SERVICE_CA_FILE="+file)
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

// otherEnvironment: that auth-service is healthy and honest, about others. So few
// of ours are unknown to it that no share tells; the canary does.
func otherEnvironment(w *world) {
	w.auth.Delete(w.living[100:140]...)
	w.env = append(w.env, "ORPHAN_CLEANER_CANARY_ALIVE="+w.living[100].String())
	w.expect(w.run(), want{exit: 3, state: "refused", shows: "breaker canary-alive", gone: nothing})
	w.auth.Add(w.living[100:140]...)

	w.auth.Delete(w.living...)
	w.expect(w.run(), want{exit: 3, state: "refused", shows: "breaker canary-alive", gone: nothing})
	w.auth.Add(w.living...)
	w.converges()
}
