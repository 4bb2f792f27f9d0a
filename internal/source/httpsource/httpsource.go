// Package httpsource asks an HTTP API which users are missing, as package source says
// what that means. docs/openapi.yaml describes the API.
//
// An answer is complete and valid only if it came with status 200 and the content type
// application/json, arrived whole, is one JSON object in exactly the form of the
// document, says "complete": true, and names no more users than were asked for and
// nobody else.
package httpsource

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nova-social/orphan-cleaner/internal/source"
)

// maxResponse bounds one response in bytes. 100 ids are 5 KiB.
const maxResponse = 1 << 20

// Source asks by HTTP. It is safe for concurrent use.
type Source struct {
	*source.Client
	cfg   source.Config
	url   string
	token *source.TokenFile
	http  *http.Client
}

// Dial checks the configuration and the files it names. It does not connect; use
// Health for that.
func Dial(cfg source.Config) (*Source, error) {
	cfg, end, err := cfg.Complete()
	if err != nil {
		return nil, err
	}
	// Nothing of http.DefaultTransport: the ids of users are not for a proxy that the
	// environment names for other traffic.
	transport := &http.Transport{
		ForceAttemptHTTP2: true, DisableCompression: true, MaxIdleConnsPerHost: max(cfg.Concurrency, 2), IdleConnTimeout: time.Minute,
		// The whole of a call is bounded by Timeout. These find a connection that a firewall dropped without a word.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 10 * time.Second}, MaxResponseHeaderBytes: 64 << 10,
	}
	s := &Source{cfg: cfg, url: "http://" + end.Address + end.Path}
	if end.TLS {
		s.url = "https://" + end.Address + end.Path
		files, err := source.NewTLSFiles(cfg)
		if err != nil {
			return nil, err
		}
		// By way of a proxy, and for HTTP/2 to be offered; else the files are read anew for each connection.
		transport.TLSClientConfig = files.Current()
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			// The transport dials on when the call has ended: a server that never shakes hands would keep the connection for
			// good. Twice, so that it is the call that ends in time.
			ctx, cancel := context.WithTimeout(ctx, 2*cfg.Timeout)
			defer cancel()
			security := files.Current()
			security.NextProtos = []string{"h2", "http/1.1"}
			return (&tls.Dialer{Config: security}).DialContext(ctx, network, address)
		}
	}
	if cfg.Proxy != "" {
		proxy, err := url.Parse(cfg.Proxy)
		if err != nil || proxy.Host == "" || proxy.User != nil || proxy.Scheme != "http" && proxy.Scheme != "https" {
			return nil, errors.New("AUTH_SERVICE_PROXY is not the URL of a proxy; write it as http://proxy:3128, without a password")
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	logger := cfg.ClientLog()
	if s.token, err = source.NewTokenFile(cfg.TokenFile, logger); err != nil {
		return nil, err
	}
	if s.token != nil && !end.TLS {
		logger.Warn("the token travels in plaintext, only a service mesh makes that safe", "address", end.Address)
	}
	s.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.Client = source.New(cfg, s.attempt)
	return s, nil
}

// Close closes the connections that are idle.
func (s *Source) Close() error {
	s.http.CloseIdleConnections()
	return nil
}

// Health asks for a user whom nobody has, retrying like [source.Client.Missing].
func (s *Source) Health(ctx context.Context) (source.HealthStatus, error) {
	nobody := []uuid.UUID{uuid.Nil}
	failed := s.Retry(ctx, 1, func() *source.BatchError { return s.attempt(ctx, nobody, source.NewAnswer(nobody)) })
	if failed != nil {
		return source.HealthUnknown, fmt.Errorf("probing auth-service at %s (%s): %w", s.url, failed.Reason, failed.Err)
	}
	return source.HealthServing, nil
}

// attempt is a [source.Attempt].
func (s *Source) attempt(ctx context.Context, ids []uuid.UUID, answer *source.Answer) *source.BatchError {
	call, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	token := s.token.Current()
	failed := func(reason, format string, args ...any) *source.BatchError {
		return source.Failed(reason, len(ids), fmt.Errorf(format, args...))
	}
	broken := func(err error) *source.BatchError {
		if reason, cause := source.Ended(ctx, call, s.cfg.Timeout); reason != "" {
			return source.Failed(reason, len(ids), cause)
		}
		if within, ok := errors.AsType[*url.Error](err); ok { // the URL is known
			err = within.Err
		}
		return failed(source.Transport, "%s", token.Clean(err.Error()))
	}

	body, err := json.Marshal(map[string][]string{"user_ids": s.cfg.Texts(ids)})
	if err != nil {
		return source.Failed(source.InvalidBatch, len(ids), err)
	}
	request, err := http.NewRequestWithContext(call, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return source.Failed(source.InvalidBatch, len(ids), err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	if token.Header != "" {
		request.Header.Set("Authorization", token.Header)
	}
	response, err := s.http.Do(request)
	if err != nil {
		return broken(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxResponse+1))
	says := strings.Join(response.Header.Values("Content-Type"), ", ")
	kind, parameters, kindErr := mime.ParseMediaType(says)
	charset, hasCharset := parameters["charset"]
	switch {
	case response.StatusCode/100 == 3:
		return failed(source.Malformed, "the answer is %s, a redirect, which is not followed; write where it leads into AUTH_SERVICE_URL", token.Clean(response.Status))
	case response.StatusCode != http.StatusOK && len(text) == 0:
		return failed(reasonOf(response.StatusCode), "the answer is %s, without a body", token.Clean(response.Status))
	case response.StatusCode != http.StatusOK:
		return failed(reasonOf(response.StatusCode), "the answer is %s: %s", token.Clean(response.Status), token.Clean(string(text)))
	case err != nil:
		return broken(err)
	case len(text) > maxResponse:
		return failed(source.MessageTooLarge, "the answer is over %d bytes", maxResponse)
	case response.Header.Get("Content-Encoding") != "":
		return failed(source.Malformed, "the content encoding is %q, and none was accepted", token.Clean(response.Header.Get("Content-Encoding")))
	case kindErr != nil || kind != "application/json" || hasCharset && !isUTF8(charset):
		return failed(source.Malformed, "the content type is %q, not application/json", token.Clean(says))
	case response.Header.Get("Age") != "":
		return failed(source.Malformed, "the answer comes from a cache, by its Age: a user of a moment ago could be missing; let no cache answer a POST")
	}
	users, invalid := decode(text)
	if invalid != nil {
		return failed(invalid.reason, "%s", token.Clean(invalid.what))
	}
	for _, id := range users {
		if invalid := answer.Add(id, token.Clean); invalid != nil {
			return invalid
		}
	}
	if len(users) > len(ids) {
		return failed(source.TooManyUsers, "the answer holds %d users, %d were asked for", len(users), len(ids))
	}
	return nil
}

// reasonOf names an HTTP status by the gRPC status that means the same.
func reasonOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "status_invalid_argument"
	case http.StatusUnauthorized:
		return "status_unauthenticated"
	case http.StatusForbidden:
		return "status_permission_denied"
	case http.StatusNotFound:
		return "status_not_found"
	case http.StatusConflict:
		return "status_aborted"
	case http.StatusTooManyRequests:
		return "status_resource_exhausted"
	case http.StatusInternalServerError:
		return "status_internal"
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return "status_unimplemented"
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusTooEarly:
		return "status_unavailable"
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return source.Deadline
	}
	return "status_unknown"
}
