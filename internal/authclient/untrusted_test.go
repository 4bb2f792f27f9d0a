package authclient_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// userNamed returns one user with this id.
func userNamed(id string) authfake.FaultFunc {
	return func(context.Context, int, []string, func() (*authfake.Response, error)) (*authfake.Response, error) {
		return &authfake.Response{Users: []*authservicev1.User{{Id: id}}}, nil
	}
}

// A server that repeats the token, in every text of its that is shown, through
// every way an error can be shown.
func TestNoTokenInErrors(t *testing.T) {
	const plain, uuid = "hunter2-hunter2", "DECAFBAD-1111-4222-8333-944445555666"
	for name, test := range map[string]struct {
		token, secret string
		fault         authfake.FaultFunc
		reason        string
	}{
		"status":            {plain, plain, authfake.Status(codes.Unauthenticated, "bad header: Bearer "+plain), "status_unauthenticated"},
		"status, lost":      {plain, plain, authfake.Status(codes.Unavailable, plain), "status_unavailable"},
		"other case":        {plain, "unter2-", authfake.Status(codes.Internal, "HUNTER2-hunter2"), "status_internal"},
		"where text is cut": {plain, "unter", authfake.Status(codes.Internal, strings.Repeat("x", 290)+plain), "status_internal"},
		"in-band error":     {plain, plain, authfake.ErrorRepeatsToken, "in_band_error"},
		"another scheme":    {"Basic aHVudGVyMg==", "aHVudGVyMg", authfake.ErrorRepeatsToken, "in_band_error"},
		"no scheme":         {"open sesame-sesame", "open", authfake.ErrorRepeatsToken, "in_band_error"},
		"unparsable id":     {plain, plain, userNamed(plain), "unparsable_id"},
		"foreign id":        {uuid, uuid, userNamed(uuid), "foreign_id"},
		"foreign id, lower": {uuid, strings.ToLower(uuid), userNamed(strings.ToLower(uuid)), "foreign_id"},
		"a URL's password":  {plain, "s3cr3t", authfake.Status(codes.Internal, "postgres://auth:s3cr3t@db/auth is down"), "status_internal"},
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, authfake.Options{})
			server.SetFaultFunc(test.fault)
			path := write(t, filepath.Join(t.TempDir(), "token"), []byte(test.token))
			book := &logbook{}
			client := dial(t, source.Config{URL: server.URL(), TokenFile: path, MaxAttempts: 2, Logger: book.logger()})
			_, err := client.Missing(t.Context(), people(1))
			if got := reasonOf(t, err); got != test.reason {
				t.Errorf("reason %s, want %s", got, test.reason)
			}
			if !strings.HasSuffix(server.LastAuthorization(), test.token) {
				t.Fatalf("authorization %q", server.LastAuthorization())
			}
			for ; err != nil; err = errors.Unwrap(err) {
				if shown := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(shown, test.secret) {
					t.Errorf("the secret is in %s", shown)
				}
			}
			if strings.Contains(book.text(), test.secret) {
				t.Errorf("the secret is in the log: %s", book.text())
			}
		})
	}
}

// Details belong to an error: what status OK says beside them may be a part of the whole.
func TestDetailsOfStatusOK(t *testing.T) {
	server := serve(t, authfake.Options{})
	server.SetFaultFunc(func(ctx context.Context, _ int, _ []string, honest func() (*authfake.Response, error)) (*authfake.Response, error) {
		if err := grpc.SetTrailer(ctx, metadata.Pairs("grpc-status-details-bin", "\x12\x04part")); err != nil {
			return nil, err
		}
		return honest()
	})
	missing, err := dial(t, source.Config{URL: server.URL()}).Missing(t.Context(), people(1))
	if err == nil || len(missing) > 0 || reasonOf(t, err) != source.InBandError {
		t.Errorf("missing %v, error %v", missing, err)
	}
}

// A server may give a status and no message, or no status at all.
func TestStatusWithoutMessage(t *testing.T) {
	server := serve(t, authfake.Options{})
	server.SetFaultFunc(authfake.Status(codes.Internal, ""))
	_, err := dial(t, source.Config{URL: server.URL()}).Missing(t.Context(), people(1))
	if reasonOf(t, err) != "status_internal" || !strings.Contains(err.Error(), "the server gives no reason: look in the log of auth-service") {
		t.Error(err)
	}
}

// The message is for the log of a cron job: one line, whatever a server sends.
func TestErrorIsOneLine(t *testing.T) {
	hostile := "boom\x1b]0;owned\a\rfine \u202e\nINFO orphan_cleaner: Cleaned 0 orphaned members" + strings.Repeat("x", 5000)
	for name, fault := range map[string]authfake.FaultFunc{
		"status":        authfake.Status(codes.Internal, hostile),
		"unparsable id": userNamed(hostile),
	} {
		server := serve(t, authfake.Options{})
		server.SetFaultFunc(fault)
		client := dial(t, source.Config{URL: server.URL()})
		_, err := client.Missing(t.Context(), people(1))
		if text := err.Error(); strings.ContainsAny(text, "\n\r\a\x1b\u202e") || !strings.Contains(text, "boom") || len(text) > 600 {
			t.Errorf("%s: %d bytes: %q", name, len(text), text)
		}
	}
}
