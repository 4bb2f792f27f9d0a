package authclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	authservicev1 "github.com/nova-social/orphan-cleaner/gen/nova/auth_service/v1"
)

// Client asks auth-service. It is safe for concurrent use.
type Client struct {
	cfg      Config
	endpoint Endpoint
	conn     *grpc.ClientConn
	limiter  *rate.Limiter
	token    *tokenFile

	logger *slog.Logger // target auth_client
	slow   *slowLog
	// throttle bounds the attempts in flight; see Config.Concurrency.
	throttle *throttle
	// disconnected is set from the first failure to connect to the next
	// success, so that an outage is one line in the log and not thousands.
	disconnected atomic.Bool
	dns          *watchedDNS
}

// Dial checks the configuration and the files it names. It does not wait for a
// connection; use Health for that.
func Dial(cfg Config) (*Client, error) {
	cfg, end, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg:      cfg,
		endpoint: end,
		limiter:  rate.NewLimiter(rate.Inf, 1),
		logger:   cfg.Logger.With("target", "auth_client"),
		slow:     newSlowLog(cfg.Logger.With("target", "orphan_cleaner")),
		dns:      newWatchedDNS(end.Address),
	}
	c.throttle = newThrottle(cfg.Concurrency, cfg.TargetP99, cfg.Observer.ConcurrencyLimit, c.logger)
	if cfg.MaxQPS > 0 {
		c.limiter.SetLimit(rate.Limit(cfg.MaxQPS))
	}
	if c.token, err = newTokenFile(cfg.TokenFile, c.logger); err != nil {
		return nil, err
	}
	var transport credentials.TransportCredentials = insecure.NewCredentials()
	if end.TLS {
		if transport, err = newFileTLS(cfg, c.logger); err != nil {
			return nil, err
		}
	} else if c.token != nil {
		c.logger.Warn("the token travels in plaintext, only a service mesh makes that safe", "address", end.Address)
	}
	c.conn, err = grpc.NewClient("dns:///"+end.Address,
		grpc.WithResolvers(c.dns),
		grpc.WithTransportCredentials(transport),
		// The ids of users are not for a proxy that the environment names for
		// other traffic.
		grpc.WithNoProxy(),
		// Behind a headless service each replica gets its share. A service
		// config found in DNS must not change how calls are retried.
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
		// gRPC's own pause grows to two minutes, longer than all our attempts.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: cfg.Timeout,
		}),
		// Finds a connection that a firewall dropped without a word.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to auth-service: %w", err)
	}
	return c, nil
}

// Close breaks off the calls in flight.
func (c *Client) Close() error { return c.conn.Close() }

// Missing returns the ids, in the order asked and each once, that a complete
// and valid response left out; see the package documentation for what that
// means. It takes 1 to MaxBatch ids. Every error is a *BatchError and comes
// without ids.
func (c *Client) Missing(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	if len(ids) == 0 || len(ids) > MaxBatch {
		return nil, &BatchError{
			Reason: reasonInvalidBatch, Users: len(ids),
			Err: fmt.Errorf("one call takes 1 to %d users", MaxBatch),
		}
	}
	request := &authservicev1.GetUsersByIdsRequest{UserIds: texts(ids)}
	var missing []uuid.UUID
	err := c.retry(ctx, len(ids), func() (failed *BatchError) {
		missing, failed = c.check(ctx, ids, request)
		return failed
	})
	if err != nil {
		return nil, err
	}
	return missing, nil
}

// check is one attempt of Missing.
func (c *Client) check(ctx context.Context, ids []uuid.UUID, request *authservicev1.GetUsersByIdsRequest) ([]uuid.UUID, *BatchError) {
	if err := c.throttle.acquire(ctx); err != nil {
		return nil, failure(reasonCancelled, len(ids), err)
	}
	begun := time.Now()
	var missing []uuid.UUID
	var odd oddities
	token := c.token.current()
	response := &authservicev1.GetUsersByIdsResponse{}
	failed := c.invoke(ctx, token, c.cfg.Method, request, response, len(ids))
	if failed == nil {
		missing, odd, failed = missingFrom(ids, response, token)
	}
	took := time.Since(begun)
	c.throttle.done(begun, took, failed)

	if took > c.cfg.SlowAfter {
		c.slow.log(took, len(ids))
	}
	if failed != nil {
		c.cfg.Observer.CallDone(methodLabel, len(ids), took, failed)
		c.logger.Debug("No valid response", "method", methodLabel, "users", len(ids), "duration", took, "reason", failed.Reason, "error", failed.Err)
		return nil, failed
	}
	c.cfg.Observer.CallDone(methodLabel, len(ids), took, nil)
	c.logger.Debug("Batch checked", "method", methodLabel, "users", len(ids), "missing", len(missing), "duration", took,
		"uppercase", odd.uppercase, "duplicates", odd.duplicates)
	return missing, nil
}

// invoke is one gRPC call under its own deadline.
func (c *Client) invoke(ctx context.Context, token token, method string, request, response proto.Message, users int) *BatchError {
	callCtx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if token.header != "" {
		callCtx = metadata.AppendToOutgoingContext(callCtx, "authorization", token.header)
	}
	var to peer.Peer
	var header, trailer metadata.MD
	err := c.conn.Invoke(callCtx, "/"+method, request, response, grpc.Peer(&to), grpc.Header(&header), grpc.Trailer(&trailer))
	if err == nil {
		c.disconnected.Store(false)
		return nil
	}
	failed := callFailed(ctx, err, len(header)+len(trailer) > 0, c.endpoint.TLS, users, token)
	// Without a peer the call never found a connection to go out on.
	neverConnected := to.Addr == nil && (failed.Reason == reasonTransport || failed.Reason == reasonDeadline)
	if neverConnected {
		if problem := c.dns.problem.Load(); problem != nil {
			failed.Err = status.Error(status.Code(err), token.clean(*problem))
		} else if failed.Reason == reasonDeadline {
			failed.Err = status.Error(status.Code(err), fmt.Sprintf("no connection within %s: does a firewall drop it, or is the port another server's?", c.cfg.Timeout))
		}
		if !c.disconnected.Swap(true) {
			c.logger.Error("Failed to connect: transport error", "address", c.endpoint.Address, "cause", status.Convert(failed.Err).Message())
		}
	}
	return failed
}

// retry repeats attempt while its failure may pass, and returns the last one.
func (c *Client) retry(ctx context.Context, users int, attempt func() *BatchError) *BatchError {
	pause := &backoff.ExponentialBackOff{
		InitialInterval:     c.cfg.BackoffInitial,
		MaxInterval:         c.cfg.BackoffMax,
		Multiplier:          2,
		RandomizationFactor: 0.5,
	}
	attempts := 0
	var last *BatchError
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		if err := c.limiter.Wait(ctx); err != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		attempts++
		last = attempt()
		switch {
		case last == nil:
			return struct{}{}, nil
		case !last.transient():
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(pause), backoff.WithMaxTries(uint(c.cfg.MaxAttempts)), backoff.WithMaxElapsedTime(0))
	if err == nil {
		return nil
	}
	var failed *BatchError
	if !errors.As(err, &failed) {
		// The caller's context ended, or would end before MaxQPS allows another
		// call. What went wrong before that is the better cause.
		failed = failure(reasonCancelled, users, err)
		if last != nil {
			failed.Err = fmt.Errorf("%w, after: %w", err, last.Err)
		}
	}
	failed.Attempts = attempts
	return failed
}

func texts(ids []uuid.UUID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.String()
	}
	return out
}
