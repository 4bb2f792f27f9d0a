package authclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
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
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// Client asks auth-service by gRPC. It is safe for concurrent use.
type Client struct {
	*source.Client
	cfg      source.Config
	method   string
	endpoint source.Endpoint
	conn     *grpc.ClientConn
	token    *source.TokenFile
	logger   *slog.Logger // target auth_client
	// disconnected is set from the first failure to connect to the next
	// success, so that an outage is one line in the log and not thousands.
	disconnected atomic.Bool
	dns          *watchedDNS
}

// Dial checks the configuration and the files it names. It does not wait for a
// connection; use Health for that.
func Dial(cfg source.Config) (*Client, error) {
	cfg, end, err := cfg.Complete()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, endpoint: end, logger: cfg.ClientLog(), dns: newWatchedDNS(end.Address)}
	c.Client = source.New(cfg, c.attempt)
	if c.method, err = fullMethod(cfg.Method); err != nil {
		return nil, err
	}
	if c.token, err = source.NewTokenFile(cfg.TokenFile, c.logger); err != nil {
		return nil, err
	}
	var transport credentials.TransportCredentials = insecure.NewCredentials()
	if end.TLS {
		files, err := source.NewTLSFiles(cfg)
		if err != nil {
			return nil, err
		}
		transport = fileTLS{files}
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

// attempt is a [source.Attempt].
func (c *Client) attempt(ctx context.Context, ids []uuid.UUID, answer *source.Answer) *source.BatchError {
	token := c.token.Current()
	request := &authservicev1.GetUsersByIdsRequest{UserIds: c.cfg.Texts(ids)}
	response := &authservicev1.GetUsersByIdsResponse{}
	if failed := c.invoke(ctx, token, c.method, request, response, len(ids)); failed != nil {
		return failed
	}
	return fill(answer, len(ids), response, token)
}

// invoke is one gRPC call under its own deadline.
func (c *Client) invoke(ctx context.Context, token source.Token, method string, request, response proto.Message, users int) *source.BatchError {
	callCtx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if token.Header != "" {
		callCtx = metadata.AppendToOutgoingContext(callCtx, "authorization", token.Header)
	}
	var to peer.Peer
	var header, trailer metadata.MD
	err := c.conn.Invoke(callCtx, "/"+method, request, response, grpc.Peer(&to), grpc.Header(&header), grpc.Trailer(&trailer))
	if err == nil {
		c.disconnected.Store(false)
		// Details are those of an error: the message may be a part of the whole.
		if len(trailer.Get("grpc-status-details-bin")) > 0 {
			return source.Failed(source.InBandError, users, errors.New("the status is OK and comes with the details of an error (grpc-status-details-bin): look in the log of auth-service"))
		}
		return nil
	}
	failed := callFailed(ctx, err, len(header)+len(trailer) > 0, c.endpoint.TLS, users, token)
	// Without a peer the call never found a connection to go out on.
	neverConnected := to.Addr == nil && (failed.Reason == source.Transport || failed.Reason == source.Deadline)
	if neverConnected {
		if problem := c.dns.problem.Load(); problem != nil {
			failed.Err = status.Error(status.Code(err), token.Clean(*problem))
		} else if failed.Reason == source.Deadline {
			failed.Err = status.Error(status.Code(err), fmt.Sprintf("no connection within %s: does a firewall drop it, or is the port another server's?", c.cfg.Timeout))
		}
		if !c.disconnected.Swap(true) {
			c.logger.Error("Failed to connect: transport error", "address", c.endpoint.Address, "cause", status.Convert(failed.Err).Message())
		}
	}
	return failed
}
